"""The timers of one partition, for as long as it is assigned: set, cancelled, loaded ahead, fired."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from prosody.model.fields import fields_of
from prosody.stores.protocol import TimerKind
from prosody.timers.firing import Firing
from prosody.timers.key_order import KeyOrder
from prosody.timers.loader import Loader
from prosody.timers.memory import Memory
from prosody.timers.operations import Operations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Segment, TimerStore, Trace
    from prosody.timers.due import DueTimer

_log = logging.getLogger("prosody.timers")

T = TypeVar("T")

Change: TypeAlias = "tuple[str, int, int]"
"""A topic, how many partitions it had, and how many it has now."""


class PartitionTimers:
    """Sets, cancels, loads and fires the timers of a partition.

    Life cycle: new -> open -> started -> (held ->) stopped. One object lives for one assignment.

    Times are whole seconds since 1970 UTC, and (time, kind, key) is unique. A timer is stored when the
    call that sets it returns, and does not fire once the call that removes it has returned. Operations
    about one key run one after the other, in the order in which they were asked for. Cancelling a call
    returns at once, and the operation goes on in the background. All of them raise
    :class:`~prosody.errors.StoreError` when the store fails (then it may have happened all the same), at
    once (``StoreDownError``) while it counts as down, and when the partition was given up.
    """

    def __init__(
        self,
        segment: Segment,
        store: TimerStore,
        runtime: Runtime,
        fire: Callable[[DueTimer], None],
        *,
        limit: int,
        kinds: Collection[TimerKind],
        storms: Storms,
        told: set[Change],
    ) -> None:
        """
        :param fire: takes a timer whose time has come; it must call ``begin`` and then ``end`` or
            ``abort``, and not raise. Of a key and kind it has at most one at a time.
        :param limit: so many timers of a kind it has at most.
        :param kinds: those that fire. Others are left alone in the store.
        :param told: what of this sort was told already, by any partition of the subscription.
        """
        where = f"topic {segment.topic!r} partition {segment.partition}"
        storm = storms.common(_log)
        self._told = told
        self._about = about = fields_of((segment.topic, segment.partition))
        self._segment = segment
        self._store = store
        self._memory = Memory(kinds, limit)
        self._order = KeyOrder()
        self._operations = Operations(segment, store, self._memory, self._order.check)
        self._firing = Firing(
            self._memory, self._order, self._operations, runtime, fire, storm, where, about
        )
        self._loader = Loader(segment, store, runtime, self._memory, storm, where, about)

    # Life

    async def open(self, partitions: int) -> None:
        """Begin to use what is stored. Comes first; can be repeated after it failed.

        :param partitions: how many the topic has now.
        :raises StoreError: the store failed.
        """
        before = await self._store.open(self._segment, partitions)
        change = self._segment.topic, before or partitions, partitions
        if before not in {None, partitions} and change not in self._told:
            self._told.add(change)
            _log.warning(
                "topic %r had %d partitions, now it has %d: timers and deferred messages stay with the "
                "partition they were set in, even where new messages of their key go to another one",
                *change,
                extra=self._about,
            )

    def start(self) -> None:
        """Load ahead and fire from now on."""
        if not self._order.stopped:
            self._firing.start()
            self._loader.start()

    def hold(self) -> None:
        """Fire nothing more; what fires already may end, and calls still work. For a drain."""
        self._firing.hold()

    def stop(self) -> None:
        """Fire nothing more and refuse all calls; those that have begun may end. Can be repeated."""
        self._order.stop()
        self._firing.stop()
        self._loader.stop()

    async def settled(self) -> None:
        """Wait until everything that was under way has ended; each part has the store's deadline."""
        await self._order.settled()
        await self._loader.settled()

    @property
    def problem(self) -> str | None:
        """Why loading does not work at present, for probes; None when it does."""
        return self._loader.problem

    @property
    def pending(self) -> int:
        """Timers in memory."""
        return self._memory.pending

    def pending_of(self, kind: TimerKind) -> int:
        """Timers of a kind in memory."""
        agenda = self._memory.kinds[kind].agenda
        return agenda.waiting + agenda.handed

    def first_times(self, kind: TimerKind) -> dict[str, int]:
        """The time of each key's first timer, as far as they are in memory; nobody is asked."""
        return self._memory.kinds[kind].agenda.first_times()

    def loaded(self, key: str, kind: TimerKind) -> list[int]:
        """Times of a key's timers as far as they are in memory, ascending; nobody is asked."""
        return sorted(timer.time for timer in self._memory.kinds[kind].agenda.of_key(key))

    # Operations

    async def schedule(self, key: str, time: int, kind: TimerKind, trace: Trace) -> None:
        """Set a timer. One in the past fires at once; one that is there gets the new trace.

        The one that is firing fires once more after its end, however often it is set.

        :raises StoreError: see the class.
        """
        await self._order.run(key, lambda: self._operations.schedule(key, time, kind, trace))

    async def unschedule(self, key: str, time: int, kind: TimerKind) -> None:
        """Remove a timer, if it is there. The one that is firing only does not fire once more.

        :raises StoreError: see the class; the timer fires then.
        """
        await self._order.run(key, lambda: self._operations.unschedule(key, time, kind))

    async def clear(self, key: str, kind: TimerKind) -> list[int]:
        """Remove all timers of a key, with the exception of ``unschedule``.

        :returns: the times that were removed, ascending.
        :raises StoreError: see the class; those that are left fire then.
        """
        return await self._order.run(key, lambda: self._operations.clear(key, kind))

    async def replace(self, key: str, time: int, kind: TimerKind, trace: Trace) -> list[int]:
        """Set a timer and remove all others of its key, as ``schedule`` and ``clear`` do.

        The new one is durable before an old one is gone.

        :returns: the times that were removed, ascending.
        :raises StoreError: see the class.
        """
        return await self._order.run(key, lambda: self._operations.replace(key, time, kind, trace))

    async def times(self, key: str, kind: TimerKind) -> list[int]:
        """The times of a key's timers, ascending; without the one that is firing, unless it is to fire
        once more.

        :raises StoreError: see the class.
        """
        return await self._order.run(key, lambda: self._operations.times(key, kind))

    async def exclusive(self, key: str, operation: Callable[[], Awaitable[T]]) -> T:
        """Have an operation on the store run in the order of its key.

        It must have a deadline, which those of the store have, and must not ask for another one of the
        key while it runs: it would wait for itself.

        :raises StoreError: the partition was given up; and whatever the operation raises.
        """
        return await self._order.run(key, operation)
