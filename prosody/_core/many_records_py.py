"""Many records on their way into their partitions, in pure Python: the twin of ``many_records_c.pyx``."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from prosody._core.constants import BATCH_RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prosody._core.protocols_events import Framed

_PLAIN: Final = b"\x00\x00"
"""No attributes, and the timestamp of the batch."""
_NO_HEADERS: Final = b"\x00"


def key_partitions(
    keys: Sequence[bytes],
    count: int,
    partitioner: str,
    known: dict[bytes, int],
    find: Callable[[bytes], int],
) -> list[int]:
    """See ``protocols_events.KeyPartitions``."""
    found = [known.get(key, -1) for key in keys]
    if -1 in found:
        for n, partition in enumerate(found):
            if partition < 0:
                key = keys[n]
                # Perhaps it stood in this list before, and was found then.
                found[n] = known[key] if key in known else find(key)
    return found


def keep_records(
    logs: Sequence[list[Any]],
    partitions: Sequence[int],
    keys: Sequence[bytes],
    values: Sequence[bytes],
    timestamp_ms: int,
) -> None:
    """See ``protocols_events.KeepRecords``."""
    _same(partitions, keys, values)
    appends = [log.append for log in logs]
    for partition, key, value in zip(partitions, keys, values, strict=True):
        appends[partition]((timestamp_ms, key, value, ()))


def frame_records(
    batches: Mapping[int, Framed],
    partitions: Sequence[int],
    keys: Sequence[bytes],
    values: Sequence[bytes],
    start: int,
) -> int:
    """See ``protocols_events.FrameRecords``."""
    _same(partitions, keys, values)
    end = start
    opened: dict[int, _Open] = {}
    try:
        for partition, key, value in zip(
            islice(partitions, start, None),
            islice(keys, start, None),
            islice(values, start, None),
            strict=True,
        ):
            into = opened.get(partition)
            if into is None:
                into = opened[partition] = _Open(batches[partition])
            count, length = into.count, len(value)
            body = b"".join((
                _PLAIN, _VARINTS[count], _sized(key),
                _VARINTS[length] if length < BATCH_RECORDS else _varint(length), value, _NO_HEADERS,
            ))  # fmt: skip
            length = len(body)
            size = _VARINTS[length] if length < BATCH_RECORDS else _varint(length)
            into.parts += (size, body)
            into.count = count = count + 1
            into.length = length = into.length + len(size) + length
            end += 1
            if length >= into.bytes_max or count >= BATCH_RECORDS:
                break
    finally:
        for into in opened.values():
            into.close()
    return end


class _Open:
    """A batch while records are added to it."""

    __slots__ = ("batch", "bytes_max", "count", "length", "parts")

    def __init__(self, batch: Framed) -> None:
        self.batch = batch
        self.bytes_max = batch.bytes_max
        self.count = batch.count
        self.length = batch.length
        self.parts = batch.parts

    def close(self) -> None:
        """Tell the batch what was added to it."""
        self.batch.count = self.count
        self.batch.length = self.length


def _same(partitions: Sequence[int], keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    if not len(partitions) == len(keys) == len(values):
        raise ValueError(
            f"{len(partitions)} partitions, {len(keys)} keys and {len(values)} values are not one each"
        )


def _varint(number: int) -> bytes:
    """A number that is not negative, as Kafka writes the lengths and counts of records."""
    rest = number << 1  # the lowest bit is the sign
    found = bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


_VARINTS: Final = [_varint(number) for number in range(BATCH_RECORDS)]


def _sized(content: bytes) -> bytes:
    length = len(content)
    return (_VARINTS[length] if length < BATCH_RECORDS else _varint(length)) + content
