"""The interfaces that the compiled and the pure-Python half both offer.

The core knows no asyncio, clock, I/O or logging: ``now`` is an argument in seconds, answers are values.
A call that is refused raises and leaves the structure as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable


class KeyQueue(Protocol):
    """FIFO per key, at most one entry of a key in flight. All calls are O(1), ``clear`` apart.

    An entry is *queued* until ``pop`` hands it out, then *in flight* until ``done`` of its key.
    A key is *ready* when it has a queued entry and none in flight; ready keys are served in the
    order in which they became ready. A key with nothing queued and nothing in flight is forgotten.
    """

    @property
    def queued(self) -> int:
        """Entries pushed and not yet popped or cleared."""
        ...

    @property
    def in_flight(self) -> int:
        """Entries popped and not yet done."""
        ...

    @property
    def ready(self) -> int:
        """Keys that ``pop`` could serve now."""
        ...

    @property
    def keys(self) -> int:
        """Keys remembered: those with something queued or in flight."""
        ...

    def push(self, key: Hashable, entry: Any) -> bool:
        """Queue ``entry`` behind the others of ``key``. True when that made the key ready.

        :raises ValueError: when ``entry`` is None (``pop`` answers None for "nothing ready").
        """
        ...

    def pop(self) -> Any:
        """Take the head of the key that has been ready longest; None when no key is ready."""
        ...

    def done(self, key: Hashable) -> bool:
        """The entry of ``key`` in flight has ended. True when the key is ready again.

        :raises KeyError: when nothing of ``key`` is in flight.
        """
        ...

    def clear(self) -> list[Any]:
        """Drop every queued entry and return them, oldest push first. In-flight ones stay."""
        ...

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        ...


class OffsetTracker(Protocol):
    """Completions in any order become one committable offset.

    Offsets are tracked as received, so gaps (compaction, transaction markers) need no code. Memory is
    proportional to the offsets admitted and not yet passed by the committable one.
    """

    @property
    def committable(self) -> int | None:
        """The lowest offset not finished, or one past the last admitted; None before any admission."""
        ...

    @property
    def outstanding(self) -> int:
        """Offsets admitted and not finished."""
        ...

    @property
    def finished_ahead(self) -> int:
        """Offsets finished that lie beyond the committable one."""
        ...

    @property
    def last_admitted(self) -> int | None:
        """The highest offset admitted."""
        ...

    def admit(self, offset: int, now: float) -> None:
        """Start to track ``offset``, received at ``now``.

        :raises ValueError: when ``offset`` is negative or not above the last admitted one.
        """
        ...

    def complete(self, offset: int) -> bool:
        """``offset`` is finished. True when the committable offset moved.

        :raises ValueError: when ``offset`` was never admitted, or is finished already.
        """
        ...

    def oldest(self) -> tuple[int, float] | None:
        """The lowest outstanding offset and when it was admitted; None when nothing is."""
        ...

    def encode_finished(self, max_length: int) -> str:
        """The offsets finished beyond the committable one, as text for ``decode_finished``.

        ASCII, versioned, check-summed, bound to the committable offset as it is now; at most
        ``max_length`` characters, and never more than the 32,768 that are read back: the lowest
        offsets, as many as fit. ``""`` when none do, or when nothing is finished ahead.

        What was never received below the last admitted offset counts as finished where it is
        spanned: it is not in the log, or no record, so nobody will ask.

        :raises ValueError: when ``max_length`` is negative.
        """
        ...

    def encoded_length(self) -> int:
        """Characters that suffice for all finished ahead, whatever completes before more is admitted.

        So a caller that admits nothing while this and 22 exceed the limit of its texts never finds a
        set that does not fit. An upper bound, O(1) amortised. It rises by admissions alone: each adds
        at most 22 characters, that of the next offset at most 1. 0 when nothing is outstanding.
        """
        ...

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        ...
