"""The store seam.

Everything above this file behaves the same over each store behind it: Cassandra (``cassandra/``) and the
one in memory (``memory.py``). One contract suite (``tests/stores/``) runs over both.

Rules a store keeps
-------------------
* All calls come from one event loop and none blocks it. Each ends within a deadline of the store's own.
* Failures are raised as ``prosody.errors.StoreError``, never as an error of a lower library; while a
  store counts as down, calls fail at once with its subclass ``StoreDownError``.
  ``asyncio.CancelledError`` passes.
* The owner of a partition is the only one who writes to its segment, and never makes two calls about one
  key of a segment at the same time. So a store may read and then write without a lock, and may remember
  what it wrote, for as long as the segment is open: from ``TimerStore.open``, which comes before all
  other calls about a segment each time a partition is assigned, those about deferred work included.
* What a call wrote is durable when it returns. A write that failed or was cancelled may have happened.
* The content outlives every consumer: the one in memory belongs to the embedded cluster.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from prosody.stores.answer import StoreAnswer

Trace: TypeAlias = Mapping[str, str]
"""W3C headers by name (``traceparent``, ``tracestate``, ``baggage``); empty when there is no trace.
A deferred entry's, and a retry timer's, may say besides whose first attempt it is (``model/trace.py``)."""


class Segment(NamedTuple):
    """Whose data: that of one partition of a topic, in one group."""

    group_id: str
    topic: str
    partition: int


class TimerKind(enum.IntEnum):
    """What a timer is for. Kinds do not see each other: the same key and time may exist in each."""

    APPLICATION = 0
    """Set by a handler."""
    DEFERRED_MESSAGE = 1
    """The next try of a deferred message."""
    DEFERRED_TIMER = 2
    """The next try of a deferred timer."""


class Place(NamedTuple):
    """What a timer is, and its place in the order in which timers are loaded."""

    time: int
    """Whole seconds since 1970 UTC, from 0 to 2**32 - 1."""
    kind: TimerKind
    key: str


class StoredTimer(NamedTuple):
    """A timer as stored; (time, kind, key) is unique in a segment."""

    time: int
    kind: TimerKind
    key: str
    trace: Trace

    @property
    def place(self) -> Place:
        return Place(self.time, self.kind, self.key)


class TimerStore(Protocol):
    """Timers by time, and by key."""

    async def open(self, segment: Segment, partitions: int) -> int | None:
        """Begin to use a segment, whose topic has ``partitions`` partitions now.

        :returns: the number it had when the segment was opened before; None the first time.
        """
        ...

    async def load(
        self, segment: Segment, after: Place | None, until: int, limit: int
    ) -> Sequence[StoredTimer]:
        """The next timers in the order of their places, beyond ``after``, up to the second ``until``.

        At most ``limit`` (1 or more); fewer mean that there are no more. Timers of one second and kind
        come in an order of the store's own, in which ``after`` is understood too. What lies in the far
        future costs nothing, and neither does what was removed long ago, if ``passed`` told so.
        """
        ...

    async def add(self, segment: Segment, timer: StoredTimer) -> None:
        """Store a timer; one that is there already gets the new trace."""
        ...

    async def remove(self, segment: Segment, place: Place) -> None:
        """Remove a timer, if it is there."""
        ...

    async def times(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        """The times of all timers of a key, ascending."""
        ...

    async def replace(self, segment: Segment, timer: StoredTimer) -> list[int]:
        """Store a timer, and remove all others of its key and kind.

        The new one is durable before an old one is gone: a crash in between leaves more, never none.

        :returns: the times that were removed, ascending.
        """
        ...

    async def clear(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        """Remove all timers of a key and kind.

        :returns: their times, ascending.
        """
        ...

    async def passed(self, segment: Segment, before: int) -> None:
        """All timers before the second ``before`` are removed: loading need not look there again.

        A timer added later with an earlier time is loaded all the same.
        """
        ...


class DeferredKind(enum.IntEnum):
    """What waits in a queue of deferred work; each kind has its own queue for a key."""

    MESSAGE = 0
    TIMER = 1


class Deferred(NamedTuple):
    """One deferred message or timer."""

    position: int
    """Its place in the queue: the offset of a message, the time of a timer in seconds."""
    timestamp_ms: int
    """Of a message's record, by which a log made anew is noticed; 0 for a timer."""
    trace: Trace
    content: Any = None
    """The record itself. Only the store in memory keeps it; another one answers None."""


class DeferredQueue(NamedTuple):
    """What is known of a key that has deferred work."""

    head: Deferred
    """The lowest position."""
    failures: int
    """How often the head has failed."""
    error: str
    """The text of its last failure, at most ``ERROR_CHARS_MAX`` characters."""


ERROR_CHARS_MAX = 500
"""Characters kept of an error's text."""


def shorten_error(text: str) -> str:
    """The text of an error as it is kept."""
    return text if len(text) <= ERROR_CHARS_MAX else text[: ERROR_CHARS_MAX - 1] + "…"


class DeferStore(Protocol):
    """Queues of deferred work by key, ascending by position."""

    def hashes(self, segment: Segment, kind: DeferredKind) -> AsyncIterator[Sequence[int]]:
        """The hashes (:func:`~prosody.stores.hashing.key_hash`) of all keys with a queue, in pages.

        A key may be named twice, and one that lost its queue a moment ago may still be named.
        """
        ...

    async def defer(
        self, segment: Segment, kind: DeferredKind, key: str, entry: Deferred, error: str
    ) -> None:
        """Begin a queue with its first entry, which has failed once.

        Where a queue is left over from before (after a crash), the entry joins it: below all of it as
        its new head, else in its place behind a head whose failures stay as they are. One that is
        there already changes nothing.
        """
        ...

    async def append(self, segment: Segment, kind: DeferredKind, key: str, entry: Deferred) -> None:
        """Put an entry into a queue that is there. The same position again changes nothing.

        An entry below the head becomes the head, and has not failed. Where there is no queue after all,
        it begins one.
        """
        ...

    async def queue(self, segment: Segment, kind: DeferredKind, key: str) -> DeferredQueue | None:
        """The head of a key's queue; None when the key has none."""
        ...

    async def failed(
        self, segment: Segment, kind: DeferredKind, key: str, failures: int, error: str
    ) -> None:
        """Note how often the head of a queue has failed; nothing happens where there is no queue."""
        ...

    async def advance(
        self, segment: Segment, kind: DeferredKind, key: str, position: int
    ) -> DeferredQueue | None:
        """Remove the entry at ``position``, which is done with.

        After the head, what is at the head now has not failed. An entry that is not there is no error.

        :returns: what is left; None when that was the last entry, and the key has no queue any more.
        """
        ...

    async def positions(self, segment: Segment, kind: DeferredKind, key: str) -> list[int]:
        """All positions of a key's queue, ascending."""
        ...

    async def drop(self, segment: Segment, kind: DeferredKind, key: str) -> None:
        """Remove a key's queue with all in it."""
        ...


class DedupStore(Protocol):
    """Which messages are done with, by an identity that is a hash: the 16 bytes of a UUID.

    Both are asked for every message, so they begin at once and give an answer, for which no task is
    needed. Either may raise ``StoreError`` instead. The answer is the caller's: nobody else cancels it,
    and one that the caller cancels, or gives a result of its own, is left alone. A failure that nobody
    looks at is not logged.
    """

    def seen(self, identity: bytes) -> StoreAnswer[bool]:
        """Whether ``identity`` was recorded, and has not expired (``idempotence_ttl``)."""
        ...

    def record(self, identity: bytes) -> StoreAnswer[None]:
        """Record it, for ``idempotence_ttl``."""
        ...


class Stores(Protocol):
    """The three stores of one consumer."""

    @property
    def timers(self) -> TimerStore: ...

    @property
    def deferred(self) -> DeferStore: ...

    @property
    def dedup(self) -> DedupStore: ...

    @property
    def keeps_records(self) -> bool:
        """Whether it keeps the records of deferred messages, so that none is read from the broker again."""
        ...

    @property
    def problem(self) -> str | None:
        """Why the store counts as down, for logs and probes; None when it does not. Cheap, no I/O."""
        ...

    async def start(self) -> None:
        """Connect, and make or verify the schema.

        :raises StoreError: naming the option that is wrong, where one is.
        """
        ...

    async def stop(self) -> None:
        """Close. Does nothing the second time."""
        ...
