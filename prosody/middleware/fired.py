"""Around the whole stack of a timer that has fired: is it still wanted, and when is it done with?"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from prosody.middleware.base import Begin, whole
from prosody.middleware.retry import pause
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from prosody.stores.protocol import TimerKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.model.run import Run
    from prosody.timers.due import DueTimer


class Fired:
    """Begins a timer when its run's turn has come, and ends it before its key is free.

    What fails for good (a permanent failure, one that was logged or sent to the failure topic) is done
    with like what succeeds: the timer does not fire again. Only an abandoned one stays for the next owner.
    """

    def __init__(self, redeliver: Callable[[Run], Awaitable[Outcome]] | None) -> None:
        """:param redeliver: runs what is deferred of the key; None where nothing is ever deferred."""
        self._redeliver = redeliver

    def wrap(self, inner: Begin) -> Begin:
        def fired(run: Run) -> Outcome | Awaitable[Outcome]:
            if run.timer is None:
                return inner(run)
            return self._run(run, run.timer, inner)

        return fired

    async def _run(self, run: Run, timer: DueTimer, inner: Begin) -> Outcome:
        """Take a timer's run through the stack.

        A lane that is struck by a handler's late cancellation is replaced by another, which runs this
        again: the timer is firing then already, or even handled.
        """
        outcome = SUCCESS
        try:
            if not timer.handled:
                if not timer.begin():
                    return SUCCESS  # cancelled while it waited behind its key
                outcome = await self._call(run, timer, inner)
                if outcome.kind is Kind.ABANDONED:
                    timer.abort()
                    return outcome
            if run.permit:  # it ended without its handler
                run.partition.give_back(run)
            if not await timer.end(partial(pause, run)):
                return ABANDONED
        except asyncio.CancelledError:
            if not run.partition.running:
                timer.abort()
            raise
        except BaseException:
            # A fault of ours, by which the assignment ends: the next one runs the timer.
            timer.abort()
            raise
        return outcome

    def _call(self, run: Run, timer: DueTimer, inner: Begin) -> Awaitable[Outcome]:
        if timer.kind is TimerKind.APPLICATION:
            return whole(inner, run)
        assert self._redeliver is not None, "retry timers fire only where something is deferred"
        return self._redeliver(run)
