"""A timer in memory: from the moment it is loaded or set until it is done with."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from prosody.stores.protocol import TimerKind, Trace

Pause: TypeAlias = Callable[[float], Awaitable[bool]]
"""Waits so many seconds; False when a shutdown ended the wait."""


class State(enum.Enum):
    """Where a timer is on its way."""

    WAITING = "waiting"
    """For its time, or for the timer of its key before it."""
    HANDED = "handed"
    """Given to its partition: it waits behind its key."""
    FIRING = "firing"
    """Its turn has come; its handler runs, or it is being removed."""
    ENDED = "ended"
    """Done with: removed from the store, or stored for another time and in memory as another object."""
    GONE = "gone"
    """Cancelled, aborted, or sent out of memory. It does not fire."""


class Keeper(Protocol):
    """Who has a timer in memory."""

    def begin(self, timer: DueTimer) -> bool: ...

    async def end(self, timer: DueTimer, pause: Pause | None) -> bool: ...

    def abort(self, timer: DueTimer) -> None: ...


class DueTimer:
    """One timer in memory.

    ::

        waiting ──time──▶ handed ──begin──▶ firing ──end──▶ ended
           └──cancelled──▶ gone ◀──cancelled┘  └──abort──▶ gone (stored for the next owner)
    """

    __slots__ = ("_keeper", "again", "handled", "key", "kind", "state", "stored", "time", "trace")

    def __init__(self, time: int, kind: TimerKind, key: str, trace: Trace, keeper: Keeper) -> None:
        """:param time: when it is due, in whole seconds since 1970 UTC."""
        self.time = time
        self.kind = kind
        self.key = key
        self.trace = trace
        self._keeper = keeper
        self.state = State.WAITING
        self.again: Trace | None = None
        """Set again while it fires: the trace of that call. None when it was not."""
        self.stored = True
        """Known to be in the store: nobody has tried to remove it since it was written."""
        self.handled = False
        """Its handler has ended; only its removal is left to do."""

    def __repr__(self) -> str:
        return f"DueTimer({self.time}, {self.kind.name}, {self.key!r}, {self.state.value})"

    def begin(self) -> bool:
        """Its turn has come. False when there is nothing to run: it was cancelled while it waited behind
        its key, or nothing fires any more.

        A timer that has begun may begin again: its run goes on in another lane when a cancellation that
        nobody meant has struck the first.
        """
        return self._keeper.begin(self)

    async def end(self, pause: Pause | None = None) -> bool:
        """It is done with: before this returns it is removed from the store, however often that takes.

        When it was set again while it fired, it stays stored instead, and fires once more. Cancelling
        this call leaves it as it is; calling again goes on.

        :param pause: how to wait between two tries; by default the wait ends when the timers are stopped.
        :returns: False when the partition was given up first: the timer stays stored, or its removal is
            uncertain, so it may fire again (at least once).
        """
        self.handled = True
        return await self._keeper.end(self, pause)

    def abort(self) -> None:
        """It was not handled: it stays stored for the next owner. Does nothing once it has ended."""
        self._keeper.abort(self)
