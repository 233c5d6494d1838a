"""What is done to the timers of a key, in the store first and then in memory.

Each of these runs in the order of its key (``KeyOrder``). Timers may be handed out and begin meanwhile;
nothing else about the key happens. A call to the store that failed may have had its effect: then memory
keeps what was to be removed (it fires), and what was to be stored is looked for when loading goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from prosody.stores.protocol import Place, StoredTimer
from prosody.timers.due import State
from prosody.timers.told import Nobody

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.stores.protocol import Segment, TimerKind, TimerStore, Trace
    from prosody.timers.agenda import Agenda
    from prosody.timers.due import DueTimer
    from prosody.timers.memory import Memory
    from prosody.timers.told import Told

T = TypeVar("T")


class Operations:
    """The timers of one partition."""

    def __init__(
        self,
        segment: Segment,
        store: TimerStore,
        memory: Memory,
        check: Callable[[], None],
        told: Told | None = None,
    ) -> None:
        """
        :param check: raises ``StoreError`` when the partition was given up.
        :param told: told of what is set and cancelled, once the store has it.
        """
        self._segment = segment
        self._store = store
        self._memory = memory
        self._check = check
        self._told = told or Nobody()

    async def schedule(self, key: str, time: int, kind: TimerKind, trace: Trace) -> None:
        """Set a timer. One that is firing is to fire again when it has ended."""
        timer = self._agenda(kind).firing(key)
        if timer is None or timer.time != time:
            await self._add(key, time, kind, trace)
            return
        if not timer.stored:
            await self._add(key, time, kind, trace)
        timer.again = trace

    async def unschedule(self, key: str, time: int, kind: TimerKind) -> None:
        """Remove a timer. Of one that is firing only that it fires again is taken back."""
        timer = self._agenda(kind).get(key, time)
        if timer is not None and timer.state is State.FIRING:
            timer.again = None
            return
        await self._remove(key, time, kind)
        self._told.cancelled(kind, key, (time,))

    async def clear(self, key: str, kind: TimerKind) -> list[int]:
        """Remove all timers of a key but the one that is firing."""
        firing = self._agenda(kind).firing(key)
        if firing is None:
            gone = await self._removing(kind, key, self._store.clear(self._segment, key, kind))
            self._told.cancelled(kind, key, gone)
            return gone
        gone = []
        if await self._others(key, kind, firing.time):
            # Keeps the one that fires, which must be there for the next owner until it has ended.
            timer = StoredTimer(firing.time, kind, key, firing.trace)
            gone = await self._replacing(timer)
            self._told.cancelled(kind, key, gone)
        self._memory.cleared(kind, key)
        return _with_mark(gone, firing)

    async def replace(self, key: str, time: int, kind: TimerKind, trace: Trace) -> list[int]:
        """Set a timer, and remove all others of its key and kind but the one that is firing."""
        firing = self._agenda(kind).firing(key)
        if firing is None or firing.time == time:
            gone = await self._replacing(StoredTimer(time, kind, key, trace))
            self._told.cancelled(kind, key, gone)
            self._told.scheduled(kind, key, time, trace)
            if firing is not None:
                firing.again = trace
            return gone
        # Not the store's own replacement: it would remove the one that fires, which no next owner would
        # run again then, if this one does not come to its end.
        await self._add(key, time, kind, trace)
        gone = [other for other in await self._others(key, kind, firing.time) if other != time]
        for other in gone:
            self._check()
            await self._remove(key, other, kind)
            self._told.cancelled(kind, key, (other,))
        self._memory.cleared(kind, key)
        self._memory.stored(time, kind, key, trace)
        return _with_mark(gone, firing)

    async def times(self, key: str, kind: TimerKind) -> list[int]:
        """The times of a key's timers, ascending, without that of the one that is firing."""
        times = await self._store.times(self._segment, key, kind)
        firing = self._agenda(kind).firing(key)
        if firing is not None and firing.again is None:
            return [time for time in times if time != firing.time]
        return times

    async def end(self, timer: DueTimer) -> None:
        """A timer that was firing is done with, or fires again if it was set meanwhile."""
        if timer.state is not State.FIRING:
            return  # ended by an earlier call, whose caller was cancelled
        again = timer.again
        if again is None:
            await self._remove(timer.key, timer.time, timer.kind)
        if timer.state is State.FIRING:
            timer.state = State.ENDED
        self._memory.release(timer)
        if again is not None:
            kind = self._memory.kinds[timer.kind]
            self._memory.take_in(kind, timer.time, timer.key, again)

    def _agenda(self, kind: TimerKind) -> Agenda:
        return self._memory.kinds[kind].agenda

    async def _others(self, key: str, kind: TimerKind, firing: int) -> list[int]:
        """The times of a key's timers but the one that is firing.

        Those that are in memory only are among them: their removal failed, and has happened all the same.
        """
        times = await self._store.times(self._segment, key, kind)
        known = [timer.time for timer in self._agenda(kind).of_key(key)]
        return sorted({*times, *known} - {firing})

    async def _add(self, key: str, time: int, kind: TimerKind, trace: Trace) -> None:
        timer = StoredTimer(time, kind, key, trace)
        await self._storing(timer, self._store.add(self._segment, timer))
        self._told.scheduled(kind, key, time, trace)

    async def _remove(self, key: str, time: int, kind: TimerKind) -> None:
        timer = self._agenda(kind).get(key, time)
        if timer is not None:
            timer.stored = False
        place = Place(time, kind, key)
        await self._store.remove(self._segment, place)
        self._memory.gone(place)

    async def _replacing(self, timer: StoredTimer) -> list[int]:
        others = self._store.replace(self._segment, timer)
        call = self._removing(timer.kind, timer.key, others, but=timer.time)
        return await self._storing(timer, call)

    async def _storing(self, timer: StoredTimer, call: Awaitable[T]) -> T:
        time, kind, key, trace = timer
        self._memory.being_stored.append(time)
        try:
            result = await call
        except BaseException:
            self._memory.not_stored(time, kind, key)
            raise
        finally:
            self._memory.being_stored.remove(time)
        self._memory.stored(time, kind, key, trace)
        return result

    async def _removing(
        self, kind: TimerKind, key: str, call: Awaitable[list[int]], but: int | None = None
    ) -> list[int]:
        """What a call does that removes timers of a key, all of them but one."""
        for timer in self._agenda(kind).of_key(key):
            if timer.time != but:
                timer.stored = False
        gone = await call
        known = [timer.time for timer in self._agenda(kind).of_key(key)]
        for time in {*gone, *known} - {but}:
            self._memory.gone(Place(time, kind, key))
        self._memory.cleared(kind, key)
        return gone


def _with_mark(times: list[int], firing: DueTimer) -> list[int]:
    """Take back that a timer fires again, which is as if it had been among those that were removed."""
    if firing.again is None:
        return times
    firing.again = None
    return sorted([*times, firing.time])
