"""The offset tracker in pure Python: the twin of ``offset_tracker_c.pyx``, text by text."""

from __future__ import annotations

from binascii import b2a_base64
from collections import OrderedDict
from itertools import chain, islice, pairwise
from math import inf
from operator import sub
from typing import TYPE_CHECKING, Never, NoReturn, Self, final

from prosody._core.offset_set import END_OF_OFFSETS, FRAME, MAX_TEXT, sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_OFFSET = END_OF_OFFSETS - 1


@final
class OffsetTracker:
    """Completions in any order become one committable offset; see ``protocols.OffsetTracker``.

    Only outstanding offsets are stored, so what finished behind a long-running head costs nothing
    at all. Each carries its ordinal, the count of offsets admitted before it: what was admitted
    from the head on and is not outstanding has finished ahead.

    An ``OrderedDict`` and not a dict, whose first key costs a walk over all that was deleted before
    it. State is made in ``__new__``, so that there is no half-made tracker to be had.

    ``_needed`` is the length of the encoding in bits, at worst, as it was counted at ``_counted``
    admissions, and what holes in the offsets admitted since can add. It is not counted again before
    ``_count_at`` admissions and completions.
    """

    __slots__ = (
        "__weakref__",
        "_admitted",
        "_committable",
        "_count_at",
        "_counted",
        "_last_admitted",
        "_needed",
        "_outstanding",
    )

    _admitted: int
    _count_at: int
    _counted: int
    _needed: int
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
        self._needed = self._counted = self._count_at = 0
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
        if offset != self._last_admitted + 1 or offset > MAX_OFFSET:
            if not self._last_admitted < offset <= MAX_OFFSET:
                self._refuse(offset)
            self._needed += 2 * (offset - self._last_admitted - 1).bit_length()
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

    def encode_finished(self, max_length: int) -> str:
        """The offsets finished beyond the committable one, as text; see ``offset_set``.

        At most ``max_length`` characters: the lowest offsets, as many as fit. ``""`` when none do, or
        when nothing is finished ahead.

        :raises TypeError: when ``max_length`` is no int, or a bool.
        :raises ValueError: when ``max_length`` is negative.
        """
        if type(max_length) is not int:
            raise TypeError(
                f"encode_finished: max_length must be an int, not {type(max_length).__name__}"
            )
        if max_length < 0:
            raise ValueError(
                f"encode_finished: max_length must not be negative, not {_shown(max_length)}"
            )
        committed = self._committable
        if committed is None or not self.finished_ahead:
            return ""
        body = _packed(self._distances(), 6 * (min(max_length, MAX_TEXT) - FRAME))
        return sealed(body, committed) if body else ""

    def encoded_length(self) -> int:
        """Characters that suffice for all finished ahead, whatever completes before more is admitted.

        An upper bound: what the outstanding could come to need in the worst order of completion. It
        is counted anew after half as many calls as are outstanding; until then what was
        admitted since is added and what was completed not taken off. An admission adds at most 22
        characters, that of the next offset at most 1. 0 when nothing is outstanding.
        """
        count = len(self._outstanding)
        bits = self._needed_at_most()
        calls = 2 * self._admitted - count
        if calls >= self._count_at or count == 0:
            # The older count may be the lower one: it holds for any order of completion.
            bits = min(bits, self._bits_of_all() + count // 2)
            self._needed = bits
            self._counted = self._admitted
            self._count_at = calls + count // 2
        return FRAME + -(-bits // 6) if bits else 0

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
        _require(0 <= self._counted <= self._admitted, "counted what was not admitted")
        _require(self._bits_of_all() <= self._needed_at_most(), "the encoding outgrew its bound")

    def _distances(self) -> Iterator[int]:
        """From each outstanding offset to the next, up to the last in which something finished."""
        stop, ordinal_of_stop = self._last_admitted + 1, self._admitted
        count = len(self._outstanding)
        for offset, (ordinal, _) in reversed(self._outstanding.items()):
            if ordinal_of_stop - ordinal > 1:
                break
            stop, ordinal_of_stop = offset, ordinal
            count -= 1
        offsets = chain(islice(self._outstanding, count), (stop,))
        return (after - offset for offset, after in pairwise(offsets))

    def _bits_of_all(self) -> int:
        """What all distances take now, those with nothing finished in them too."""
        offsets = [*self._outstanding, self._last_admitted + 1]
        digits = sum(map(int.bit_length, map(sub, offsets[1:], offsets)))
        return 2 * digits - self.outstanding

    def _needed_at_most(self) -> int:
        """Bits that suffice for the encoding, whatever completes before more is admitted.

        A completion makes one distance of two, which takes more only if both were short: of k
        distances that become one, the bits grow by at most k // 2 in all. So half a bit for each
        distance there was makes the sum safe for good: 1.5 bits for one more offset. A hole before
        it, taken for a distance of its own, was added by ``admit``: twice its binary digits.
        """
        return self._needed + (3 * (self._admitted - self._counted) + 1) // 2

    def _refuse(self, offset: int) -> NoReturn:
        if not 0 <= offset <= MAX_OFFSET:
            raise ValueError(
                f"admit: offset must lie between 0 and {MAX_OFFSET}, not {_shown(offset)}"
            )
        raise ValueError(
            f"admit: offset {offset} is not above the last admitted one, {self._last_admitted}"
        )


def _packed(distances: Iterable[int], room: int) -> str:
    """The distances as digits of base64, as many as ``room`` bits hold, the last cut to fit."""
    codes = []
    used = fitting = 0
    for distance in distances:
        code = f"{distance:0{2 * distance.bit_length() - 1}b}"
        if used + len(code) > room:
            # The largest number that fits is all ones.
            digits = (room - used + 1) // 2
            if digits > 1:
                codes.append("0" * (digits - 1) + "1" * digits)
                fitting = len(codes)
            break
        codes.append(code)
        used += len(code)
        if distance > 1:
            fitting = len(codes)
    bits = "".join(codes[:fitting])
    if not bits:
        return ""
    octets = -(-len(bits) // 24) * 3
    packed = int(bits.ljust(8 * octets, "0"), 2).to_bytes(octets, "big")
    return b2a_base64(packed, newline=False)[: -(-len(bits) // 6)].decode("ascii")


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
