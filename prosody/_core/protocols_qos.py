"""The interfaces of the structures that decide who runs next and who has used how much.

The same rules as in ``protocols.py``: ``now`` is an argument in seconds, answers are values, a call that
is refused raises and leaves the structure as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable


class VirtualTimeHeap(Protocol):
    """Who runs next: two work classes, decaying virtual time per key, a quadratic wait boost.

    Made with ``failure_weight`` (share of the FAILURE class, 0..1), ``max_wait`` (seconds after which
    the boost is full), ``wait_weight`` (the full boost, in seconds of virtual time), ``cache_size``
    (keys whose virtual time is remembered while nothing of them waits or runs), ``half_life`` (seconds).

    Published formula, at time t, for an entry that waits since s, of a key with virtual time v(t)::

        v(t)        = v(t0) * exp(-lambda * (t - t0)),  lambda = ln 2 / half_life
        priority(t) = v(t) - wait_weight * min((t - s) / max_wait, 1)^2       the lowest runs
        score(t)    = class_time(t) / weight of the class                     the lowest class runs

    ``pop`` picks the class first (the only one that waits, else the lowest score, NORMAL when equal),
    then the exact minimum of the priorities of that class; equal priorities: longest waiting, then
    arrival. A class of weight 0 is served only when nothing of the other waits.

    A key has at most one entry, waiting or dispatched. So its last run is charged before it can be
    picked again, and its virtual time does not change but by decay while it waits.

    Times that go back are clamped: a ``now`` below the latest one seen counts as that one.
    """

    def __init__(
        self,
        *,
        failure_weight: float,
        max_wait: float,
        wait_weight: float,
        cache_size: int,
        half_life: float,
    ) -> None: ...

    @property
    def waiting(self) -> int:
        """Entries pushed and not yet popped or withdrawn."""
        ...

    @property
    def dispatched(self) -> int:
        """Entries popped and not yet completed or given back."""
        ...

    @property
    def remembered(self) -> int:
        """Keys whose virtual time is kept: at most ``cache_size`` besides those waiting or dispatched."""
        ...

    def push(self, key: Hashable, entry: Any, work_class: int, now: float) -> None:
        """Let ``entry`` wait.

        :raises ValueError: ``key`` has an entry already, ``entry`` is None, ``work_class`` is neither 0
            nor 1, or ``now`` is not finite.
        """
        ...

    def pop(self, now: float) -> Any:
        """Dispatch the entry that is next; None when nothing waits. Charges its class an estimate."""
        ...

    def complete(self, key: Hashable, used: float, now: float) -> None:
        """The dispatched entry of ``key`` ran for ``used`` seconds: charge key and class, now.

        :raises KeyError: nothing of ``key`` is dispatched.
        :raises ValueError: ``used`` is negative or not finite.
        """
        ...

    def give_back(self, key: Hashable, now: float) -> None:
        """The dispatched entry of ``key`` never ran: the class gets its estimate back.

        :raises KeyError: nothing of ``key`` is dispatched.
        """
        ...

    def withdraw(self, key: Hashable) -> Any:
        """Take back the waiting entry of ``key`` (cancelled, revoked) and return it.

        :raises KeyError: nothing of ``key`` waits.
        """
        ...

    def virtual_time(self, key: Hashable, now: float) -> float:
        """Seconds charged to ``key``, decayed to ``now``; 0.0 for a key not remembered."""
        ...

    def virtual_times(self, now: float) -> dict[Hashable, float]:
        """The ``virtual_time`` of each key that is remembered; for those who look, O(keys)."""
        ...

    def waiting_since(self) -> dict[Hashable, float]:
        """The keys with an entry that waits, and when it was pushed; O(keys)."""
        ...

    def class_time(self, work_class: int, now: float) -> float:
        """Seconds charged to a class, decayed to ``now``, estimates of dispatched entries included."""
        ...

    def priority(self, key: Hashable, now: float) -> float:
        """The published priority of the waiting entry of ``key``.

        :raises KeyError: nothing of ``key`` waits.
        """
        ...

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        ...


class TimeWindow(Protocol):
    """Time used per key over a sliding window, in 64 buckets; for monopolization.

    Made with ``window`` (seconds) and ``cache_size`` (keys remembered besides those that run now). Memory
    per key is fixed however many runs it has. A figure is off by at most one bucket (``window / 64``),
    on the side stated there. Times that go back are clamped.
    """

    def __init__(self, window: float, cache_size: int) -> None: ...

    @property
    def remembered(self) -> int:
        """Keys kept."""
        ...

    def begin(self, key: Hashable, now: float) -> None:
        """A run of ``key`` begins.

        :raises ValueError: one runs already, or ``now`` is not finite.
        """
        ...

    def end(self, key: Hashable, now: float) -> None:
        """The run of ``key`` ends.

        :raises KeyError: nothing of ``key`` runs.
        """
        ...

    def used(self, key: Hashable, now: float) -> float:
        """Seconds used in ``(now - window, now]``, a run in progress counted up to ``now``."""
        ...

    def room_at(self, key: Hashable, limit: float, now: float) -> float:
        """The earliest time from ``now`` on at which ``used`` is at most ``limit`` seconds.

        Provided that nothing of the key runs meanwhile.

        :raises ValueError: ``limit`` is negative or not finite.
        """
        ...

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        ...


class OutcomeWindow(Protocol):
    """Successes and failures over a sliding window, in 64 buckets; for the defer gate.

    Made with ``window`` (seconds) and ``minimum`` (outcomes below which there is no rate).
    """

    def __init__(self, window: float, minimum: int) -> None: ...

    def record(self, failed: bool, now: float) -> None:
        """One outcome.

        :raises ValueError: ``now`` is not finite.
        """
        ...

    def counts(self, now: float) -> tuple[int, int]:
        """Successes and failures in the window; off by at most those of one bucket."""
        ...

    def failure_rate(self, now: float) -> float | None:
        """Failures as a share of all outcomes; None below the minimum sample."""
        ...

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        ...
