"""How far an assignment of a partition has come: what is finished, and what of it is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prosody._core import OffsetTracker
from prosody._core.offset_set import MAX_TEXT, decode_finished
from prosody.broker.protocol import Start
from prosody.consume.remembered import encode_runs, remembered

if TYPE_CHECKING:
    from prosody.consume.remembered import Remembered
    from prosody.model.fields import Fields

METADATA_MAX = 4096
"""Characters of metadata that a commit may carry: what a broker takes unless configured otherwise."""

ADMISSION_CHARS = 22
"""What one admission adds to the encoding at most; see ``OffsetTracker.encoded_length``."""


class Reached(NamedTuple):
    """What was finished at some moment of an assignment; equal only if nothing finished in between."""

    offset: int
    ahead: int
    """Finished beyond ``offset``, without those that were known to be when the assignment began."""


class Progress:
    """The offsets of one assignment.

    What earlier owners noted as finished, and has not come yet, counts as finished all along: it is in
    each text that goes out, so it is not forgotten when the partition moves on before it came.
    """

    def __init__(self, name: str, start: Start, about: Fields | None = None) -> None:
        """``name`` and ``about`` are the partition's, for logs."""
        self.tracker = OffsetTracker()
        self._start = start
        self._remembered: Remembered | None = remembered(name, start, about)
        self._recalled = 0
        """Offsets of the tracker that are finished ahead because they were remembered."""
        used = self._remembered is not None or not start.metadata
        # A note that is not used is replaced by the next commit, even when nothing moves: in a log
        # that was made anew it could look right later on.
        self.committed: Reached | None = Reached(start.offset, 0) if used else None
        """What was committed last; at first, where the assignment began."""

    # Called by the admission

    @property
    def last_received(self) -> int:
        """The highest offset admitted; before any, the one before the start."""
        last = self.tracker.last_admitted
        return self._start.offset - 1 if last is None else last

    @property
    def awaited(self) -> range:
        """The offsets that were in the log at the start, and have not been admitted yet."""
        return range(self.last_received + 1, self._start.end)

    @property
    def known_end(self) -> int:
        """The log ended here or later when it was last seen: at the start, or by what was received."""
        return max(self._start.end, self.last_received + 1)

    @property
    def recalls(self) -> bool:
        """Whether something may come that is finished already."""
        return self._remembered is not None

    def recall(self, offset: int) -> bool:
        """Whether ``offset``, just admitted, was finished by an earlier owner; then it is done."""
        found = self._remembered
        if found is None or offset not in found:
            if found is not None and offset >= found.end:
                self._remembered = None  # all of it is behind, and in the tracker
            return False
        if not self.tracker.complete(offset):
            self._recalled += 1
        return True

    def admissible(self, max_length: int) -> int:
        """How many records may be admitted, until this is asked again, so that the set fits.

        Whatever then completes in whatever order, ``text(max_length)`` leaves nothing out.
        """
        tracker = self.tracker
        length = tracker.encoded_length()
        found = self._remembered
        if found is not None and (left := found.end - 1 - self.last_received) > 0:
            if found.most <= max_length:
                # Up to there, whatever finishes only makes shorter what was within the limit before.
                return left
            length += found.length_beyond(self.offset)
        count = (max_length - length) // ADMISSION_CHARS
        # Alone, a record always goes on: there must be a way to make what was remembered shorter.
        return max(count, 0 if tracker.outstanding else 1)

    # Called by the committer and the assignment

    @property
    def offset(self) -> int:
        """Where the next owner is to begin: everything below is finished."""
        committable = self.tracker.committable
        offset = self._start.offset if committable is None else committable
        return offset if self._remembered is None else self._remembered.past(offset)

    @property
    def reached(self) -> Reached:
        """How far it has come now."""
        return Reached(self.offset, self.tracker.finished_ahead - self._recalled)

    def to_commit(self) -> Reached | None:
        """What to commit now; None when nothing has changed since the last commit."""
        reached = self.reached
        return None if reached == self.committed else reached

    def text(self, max_length: int) -> str:
        """What is finished beyond ``offset``, as it is now, for the metadata of a commit."""
        tracker = self.tracker
        if self._remembered is None:
            return tracker.encode_finished(max_length)
        offset = self.offset
        committable = tracker.committable
        runs = list(self._remembered.beyond(offset))
        if committable is not None:
            runs += decode_finished(tracker.encode_finished(MAX_TEXT), committable)
        return encode_runs(offset, runs, max_length)

    def begin_again(self) -> Start:
        """A start for another assignment of this very log, that runs nothing twice."""
        return Start(self.offset, self.text(MAX_TEXT), self.known_end)
