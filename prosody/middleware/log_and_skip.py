"""Best effort: what fails is logged, once, and done with."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prosody.model.fields import fields
from prosody.model.outcome import Kind, Outcome

if TYPE_CHECKING:
    from prosody.middleware.base import Call
    from prosody.model.run import Run

_log = logging.getLogger("prosody.best_effort")


class LogAndSkip:
    """Turns every failure into the end of the message. The log line is its only trace."""

    def wrap(self, inner: Call) -> Call:
        async def logged(run: Run) -> Outcome:
            return await self.ended(run, await inner(run))

        return logged

    async def ended(self, run: Run, outcome: Outcome) -> Outcome:
        """The attempt has ended."""
        kind = outcome.kind
        if kind is Kind.TRANSIENT or kind is Kind.PERMANENT:
            _log.error(
                "message lost, its handler failed (%s) and best-effort mode does not retry: %s: %r",
                kind.value,
                run.where(),
                outcome.error,
                exc_info=outcome.error,
                extra=fields(run),
            )
            return Outcome(Kind.PERMANENT, outcome.error)
        return outcome
