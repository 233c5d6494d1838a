"""Runs a transiently failed event again, after a wait that grows."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from prosody.model.backoff import backoff_s
from prosody.model.fields import fields
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome, Refusal
from prosody.model.run import WorkClass

if TYPE_CHECKING:
    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.retry")


class Retry:
    """Retries until success, a permanent failure, a shutdown, or ``max_retries`` retries.

    The permit is not held during a wait: its layer lies inside. The key is: later events of the key
    wait for this one, which is what keeps their order. A refusal was no attempt, so it counts as none:
    the event waits until the time that it names.
    """

    def __init__(
        self,
        base_s: float,
        max_delay_s: float,
        runtime: Runtime,
        storms: Storms,
        max_retries: int | None = None,
    ) -> None:
        self._base_s = base_s
        self._max_delay_s = max_delay_s
        self._runtime = runtime
        self._storm = storms.of(_log)
        self._max_retries = max_retries
        self._again: Call | None = None
        """One more attempt."""
        self.retries = 0
        """Attempts after one that failed."""

    def wrap(self, inner: Call) -> Call:
        async def retried(run: Run) -> Outcome:
            outcome = await inner(run)
            if outcome is SUCCESS:
                return outcome  # nearly all; asking an enum costs more than the rest of this layer
            return await self.ended(run, outcome)

        self._again = inner
        return retried

    async def ended(self, run: Run, outcome: Outcome) -> Outcome:
        """The first attempt has ended: go on as long as it is worth it."""
        assert self._again is not None, "it is in a stack"
        max_retries = self._max_retries
        failures = 0
        while outcome.kind is Kind.TRANSIENT:
            if isinstance(outcome, Refusal):
                delay_s = outcome.until - self._runtime.monotonic()
                going_on = await pause(run, delay_s, outcome.error)
            else:
                failures += 1
                if max_retries is not None and failures > max_retries:
                    self._gave_up(run, failures, outcome)
                    return outcome
                run.work_class = WorkClass.FAILURE
                going_on = await self._back_off(run, failures, outcome)
                self.retries += going_on
            if not going_on:
                return ABANDONED
            outcome = await self._again(run)
        if outcome.kind is Kind.PERMANENT and max_retries is None:
            _log.error(
                "failed permanently, dropped: %s: %r",
                run.where(),
                outcome.error,
                exc_info=outcome.error,
                extra=fields(run),
            )
        return outcome

    async def _back_off(self, run: Run, failures: int, outcome: Outcome) -> bool:
        """Wait out the backoff; False when a shutdown ended it."""
        delay_s = backoff_s(failures, self._base_s, self._max_delay_s, self._runtime.random())
        more = self._storm.allows(logging.WARNING, run)
        if more is not None:
            # The traceback stands in the log once for each event, not once for each attempt.
            _log.warning(
                "attempt %d failed, trying again in %.3g s: %s: %r%s",
                run.attempt,
                delay_s,
                run.where(),
                outcome.error,
                more,
                exc_info=outcome.error if failures == 1 else None,
                extra=fields(run),
            )
        return await pause(run, delay_s, outcome.error)

    def _gave_up(self, run: Run, failures: int, outcome: Outcome) -> None:
        more = self._storm.allows(logging.ERROR, run)
        if more is not None:
            _log.error(
                "gave up after %d attempts: %s: %r%s",
                failures,
                run.where(),
                outcome.error,
                more,
                extra=fields(run),
            )


class Pause(asyncio.Future[bool]):
    """What a run waits for in ``pause``; other waits of a run are plain futures."""

    until: float
    """When the wait ends by itself, on the loop's clock."""
    cause: BaseException | None
    """What it waits because of, as far as that is known."""


async def pause(
    run: Run,
    delay_s: float,
    cause: BaseException | None = None,
    sooner: asyncio.Future[Any] | None = None,
) -> bool:
    """Wait ``delay_s`` seconds outside the handler; False when a shutdown ended the wait.

    Until the end of the wait the run holds no permit.

    :param cause: why it waits, for those who ask.
    :param sooner: what ends the wait too, once it is done.
    """
    run.partition.give_back(run)
    if not run.partition.running:
        return False
    loop = asyncio.get_running_loop()
    waiting = Pause(loop=loop)
    timer = loop.call_later(delay_s, _elapsed, waiting)
    waiting.until, waiting.cause = timer.when(), cause
    run.interruptible = waiting
    if sooner is not None:
        sooner.add_done_callback(lambda _: _elapsed(waiting))
    try:
        return await waiting
    finally:
        timer.cancel()
        run.interruptible = None
        # An error holds its traceback, and that the frames it came through: no circle of them and this.
        waiting.cause = None


def _elapsed(waiting: asyncio.Future[bool]) -> None:
    if not waiting.done():
        waiting.set_result(True)
