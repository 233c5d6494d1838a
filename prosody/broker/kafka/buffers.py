"""What aiokafka has fetched and nobody has polled: taken a partition at a time. Private parts of it.

``getmany`` takes several partitions in one call: what it has taken of the first is lost when the next
one cannot be read. And it reads a batch to its end before it gives any of it, so that good records before
a bad one never came out.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from prosody._core import FetchedRecord
from prosody.broker.kafka import internals
from prosody.broker.kafka.chain import Answered
from prosody.broker.kafka.fetches import Fetches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from prosody.broker.protocol import Record


class Buffers:
    """The buffers of a consumer's fetcher."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        self._bytes: dict[Any, bytes | None] = {}
        """Partitions with a header name that is not UTF-8, and what was fetched of them since."""
        fetcher._client = _FetcherClient(fetcher._client, self._bytes)
        fetcher._proc_fetch_request = _telling(fetcher, fetcher._proc_fetch_request)
        self.fetches = Fetches(fetcher, lambda: not self._bytes)

    def partitions(self) -> list[Any]:
        """Those that have something, the longest untouched first."""
        return list(self._fetcher._records)

    def take(self, partition: Any, records_max: int) -> Sequence[Record]:
        """What is buffered of a partition; moves its position.

        :raises Exception: whatever aiokafka noted, or met as it read. Nothing is lost then: the
            position stays where it was, and the partition is fetched again from there.
        """
        buffered = self._fetcher._records.get(partition)
        if buffered is None:
            return ()
        if hasattr(buffered, "check_raise"):
            self._drop(partition)
            buffered.check_raise()
        if not buffered.check_assignment(partition):
            self._drop(partition)
            return ()
        data = self._bytes.get(partition)
        if data is not None:
            self._bytes[partition] = None  # the buffer reads them from here on
            buffered._partition_records._records = LenientRecords(data)
        return self._read(partition, buffered, records_max)

    def _read(self, partition: Any, buffered: Any, records_max: int) -> Sequence[Record]:
        records: list[Record] = []
        error: Exception | None = None
        unpacked = buffered._partition_records
        unpacked._consumer_record = FetchedRecord
        try:
            # Its own iterator, because ``__next__`` would be one call more for every record.
            records.extend(islice(unpacked._records_iterator or (), records_max))
        except Exception as unreadable:  # noqa: BLE001  # codecs and parsers raise what they like
            error = unreadable
        # ``extend`` keeps what came before the exception.
        if error is None or records:
            buffered._update_position()
        if error is not None and is_header_name(error):
            # Fetched once more, for its bytes: this buffer does not give them.
            self._bytes[partition] = None
            self._drop(partition)
        elif error is not None:
            self._drop(partition)
            if not records:
                raise error
        elif len(records) < records_max:
            self._bytes.pop(partition, None)
            self._drop(partition)
        return records

    def keep_only(self, partitions: Collection[Any]) -> None:
        """Forget what is kept of other partitions."""
        for partition in [tp for tp in self._bytes if tp not in partitions]:
            del self._bytes[partition]

    def _drop(self, partition: Any) -> None:
        """Have the partition fetched again from its position."""
        self._fetcher._records.pop(partition, None)
        if not self.fetches.looks_after(partition):
            self._fetcher._notify(self._fetcher._wait_consume_future)


def _telling(fetcher: Any, fetch: Callable[..., Awaitable[bool]]) -> Callable[..., Awaitable[bool]]:
    """Fetch, and tell who waits for records at once.

    The fetching routine would tell, two turns of the event loop later, and then plan the next fetch while
    these records are still buffered: in vain, and again as soon as they are taken. This way they are taken
    when it plans, once for each fetch.
    """

    async def fetch_and_tell(*arguments: Any) -> bool:
        if await fetch(*arguments):
            internals.tell_waiters(fetcher)
        return False  # nothing is left for the routine to tell

    return fetch_and_tell


def is_header_name(error: Exception) -> bool:
    """Whether the name of a header is not UTF-8; aiokafka written in Python wraps the error."""
    return isinstance(error, UnicodeDecodeError) or isinstance(error.__cause__, UnicodeDecodeError)


class _FetcherClient:
    """The client as the fetcher sees it; keeps what is fetched of some partitions."""

    def __init__(self, client: Any, kept: dict[Any, bytes | None]) -> None:
        self._client = client
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        if isinstance(request, Answered):
            return request.answer()
        answer = await self._client.send(node_id, request, **options)
        if self._kept and isinstance(request, FetchRequest):
            for topic, partitions in answer.topics:
                for partition, *_, data in partitions:
                    if (topic, partition) in self._kept:
                        self._kept[topic, partition] = data
        return answer


# A name that is not UTF-8 is legal to a broker and to librdkafka. Such a record must end like any other
# that cannot be decoded, so its names are read with escapes. aiokafka's own classes in Python do the
# rest; they are slow, and used for nothing but such a fetch.


class LenientRecords(_MemoryRecordsPy):  # type: ignore[misc]  # the base is marked final
    """Fetched bytes; names of headers are read with escapes where they are not UTF-8."""

    def next_batch(self) -> Any:
        batch = self._next_slice
        # The first 17 bytes are the same in all versions; older ones than 2 have no headers.
        if batch is None or len(batch) <= self.MAGIC_OFFSET or batch[self.MAGIC_OFFSET] < 2:
            return super().next_batch()
        self._cache_next()
        return _LenientBatch(batch)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # the base is marked final
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        if not self._decompressed:
            super()._maybe_uncompress()
            self._buffer = _LenientBytes(self._buffer)


class _LenientBytes(bytearray):
    """Bytes of which any part can be decoded."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _LenientBytes(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
