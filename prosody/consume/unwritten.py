"""Runs that have ended while something about them is still on its way to a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prosody.consume.partition import Partition
    from prosody.model.run import Run


class Unwritten:
    """Of one partition: their keys are free, their offsets are done once that is written."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.runs: set[Run] = set()
        self._looking = False
        """An admission is due at the next turn of the loop."""

    def written(self, run: Run) -> None:
        """It is written, or will never be."""
        run.unwritten = False
        if run not in self.runs:
            return  # it has not ended yet, and then leaves nothing unwritten; or it was given up
        self._complete(run)
        self.runs.discard(run)
        if not self._looking:
            # At the next turn: many writes end together, and one admission for all costs less.
            self._looking = True
            self._partition.loop.call_soon(self._look)

    def give_up(self) -> None:
        """The partition ends, and the store has taken too long.

        The runs were handled, and shall not run again because of it. What may be missing now is only
        what would tell a copy of them.
        """
        for run in self.runs:
            self._complete(run)
        self.runs.clear()

    def _complete(self, run: Run) -> None:
        assert run.record is not None, "a timer leaves nothing unwritten"
        self._partition.tracker.complete(run.record.offset)

    def _look(self) -> None:
        self._looking = False
        self._partition.admit()
