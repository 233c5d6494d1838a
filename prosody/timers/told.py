"""Who is told what is done to the timers of a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody.stores.protocol import TimerKind, Trace


class Told(Protocol):
    """Called once the store has done it. Must be quick, and not raise."""

    def scheduled(self, kind: TimerKind, key: str, time: int, trace: Trace) -> None:
        """A timer was stored."""
        ...

    def cancelled(self, kind: TimerKind, key: str, times: Iterable[int]) -> None:
        """Timers were removed that have not fired."""
        ...


class Nobody:
    """Told in vain."""

    def scheduled(self, kind: TimerKind, key: str, time: int, trace: Trace) -> None:
        """Nothing."""

    def cancelled(self, kind: TimerKind, key: str, times: Iterable[int]) -> None:
        """Nothing."""
