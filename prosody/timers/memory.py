"""The timers of a partition in memory, and which of those in the store are to be loaded next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from prosody.model.times import LAST_SECOND
from prosody.stores.protocol import Place, TimerKind
from prosody.timers.agenda import Agenda
from prosody.timers.due import DueTimer, State
from prosody.timers.frontier import Frontier, end_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from prosody.stores.protocol import StoredTimer, Trace
    from prosody.timers.due import Keeper

LOADED_MAX: Final = 10_000
"""Timers of a partition that wait in memory, whatever is stored; each kind has its part of them."""
PAGE: Final = 1_000
"""Timers loaded at once."""
AHEAD_S: Final = 600
"""So far ahead timers are loaded; again when half of it is used up."""
PASSED_AFTER: Final = 1_000
"""After so many removals the store is told what need not be looked at any more."""


class Kind:
    """What is known of one kind."""

    __slots__ = ("agenda", "frontier", "kind")

    def __init__(self, kind: TimerKind, limit: int) -> None:
        self.kind = kind
        self.agenda = Agenda(limit)
        self.frontier = Frontier()


class Load(NamedTuple):
    """A page to be loaded."""

    after: Place | None
    until: int
    kinds: tuple[Kind, ...]
    """Those that have come to the same place; timers of others are passed over."""


class Memory:
    """Timers by kind, each kind with a share of the room, so that none holds up another.

    A page is read while timers are set and removed. What was removed meanwhile may still stand in it, and
    is remembered until it has come; what was set meanwhile may be missing, and is taken in at once
    (``Frontier.covers``).
    """

    def __init__(self, kinds: Collection[TimerKind], limit: int) -> None:
        """
        :param kinds: those that are loaded; others are left alone in the store.
        :param limit: timers of a kind handed out at once.
        """
        self.kinds = {kind: Kind(kind, limit) for kind in TimerKind}
        self.loaded = [self.kinds[kind] for kind in TimerKind if kind in kinds]
        self._share = LOADED_MAX // max(1, len(self.loaded))
        self._kept = min(self._share * 3 // 4, self._share - PAGE)
        """So many stay when room is made."""
        self.keeper: Keeper
        """Whom timers belong to; set by ``Firing``."""
        self.expect: Callable[[int], None]
        """Called with the time of each timer that comes into memory; set by ``Firing``."""
        self.on_released: Callable[[], None]
        """Called when a timer that was handed out has made place for another; set by ``Firing``."""
        self.wake_loader: Callable[[], None]
        """Called when there may be something for the loader to do; set by ``Loader``."""
        self.removed = 0
        """Timers removed from the store."""
        self._removed_during_load: set[Place] | None = None
        self._cleared_during_load: set[tuple[TimerKind, str]] = set()
        self.being_stored: list[int] = []
        """Times of the timers that are just being stored."""
        self._left_alone = LAST_SECOND + 1
        """The earliest stored timer that will not leave the store: of another kind, or aborted."""

    @property
    def pending(self) -> int:
        """Timers in memory."""
        return sum(kind.agenda.waiting + kind.agenda.handed for kind in self.kinds.values())

    # Timers that are set and removed

    def not_stored(self, time: int, kind: TimerKind, key: str) -> None:
        """A call that stores it failed, so it may be stored. Loading finds out, from its second on."""
        known = self.kinds[kind]
        if known not in self.loaded:
            self.leave_alone(time)
        elif known.agenda.get(key, time) is None:
            known.frontier.cut(time)
            self.wake_loader()

    def stored(self, time: int, kind: TimerKind, key: str, trace: Trace) -> None:
        """It is stored: take it in, if loading would not come upon it."""
        known = self.kinds[kind]
        if known not in self.loaded:
            self.leave_alone(time)
            return
        if self._removed_during_load is not None:
            self._removed_during_load.discard(Place(time, kind, key))
        timer = known.agenda.get(key, time)
        if timer is None:
            self.take_in(known, time, key, trace)
        else:
            timer.trace = trace
            timer.stored = True

    def take_in(self, kind: Kind, time: int, key: str, trace: Trace) -> None:
        """Have a timer in memory that is stored, unless loading is going to come upon it."""
        if not kind.frontier.covers(time):
            return
        if kind.agenda.waiting >= self._share:
            self._make_room(kind)
            if not kind.frontier.covers(time):
                return
        kind.agenda.put(DueTimer(time, kind.kind, key, trace, self.keeper))
        self.expect(time)

    def gone(self, place: Place) -> None:
        """A timer was removed from the store: it leaves memory too, unless it is firing."""
        self.removed += 1
        if self.removed % PASSED_AFTER == 0:
            self.wake_loader()
        if self._removed_during_load is not None:
            self._removed_during_load.add(place)
        kind = self.kinds[place.kind]
        timer = kind.agenda.get(place.key, place.time)
        if timer is not None and timer.state is not State.FIRING:
            kind.agenda.discard(timer)
            self.look_for_room(kind)

    def cleared(self, kind: TimerKind, key: str) -> None:
        """All timers of a key were removed from the store; what is not, is told to be stored afterwards.

        What a call that failed had removed before is known to nobody, and may stand in a page.
        """
        if self._removed_during_load is not None:
            self._cleared_during_load.add((kind, key))

    def release(self, timer: DueTimer) -> None:
        """A timer that was handed out makes place for another."""
        self.kinds[timer.kind].agenda.release(timer)
        self.on_released()

    def leave_alone(self, time: int) -> None:
        """A timer of that second stays in the store, and not in memory."""
        self._left_alone = min(self._left_alone, time)

    # Loading

    def begin_load(self, now: int) -> Load | None:
        """What to load next; None when nothing is needed yet, or there is no room."""
        wanting = [kind for kind in self.loaded if self._wants(kind, now)]
        if not wanting:
            return None
        after = min(wanting, key=lambda kind: kind.frontier.reached).frontier.cursor
        together = tuple(kind for kind in wanting if kind.frontier.cursor == after)
        load = Load(after, min(now + AHEAD_S, LAST_SECOND), together)
        self._removed_during_load = set()
        self._cleared_during_load.clear()
        for kind in together:
            kind.frontier.begin_load(load.until)
        return load

    def take_page(self, load: Load, page: Sequence[StoredTimer]) -> None:
        """Take in what was loaded."""
        removed, self._removed_during_load = self._removed_during_load, None
        assert removed is not None, "a page is being loaded"
        for timer in page:
            kind = self.kinds[timer.kind]
            if kind not in self.loaded:
                self.leave_alone(timer.time)
            elif (
                kind in load.kinds
                and timer.place not in removed
                and (timer.kind, timer.key) not in self._cleared_during_load
                and kind.agenda.get(timer.key, timer.time) is None
            ):
                self.take_in(kind, timer.time, timer.key, timer.trace)
        full = len(page) >= PAGE
        for kind in load.kinds:
            if full:
                kind.frontier.end_load(page[-1].time, page[-1].place)
            else:
                kind.frontier.end_load(load.until, end_of(load.until))

    def fail_load(self, load: Load) -> None:
        """The page did not come."""
        self._removed_during_load = None
        for kind in load.kinds:
            kind.frontier.fail_load()

    def load_in_s(self, now: int) -> float:
        """Seconds until there is something to load, if nothing happens before; infinite when memory is
        full."""
        waits = [
            kind.frontier.reached - AHEAD_S // 2 + 1 - now
            for kind in self.loaded
            if kind.frontier.reached < LAST_SECOND
        ]
        return min((wait for wait in waits if wait > 0), default=math.inf)

    def passed(self, now: int) -> int:
        """No timer with a time before this second is stored any more."""
        bounds = [now, self._left_alone, *self.being_stored]
        for kind in self.loaded:
            earliest = kind.agenda.earliest()
            bounds += [kind.frontier.reached] if earliest is None else [
                kind.frontier.reached, earliest
            ]  # fmt: skip
        return min(bounds) if self.loaded else 0

    def look_for_room(self, kind: Kind) -> None:
        """A timer waits no longer: go on loading if that makes room for a page."""
        if self._room(kind) == PAGE:
            self.wake_loader()

    def _room(self, kind: Kind) -> int:
        return self._share - kind.agenda.waiting

    def _wants(self, kind: Kind, now: int) -> bool:
        reached = kind.frontier.reached
        if reached >= min(now + AHEAD_S // 2, LAST_SECOND):
            return False
        if self._room(kind) < PAGE:
            # What has come into memory from beyond the loaded ones makes room; it is loaded in its turn.
            kind.agenda.shrink(self._kept, reached + 1)
        return self._room(kind) >= PAGE

    def _make_room(self, kind: Kind) -> None:
        """Send the latest out of memory; they are loaded again when their time comes nearer."""
        kind.frontier.cut(kind.agenda.shrink(self._kept))
        self.wake_loader()
