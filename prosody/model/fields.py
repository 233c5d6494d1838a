"""What a log line is about: ``topic``, ``partition``, ``offset``, ``key`` and ``attempt``.

Given to ``logging`` as ``extra``, so they are attributes of its record. What is not known is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prosody.model.run import Run

Fields: TypeAlias = "Mapping[str, Any]"

KEY_MAX = 80
"""Characters of a key; the texts of the lines have as many."""


def fields(run: Run) -> dict[str, Any]:
    """Of a line about an event: a message, or a timer, which has no offset."""
    offset = None if run.record is None else run.record.offset
    return {**fields_of(run.partition.topic_partition, offset, run.key), "attempt": run.attempt}


def fields_of(
    topic_partition: tuple[str, int], offset: int | None = None, key: str | None = None
) -> dict[str, Any]:
    """Of a line about a partition, and perhaps about an offset or a key of it."""
    topic, partition = topic_partition
    found: dict[str, Any] = {"topic": topic, "partition": partition}
    if offset is not None:
        found["offset"] = offset
    if key is not None:
        found["key"] = cut(key)
    return found


def cut(key: str) -> str:
    """A key as it stands in a record: as it is, and cut when long."""
    return key if len(key) <= KEY_MAX else f"{key[:KEY_MAX]}... ({len(key)} characters)"


def fields_of_all(topic_partitions: Iterable[tuple[str, int]]) -> dict[str, Any]:
    """Of a line about several partitions: what they have in common."""
    found = list(topic_partitions)
    if len(found) == 1:
        return fields_of(found[0])
    topics = {topic for topic, _ in found}
    return {"topic": topics.pop()} if len(topics) == 1 else {}
