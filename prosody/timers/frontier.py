"""How far the timers of one kind are loaded. Knows no clock and no store."""

from __future__ import annotations

from prosody.stores.protocol import Place, TimerKind


def end_of(second: int) -> Place | None:
    """Where to go on loading when all timers of a second, and of those before, are known.

    A place somewhere in that second: the order within a second and kind is the store's own, so its very
    end has no name. What lies behind is loaded once more, and found to be known.
    """
    return Place(second, TimerKind.DEFERRED_TIMER, "") if second >= 0 else None


class Frontier:
    """Every stored timer with a time up to ``reached`` is in memory, or lies beyond ``cursor``.

    Every one with a later time lies beyond ``cursor``. So whoever stores a timer takes it into memory
    when ``covers`` says so, and can leave it to loading otherwise. While a page is being loaded it may be
    missing what is stored meanwhile, up to ``_until``: that is covered too. Timers beyond ``reached`` may
    be in memory as well; they are found again when loading comes upon them.
    """

    def __init__(self) -> None:
        self.reached = -1
        """A second since 1970."""
        self.cursor: Place | None = None
        self._until: int | None = None
        """How far the page that is being loaded counts; None when none is."""

    def covers(self, time: int) -> bool:
        """Whether a timer stored now with that time belongs into memory."""
        return time <= self.reached or (self._until is not None and time <= self._until)

    def begin_load(self, until: int) -> None:
        """A page is loaded from ``cursor`` on, up to the second ``until``."""
        self._until = until

    def end_load(self, reached: int, cursor: Place | None) -> None:
        """What of the page is covered has been taken into memory; it ends at ``cursor``.

        :param reached: the second in which the page ends.
        """
        until, self._until = self._until, None
        assert until is not None, "a page is being loaded"
        if until < reached:
            # Cut meanwhile: of what lies behind, not all was taken in. Never below what was reached
            # before, because a cut has moved that too.
            reached, cursor = until, end_of(until)
        self.reached, self.cursor = reached, cursor

    def fail_load(self) -> None:
        """The page did not come."""
        self._until = None

    def cut(self, second: int) -> None:
        """Timers from ``second`` on may be missing from memory: they are to be loaded again."""
        if self.reached >= second:
            self.reached, self.cursor = second - 1, end_of(second - 1)
        if self._until is not None:
            self._until = min(self._until, second - 1)
