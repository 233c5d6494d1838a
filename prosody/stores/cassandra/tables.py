"""The tables, and the CQL that makes them.

The names begin with ``aio_``: in one keyspace with the tables of the other Prosody libraries they do not
collide. What the columns are for stands in docs/stores.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 1
"""Of the tables below. A later version adds statements to ``MIGRATIONS``, none is ever changed."""

DAY_S: Final = 86_400
HINT_WINDOW_S: Final = 3 * 3600
"""So long Cassandra keeps what a node missed that was away; and no longer than gc_grace_seconds."""

TRACE: Final = "frozen<map<text, text>>"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: what must be there, and how to make it."""

    name: str
    columns: Mapping[str, str]
    key: str
    gc_grace_s: int
    """For so long a removed row is remembered. A node away for longer must be repaired before it comes
    back, or what was removed meanwhile comes back with it."""
    scaling: str
    """Of the unified compaction strategy: T (tiered) for what is written once, L (levelled) for what is
    read and rewritten."""


SCHEMA = Table(
    "aio_schema", {"name": "text", "version": "int"}, "name", gc_grace_s=10 * DAY_S, scaling="T4"
)

TABLES: Final = (
    SCHEMA,
    Table(
        "aio_segments",
        {
            "segment": "uuid", "group_id": "text", "topic": "text", "partition": "int",
            "partitions": "int", "passed": "bigint",
        },
        "segment",
        gc_grace_s=10 * DAY_S,  # nothing is ever removed here
        scaling="L10",
    ),
    # Timers, and the stretches of time ("slabs") in which there are any. A day of gc_grace: rows are
    # removed one by one when timers fire, and ten days of these marks would be carried along.
    Table(
        "aio_timer_slabs",
        {"segment": "uuid", "slab_start": "bigint", "slab_end": "bigint"},
        "segment, slab_start",
        gc_grace_s=DAY_S,
        scaling="L10",
    ),
    Table(
        "aio_timers",
        {
            "segment": "uuid", "slab_start": "bigint", "time": "bigint", "kind": "tinyint",
            "key": "text", "full_key": "text", "trace": TRACE,
        },
        "(segment, slab_start), time, kind, key",
        gc_grace_s=DAY_S,
        scaling="L10",
    ),
    Table(
        "aio_timer_keys",
        {
            "segment": "uuid", "key": "text", "kind": "tinyint", "chunk": "int",
            "times": "frozen<list<bigint>>",
        },
        "(segment, key, kind), chunk",
        gc_grace_s=DAY_S,
        scaling="L10",
    ),
    Table(
        "aio_deferred_keys",
        {
            "segment": "uuid", "kind": "tinyint", "bucket": "int", "key": "text", "hash": "bigint",
            "head": "bigint", "head_ms": "bigint", "head_trace": TRACE, "failures": "int",
            "error": "text",
        },
        "(segment, kind, bucket), key",
        gc_grace_s=DAY_S,
        scaling="L10",
    ),
    Table(
        "aio_deferred",
        {
            "segment": "uuid", "kind": "tinyint", "key": "text", "position": "bigint",
            "timestamp_ms": "bigint", "trace": TRACE,
        },
        "(segment, kind, key), position",
        gc_grace_s=DAY_S,
        scaling="L10",
    ),
    # Written once, never removed, gone by its time-to-live, which is the same on every node: nothing to
    # resurrect, so gc_grace may be short, but hints are kept no longer than it. Tiered, so that each record
    # is rewritten few times and old files expire as a whole; the time windows of TWCS would do that too,
    # but look into each window's file for an identity that is not there, the usual case.
    Table(
        "aio_dedup", {"identity": "uuid"}, "identity", gc_grace_s=HINT_WINDOW_S, scaling="T4"
    ),
)  # fmt: skip

MIGRATIONS: Final[Mapping[int, tuple[str, ...]]] = {}
"""By the version they lead to, above 1: statements that may run twice (``ADD IF NOT EXISTS``)."""


def quoted(name: str) -> str:
    """A name as it stands in CQL, upper case kept."""
    return f'"{name}"'


def create_keyspace(keyspace: str, replication: Mapping[str, int]) -> str:
    """:param replication: copies by datacentre."""
    pairs = ", ".join(f"'{name}': {count}" for name, count in sorted(replication.items()))
    return (
        f"CREATE KEYSPACE IF NOT EXISTS {quoted(keyspace)} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', {pairs}}}"
    )


def create_table(keyspace: str, table: Table, *, unified: bool) -> str:
    """:param unified: whether the cluster knows the unified compaction strategy (Cassandra 5)."""
    columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in table.columns.items())
    if unified:
        compaction = (
            f"{{'class': 'UnifiedCompactionStrategy', 'scaling_parameters': '{table.scaling}'}}"
        )
    elif table.scaling.startswith("L"):
        compaction = "{'class': 'LeveledCompactionStrategy'}"
    else:
        compaction = "{'class': 'SizeTieredCompactionStrategy'}"
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(keyspace)}.{table.name} "
        f"({columns}, PRIMARY KEY ({table.key})) "
        f"WITH gc_grace_seconds = {table.gc_grace_s} AND compaction = {compaction}"
    )


def record_version(keyspace: str) -> str:
    """What says that all of this version is there."""
    table = f"{quoted(keyspace)}.{SCHEMA.name}"
    return f"INSERT INTO {table} (name, version) VALUES ('prosody', {VERSION})"  # noqa: S608  # a checked name
