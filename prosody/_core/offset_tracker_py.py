"""The offset tracker in pure Python: the twin of ``offset_tracker_c.pyx``, text by text."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Never, NoReturn, Self, final

MAX_OFFSET = 2**63 - 1


@final
class OffsetTracker:
    """Completions in any order become one committable offset; see ``protocols.OffsetTracker``.

    Only outstanding offsets are stored, so what finished behind a long-running head costs nothing
    at all. Each carries its ordinal, the count of offsets admitted before it: what was admitted
    from the head on and is not outstanding has finished ahead.

    An ``OrderedDict`` and not a dict, whose first key costs a walk over all that was deleted before
    it. State is made in ``__new__``, so that there is no half-made tracker to be had.
    """

    __slots__ = ("__weakref__", "_admitted", "_committable", "_last_admitted", "_outstanding")

    _admitted: int
    _committable: int | None
    _last_admitted: int
    _outstanding: OrderedDict[int, tuple[int, float]]

    def __new__(cls, *arguments: Never, **named: Never) -> Self:
        if arguments or named:
            raise TypeError("OffsetTracker() takes no arguments")
        self = object.__new__(cls)
        self._outstanding = OrderedDict()
        self._admitted = 0
        self._committable = None
        self._last_admitted = -1
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(f"type '{__name__}.OffsetTracker' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("an OffsetTracker is live state: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return (
            f"OffsetTracker(committable={self._committable}, outstanding={self.outstanding}, "
            f"finished_ahead={self.finished_ahead}, last_admitted={self.last_admitted})"
        )

    @property
    def committable(self) -> int | None:
        """The lowest offset not finished, or one past the last admitted; None before any."""
        return self._committable

    @property
    def outstanding(self) -> int:
        """Offsets admitted and not finished."""
        return len(self._outstanding)

    @property
    def finished_ahead(self) -> int:
        """Offsets finished that lie beyond the committable one."""
        for ordinal, _ in self._outstanding.values():
            return self._admitted - ordinal - len(self._outstanding)
        return 0

    @property
    def last_admitted(self) -> int | None:
        """The highest offset admitted; None before any."""
        return self._last_admitted if self._admitted else None

    def admit(self, offset: int, now: float) -> None:
        """Start to track ``offset``, received at ``now`` (seconds, which may go back).

        :raises TypeError: when ``offset`` is no int (or a bool), or ``now`` no float or int.
        :raises ValueError: when ``offset`` is negative, not above the last admitted one or above
            2**63 - 1, or ``now`` is not finite.
        """
        if type(offset) is not int:
            raise TypeError(f"admit: offset must be an int, not {type(offset).__name__}")
        if type(now) is not float:
            if type(now) is not int:
                raise TypeError(f"admit: now must be a float, not {type(now).__name__}")
            now = _to_float(now)
        if not -inf < now < inf:
            raise ValueError(f"admit: now must be finite, not {now!r}")
        if not self._last_admitted < offset <= MAX_OFFSET:
            self._refuse(offset)
        outstanding = self._outstanding
        if not outstanding:
            self._committable = offset
        outstanding[offset] = (self._admitted, now)
        self._admitted += 1
        self._last_admitted = offset

    def complete(self, offset: int) -> bool:
        """``offset`` is finished. True when the committable offset moved.

        :raises TypeError: when ``offset`` is no int, or a bool.
        :raises ValueError: when ``offset`` was never admitted, or is finished already.
        """
        if type(offset) is not int:
            raise TypeError(f"complete: offset must be an int, not {type(offset).__name__}")
        outstanding = self._outstanding
        if offset not in outstanding:
            raise ValueError(
                f"complete: offset {_shown(offset)} is not outstanding: it was never admitted or "
                f"is finished already (committable {self._committable}, "
                f"last admitted {self.last_admitted})"
            )
        del outstanding[offset]
        if offset != self._committable:
            return False
        self._committable = next(iter(outstanding), self._last_admitted + 1)
        return True

    def oldest(self) -> tuple[int, float] | None:
        """The lowest outstanding offset and when it was admitted; None when nothing is."""
        for offset, (_, admitted_at) in self._outstanding.items():
            return offset, admitted_at
        return None

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        offsets = list(self._outstanding)
        ordinals = [ordinal for ordinal, _ in self._outstanding.values()]
        _require(offsets == sorted(offsets), "the outstanding offsets are out of order")
        _require(ordinals == sorted(set(ordinals)), "the ordinals are out of order")
        _require(all(0 <= ordinal < self._admitted for ordinal in ordinals), "ordinal range")
        _require(all(0 <= offset <= self._last_admitted for offset in offsets), "offset range")
        _require(0 <= self.finished_ahead <= self._admitted, "finished_ahead does not add up")
        if not self._admitted:
            _require(self._committable is None, "committable without an admission")
            _require(self._last_admitted == -1, "last_admitted without an admission")
        elif offsets:
            _require(self._committable == offsets[0], "committable is not the lowest outstanding")
        else:
            _require(self._committable == self._last_admitted + 1, "committable is not one past")

    def _refuse(self, offset: int) -> NoReturn:
        if not 0 <= offset <= MAX_OFFSET:
            raise ValueError(
                f"admit: offset must lie between 0 and {MAX_OFFSET}, not {_shown(offset)}"
            )
        raise ValueError(
            f"admit: offset {offset} is not above the last admitted one, {self._last_admitted}"
        )


def _to_float(now: int) -> float:
    try:
        return float(now)
    except OverflowError:
        # Refused like the infinity that it rounds to.
        return inf if now > 0 else -inf


def _shown(offset: int) -> str:
    # Python refuses to write out an int of thousands of digits, and nobody would read it.
    return str(offset) if offset.bit_length() <= 64 else f"an int of {offset.bit_length()} bits"


def _require(holds: bool, message: str) -> None:
    # Not an assert statement: python -O would drop that, and the check is all this is for.
    if not holds:
        raise AssertionError(f"OffsetTracker: {message}")
