"""The virtual-time heap in pure Python: the twin of ``vtime_heap_c.pyx``, to the bit."""

from __future__ import annotations

from math import exp, inf
from typing import TYPE_CHECKING, Any, NoReturn, Self, final

from prosody._core.class_account_py import ClassAccount
from prosody._core.constants import LN2, LONGEST_RUN_S, REBASE_HALF_LIVES
from prosody._core.idle_keys_py import DISPATCHED, IDLE, WAITING, IdleKeys, KeyState
from prosody._core.vtime_parameters import checked_parameters, class_number, run_seconds, seconds

if TYPE_CHECKING:
    from collections.abc import Hashable


@final
class VirtualTimeHeap:
    """Who runs next; see ``protocols_qos.VirtualTimeHeap`` for the formula.

    A key goes through these states::

        forgotten --push--> WAITING --pop--> DISPATCHED
            ^                 | ^                |
            |        withdraw | | push           | complete, give_back
            |                 v |                v
            +-- nothing owed, IDLE <-------------+
                or evicted

    Virtual times are kept as *debts*: as they would be at the landmark, ``v * exp(lambda * (t - L))``.
    So they change only when a run is charged, and their order never; every one of them is
    multiplied down and the landmark moved to now before a debt can overflow.
    A key that cannot be hashed and a number that is neither float nor int are refused with a TypeError.
    State is made in ``__new__``, so that there is no half-made heap to be had.
    """

    __slots__ = ("__weakref__", "_classes", "_half_life", "_idle", "_keys", "_landmark", "_latest")

    _classes: tuple[ClassAccount, ClassAccount]
    _half_life: float
    _idle: IdleKeys
    _keys: dict[Hashable, KeyState]
    _landmark: float
    _latest: float

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        given = checked_parameters(*arguments, **named)
        self = object.__new__(cls)
        self._half_life = given.half_life
        self._classes = (
            ClassAccount(given.normal_weight, given.max_wait, given.wait_weight),
            ClassAccount(given.failure_weight, given.max_wait, given.wait_weight),
        )
        self._idle = IdleKeys(given.cache_size)
        self._keys = {}
        self._landmark = -inf
        self._latest = -inf
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(f"type '{__name__}.VirtualTimeHeap' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a VirtualTimeHeap is live state: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return (
            f"VirtualTimeHeap(waiting={self.waiting}, dispatched={self.dispatched}, "
            f"remembered={self.remembered})"
        )

    @property
    def waiting(self) -> int:
        """Entries pushed and not yet popped or withdrawn."""
        normal, failure = self._classes
        return normal.line.live + failure.line.live

    @property
    def dispatched(self) -> int:
        """Entries popped and not yet completed or given back."""
        normal, failure = self._classes
        return normal.dispatched + failure.dispatched

    @property
    def remembered(self) -> int:
        """Keys kept: those waiting or dispatched, and at most ``cache_size`` besides."""
        return len(self._keys)

    def push(self, key: Hashable, entry: Any, work_class: int, now: float) -> None:
        """Let ``entry`` wait.

        :raises ValueError: ``key`` has an entry already, ``entry`` is None, ``work_class`` is neither 0
            nor 1, or ``now`` is not finite.
        """
        if entry is None:
            raise ValueError("push: entry must not be None, which pop answers for 'nothing waits'")
        if type(now) is not float or not -inf < now < inf:
            now = seconds("push: now", now)
        number = class_number("push", work_class)
        state = self._keys.get(key)
        if state is None:
            state = KeyState(key)
            self._keys[key] = state
        elif state.status == IDLE:
            self._idle.remove(state)
        else:
            status = "waiting" if state.status == WAITING else "dispatched"
            raise ValueError(f"push: key {key!r} has an entry already, which is {status}")
        now = self._advance(now)
        state.status = WAITING
        state.entry = entry
        state.since = now
        state.work_class = number
        state.number = self._classes[number].line.append(state, state.debt, now)

    def pop(self, now: float) -> Any:
        """Dispatch the entry that is next; None when nothing waits. Charges its class an estimate.

        :raises ValueError: ``now`` is not finite.
        """
        if type(now) is not float or not -inf < now < inf:
            now = seconds("pop: now", now)
        now = self._advance(now)
        normal, failure = self._classes
        passed = self._half_lives(now)
        decay = exp(-LN2 * passed)
        if not failure.line.live:
            if not normal.line.live:
                return None
            chosen = normal
        elif not normal.line.live or failure.score(decay) < normal.score(decay):
            chosen = failure
        else:
            chosen = normal
        state = chosen.line.pop_least(decay, now)
        entry = state.entry
        state.entry = None
        state.status = DISPATCHED
        state.charge = chosen.charge(exp(LN2 * passed))
        return entry

    def complete(self, key: Hashable, used: float, now: float) -> None:
        """The dispatched entry of ``key`` ran for ``used`` seconds: charge key and class, now.

        A run of more than 31 years counts as one of 31 years.

        :raises KeyError: nothing of ``key`` is dispatched.
        :raises ValueError: ``used`` is negative or not finite, or ``now`` is not finite.
        """
        if type(now) is not float or not -inf < now < inf:
            now = seconds("complete: now", now)
        if type(used) is not float or not 0.0 <= used < inf:
            used = run_seconds("complete: used", used)
        state = self._keys.get(key)
        if state is None or state.status != DISPATCHED:
            raise KeyError(f"complete: nothing of key {key!r} is dispatched")
        now = self._advance(now)
        state.debt += self._classes[state.work_class].complete(
            state.charge, min(used, LONGEST_RUN_S), exp(LN2 * self._half_lives(now))
        )
        self._rest(state)

    def give_back(self, key: Hashable, now: float) -> None:
        """The dispatched entry of ``key`` never ran: the class gets its estimate back.

        :raises KeyError: nothing of ``key`` is dispatched.
        :raises ValueError: ``now`` is not finite.
        """
        if type(now) is not float or not -inf < now < inf:
            now = seconds("give_back: now", now)
        state = self._keys.get(key)
        if state is None or state.status != DISPATCHED:
            raise KeyError(f"give_back: nothing of key {key!r} is dispatched")
        self._advance(now)
        self._classes[state.work_class].give_back(state.charge)
        self._rest(state)

    def withdraw(self, key: Hashable) -> Any:
        """Take back the waiting entry of ``key`` (cancelled, revoked) and return it.

        :raises KeyError: nothing of ``key`` waits.
        """
        state = self._keys.get(key)
        if state is None or state.status != WAITING:
            raise KeyError(f"withdraw: nothing of key {key!r} waits")
        self._classes[state.work_class].line.withdraw(state.number)
        entry = state.entry
        state.entry = None
        self._rest(state)
        return entry

    def virtual_time(self, key: Hashable, now: float) -> float:
        """Seconds charged to ``key``, decayed to ``now``; 0.0 for a key not remembered.

        :raises ValueError: ``now`` is not finite.
        """
        now = max(seconds("virtual_time: now", now), self._latest)
        state = self._keys.get(key)
        return 0.0 if state is None else state.debt * self._decay(now)

    def virtual_times(self, now: float) -> dict[Hashable, float]:
        """The ``virtual_time`` of each key that is remembered."""
        decay = self._decay(max(seconds("virtual_times: now", now), self._latest))
        return {key: state.debt * decay for key, state in self._keys.items()}

    def waiting_since(self) -> dict[Hashable, float]:
        """The keys with an entry that waits, and when it was pushed."""
        return {k: state.since for k, state in self._keys.items() if state.status == WAITING}

    def class_time(self, work_class: int, now: float) -> float:
        """Seconds charged to a class, decayed to ``now``, estimates of dispatched entries included.

        :raises ValueError: ``work_class`` is neither 0 nor 1, or ``now`` is not finite.
        """
        now = max(seconds("class_time: now", now), self._latest)
        return self._classes[class_number("class_time", work_class)].time(self._decay(now))

    def priority(self, key: Hashable, now: float) -> float:
        """The published priority of the waiting entry of ``key``.

        :raises KeyError: nothing of ``key`` waits.
        :raises ValueError: ``now`` is not finite.
        """
        now = max(seconds("priority: now", now), self._latest)
        state = self._keys.get(key)
        if state is None or state.status != WAITING:
            raise KeyError(f"priority: nothing of key {key!r} waits")
        line = self._classes[state.work_class].line
        return line.priority(state.debt, state.since, self._decay(now), now)

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        by_status: dict[int, list[KeyState]] = {IDLE: [], WAITING: [], DISPATCHED: []}
        for key, state in self._keys.items():
            _require(state.key is key, "a key is filed under another")
            _require((state.entry is not None) == (state.status == WAITING), "an entry misplaced")
            _require((state.rested >= 0) == (state.status == IDLE), "an idle key is not at rest")
            _require(0.0 <= state.debt < inf, "a debt out of range")
            _require(state.since <= self._latest, "an entry from the future")
            by_status[state.status].append(state)
        self._idle.check_valid(by_status[IDLE])
        for number, account in enumerate(self._classes):
            waiting = [each for each in by_status[WAITING] if each.work_class == number]
            account.line.check_holds({each.number: (each, each.debt) for each in waiting})
            account.check_valid(sum(each.work_class == number for each in by_status[DISPATCHED]))
        old = self._latest > -inf and self._half_lives(self._latest) > REBASE_HALF_LIVES
        _require(not old, "the landmark is too old")

    def _advance(self, now: float) -> float:
        """``now``, or the latest one seen when that is later."""
        if now <= self._latest:
            return self._latest
        self._latest = now
        # The first time of all comes here as well, the landmark being infinitely old.
        if self._half_lives(now) > REBASE_HALF_LIVES:
            self._rebase(now)
        return now

    def _half_lives(self, now: float) -> float:
        """From the landmark to ``now``."""
        if self._half_life == inf:
            return 0.0
        return (now - self._landmark) / self._half_life

    def _decay(self, now: float) -> float:
        return exp(-LN2 * self._half_lives(now))

    def _rebase(self, now: float) -> None:
        """Move the landmark to ``now``."""
        factor = self._decay(now)
        for state in self._keys.values():
            state.debt *= factor
            state.charge *= factor
        self._idle.rescaled()
        for account in self._classes:
            account.rescale(factor)
        self._landmark = now

    def _rest(self, state: KeyState) -> None:
        """The key has nothing waiting or running any more: remember its debt, if there is room."""
        state.status = IDLE
        if state.debt == 0.0:
            self._forget(state)
        else:
            forgotten = self._idle.add(state)
            if forgotten is not None:
                self._forget(forgotten)

    def _forget(self, state: KeyState) -> None:
        del self._keys[state.key]
        # A place that the key once had among the idle ones may still refer to the state.
        state.key = None


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(f"VirtualTimeHeap: {message}")
