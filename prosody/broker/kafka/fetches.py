"""How a consumer fetches: by chains, and as aiokafka does where those do not apply. Private parts of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiokafka.client import ConnectionGroup
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from prosody._core import read_records
from prosody.broker.kafka import internals
from prosody.broker.kafka.chain import Chain, is_known
from prosody.broker.kafka.frames import Frames, is_quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prosody.broker.kafka.chain import Part
    from prosody.broker.protocol import Receiver, Record

AT_ONCE_MAX: Final = 1000
"""Records of a partition that are handed over in one go."""


class Waiting(Protocol):
    """A poll that waits for records."""

    def wants(self, partition: Any) -> Receiver | None:
        """Who takes records of a partition at once, if anybody does."""
        ...

    @property
    def take(self) -> Callable[[Sequence[tuple[Receiver, Sequence[Record]]]], None]:
        """To be given all that came together: handlers may begin here and now."""
        ...

    def fail(self, fault: Exception) -> None:
        """End the poll with a fault."""
        ...


class Fetches:
    """Of one consumer; takes the place of its fetcher's ``_proc_fetch_request``."""

    def __init__(self, fetcher: Any, applies: Callable[[], bool]) -> None:
        """:param applies: whether aiokafka need not see the fetches of now."""
        self._fetcher = fetcher
        self.applies = applies
        self._fetch_once = fetcher._proc_fetch_request
        self._frames: dict[Any, Frames] = {}
        self._chains: dict[Any, Chain] = {}
        self._taken: list[tuple[Receiver, Sequence[Record]]] = []
        self._from: list[tuple[Any, int]] = []
        """aiokafka's state of each partition in ``_taken``, and the offset that was asked for."""
        self.waiting: Waiting | None = None
        """The poll that waits now."""
        fetcher._proc_fetch_request = self._fetch
        fetcher._client.cluster.add_listener(self._on_metadata)

    def looks_after(self, partition: Any) -> bool:
        """Whether room for more of a partition is seen without telling aiokafka's routine of it."""
        return any(chain.looks_after(partition) for chain in self._chains.values())

    def _on_metadata(self, _: object) -> None:
        """A partition may have come to a broker from which others are fetched: plan anew."""
        for chain in self._chains.values():
            chain.stale = True

    async def _fetch(self, assignment: Any, node_id: Any, request: Any) -> bool:
        """Whether something is to be told by the routine that called this."""
        try:
            chain = self._chain(assignment, node_id, request)
            if chain is not None:
                self._chains[node_id] = chain
                try:
                    left = await chain.run()
                finally:
                    if self._chains.get(node_id) is chain:
                        del self._chains[node_id]
                if left is None:
                    return False
                request = left
        except asyncio.CancelledError:
            # Only the routine and ``close`` have this task, and both wait for it to end in order.
            return False
        told: bool = await self._fetch_once(assignment, node_id, request)
        return told

    def _chain(self, assignment: Any, node_id: Any, request: Any) -> Chain | None:
        connection = self._fetcher._client._conns.get((node_id, ConnectionGroup.DEFAULT))
        if connection is None or not connection.connected():
            return None  # aiokafka's own way connects, and says why it cannot
        if not self.applies() or not is_known(connection, request):
            return None
        frames = self._frames.get(node_id)
        if frames is None or frames.connection is not connection:
            if not is_quiet(connection):
                return None  # something else is asked on it; the next fetch may find it quiet
            frames = self._frames[node_id] = Frames(connection)
        return Chain(self._fetcher, frames, assignment, node_id, request, self)

    # What chains call

    def take(self, answer: bytes, brought: Sequence[tuple[Part, int, int]]) -> bool:
        left = False
        waiting = self.waiting if self.applies() else None
        for part, at, size in brought:
            receiver = None if waiting is None else waiting.wants(part.lower)
            if receiver is None or not self._read(part, answer, at, size, receiver):
                self._buffer(part, answer, at, size)
                left = True
        if left:
            internals.tell_waiters(self._fetcher)
        return left

    def hand_over(self) -> None:
        waiting, taken = self.waiting, self._taken
        if not taken:
            return
        assert waiting is not None, "a poll waits until the end of this turn"
        began = self._from
        self._taken, self._from = [], []
        try:
            waiting.take(taken)
        except Exception as fault:  # noqa: BLE001
            # A fault of ours, which the poll tells. It must not lose records: they are fetched again, and
            # those that were received are known by their offsets.
            for state, offset in began:
                state.seek(offset)
            waiting.fail(fault)

    def _read(self, part: Part, answer: bytes, at: int, size: int, receiver: Receiver) -> bool:
        """Read records for the poll that waits, if they are plain."""
        offset = part.offset
        read = read_records(answer, at, size, part.lower, offset, AT_ONCE_MAX, calc_crc32c)
        if read is None:
            return False
        records, reached = read
        part.state.consumed_to(reached)
        if records:
            self._taken.append((receiver, records))
            self._from.append((part.state, offset))
        return True

    def _buffer(self, part: Part, answer: bytes, at: int, size: int) -> None:
        """Keep what was fetched as aiokafka does, until it is polled."""
        fetcher, partition = self._fetcher, part.lower
        records = PartitionRecords(
            partition, MemoryRecords(answer[at : at + size]), None, part.offset, None, None,
            fetcher._check_crcs, fetcher._isolation_level,
        )  # fmt: skip
        fetcher._records[partition] = FetchResult(
            partition,
            partition_records=records,
            assignment=part.state._assignment,
            backoff=fetcher._prefetch_backoff,
        )
