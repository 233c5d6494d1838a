"""Takes the deferred work of a key through the stack again, when its retry timer has fired.

::

    retry timer ─▶ queue of the key ─▶ head: load, take on, stack ─┬▶ done: taken out, next head
                     ▲ none: done                                  ├▶ failed: counted, timer set anew
                     └─────────────────────────────────────────────┘└▶ shutdown: all stays as it is

The run keeps its key through all of it, so nothing of the key comes in between, and its lane; each attempt
waits for its own permit, so a long backlog takes turns with other keys.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from prosody.deferral.delays import delay_s, timer_second
from prosody.errors import BrokerError, StoreError
from prosody.middleware.base import Begin, whole
from prosody.middleware.defer import Postponed, error_text
from prosody.middleware.reload import GivenUpError, about, until_given_up, which
from prosody.middleware.retry import pause
from prosody.model.backoff import backoff_s
from prosody.model.fields import fields
from prosody.model.message import Timer
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from prosody.model.run import WorkClass
from prosody.model.times import utc_from_seconds
from prosody.model.trace import is_attempt_of
from prosody.stores.protocol import DeferredKind, TimerKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.config.options_qos import DeferOptions
    from prosody.deferral.deferrals import Deferrals
    from prosody.middleware.reload import Reload
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Deferred, DeferredQueue, Trace

_log = logging.getLogger("prosody.deferral")

T = TypeVar("T")

AWAITED_S: Final = 1.0
"""How long a deferred message waits at a time whose own record is still to come."""
STORE_WAIT_S: Final = 0.5
STORE_WAIT_S_MAX: Final = 15.0
"""Between two tries of a store operation that failed; full jitter, so half of it on average."""


class Redelivery:
    """What the outermost layer does with the run of a retry timer.

    Nothing of a head that has ended is run again: taking it out of the store is tried until it works or
    the partition is given up.
    """

    def __init__(
        self,
        options: DeferOptions,
        reload: Reload,
        runtime: Runtime,
        storms: Storms,
        admitted: Callable[[Run], None] | None = None,
    ) -> None:
        """:param admitted: told of each message before it goes through the stack."""
        self._base_s = options.defer_base
        self._max_s = options.defer_max_delay
        self._reload = reload
        self._runtime = runtime
        self._admitted = admitted
        self._storm = storms.of(_log)
        self._store_storm = storms.of(_log)
        self.call: Begin | None = None
        """The stack from Deduplication on; set when it is built."""
        self.retried = 0
        """Deferred events taken through the stack."""

    async def __call__(self, run: Run) -> Outcome:
        """``SUCCESS``: nothing is deferred of the key any more. ``DEFERRED``: there is a new timer."""
        partition = run.partition
        partition.give_back(run)
        deferrals = partition.deferrals
        assert run.timer is not None, "a retry timer made this run"
        if deferrals is None:
            more = self._storm.allows(logging.WARNING, run)
            if more is not None:
                _log.warning(
                    "nothing deferred is run in this mode: %s%s",
                    run.where(),
                    more,
                    extra=fields(run),
                )
            return ABANDONED
        of_timers = run.timer.kind is TimerKind.DEFERRED_TIMER
        kind = DeferredKind.TIMER if of_timers else DeferredKind.MESSAGE
        try:
            look = partial(deferrals.queue, kind, run.key)
            queue = await self._persist(run, lambda: until_given_up(run, look))
            while queue is not None:
                if not partition.running:
                    return ABANDONED
                outcome = await self._attempt(run, kind, queue)
                if outcome.kind is Kind.ABANDONED:
                    return outcome
                if outcome.kind is Kind.DEFERRED:
                    await self._again_later(run, kind, queue, outcome, deferrals)
                    return outcome
                queue = await self._next(run, kind, queue.head, deferrals)
        except GivenUpError:
            return ABANDONED
        return SUCCESS

    # -- one event --------------------------------------------------------------------------------

    async def _attempt(self, run: Run, kind: DeferredKind, queue: DeferredQueue) -> Outcome:
        """Take the head through the stack; DEFERRED too when it could not be loaded."""
        head = queue.head
        if kind is DeferredKind.MESSAGE and head.position in run.awaited:
            # The last owner has deferred it and did not commit that, so its own record comes again, and
            # perhaps others of its key before it: those come first, and join the queue.
            return Postponed(None, self._runtime.monotonic() + AWAITED_S)
        run.trace = _trace(run, head)
        if kind is DeferredKind.TIMER:
            run.take_on(None, Timer(run.key, utc_from_seconds(head.position)))
        else:
            try:
                loaded = await self._reload.load(run, head)
            except BrokerError as error:
                # Perhaps it can be read later. Until then nothing of the key may run.
                return Outcome(Kind.DEFERRED, error)
            if loaded is None:
                return SUCCESS
            run.take_on(*loaded)
        if queue.failures:
            run.work_class = WorkClass.FAILURE
        if self._admitted is not None and kind is DeferredKind.MESSAGE:
            self._admitted(run)
        assert self.call is not None, "the stack is built before anything runs"
        self.retried += 1
        outcome = await whole(self.call, run)
        if outcome.kind is Kind.TRANSIENT:
            return Outcome(Kind.DEFERRED, outcome.error)
        return outcome

    # -- the store --------------------------------------------------------------------------------

    async def _next(
        self, run: Run, kind: DeferredKind, done: Deferred, deferrals: Deferrals
    ) -> DeferredQueue | None:
        """Take the head out, which has ended; what is left."""
        left = await self._persist(run, partial(deferrals.done, kind, run.key, done.position))
        if kind is DeferredKind.MESSAGE:
            self._reload.forget(run, done.position)
        return left

    async def _again_later(
        self,
        run: Run,
        kind: DeferredKind,
        queue: DeferredQueue,
        outcome: Outcome,
        deferrals: Deferrals,
    ) -> None:
        """The head stays at the head: set its timer, and count its failure if it was one."""
        wall = self._runtime.wall()
        head = queue.head
        if isinstance(outcome, Postponed):
            failures = queue.failures
            wait_s = max(0.0, outcome.until - self._runtime.monotonic())
        else:
            failures = queue.failures + 1
            wait_s = delay_s(failures, self._base_s, self._max_s, self._runtime.random())
            named = about(run, head.position) if kind is DeferredKind.MESSAGE else fields(run)
            more = self._storm.allows(logging.WARNING, named)
            if more is not None:
                _log.warning(
                    "deferred %s failed for the %d. time, deferred for %.3g s: %s: %r%s",
                    kind.name.lower(),
                    failures,
                    wait_s,
                    which(run, head),
                    outcome.error,
                    more,
                    extra=named,
                )
        at = timer_second(wall, wait_s)
        trace = _trace(run, head)
        await self._persist(run, partial(deferrals.retry_at, kind, run.key, at, trace))
        if failures != queue.failures:
            note = partial(deferrals.failed, kind, run.key, failures, error_text(outcome.error))
            await self._persist(run, note)

    async def _persist(self, run: Run, operation: Callable[[], Awaitable[T]]) -> T:
        """Do a store operation, again and again until it works.

        :raises GivenUpError: the partition was given up first.
        """
        failures = 0
        going_on = True
        while not run.partition.closed:
            try:
                return await operation()
            except StoreError as error:
                # What ran has ended, so only this may be repeated; and the key must wait for it, or
                # its later events would overtake.
                failures += 1
                wait_s = backoff_s(failures, STORE_WAIT_S, STORE_WAIT_S_MAX, self._runtime.random())
                more = self._store_storm.allows(logging.WARNING, run)
                if more is not None:
                    _log.warning(
                        "deferred work cannot be read or written, trying again in %.3g s: %s: %s%s",
                        wait_s,
                        run.where(),
                        error,
                        more,
                        extra=fields(run),
                    )
                if not going_on:
                    break
                # Once more after a shutdown has ended the wait: what is written now runs nowhere twice.
                going_on = await pause(run, wait_s, error)
        raise GivenUpError


def _trace(run: Run, head: Deferred) -> Trace:
    """The trace of a deferred event: that of its first attempt, if it is known.

    What was deferred behind others had none when it was stored. Then its retry timer keeps it.
    """
    if run.trace is not None and is_attempt_of(run.trace, head.position):
        return run.trace
    assert run.timer is not None, "a retry timer made this run"
    if is_attempt_of(run.timer.trace, head.position):
        return run.timer.trace
    return head.trace
