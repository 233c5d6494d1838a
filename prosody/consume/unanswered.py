"""Runs whose turn waits for an answer of the store: was their message handled before?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.model.run import Run
    from prosody.stores.answer import StoreAnswer


class Unanswered:
    """Of one partition: each the first of its key, without a place in the scheduler, a permit or a lane.

    A lane that took such a run would only wait in its place, and another one would have to be made for
    the next run; with a store that answers in milliseconds that costs more than all else of a message.
    """

    def __init__(self, answered: Callable[[Run], None]) -> None:
        """:param answered: told of a run that waits no longer."""
        self._answered = answered
        self._listener = self._ended
        self.runs: set[Run] = set()

    def hold(self, run: Run) -> bool:
        """Whether ``run``, which deduplication knows something of, has to wait."""
        asked = run.duplicate.asked
        if asked is None or asked.done() or run.duplicate.finished:
            return False
        self.runs.add(run)
        asked.about = run
        asked.listener = self._listener
        return True

    def release(self, run: Run) -> bool:
        """Let go of ``run``, whose partition ends; whether it was held."""
        if run not in self.runs:
            return False
        self.runs.discard(run)
        asked = run.duplicate.asked
        # Else the two held on to each other, and to a look-up that nobody waits for any more.
        asked.about = asked.listener = None
        return True

    def _ended(self, asked: StoreAnswer[bool]) -> None:
        run: Run = asked.about
        # Answered, failed or cancelled: what that means is looked at when the run has its turn.
        self.runs.discard(run)
        self._answered(run)
