"""What the embedded cluster keeps of timers, deferred work and messages done with, and its faults."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from prosody.errors import StoreDownError
from prosody.stores.memory.ordered import Ordered
from prosody.stores.protocol import DeferredKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from prosody.stores.protocol import Deferred, Place, Segment

UNREACHABLE = "the embedded store cannot be reached"

KeyTime = tuple[int, str, int]
"""Kind, key and time of a timer."""


class TimerTable:
    """The timers of a segment, by time and by key."""

    __slots__ = ("by_key", "by_time", "partitions", "traces")

    def __init__(self) -> None:
        self.partitions: int | None = None
        self.by_time: Ordered[Place] = Ordered()
        self.by_key: Ordered[KeyTime] = Ordered()
        self.traces: dict[Place, Mapping[str, str]] = {}


class Queue:
    """The deferred work of one key."""

    __slots__ = ("entries", "error", "failures", "positions")

    def __init__(self) -> None:
        self.positions: Ordered[int] = Ordered()
        self.entries: dict[int, Deferred] = {}
        self.failures = 0
        self.error = ""

    def add(self, entry: Deferred) -> bool:
        """Put an entry in; True when that makes a new head."""
        if not self.positions.add(entry.position):
            return False
        self.entries[entry.position] = entry
        return next(iter(self.positions)) == entry.position


class MemoryStoreState:
    """The content of the stores of one embedded cluster, by group, topic and partition.

    Clients on several loops and threads may share it: ``lock`` is held while it is read or written.

    For injecting faults: ``on_call`` is called as ``on_call("timers.add")`` before a call has any effect,
    ``on_done`` after it, when it has had it. Both may raise ``StoreError``, and both may return an
    awaitable, which the call then waits for. ``outage()`` lets all calls fail at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.timers: dict[Segment, TimerTable] = {}
        self.queues: dict[tuple[Segment, DeferredKind], dict[str, Queue]] = {}
        self.seen: OrderedDict[bytes, float] = OrderedDict()
        """When each expires, on the wall clock; the one recorded last is the last."""
        self.on_call: Callable[[str], Awaitable[Any] | None] | None = None
        self.on_done: Callable[[str], Awaitable[Any] | None] | None = None
        self.problem: str | None = None

    def outage(self, problem: str = UNREACHABLE) -> None:
        """From now on no call has an effect; each raises ``StoreDownError``."""
        self.problem = problem

    def restore(self) -> None:
        """End the outage."""
        self.problem = None

    async def begin(self, name: str) -> None:
        """At the beginning of each call of the seam."""
        if self.on_call is not None and (wait := self.on_call(name)) is not None:
            await wait
        if self.problem is not None:
            raise StoreDownError(self.problem)

    async def end(self, name: str) -> None:
        """At the end of each call that writes."""
        if self.on_done is not None and (wait := self.on_done(name)) is not None:
            await wait

    def timer_table(self, segment: Segment) -> TimerTable:
        """The timers of a segment; made when there are none. The lock is held."""
        if (table := self.timers.get(segment)) is None:
            table = self.timers[segment] = TimerTable()
        return table

    def queues_of(self, segment: Segment, kind: DeferredKind) -> dict[str, Queue]:
        """The queues of a segment by key. The lock is held."""
        return self.queues.setdefault((segment, kind), {})
