"""What happened, in the sequence in which it happened; the checks see nothing else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

Kind = Literal["send", "sent", "begin", "handled", "failed"]


class Event(NamedTuple):
    """One thing that happened to one order."""

    kind: Kind
    """``send`` called, ``sent`` acknowledged; an attempt: ``begin``, then ``handled`` or ``failed``."""
    key: str
    seq: int
    at: float
    """Seconds of a monotonic clock."""


class History:
    """Records events, and counts along for the live display.

    Everything runs in one event loop, so the list's sequence is what really came first.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.events: list[Event] = []
        self.sent = 0
        """Acknowledged sends."""
        self.handled = 0
        """Orders handled, each counted once."""
        self.failed = 0
        """Attempts that failed; each is followed by another one."""
        self.running = 0
        self.running_max = 0
        self.waiting: Counter[str] = Counter()
        """By key: orders sent and not yet handled."""
        self.failed_of: Counter[str] = Counter()
        self.fresh_latencies: list[tuple[str, float]] = []
        """Key and seconds from send to handled, since the display last took them away."""
        self.last_handled_at = clock()
        self._open: dict[tuple[str, int], float] = {}

    def send(self, key: str, seq: int) -> None:
        """An order is about to be sent."""
        at = self._add("send", key, seq)
        self._open[key, seq] = at
        self.waiting[key] += 1

    def was_sent(self, key: str, seq: int) -> None:
        """The broker has acknowledged it."""
        self._add("sent", key, seq)
        self.sent += 1

    def begin(self, key: str, seq: int) -> None:
        """A handler begins an attempt."""
        self._add("begin", key, seq)
        self.running += 1
        self.running_max = max(self.running_max, self.running)

    def was_handled(self, key: str, seq: int) -> None:
        """The attempt was a success."""
        at = self._add("handled", key, seq)
        self.running -= 1
        sent_at = self._open.pop((key, seq), None)
        if sent_at is not None:
            self.handled += 1
            self.waiting[key] -= 1
            self.last_handled_at = at
            self.fresh_latencies.append((key, at - sent_at))

    def has_failed(self, key: str, seq: int) -> None:
        """The attempt failed or was cancelled."""
        self._add("failed", key, seq)
        self.running -= 1
        self.failed += 1
        self.failed_of[key] += 1

    def _add(self, kind: Kind, key: str, seq: int) -> float:
        at = self.clock()
        self.events.append(Event(kind, key, seq, at))
        return at
