"""Entries of events as lines of JSON, in pure Python: the twin of ``event_lines_c.pyx``, byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody._core.protocols_events import EventParts


def event_lines(
    parts: EventParts, values: Sequence[Any], offset_ms: float
) -> tuple[list[bytes], list[bytes]]:
    """See ``protocols_events.EventLines``."""
    if len(values) % 7:
        raise ValueError(f"event_lines: {len(values)} values are not seven for each entry")
    time, began = "", ""
    last_ms: int | None = None
    began_ms: int | None = None  # those that end together have begun together as a rule
    keys: list[bytes] = []
    texts: list[str] = []
    places, known_keys, consumer = parts.places, parts.keys, parts.consumer
    dispatched, succeeded = parts.dispatched, parts.succeeded
    last: Any = None
    last_key = last_layout = last_tp = last
    key_bytes = b""
    rest: str | None = None
    value = iter(values)
    for head, at, layout, tp, number, key, more in zip(
        value, value, value, value, value, value, value, strict=True
    ):
        if type(more) is float:
            # An attempt that ended well; in nearly all entries, so spelt out.
            place = places.get(tp, "")
            if not place and (place := parts.place(tp)) is None:
                continue
            known = known_keys.get(key)
            if known is None:
                known = parts.key(key)
            field, key_bytes = known
            rest = f'","offset":{number}{place}{field}{consumer}{head}}}'
            ms = int(at * 1000.0 + offset_ms)
            if ms != began_ms:
                began_ms = ms
                began = parts.time(ms)
            keys += (key_bytes, key_bytes)
            texts.append(f"{dispatched}{began}{rest}")
            ms = int(more * 1000.0 + offset_ms)
            if ms != last_ms:
                last_ms = ms
                time = parts.time(ms)
            texts.append(f"{succeeded}{time}{rest}")
            last = None
            continue
        # What else happens to a message comes together as a rule, and holds the same objects.
        if (
            number is not last
            or key is not last_key
            or tp is not last_tp
            or layout is not last_layout
        ):
            last, last_key, last_tp, last_layout = number, key, tp, layout
            key_bytes, rest = parts.about(layout, tp, number, key)
        if rest is None:
            continue
        ms = int(at * 1000.0 + offset_ms)
        if ms != last_ms:
            last_ms = ms
            time = parts.time(ms)
        keys.append(key_bytes)
        texts.append(f"{head}{time}{rest}{more}}}")
    try:
        return keys, [text.encode() for text in texts]
    except UnicodeEncodeError:
        # Half of a pair of surrogates, in the text of an error: what is written must be readable.
        return keys, [text.encode("utf-8", "replace") for text in texts]
