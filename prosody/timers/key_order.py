"""Operations about one key, one after the other; those about different keys side by side."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from prosody.errors import ProsodyError, StoreError
from prosody.model.fields import cut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = logging.getLogger("prosody.timers")

T = TypeVar("T")


class KeyOrder:
    """A store is never asked two things about one key at the same time; this sees to it.

    Whoever waits for an operation may be cancelled. The operation goes on all the same, so that memory
    and store agree when it has ended.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._queues: dict[
            str, deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]]
        ] = {}
        """Of each key that has operations under way those that have not begun."""
        self._workers: set[asyncio.Task[None]] = set()

    async def run(self, key: str, operation: Callable[[], Awaitable[T]]) -> T:
        """Have ``operation`` run when those of the key before it have ended; it must not call ``run``.

        :raises StoreError: what the operation raised, or that the partition was given up before it began.
        """
        self.check()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            worker = asyncio.create_task(self._work(key, queue), name="prosody-store-operation")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        queue.append((operation, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.exception()  # it came in the very turn of the cancellation; nobody is to read it
            raise

    def check(self) -> None:
        """
        :raises StoreError: the partition was given up.
        """
        if self.stopped:
            raise _refused()

    def stop(self) -> None:
        """Begin nothing more. What has not begun is refused."""
        self.stopped = True
        for queue in self._queues.values():
            for _, future in queue:
                if not future.done():
                    future.set_exception(_refused())
            queue.clear()

    async def settled(self) -> None:
        """Wait until the operations under way have ended, each of which has the store's deadline."""
        if self._workers:
            await asyncio.wait(set(self._workers))

    async def _work(
        self, key: str, queue: deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]]
    ) -> None:
        try:
            while queue:
                operation, future = queue.popleft()
                await self._run(key, operation, future)
        finally:
            del self._queues[key]
            for _, future in queue:
                future.cancel()  # only when the loop goes down with this task

    async def _run(
        self, key: str, operation: Callable[[], Awaitable[Any]], future: asyncio.Future[Any]
    ) -> None:
        try:
            result = await operation()
        except Exception as error:  # noqa: BLE001
            # The next operation of the key is not to suffer for it. The caller is told, or has gone.
            if not future.done():
                future.set_exception(error)
            elif not isinstance(error, ProsodyError):
                _log.critical(
                    "internal fault in a store operation; please report this",
                    exc_info=error,
                    extra={"key": cut(key)},
                )
        except BaseException:
            future.cancel()  # the loop is going down
            raise
        else:
            if not future.done():
                future.set_result(result)


def _refused() -> StoreError:
    return StoreError(
        "the partition was given up: its timers and deferred events are its next owner's now",
        retriable=True,
    )
