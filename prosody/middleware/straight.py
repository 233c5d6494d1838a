"""The straight way: the first attempt of an ordinary message, without a coroutine for each layer.

::

    begin ──(anything unusual)──▶ the layers, one by one
      │ it has its permit, its key has room and nothing deferred
      ▼
    handler ──(waits for nothing)──▶ charged, reported, counted ──▶ SUCCESS, in the same call
      │ waits                           ▲           │ it failed, or deferral has to look
      └──▶ one generator around it ─────┘           └──▶ what each layer does when an attempt has ended

It decides nothing: before the handler it asks what each layer would look at, and any but the usual answer
sends the run through the layers themselves; what does not simply succeed goes to each layer's own
``ended``. Later attempts, timers (and what they bring back of deferred events) and spans take the layers.
"""

from __future__ import annotations

from math import inf
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any

from prosody._core import first_step, maker
from prosody._core.constants import ENDED
from prosody.middleware.shutdown import unless_cut_short
from prosody.model.context import Context
from prosody.model.outcome import SUCCESS, Outcome
from prosody.model.run import WorkClass
from prosody.stores.protocol import DeferredKind
from prosody.telemetry.buffer import CROWDED_VALUES, LONG_CHARS
from prosody.telemetry.events import DEMANDS, MESSAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence

    from prosody.middleware.base import Begin, Call
    from prosody.middleware.defer import Defer
    from prosody.middleware.invoke import Invoke
    from prosody.middleware.monopolization import Monopolization
    from prosody.middleware.scheduler import Scheduler
    from prosody.middleware.telemetry import Telemetry
    from prosody.model.run import Run

make_context = maker(Context(None), ("_run",), Context)  # type: ignore[arg-type]  # no copy keeps it
"""A context, which every message needs."""


class Straight:
    """Stands for all layers of a stack but Deduplication."""

    def __init__(
        self,
        layers: Call,
        outer: Sequence[Callable[[Run, Outcome], Awaitable[Outcome]]],
        invoke: Invoke,
        scheduler: Scheduler,
        telemetry: Telemetry | None = None,
        monopolization: Monopolization | None = None,
        defer: Defer | None = None,
    ) -> None:
        """
        :param layers: the same layers, each with a call of its own.
        :param outer: what those around Defer do when an attempt has ended, the inner ones first.
        """
        self._layers = layers
        self._outer = outer
        self._invoke = invoke
        self._scheduler = scheduler
        self._telemetry = telemetry
        self._monopolization = monopolization
        self._defer = defer
        self._succeeded = self._success()

    def begins(self, around: Begin | None = None) -> Begin:
        """The call. Its names are bound once, because it is made for every message.

        :param around: the same call with what lies around it for timers and for messages with an ``id``.
        """
        layers = self._layers
        elsewhere = layers if around is None else around
        invoke = self._invoke
        methods = invoke.methods
        spans = None if self._telemetry is None else self._telemetry.spans
        limit_s = inf
        used = None
        if self._monopolization is not None:
            used, limit_s = self._monopolization.meter.used, self._monopolization.limit_s
        meter_begin = self._scheduler.meter_begin
        messages = DeferredKind.MESSAGE
        succeeded, waiting = self._succeeded, self._waiting
        settled, failed = self._settled, self._failed

        def begin(run: Run) -> Outcome | Awaitable[Outcome]:
            if run.timer is not None or (around is not None and run.duplicate is not None):
                return elsewhere(run)
            event, partition, place = run.event, run.partition, run.place
            deferrals = partition.deferrals
            if (
                event is None
                # What has one comes for the first time: it goes with the end of an attempt.
                or not run.permit
                or not partition.running
                or (
                    deferrals is not None
                    and deferrals.message_hashes
                    and deferrals.holds(messages, run.key)
                )
                or (spans is not None and spans.live)
                # The permit is so new that its time stands for now.
                or (used is not None and used(place, run.began) > limit_s)
            ):
                return layers(run)
            if meter_begin is not None:
                meter_begin(place, run.began)
            context = run.context = make_context(run)
            run.attempt = 1
            run.handling = True
            try:
                method = methods[type(event)]
                pending = method(context, event)
                if type(pending) is not CoroutineType:
                    pending = invoke.awaiting(method, pending)
                waited = first_step(pending)
            except BaseException as error:  # noqa: BLE001  # passed on, or raised again
                return failed(run, error)
            if waited is not ENDED:
                return waiting(run, pending, waited)
            # A handler that waits for nothing ends here.
            run.handling = False
            if run.task.cancelling():  # type: ignore[union-attr]  # it is in a lane
                return settled(run, SUCCESS)
            return succeeded(run)

        return begin

    @coroutine
    def _waiting(
        self, run: Run, pending: Coroutine[Any, Any, Any], waited: Any
    ) -> Generator[Any, Any, Outcome]:
        """Go on with a handler that waits for ``waited``, as ``await`` would."""
        try:
            while True:
                try:
                    yield waited
                except GeneratorExit:
                    pending.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001  # whatever it is, it is for the handler
                    waited = pending.throw(thrown)
                else:
                    yield from pending  # a coroutine, of which a part has run
                    break
        except StopIteration:
            pass  # the handler took what was thrown at it, and ended
        except BaseException as error:  # noqa: BLE001  # passed on, or raised again
            return (yield from self._failed(run, error))  # type: ignore[no-any-return]
        run.handling = False
        if run.task.cancelling():  # type: ignore[union-attr]  # it is in a lane
            return (yield from self._settled(run, SUCCESS))  # type: ignore[no-any-return]
        done = self._succeeded(run)
        return done if isinstance(done, Outcome) else (yield from done)  # type: ignore[misc]

    async def _failed(self, run: Run, error: BaseException) -> Outcome:
        """The handler was left by ``error``."""
        run.handling = False
        outcome = self._invoke.failed(run, error)
        if outcome is None:
            self._scheduler.ended(run, None)
            raise error
        return await self._settled(run, outcome)

    async def _settled(self, run: Run, outcome: Outcome) -> Outcome:
        """The handler has ended; a cancellation that was meant for it may still be under way."""
        assert run.task is not None, "a handler runs in a lane"
        if run.task.cancelling():
            try:
                await self._invoke.absorb(run.task)
            except BaseException:
                self._scheduler.ended(run, None)
                raise
        if outcome is SUCCESS:
            done = self._succeeded(run)
            return done if isinstance(done, Outcome) else await done
        now = self._scheduler.ended(run, outcome)
        if self._telemetry is not None:
            self._telemetry.ended(run, outcome, now)
        return await self._rest(run, outcome)

    def _success(self) -> Begin:
        """What follows a handler that has ended well; its names are bound like those of ``begins``.

        This is ``Scheduler.ended``, ``Telemetry.ended`` and ``Defer.succeeded``, spelt out: their calls
        would cost every message as much as what they do.
        """
        scheduler, defer, telemetry = self._scheduler, self._defer, self._telemetry
        charge, meter_end = scheduler.heap.complete, scheduler.meter_end
        monotonic = scheduler.monotonic
        values, told = (None, None) if telemetry is None else (telemetry.values, telemetry.told)
        demand = DEMANDS[WorkClass.NORMAL]
        gate, counts = (None, False) if defer is None else (defer.gate, defer.counts)
        rest = self._rest

        def succeeded(run: Run) -> Outcome | Awaitable[Outcome]:
            now = scheduler.latest = monotonic()
            run.permit = False
            place, partition, began = run.place, run.partition, run.began
            used_s = now - began
            if used_s < 0.0:  # noqa: PLR1730  # max is a call
                used_s = 0.0
            charge(place, used_s, now)
            if meter_end is not None:
                meter_end(place, now)
            scheduler.free += 1  # the lane takes what is next itself, unless it waits for the rest
            if scheduler.note is not None:
                scheduler.note(run, used_s, SUCCESS)
            if values is not None:
                key = run.key
                if (told and run in told) or len(key) > LONG_CHARS:
                    telemetry.ended(run, SUCCESS, now)  # type: ignore[union-attr]  # it has values
                else:
                    offset = run.record.offset  # type: ignore[union-attr]  # not of a timer
                    tp = partition.topic_partition
                    values.extend((demand, began, MESSAGE, tp, offset, key, now))
                    if len(values) >= CROWDED_VALUES:
                        telemetry.crowded()  # type: ignore[union-attr]
            deferrals = partition.deferrals
            if deferrals is not None and gate is not None:
                if gate.closed or deferrals.uncertain.events:
                    scheduler.look_soon()
                    return rest(run, SUCCESS)
                if counts:
                    gate.window.record(False, now)
            return SUCCESS

        return succeeded

    async def _rest(self, run: Run, outcome: Outcome) -> Outcome:
        """What the layers outside the scheduler do."""
        outcome = unless_cut_short(run, outcome)
        deferrals = run.partition.deferrals
        if deferrals is not None and self._defer is not None:
            outcome = await self._defer.ended(run, DeferredKind.MESSAGE, outcome, deferrals)
        for ended in self._outer:
            outcome = await ended(run, outcome)
        return outcome
