"""The reads of one partition: which offset next, what its answer is, when to try again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from aiokafka import errors as lower

from prosody.broker.kafka.chunks import Chunk, Found
from prosody.broker.kafka.errors import LowerError, broker_error
from prosody.errors import BrokerError, ProsodyError
from prosody.model.fields import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.broker.kafka.link import Link
    from prosody.broker.protocol import Record, TopicPartition
    from prosody.runtime import Runtime

log = logging.getLogger(__name__)

RETRY_S_MIN = 0.1
RETRY_S_MAX = 1.0
UNKNOWN_LOOKS = 5
"""How often a missing topic is looked for: brokers learn of a new topic one after the other."""

OPEN_S = 0.5
"""Pause between looks at a record that an open transaction keeps from being read."""
EMPTY_S = 0.1
EMPTY_LOOKS = 4
"""So many looks in a row must bring nothing, before what is within the log's bounds counts as gone.
Where compaction has removed all to the end, nothing comes; but a broker that gets old segments from a
remote store brings nothing either when that takes too long."""
EMPTY_WAIT_MS = 500
"""How long the broker may take for the second look and later ones; what consumers give it by default."""


class Wanted:
    """One offset, for all who want it."""

    __slots__ = ("answer", "due", "empty", "trouble", "waiters")

    def __init__(self) -> None:
        self.answer: asyncio.Future[Record | BrokerError | None] = (
            asyncio.get_running_loop().create_future()
        )
        self.waiters = 0
        self.due = float("-inf")
        """When to look again."""
        self.empty = 0
        """Looks that brought nothing, although the log reaches further."""
        self.trouble = ""


class PartitionLoads:
    """Exists for as long as an offset of its partition is wanted; one task takes one after the other.

    The offsets are taken upward from where the last one was, then from the lowest again, so that none
    waits for ever.
    """

    def __init__(
        self,
        partition: TopicPartition,
        link: Link,
        *,
        discard_threshold: int,
        attempt_limit_s: float,
        runtime: Runtime,
        on_idle: Callable[[PartitionLoads], None],
    ) -> None:
        self.partition = partition
        self._link = link
        self._discard_threshold = discard_threshold
        self._attempt_limit_s = attempt_limit_s
        self._runtime = runtime
        self._on_idle = on_idle
        self._wanted: dict[int, Wanted] = {}
        self._news = asyncio.Event()
        self._chunk: Chunk | None = None
        self._position = 0
        self._stale = False
        """Whether the leader may be another one by now."""
        self._failures = 0
        """In a row; of those, for want of the topic:"""
        self._unknown = 0
        self._trouble = ""
        self._name = f"{partition.topic}/{partition.partition}"
        self.task = asyncio.create_task(self._work(), name=f"prosody-kafka reader {self._name}")

    async def load(self, offset: int, limit_s: float) -> Record | None:
        """See :meth:`prosody.broker.protocol.BrokerReader.read`."""
        wanted = self._wanted.get(offset)
        if wanted is None:
            wanted = self._wanted[offset] = Wanted()
            self._news.set()
        wanted.waiters += 1
        try:
            # Not the future itself: a cancelled read would cancel it for all others.
            done, _ = await asyncio.wait((wanted.answer,), timeout=limit_s)
        finally:
            wanted.waiters -= 1
            if not wanted.waiters and self._wanted.get(offset) is wanted:
                del self._wanted[offset]
                self._news.set()
        if not done:
            trouble = self._trouble or wanted.trouble
            raise BrokerError(
                f"{self._name} at offset {offset}: not read within {limit_s:g} s{trouble}",
                retriable=True,
            )
        answer = wanted.answer.result()
        if isinstance(answer, BrokerError):
            # One for each: a traceback belongs to one raise.
            raise BrokerError(str(answer), retriable=answer.retriable) from answer
        return answer

    def fail(self, error: BrokerError) -> None:
        """Answer all that is wanted with an error."""
        for offset in list(self._wanted):
            self._answer(offset, error)

    # -- the task ------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while self._wanted:
            offset = self._next()
            if offset is None:
                await self._until_due()
                continue
            self._position = offset
            try:
                found = await self._look(offset, self._wanted[offset])
            except Exception as error:  # noqa: BLE001  # no read may wait in vain for this task
                await self._failed(error)
                continue
            self._failures = self._unknown = 0
            self._trouble = ""
            if isinstance(found, BrokerError):
                self._answer(offset, found)
            elif found is not None:
                self._answer(offset, found.record)
        # No wait in between: what is wanted from here on is another object's.
        self._on_idle(self)

    def _next(self) -> int | None:
        now = self._runtime.monotonic()
        due = [offset for offset, wanted in self._wanted.items() if wanted.due <= now]
        ahead = [offset for offset in due if offset >= self._position]
        return min(ahead or due, default=None)

    async def _until_due(self) -> None:
        wait_s = min(wanted.due for wanted in self._wanted.values()) - self._runtime.monotonic()
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._news.wait()

    def _answer(self, offset: int, answer: Record | BrokerError | None) -> None:
        wanted = self._wanted.pop(offset, None)
        if wanted is not None and not wanted.answer.done():
            wanted.answer.set_result(answer)

    async def _look(self, offset: int, wanted: Wanted) -> Found | BrokerError | None:
        """What is at an offset; None: not known yet, look again when it is due."""
        chunk = self._chunk
        if chunk is not None and 0 <= offset - chunk.position <= self._discard_threshold:
            # What is damaged on the way there need not concern it: then a fetch tells.
            with contextlib.suppress(Exception):
                if (found := chunk.find(offset)) is not None:
                    return found
        self._chunk = None
        async with asyncio.timeout(self._attempt_limit_s):
            if self._stale:
                await self._link.refresh()
                self._stale = False
            return await self._fetch(offset, wanted)

    async def _fetch(self, offset: int, wanted: Wanted) -> Found | BrokerError | None:
        wait_ms = EMPTY_WAIT_MS if wanted.empty else 0
        try:
            chunk = await self._link.fetch(self.partition, offset, wait_ms)
        except lower.OffsetOutOfRangeError:
            # It may have come from a leader that is none any more, and "gone" is a last word.
            await self._link.refresh()
            if await self._is_outside(offset):
                return Found(None)
            raise
        try:
            found = chunk.find(offset)
        except Exception as error:  # noqa: BLE001  # codecs and parsers raise what they like
            return broker_error(f"{self._name} cannot be read at offset {offset}", error)
        if found is None:
            return await self._nothing_came(offset, wanted, chunk.stable_end)
        self._chunk = chunk
        return found

    async def _nothing_came(self, offset: int, wanted: Wanted, stable_end: int) -> Found | None:
        if await self._is_outside(offset):
            return Found(None)
        now = self._runtime.monotonic()
        if stable_end <= offset:
            wanted.trouble = ": an open transaction lies before it"
            wanted.due = now + OPEN_S
            return None
        wanted.empty += 1
        wanted.due = now + EMPTY_S
        return Found(None) if wanted.empty >= EMPTY_LOOKS else None

    async def _is_outside(self, offset: int) -> bool:
        beginning, end = await self._link.bounds(self.partition)
        return not beginning <= offset < end

    async def _failed(self, error: Exception) -> None:
        failure = broker_error(f"{self._name} cannot be read", error)
        lasting = not failure.retriable
        if isinstance(error, lower.UnknownTopicOrPartitionError):
            self._unknown += 1
            lasting = self._unknown >= UNKNOWN_LOOKS
        elif not isinstance(error, (*LowerError, ProsodyError)):
            log.critical(
                "internal fault in a reader; please report this",
                exc_info=error,
                extra=fields_of(self.partition),
            )
            lasting = True
        elif isinstance(error, TimeoutError):
            self._link.suspect()
        self._stale = True
        self._failures += 1
        if lasting:
            self._unknown = 0
            self.fail(failure)
            return
        self._trouble = f": {failure}"
        doublings = 0 if self._unknown else min(self._failures - 1, 10)
        await self._runtime.sleep(min(RETRY_S_MAX, RETRY_S_MIN * 2.0**doublings))
