"""What deferral asks of the timers of its partition (:class:`prosody.timers.PartitionTimers`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.stores.protocol import TimerKind, Trace

T = TypeVar("T")


class Timers(Protocol):
    """Timers by key, of one assignment. All raise ``StoreError`` when the store cannot be reached."""

    async def schedule(self, key: str, time: int, kind: TimerKind, trace: Trace) -> None:
        """Set a timer; it is durable when this returns."""
        ...

    async def unschedule(self, key: str, time: int, kind: TimerKind) -> None:
        """Remove one."""
        ...

    async def clear(self, key: str, kind: TimerKind) -> list[int]:
        """Remove all of a key; the times removed."""
        ...

    async def replace(self, key: str, time: int, kind: TimerKind, trace: Trace) -> list[int]:
        """Set one, then remove all others of its key and kind; the times removed."""
        ...

    async def times(self, key: str, kind: TimerKind) -> list[int]:
        """The times of a key's timers, ascending; not that of one that fires now."""
        ...

    async def exclusive(self, key: str, operation: Callable[[], Awaitable[T]]) -> T:
        """Run a store operation about ``key`` when those before it are over.

        It runs to its end, also when the caller is cancelled.
        """
        ...
