"""Which messages are done with, in memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from prosody.errors import StoreDownError
from prosody.stores.answer import StoreAnswer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from prosody.runtime import Runtime
    from prosody.stores.memory.state import MemoryStoreState

T = TypeVar("T")

MOST_RECORDS: Final = 500_000
"""The oldest is forgotten for one more: deduplication is best effort, memory is not endless."""


class MemoryDedupStore:
    """A :class:`~prosody.stores.protocol.DedupStore` over the embedded cluster's state."""

    def __init__(self, state: MemoryStoreState, runtime: Runtime, ttl_s: float) -> None:
        """
        :param ttl_s: how long a record is kept, in seconds.
        """
        self._state = state
        self._runtime = runtime
        self._ttl_s = ttl_s

    def seen(self, identity: bytes) -> StoreAnswer[bool]:
        state = self._state
        if state.on_call is not None:
            return _answer_of(self._seen_with_faults(identity))
        if state.problem is not None:
            raise StoreDownError(state.problem)
        return _done(self._seen(identity))

    def record(self, identity: bytes) -> StoreAnswer[None]:
        state = self._state
        if state.on_call is not None or state.on_done is not None:
            return _answer_of(self._record_with_faults(identity))
        if state.problem is not None:
            raise StoreDownError(state.problem)
        self._record(identity)
        return _done(None)

    async def _seen_with_faults(self, identity: bytes) -> bool:
        await self._state.begin("dedup.seen")
        return self._seen(identity)

    async def _record_with_faults(self, identity: bytes) -> None:
        await self._state.begin("dedup.record")
        self._record(identity)
        await self._state.end("dedup.record")

    def _seen(self, identity: bytes) -> bool:
        with self._state.lock:
            return self._state.seen.get(identity, 0.0) > self._runtime.wall()

    def _record(self, identity: bytes) -> None:
        now = self._runtime.wall()
        with self._state.lock:
            seen = self._state.seen
            seen.pop(identity, None)
            seen[identity] = now + self._ttl_s
            # Whoever was recorded first is looked at first; of equal times-to-live it expires first too.
            while len(seen) > MOST_RECORDS or next(iter(seen.values())) <= now:
                seen.popitem(last=False)


def _done(result: T) -> StoreAnswer[T]:
    """One that is there already."""
    answer: StoreAnswer[T] = StoreAnswer.open()
    answer.set_result(result)
    return answer


def _answer_of(call: Coroutine[Any, Any, T]) -> StoreAnswer[T]:
    """One that its owner may end at any time, which cancels ``call``."""
    future: StoreAnswer[T] = StoreAnswer.open()
    task = asyncio.get_running_loop().create_task(call)

    def ended(task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        if future.done():
            return  # nobody waits any more
        if task.cancelled():
            future.cancel()  # by the end of the loop, which cancels all tasks
        elif error is not None:
            future.set_exception(error)
            future.exception()  # whoever has lost interest is not to be told by the loop
        else:
            future.set_result(task.result())

    task.add_done_callback(ended)
    future.add_done_callback(lambda _: task.cancel())
    return future
