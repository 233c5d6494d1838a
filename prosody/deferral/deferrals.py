"""Which keys of a partition have deferred work, and their queues.

A key with a queue always has a retry timer. So the timer is set first, and the row written then; a crash
in between leaves a timer that finds nothing. What runs about one key is single-flight (its key queue), so
only the removals in the background meet anything else; the order of a key in ``Timers.exclusive`` decides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from prosody.deferral.knowledge import Knowledge
from prosody.deferral.uncertain import Uncertain
from prosody.errors import StoreError
from prosody.model.fields import fields_of
from prosody.stores.protocol import DeferredKind, TimerKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.deferral.seam import Timers
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Deferred, DeferredQueue, DeferStore, Segment, Trace

T = TypeVar("T")

RETRY_TIMER: Final = {
    DeferredKind.MESSAGE: TimerKind.DEFERRED_MESSAGE,
    DeferredKind.TIMER: TimerKind.DEFERRED_TIMER,
}


class Deferrals:
    """The deferred work of one assignment of a partition.

    Life cycle: made -> opened (the hashes are loaded; nothing runs before) -> closed (writes nothing).

    ``message_hashes`` and ``timer_hashes`` hold the hash of every key that has a queue, and are exact but
    for keys that share a hash. What is known exactly of a key is remembered for the
    ``defer_store_cache_size`` keys used last; of others with a known hash the store is asked once, before
    anything joins their queue. So a hash never lets a message overtake, nor defers one for nothing.
    """

    def __init__(
        self,
        segment: Segment,
        store: DeferStore,
        timers: Timers,
        cache_size: int,
        runtime: Runtime,
        storms: Storms,
    ) -> None:
        """:param cache_size: ``defer_store_cache_size``."""
        self._segment = segment
        self._store = store
        self._timers = timers
        self._knowledge = Knowledge(cache_size, runtime)
        self.message_hashes = self._knowledge.hashes[DeferredKind.MESSAGE]
        self.timer_hashes = self._knowledge.hashes[DeferredKind.TIMER]
        self.holds = self._knowledge.holds
        self.known = self._knowledge.known
        self.failure = self._knowledge.failure
        self._closed = False
        self.uncertain = Uncertain(
            self._remove_finished, runtime, storms, fields_of((segment.topic, segment.partition))
        )
        """What may be stored although it is handled in place; ``events`` is empty when nothing is."""

    async def open(self) -> None:
        """Load the hashes of all keys with deferred work. May be tried again when it failed.

        :raises StoreError: they could not be read.
        """
        self._knowledge.forget()
        for kind, hashes in self._knowledge.hashes.items():
            async for page in self._store.hashes(self._segment, kind):
                hashes.load(page)

    def close(self) -> None:
        """The partition is given up: nothing is written any more."""
        self._closed = True
        self.uncertain.close()

    # -- what is known ----------------------------------------------------------------------------

    @property
    def keys(self) -> dict[DeferredKind, int]:
        """How many keys have deferred work."""
        return {kind: hashes.total for kind, hashes in self._knowledge.hashes.items()}

    @property
    def oldest(self) -> float | None:
        """Since when, on the wall clock, the key remembered for longest has deferred work."""
        return self._knowledge.oldest

    @property
    def problem(self) -> str | None:
        """What cannot be done at present, for logs and probes."""
        return self.uncertain.problem

    # -- putting in -------------------------------------------------------------------------------

    async def defer(
        self, kind: DeferredKind, key: str, entry: Deferred, error: str | None, at: int
    ) -> None:
        """Begin the queue of a key that has none, and set its retry timer.

        :param error: why ``entry`` failed; None when it was not tried.
        :param at: the second of the retry timer.
        :raises StoreError: it is not deferred. If it may be stored all the same, that is remembered, and
            it is removed once ``finished_in_place`` says so.
        """
        await self.retry_at(kind, key, at, entry.trace)
        self.uncertain.add(kind, key, entry.position)
        # Also when the caller is cancelled: then it comes again, as one whose key is held or not.
        await self._in_turn(key, partial(self._begin, kind, key, entry, error))
        self.uncertain.discard(kind, key, entry.position)

    async def _begin(
        self, kind: DeferredKind, key: str, entry: Deferred, error: str | None
    ) -> None:
        if error is None:
            await self._store.append(self._segment, kind, key, entry)
        else:
            await self._store.defer(self._segment, kind, key, entry, error)
        self._knowledge.has_queue(kind, key, new=True)
        self._knowledge.failed(kind, key, 0 if error is None else 1, error or "")

    async def append(self, kind: DeferredKind, key: str, entry: Deferred, at: int) -> bool:
        """Put an event behind what is deferred of its key.

        :param at: the second of a retry timer, should there be none: a crash may have come between
            the last row and it.
        :returns: False when the key has no queue after all, only a hash in common with one that has.
        :raises StoreError: it may be stored, and is to be appended again.
        """
        if self._knowledge.exactly(kind, key) is None:
            if await self.queue(kind, key) is None:
                return False
            if not await self._timers.times(key, RETRY_TIMER[kind]):
                await self.retry_at(kind, key, at, entry.trace)
        append = partial(self._store.append, self._segment, kind, key, entry)
        await self._in_turn(key, append)
        if self.uncertain.events:
            self.uncertain.discard(kind, key, entry.position)
        return True

    async def retry_at(self, kind: DeferredKind, key: str, at: int, trace: Trace) -> None:
        """Set the retry timer of a key, the only one it has.

        :raises StoreError: it may be set all the same.
        """
        self._check_open()
        await self._timers.replace(key, at, RETRY_TIMER[kind], trace)

    # -- taking out -------------------------------------------------------------------------------

    async def queue(self, kind: DeferredKind, key: str) -> DeferredQueue | None:
        """The head of a key's queue, without what has finished in place meanwhile.

        :raises StoreError: it cannot be told.
        """
        return await self._in_turn(key, partial(self._look, kind, key))

    async def _look(self, kind: DeferredKind, key: str) -> DeferredQueue | None:
        if self.uncertain.events:
            for position in self.uncertain.finished(kind, key):
                await self._remove(kind, key, position)
        queue = await self._store.queue(self._segment, kind, key)
        if queue is not None:
            self._knowledge.has_queue(kind, key)
            self._knowledge.failed(kind, key, queue.failures, queue.error)
        else:
            self._knowledge.has_none(kind, key)
        return queue

    async def advance(self, kind: DeferredKind, key: str, position: int) -> DeferredQueue | None:
        """Take an entry out that is done with; what is left.

        :raises StoreError: it may be out all the same; the call may be repeated.
        """
        return await self._in_turn(key, partial(self._advance, kind, key, position))

    async def done(self, kind: DeferredKind, key: str, position: int) -> DeferredQueue | None:
        """``advance`` for what has run to its end: it never comes again, even if this call fails.

        :raises StoreError: it is not taken out yet, perhaps; the call is to be repeated.
        """
        self.uncertain.add(kind, key, position)
        self.uncertain.finish(kind, key, position)
        return await self._in_turn(key, partial(self._take_out, kind, key, position))

    async def _take_out(self, kind: DeferredKind, key: str, position: int) -> DeferredQueue | None:
        queue = await self._advance(kind, key, position)
        self.uncertain.discard(kind, key, position)
        return queue

    async def _advance(self, kind: DeferredKind, key: str, position: int) -> DeferredQueue | None:
        queue = await self._store.advance(self._segment, kind, key, position)
        if queue is None:
            self._knowledge.lost_queue(kind, key)
        else:
            self._knowledge.failed(kind, key, queue.failures, queue.error)
        return queue

    async def failed(self, kind: DeferredKind, key: str, failures: int, error: str) -> None:
        """Note how often the head has failed.

        :raises StoreError: it may be noted all the same.
        """
        note = partial(self._store.failed, self._segment, kind, key, failures, error)
        await self._in_turn(key, note)
        self._knowledge.failed(kind, key, failures, error)

    async def positions(self, kind: DeferredKind, key: str) -> list[int]:
        """All that waits in a key's queue, ascending.

        :raises StoreError: it cannot be told.
        """
        if not self.holds(kind, key):
            return []
        read = partial(self._store.positions, self._segment, kind, key)
        found = await self._in_turn(key, read)
        done = self.uncertain.finished(kind, key) if self.uncertain.events else ()
        return [position for position in found if position not in done]

    async def drop(self, kind: DeferredKind, key: str) -> None:
        """Take everything out of a key's queue, and remove its retry timer.

        :raises StoreError: all may be gone or not; the call may be repeated.
        """
        await self._in_turn(key, partial(self._drop, kind, key))
        self._check_open()
        await self._timers.clear(key, RETRY_TIMER[kind])

    async def _drop(self, kind: DeferredKind, key: str) -> None:
        if self._knowledge.exactly(kind, key) is None:
            await self._look(kind, key)
        await self._store.drop(self._segment, kind, key)
        self._knowledge.lost_queue(kind, key)

    # -- what was handled in place although it may be stored --------------------------------------

    async def finished_in_place(self, kind: DeferredKind, key: str, position: int) -> None:
        """An event is done with that was to be deferred before; it must never come again.

        Removed at once if the store allows, else in the background. Does not raise ``StoreError``.
        """
        if self.uncertain.finish(kind, key, position):
            await self.uncertain.remove(kind, key, position)

    async def _remove_finished(self, kind: DeferredKind, key: str, position: int) -> None:
        async def unless_deferred_anew() -> None:
            if position in self.uncertain.finished(kind, key):
                await self._remove(kind, key, position)

        await self._in_turn(key, unless_deferred_anew)

    async def _remove(self, kind: DeferredKind, key: str, position: int) -> None:
        if self.holds(kind, key):
            await self._advance(kind, key, position)
        else:
            # Also what a write left behind that was cut short: an entry without its key's row.
            await self._store.drop(self._segment, kind, key)
        self.uncertain.discard(kind, key, position)

    # -- order ------------------------------------------------------------------------------------

    async def _in_turn(self, key: str, operation: Callable[[], Awaitable[T]]) -> T:
        async def unless_closed() -> T:
            self._check_open()
            return await operation()

        return await self._timers.exclusive(key, unless_closed)

    def _check_open(self) -> None:
        if self._closed:
            # The next owner may have begun: whatever is written now would be written into its work.
            raise StoreError("the partition was given up", retriable=False)
