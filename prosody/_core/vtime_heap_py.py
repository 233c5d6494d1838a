"""The virtual-time heap in pure Python: the twin of ``vtime_heap_c.pyx``, to the bit."""

from __future__ import annotations

from math import exp, inf
from typing import TYPE_CHECKING, Any, NoReturn, Self, final

from prosody._core.class_account_py import ClassAccount
from prosody._core.constants import LN2, LONGEST_RUN_S, REBASE_HALF_LIVES
from prosody._core.decay_clock_py import DecayClock
from prosody._core.idle_keys_py import DISPATCHED, IDLE, WAITING, IdleKeys, KeyState, require
from prosody._core.vtime_parameters import checked_parameters, class_number, run_seconds, seconds

if TYPE_CHECKING:
    from collections.abc import Hashable


@final
class VirtualTimeHeap(DecayClock):
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

    __slots__ = ("_failure", "_idle", "_keys", "_normal", "_waiting")

    _failure: ClassAccount
    _idle: IdleKeys
    _keys: dict[Hashable, KeyState]
    _normal: ClassAccount
    _waiting: int

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        given = checked_parameters(*arguments, **named)
        self = object.__new__(cls)
        self._set_decay(given.half_life)
        self._normal = ClassAccount(given.normal_weight, given.max_wait, given.wait_weight)
        self._failure = ClassAccount(given.failure_weight, given.max_wait, given.wait_weight)
        self._waiting = 0
        self._idle = IdleKeys(given.cache_size)
        self._keys = {}
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
        return self._waiting

    @property
    def dispatched(self) -> int:
        """Entries popped and not yet completed or given back."""
        return self._normal.dispatched + self._failure.dispatched

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
        latest = self._latest
        on_time = type(now) is float and latest <= now <= self._young_until
        if not on_time:
            now = seconds("push: now", now)
        failing = work_class != 0 and class_number("push", work_class)
        account = self._failure if failing else self._normal
        state = self._keys.get(key)
        if state is None:
            state = KeyState(key)
            self._keys[key] = state
        elif state.status == IDLE:
            if (idle := self._idle).heap is None:
                del idle.states[state]
            else:
                idle.remove(state)
        else:
            status = "waiting" if state.status == WAITING else "dispatched"
            raise ValueError(f"push: key {key!r} has an entry already, which is {status}")
        if not on_time:
            now = self._advance(now)
        elif now > latest:
            self._latest = now
        else:
            now = latest  # it may be another zero
        state.status = WAITING
        state.entry = entry
        state.since = now
        state.account = account
        line = account.line
        if line.live == line.most:
            line = account.lengthen()
        line.append(state)
        self._waiting += 1

    def pop(self, now: float) -> Any:
        """Dispatch the entry that is next; None when nothing waits. Charges its class an estimate.

        :raises ValueError: ``now`` is not finite.
        """
        if type(now) is float and self._latest < now <= self._young_until:
            self._latest = now
        else:
            now = self._advance(seconds("pop: now", now))
        waiting = self._waiting
        if not waiting:
            return None
        passed = (now - self._landmark) / self._half_life
        decay = exp(-LN2 * passed)
        chosen = self._normal
        failure = self._failure
        if (failing := failure.line.live) and (
            failing == waiting or failure.score(decay) < chosen.score(decay)
        ):
            chosen = failure
        line = chosen.line
        if line.live < line.fewest:
            line = chosen.shorten()
        state = line.pop_least(decay, now)
        self._waiting = waiting - 1
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
        on_time = type(now) is float and self._latest < now <= self._young_until
        if not on_time:
            now = seconds("complete: now", now)
        if type(used) is not float or not 0.0 <= used <= LONGEST_RUN_S:
            used = min(run_seconds("complete: used", used), LONGEST_RUN_S)
        state = self._keys.get(key)
        if state is None or state.status != DISPATCHED:
            raise KeyError(f"complete: nothing of key {key!r} is dispatched")
        if on_time:
            self._latest = now
        else:
            now = self._advance(now)
        growth = exp(LN2 * ((now - self._landmark) / self._half_life))
        state.debt += state.account.complete(state.charge, used, growth)
        # As ``_rest``, where there is no order among idle keys, and room.
        idle = self._idle
        states = idle.states
        if idle.heap is None and len(states) < idle.limit and state.debt != 0.0:
            state.status = IDLE
            states[state] = None
        else:
            self._rest(state)

    def give_back(self, key: Hashable, now: float) -> None:
        """The dispatched entry of ``key`` never ran: the class gets its estimate back.

        :raises KeyError: nothing of ``key`` is dispatched.
        :raises ValueError: ``now`` is not finite.
        """
        now = seconds("give_back: now", now)
        state = self._keys.get(key)
        if state is None or state.status != DISPATCHED:
            raise KeyError(f"give_back: nothing of key {key!r} is dispatched")
        self._advance(now)
        state.account.give_back(state.charge)
        self._rest(state)

    def withdraw(self, key: Hashable) -> Any:
        """Take back the waiting entry of ``key`` (cancelled, revoked) and return it.

        :raises KeyError: nothing of ``key`` waits.
        """
        state = self._keys.get(key)
        if state is None or state.status != WAITING:
            raise KeyError(f"withdraw: nothing of key {key!r} waits")
        state.account.line.withdraw(state)
        self._waiting -= 1
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
        number = class_number("class_time", work_class)
        return (self._failure if number else self._normal).time(self._decay(now))

    def priority(self, key: Hashable, now: float) -> float:
        """The published priority of the waiting entry of ``key``.

        :raises KeyError: nothing of ``key`` waits.
        :raises ValueError: ``now`` is not finite.
        """
        now = max(seconds("priority: now", now), self._latest)
        state = self._keys.get(key)
        if state is None or state.status != WAITING:
            raise KeyError(f"priority: nothing of key {key!r} waits")
        line = state.account.line
        priority: float = line.priority(state, self._decay(now), now)
        return priority

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        by_status: dict[int, list[KeyState]] = {IDLE: [], WAITING: [], DISPATCHED: []}
        for key, state in self._keys.items():
            state.check_valid(key, self._latest)
            by_status[state.status].append(state)
        self._idle.check_valid(by_status[IDLE])
        require(len(by_status[WAITING]) == self._waiting, "waiting does not add up")
        for account in (self._normal, self._failure):
            waiting = [each for each in by_status[WAITING] if each.account is account]
            dispatched = sum(each.account is account for each in by_status[DISPATCHED])
            account.check_valid(waiting, dispatched)
        old = self._latest > -inf and self._half_lives(self._latest) > REBASE_HALF_LIVES
        require(not old, "the landmark is too old")

    def _rebase(self, now: float) -> None:
        """Move the landmark to ``now``."""
        factor = self._decay(now)
        for state in self._keys.values():
            state.debt *= factor
            state.charge *= factor
        self._idle.rescaled()
        self._normal.rescale(factor)
        self._failure.rescale(factor)
        self._set_landmark(now)

    def _rest(self, state: KeyState) -> None:
        """The key has nothing waiting or running any more: remember its debt, if there is room."""
        state.status = IDLE
        if state.debt == 0.0:
            self._forget(state)
        elif (forgotten := self._idle.add(state)) is not None:
            self._forget(forgotten)

    def _forget(self, state: KeyState) -> None:
        del self._keys[state.key]
        # A place that the key once had among the idle ones may still refer to the state.
        state.key = None
