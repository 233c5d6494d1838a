"""What happened, in the sequence in which it happened; the checks see nothing else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Literal, NamedTuple

OrderKind = Literal["send", "sent", "begin", "handled", "failed", "send_copy", "sent_copy"]
TimerKind = Literal["asked", "set", "cancelled", "timer_begin", "fired", "timer_failed"]
Kind = OrderKind | TimerKind


class Event(NamedTuple):
    """One thing that happened to an order, or to a timer."""

    kind: Kind
    """Of an order: ``send`` called, ``sent`` acknowledged; an attempt: ``begin``, then ``handled`` or
    ``failed``. Of its copy: ``send_copy``, ``sent_copy``. Of a timer: ``asked`` before the call that sets
    it, ``set`` and ``cancelled`` when a call has returned; an attempt: ``timer_begin``, then ``fired`` or
    ``timer_failed``."""
    key: str
    seq: int
    """The order's number; of a timer its second since 1970."""
    at: float
    """Seconds of a monotonic clock."""
    place: tuple[int, int] | None = None
    """Partition and offset of the message; known when an attempt begins."""
    wall: float = 0.0
    """Seconds since 1970; noted when a timer begins, to be compared with its second."""


class History:
    """Records events, and counts along for the live display.

    Everything runs in one event loop, so the list's sequence is what really came first.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._wall_clock = wall_clock
        self.events: list[Event] = []
        self.sent = 0
        """Acknowledged sends of orders."""
        self.copies = 0
        """Acknowledged sends of copies."""
        self.handled = 0
        """Orders handled, each counted once."""
        self.failed = 0
        """Attempts that failed; each is followed by another one."""
        self.running = 0
        self.waiting: Counter[str] = Counter()
        """By key: orders sent and not yet handled."""
        self.live: dict[str, set[int]] = {}
        """By key: the seconds for which timers are set."""
        self._asked: dict[str, set[int]] = {}
        """Those for which the call has not returned, or failed: they may be set."""
        self.timers_waiting = 0
        self.fired = 0
        self.fresh_latencies: list[tuple[str, float]] = []
        """Key and seconds from send to handled, since the display last took them away."""
        self.progress_at = clock()
        """When an order was handled or a timer fired, last."""
        self._open: dict[tuple[str, int], float] = {}

    # Orders.

    def send(self, key: str, seq: int) -> None:
        """An order is about to be sent."""
        at = self._add("send", key, seq)
        self._open[key, seq] = at
        self.waiting[key] += 1

    def was_sent(self, key: str, seq: int) -> None:
        """The broker has acknowledged it."""
        self._add("sent", key, seq)
        self.sent += 1

    def send_copy(self, key: str, seq: int) -> None:
        """An order that was sent before is about to be sent once more."""
        self._add("send_copy", key, seq)

    def copy_was_sent(self, key: str, seq: int) -> None:
        """The broker has acknowledged that, too."""
        self._add("sent_copy", key, seq)
        self.copies += 1

    def begin(self, key: str, seq: int, partition: int, offset: int) -> None:
        """A handler begins an attempt."""
        self.events.append(Event("begin", key, seq, self.clock(), (partition, offset)))
        self.running += 1

    def was_handled(self, key: str, seq: int) -> None:
        """The attempt was a success."""
        at = self._add("handled", key, seq)
        self.running -= 1
        sent_at = self._open.pop((key, seq), None)
        if sent_at is not None:
            self.handled += 1
            self.waiting[key] -= 1
            self.progress_at = at
            self.fresh_latencies.append((key, at - sent_at))

    def has_failed(self, key: str, seq: int) -> None:
        """The attempt failed or was cancelled."""
        self._add("failed", key, seq)
        self.running -= 1
        self.failed += 1

    # Timers.

    def timer_asked(self, key: str, time: datetime) -> None:
        """A timer is about to be set."""
        second = int(time.timestamp())
        self._add("asked", key, second)
        self._asked.setdefault(key, set()).add(second)

    def timer_set(self, key: str, time: datetime) -> None:
        """The call that sets it has returned."""
        second = int(time.timestamp())
        self._add("set", key, second)
        self._asked.get(key, set()).discard(second)
        of_key = self.live.setdefault(key, set())
        # The same second of a key is the same timer.
        self.timers_waiting += second not in of_key
        of_key.add(second)

    def timer_cancelled(self, key: str, time: datetime) -> None:
        """The call that cancels one has returned."""
        second = int(time.timestamp())
        self._add("cancelled", key, second)
        self._gone(key, second)

    def timers_cleared(self, key: str, but: datetime | None = None) -> None:
        """The call that cancels all of a key has returned; or all but one, that it set."""
        kept = None if but is None else int(but.timestamp())
        for second in sorted(self.live.get(key, set()) | self._asked.pop(key, set())):
            if second == kept:
                continue
            self._add("cancelled", key, second)
            self._gone(key, second)

    def timer_begins(self, key: str, time: datetime) -> None:
        """A handler begins with a timer that has fired."""
        wall = self._wall_clock()
        second = int(time.timestamp())
        self.events.append(Event("timer_begin", key, second, self.clock(), wall=wall))
        self.running += 1

    def timer_fired(self, key: str, time: datetime) -> None:
        """It has ended well."""
        second = int(time.timestamp())
        self.progress_at = self._add("fired", key, second)
        self.running -= 1
        self.fired += 1
        self._gone(key, second)

    def timer_has_failed(self, key: str, time: datetime) -> None:
        """It failed or was cancelled."""
        self._add("timer_failed", key, int(time.timestamp()))
        self.running -= 1

    def _gone(self, key: str, second: int) -> None:
        of_key = self.live.get(key, set())
        self.timers_waiting -= second in of_key
        of_key.discard(second)

    def _add(self, kind: Kind, key: str, seq: int) -> float:
        at = self.clock()
        self.events.append(Event(kind, key, seq, at))
        return at
