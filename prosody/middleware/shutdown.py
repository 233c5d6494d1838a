"""Starts nothing once its partition is given up, and leaves what a shutdown interrupted uncommitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.model.outcome import ABANDONED, Kind, Outcome

if TYPE_CHECKING:
    from prosody.middleware.base import Call
    from prosody.model.run import Run


class Shutdown:
    """Around every attempt: before it, is the partition still running? After it, was it cut short?"""

    def wrap(self, inner: Call) -> Call:
        async def unless_shut_down(run: Run) -> Outcome:
            partition = run.partition
            if not partition.running:
                return ABANDONED
            outcome = await inner(run)
            return unless_cut_short(run, outcome)

        return unless_shut_down


def unless_cut_short(run: Run, outcome: Outcome) -> Outcome:
    """What the end of an attempt counts as."""
    partition = run.partition
    if partition.cancelling:
        if outcome.kind is Kind.TRANSIENT:
            # Perhaps failed only because it was told to stop: the next owner tries again.
            return ABANDONED
        if outcome.kind is Kind.PERMANENT and partition.closed:
            # Left behind: the next owner has it by now, and writes its own dead letter.
            return ABANDONED
    return outcome
