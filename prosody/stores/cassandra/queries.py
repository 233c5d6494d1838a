"""Every statement that is run on the tables, prepared once for each session.

All can be repeated: they set and remove, and never count. The times-to-live are bound; 0 means for ever.
"""

from __future__ import annotations

from typing import Final

_QUERIES: Final = {
    # -- segments and their slabs ------------------------------------------------------------
    "segment.get": "SELECT partitions, passed FROM {}.aio_segments WHERE segment = ?",
    "segment.put": (
        "INSERT INTO {}.aio_segments (segment, group_id, topic, partition, partitions) "
        "VALUES (?, ?, ?, ?, ?)"
    ),
    "segment.passed": "UPDATE {}.aio_segments SET passed = ? WHERE segment = ?",
    "slabs.get": (
        "SELECT slab_start, slab_end, TTL(slab_end) FROM {}.aio_timer_slabs WHERE segment = ?"
    ),
    "slabs.put": (
        "INSERT INTO {}.aio_timer_slabs (segment, slab_start, slab_end) VALUES (?, ?, ?) USING TTL ?"
    ),
    # One range, however many slabs: ranges that cover each other are merged, rows by themselves not.
    "slabs.forget": "DELETE FROM {}.aio_timer_slabs WHERE segment = ? AND slab_start < ?",
    # -- timers ------------------------------------------------------------------------------
    "timers.load": (
        "SELECT time, kind, key, full_key, trace FROM {}.aio_timers WHERE segment = ? AND "
        "slab_start = ? AND (time, kind, key) > (?, ?, ?) AND (time) <= (?) LIMIT ?"
    ),
    "timers.put": (
        "INSERT INTO {}.aio_timers (segment, slab_start, time, kind, key, full_key, trace) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) USING TTL ?"
    ),
    "timers.remove": (
        "DELETE FROM {}.aio_timers WHERE segment = ? AND slab_start = ? AND time = ? AND kind = ? "
        "AND key = ?"
    ),
    "times.get": (
        "SELECT key, chunk, times FROM {}.aio_timer_keys WHERE segment = ? AND key = ? AND kind = ?"
    ),
    "times.of": (
        "SELECT key, chunk, times FROM {}.aio_timer_keys WHERE segment = ? AND key IN ? AND kind = ?"
    ),
    "times.put": (
        "INSERT INTO {}.aio_timer_keys (segment, key, kind, chunk, times) VALUES (?, ?, ?, ?, ?) "
        "USING TTL ?"
    ),
    "times.clear": "DELETE FROM {}.aio_timer_keys WHERE segment = ? AND key = ? AND kind = ?",
    # -- deferred work -----------------------------------------------------------------------
    "queues.hashes": (
        "SELECT hash FROM {}.aio_deferred_keys WHERE segment = ? AND kind = ? AND bucket IN ?"
    ),
    "queues.get": (
        "SELECT head, head_ms, head_trace, failures, error, WRITETIME(failures) "
        "FROM {}.aio_deferred_keys WHERE segment = ? AND kind = ? AND bucket = ? AND key = ?"
    ),
    "queues.put": (
        "INSERT INTO {}.aio_deferred_keys (segment, kind, bucket, key, hash, head, head_ms, "
        "head_trace, failures, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?"
    ),
    "queues.remove": (
        "DELETE FROM {}.aio_deferred_keys WHERE segment = ? AND kind = ? AND bucket = ? AND key = ?"
    ),
    # Reads of a queue begin at its head: what was removed before it is not looked at again.
    "entries.next": (
        "SELECT position, timestamp_ms, trace FROM {}.aio_deferred WHERE segment = ? AND kind = ? "
        "AND key = ? AND position > ? LIMIT 1"
    ),
    "entries.positions": (
        "SELECT position FROM {}.aio_deferred WHERE segment = ? AND kind = ? AND key = ? "
        "AND position > ?"
    ),
    "entries.put": (
        "INSERT INTO {}.aio_deferred (segment, kind, key, position, timestamp_ms, trace) "
        "VALUES (?, ?, ?, ?, ?, ?) USING TTL ?"
    ),
    "entries.remove": (
        "DELETE FROM {}.aio_deferred WHERE segment = ? AND kind = ? AND key = ? AND position = ?"
    ),
    "entries.clear": "DELETE FROM {}.aio_deferred WHERE segment = ? AND kind = ? AND key = ?",
    # -- deduplication -----------------------------------------------------------------------
    "dedup.seen": "SELECT identity FROM {}.aio_dedup WHERE identity IN ?",
    "dedup.record": "INSERT INTO {}.aio_dedup (identity) VALUES (?) USING TTL ?",
    "dedup.probe": "SELECT identity FROM {}.aio_dedup WHERE identity = ?",
}


def queries(keyspace: str) -> dict[str, str]:
    """The statements by name.

    :param keyspace: as it stands in CQL, quoted.
    """
    return {name: text.format(keyspace) for name, text in _QUERIES.items()}
