"""What earlier owners of a partition finished ahead of the committed offset, as they noted it."""

from __future__ import annotations

import logging
from bisect import bisect_right
from typing import TYPE_CHECKING

from prosody._core import OffsetTracker
from prosody._core.offset_set import FRAME, VERSION, decode_finished

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prosody.broker.protocol import Start
    from prosody.model.fields import Fields

_log = logging.getLogger("prosody.partition")


class Remembered:
    """Runs of finished offsets that are yet to come: ``(start, end)``, ``end`` not included."""

    def __init__(self, committed: int, runs: Sequence[tuple[int, int]]) -> None:
        """``runs`` as ``decode_finished`` gives them; at least one."""
        self._runs = runs
        self._ends = [end for _, end in runs]
        bits = halves = 0
        needs = [0]
        for (start, end), before in zip(
            reversed(runs), [*reversed(self._ends[:-1]), committed], strict=True
        ):
            # One bit for each unfinished offset in front of the run but the last, which spans it.
            alone, spanned = start - before - 1, end - start + 1
            of_run = 2 * spanned.bit_length() - 1
            bits += alone + of_run
            needs.append(bits)
            # Distances that become one take at most half a bit more for each that is one less than a
            # power of two: the two 1 of a 2, which take a bit each, are "010".
            halves += 3 * alone + 2 * of_run + (spanned & spanned + 1 == 0)
        self._needs = needs[::-1]
        """Bits that the encoding of each run and all behind it takes."""
        self.most = FRAME - (-halves // 12)
        """Characters that suffice whatever of what lies between the runs finishes, in whatever order."""

    @property
    def end(self) -> int:
        """One past the highest offset."""
        return self._ends[-1]

    def __contains__(self, offset: int) -> bool:
        return self.past(offset) != offset

    def past(self, offset: int) -> int:
        """``offset``, or the end of the run that it lies in."""
        at = bisect_right(self._ends, offset)
        inside = at < len(self._runs) and self._runs[at][0] <= offset
        return self._ends[at] if inside else offset

    def beyond(self, offset: int) -> Sequence[tuple[int, int]]:
        """The runs that do not end before ``offset``."""
        return self._runs[bisect_right(self._ends, offset) :]

    def length_beyond(self, offset: int) -> int:
        """Characters that suffice to note those runs beside others."""
        bits = self._needs[bisect_right(self._ends, offset)]
        return FRAME - (-bits // 6) if bits else 0


def remembered(name: str, start: Start, about: Fields | None = None) -> Remembered | None:
    """What the note at ``start`` says is finished; None when there is none that can be used.

    It counts only at exactly the offset that it was committed with, and only if all that it names
    is in the log: else the log is another one than it was written for.

    :param about: what log lines are about.
    """
    text = start.metadata
    if not text:
        return None
    if text[0] != VERSION:
        _log.debug(
            "%s: the committed metadata is not this library's: %.40r", name, text, extra=about
        )
        return None
    try:
        runs = decode_finished(text, start.offset)
    except ValueError as error:
        # Dropped, what it named runs once more: that is less harm than skipping what never ran.
        _log.warning("%s: %s", name, error, extra=about)
        return None
    found = Remembered(start.offset, runs)
    if found.end > start.end:
        _log.warning(
            "%s: the committed metadata names offsets up to %d, but the log ends at %d: it was cut "
            "off or made anew, so the metadata is not used",
            name,
            found.end - 1,
            start.end,
            extra=about,
        )
        return None
    return found


def encode_runs(offset: int, runs: Iterable[tuple[int, int]], max_length: int) -> str:
    """``runs`` beyond ``offset``, which may overlap, as ``OffsetTracker.encode_finished`` writes them.

    ``offset`` itself lies in none of them.
    """
    tracker = OffsetTracker()
    at = offset
    for start, end in sorted(runs):
        for unfinished in range(at, start):
            tracker.admit(unfinished, 0.0)
        at = max(at, end)
    if at == offset:
        return ""
    tracker.admit(at - 1, 0.0)  # what it spans counts as finished with it
    tracker.complete(at - 1)
    return tracker.encode_finished(max_length)
