"""Reads single records of the embedded broker again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from prosody.errors import BrokerError
from prosody.runtime import give_way

if TYPE_CHECKING:
    from prosody.broker.memory.cluster import MemoryCluster
    from prosody.broker.memory.log import MemoryRecord
    from prosody.broker.protocol import ReaderSettings, TopicPartition


class MemoryReader:
    """Implements ``BrokerReader``: looks into the log.

    Of the settings, ``discard_threshold`` and ``fetch_bytes`` mean nothing here.
    """

    def __init__(self, cluster: MemoryCluster, settings: ReaderSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        """The reads that wait for an answer."""

    async def read(self, partition: TopicPartition, offset: int) -> MemoryRecord | None:
        self._check()
        self._cluster.enter("read", self._settings.client_id)
        self._loop = asyncio.get_running_loop()
        await give_way()
        await self._answered(partition, offset)
        with self._cluster.lock:
            if (log := self._cluster.log(partition)) is None:
                raise BrokerError(
                    f"partition {partition[0]}:{partition[1]} does not exist", retriable=True
                )
            found = log.read(offset, 1)
        return found[0] if found and found[0].offset == offset else None

    async def _answered(self, partition: TopicPartition, offset: int) -> None:
        """Wait for as long as a fault keeps this reader from its answers."""
        loop = asyncio.get_running_loop()
        limit_s = self._settings.seek_timeout_s
        deadline = loop.time() + limit_s
        while self._cluster.unanswered(self._settings.client_id, self):
            waiter = loop.create_future()
            self._waiters.add(waiter)
            try:
                done, _ = await asyncio.wait((waiter,), timeout=max(0.0, deadline - loop.time()))
            finally:
                self._waiters.discard(waiter)
            self._check()
            if not done:
                raise BrokerError(
                    f"{partition[0]}:{partition[1]} at offset {offset}: no answer within {limit_s:g} s",
                    retriable=True,
                )

    async def stop(self) -> None:
        self._stopped = True
        self._look()

    def wake_from_anywhere(self) -> None:
        """Reads may be answered again; see ``Watcher``."""
        assert self._loop is not None
        # It raises when the loop is closed: nobody waits there any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _check(self) -> None:
        if self._stopped:
            raise BrokerError("this reader is stopped", retriable=False)
