"""The innermost call: runs the user's handler and says how that ended."""

from __future__ import annotations

import asyncio
import contextlib
from types import coroutine
from typing import TYPE_CHECKING, Any

from prosody.errors import HandlerTypeError
from prosody.model.context import Context
from prosody.model.message import ExciseMessage, Message, Timer
from prosody.model.outcome import SUCCESS, Kind, Outcome, outcome_of
from prosody.model.run import shorten
from prosody.runtime import give_way

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from prosody.model.handler import HandlerMethods
    from prosody.model.run import Run


class Invoke:
    """Calls ``on_message``, ``on_timer`` or ``on_excise``; its ``call`` is the end of every stack."""

    def __init__(self, methods: HandlerMethods, torn_down: Callable[[], bool]) -> None:
        self.methods: dict[type, Any] = {
            Message: methods.on_message,
            Timer: methods.on_timer or self._no_on_timer,
            ExciseMessage: methods.on_excise,
        }
        """What is called, by the type of the event. Whoever traces handlers replaces them here."""
        self._name = methods.name
        self._torn_down = torn_down
        """Whether all tasks of the loop are being cancelled, as ``asyncio.run`` does at its end."""

    async def call(self, run: Run) -> Outcome:
        event = run.event
        if event is None:
            # Undecodable: only stacks with a dead-letter topic let such a run come this far.
            return Outcome(Kind.PERMANENT, run.error)
        method = self.methods[type(event)]
        context = run.context
        if context is None:
            context = run.context = Context(run)
        run.attempt += 1
        run.cancelled = False
        task = run.task
        assert task is not None, "a stack runs in a lane's task"
        run.handling = True
        try:
            pending = method(context, event)
            if hasattr(pending, "__await__"):
                if run.attempt > 1 or run.redelivered:
                    # The lane's own context may hold what an earlier handler of this run left in it.
                    pending = _in_context(run.partition.fresh_context(), _awaited(pending))
                await pending
                outcome = SUCCESS
            else:
                outcome = Outcome(Kind.TRANSIENT, self.not_async(method, pending))
        # Nothing a handler raises may leave its offset stuck, sys.exit() included.
        except BaseException as error:
            failed = self.failed(run, error)
            if failed is None:
                raise
            outcome = failed
        finally:
            run.handling = False
        if task.cancelling():
            await self.absorb(task)
        return outcome

    def failed(self, run: Run, error: BaseException) -> Outcome | None:
        """What an error out of the handler means; None when it is not the handler's, and must go on."""
        if isinstance(error, asyncio.CancelledError):
            if self._torn_down():
                return None  # the whole loop is going down: not ours to hold up
            # Else our own cancellation has arrived, or the handler cancelled itself or let a
            # cancelled child's error through: all of them failures that a retry may mend.
            return Outcome(Kind.TRANSIENT, _cancellation_error(run, error))
        if _is_from_outside(run, error):
            return None
        return outcome_of(error)

    async def absorb(self, task: asyncio.Task[Any]) -> None:
        """Take back the cancellations of an attempt that has ended, so that the stack can go on.

        A handler may end before the cancellation reaches it, or swallow it. An undelivered one would
        strike at the stack's next await; letting the loop turn once delivers it here.
        """
        if self._torn_down():
            # The handler swallowed the loop's end; the stack must not go on to its next attempt.
            raise asyncio.CancelledError
        # Requested for the attempt that is over, and no await of its is left to take it.
        with contextlib.suppress(asyncio.CancelledError):
            await give_way()
        while task.cancelling():
            task.uncancel()

    async def _no_on_timer(self, _: Context, timer: Timer) -> None:
        # An ordinary failure, so a transient one: what was set by a version of the handler that has the
        # method, or is to be run by the next one, is not lost. The log says what is missing.
        raise HandlerTypeError(
            f"a timer fired for key {shorten(timer.key)}, but {self._name} has no on_timer: add "
            "'async def on_timer(self, context, timer)'"
        )

    def awaiting(self, method: Any, returned: object) -> Coroutine[Any, Any, Any]:
        """What a method returned that is no coroutine, as one: waits for it, or raises that it cannot."""
        if hasattr(returned, "__await__"):
            return _awaited(returned)
        raise self.not_async(method, returned)

    def not_async(self, method: Any, returned: object) -> HandlerTypeError:
        """The error for a method that returned nothing to wait for."""
        name = getattr(method, "__name__", "on_message")
        return HandlerTypeError(
            f"{self._name}.{name} must be an async method; it returned {returned!r} "
            "instead of a coroutine"
        )


async def _awaited(awaitable: Awaitable[Any]) -> None:
    await awaitable


@coroutine
def _in_context(
    context: contextvars.Context, handler: Coroutine[Any, Any, None]
) -> Generator[Any, Any, None]:
    """Drive a coroutine of the present task in a ``contextvars`` context that is not the task's."""
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            if error is None:
                waited_for = context.run(handler.send, value)
            else:
                waited_for = context.run(handler.throw, error)
        except StopIteration:
            return
        value = error = None
        try:
            value = yield waited_for
        except BaseException as thrown:  # noqa: BLE001  # whatever it is, it is meant for the handler
            error = thrown


def _is_from_outside(run: Run, error: BaseException) -> bool:
    """Whether an error is meant for the process or the interpreter, not raised by the handler."""
    if isinstance(error, GeneratorExit):
        # A coroutine that is closed because nobody runs it any more is not the task of the moment.
        return asyncio.current_task(run.partition.loop) is not run.task
    return isinstance(error, KeyboardInterrupt)


def _cancellation_error(run: Run, error: asyncio.CancelledError) -> BaseException:
    if not run.cancelled:
        return error
    cause = TimeoutError(f"the handler was cancelled in attempt {run.attempt} ({run.where()})")
    cause.__cause__ = error
    return cause
