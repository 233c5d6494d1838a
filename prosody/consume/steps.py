"""Who holds the event loop up: the steps of the lanes are measured, and a long one names its handler.

A handler that computes, or calls something that blocks, stops everything else on its event loop: other
handlers, fetching, and the heartbeats by which the group knows that this member is alive.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from prosody.model.fields import fields
from prosody.model.message import ExciseMessage, Timer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator
    from types import TracebackType

    from prosody.model.fields import Fields
    from prosody.model.handler import HandlerMethods
    from prosody.model.run import Run
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.watch")

BLOCKED_S = 1.0
"""From here on a block is told. Heartbeats leave every second, so this long a block delays one; the
shortest session that a broker allows by default is 6 s, so the line comes before it is too late."""

_QUIET_S = 10.0
"""After a line about a block so long none follows: a handler that blocks does so for every message."""

_ADVICE = (
    "Meanwhile nothing else ran in this event loop, heartbeats to the group included: blocked for "
    "session_timeout (%.3g s) this member is thrown out of the group, and others run its messages "
    "again. Move what blocks to a thread: await asyncio.to_thread(...)"
)


def _nobody(_: float) -> None:
    """Nobody wants to know."""


class Steps:
    """The steps of all lanes of one subscription, and the lines about those that took too long.

    The watch looks at the loop's lateness from time to time. As long as the loop is in time a step
    costs two readings of the clock and one comparison; only in a late loop is anything added up.
    """

    def __init__(
        self,
        methods: HandlerMethods,
        session_timeout_s: float,
        runtime: Runtime,
    ) -> None:
        self._methods = methods
        self._advice = _ADVICE % session_timeout_s
        self.monotonic = runtime.monotonic
        self.due = float("-inf")
        """When the watch wants its turn. A step that ends later may be what it waits for."""
        self.lag: Callable[[float], None] = _nobody
        """Told at each look of the watch how late the loop was, in seconds."""
        self._by_handlers_s = 0.0
        """How much of the time since ``due`` handlers have used."""
        self._longest_s = 0.0
        self._told_at = float("-inf")
        self._left_out = 0
        self._worst: tuple[float, float, str, Fields] = (0.0, 0.0, "", {})
        """Of what was left out the longest: how long, when, the text, and what it is about."""

    def expect(self, due: float) -> None:
        """The watch sleeps now, and wants its turn at ``due``."""
        self.due = due
        self._by_handlers_s = self._longest_s = 0.0

    def late(self, run: Run | None, began: float, ended: float) -> None:
        """A step ended after ``due``; ``run`` is the one that was current when it did, or the last.

        A lane runs many messages in one step but gives way every few milliseconds, so nearly all of a
        long step was spent in that run.
        """
        if run is None or not run.attempt:
            return  # the library's own work, before a handler was called
        # The attempt may have begun within the step.
        began = max(began, run.began)
        took_s = ended - began
        self._by_handlers_s += ended - max(began, self.due)
        self._longest_s = max(self._longest_s, took_s)
        if took_s >= BLOCKED_S:
            self._tell(
                ended,
                took_s,
                f"handler {handler_name(self._methods, run)} blocked the event loop for "
                f"{took_s:.1f} s: {run.where()}",
                fields(run),
            )

    def arrived(self, now: float) -> None:
        """The watch has its turn: was the loop late, and if so, was that not told yet?"""
        late_s = now - self.due
        self.lag(late_s)
        others_s = late_s - self._by_handlers_s
        if others_s >= BLOCKED_S:
            self._tell(
                now,
                others_s,
                f"the event loop was blocked for {others_s:.1f} s, not by a handler of this "
                "consumer itself: by a task that one started, by another part of this program, or "
                "because the process stood still",
            )
        elif late_s >= BLOCKED_S > self._longest_s:
            self._tell(
                now,
                late_s,
                f"the event loop was late by {late_s:.1f} s: handlers took {self._by_handlers_s:.1f} s "
                f"of it together, none of them more than {self._longest_s:.1f} s at once",
            )
        if self._left_out and now - self._told_at >= _QUIET_S:
            # Nothing has happened since to tell it with.
            _, ended, text, about = self._worst
            self._left_out -= 1
            self._write(now, f"{now - ended:.0f} s ago {text}", about)

    def _tell(self, now: float, took_s: float, text: str, about: Fields | None = None) -> None:
        if now - self._told_at >= _QUIET_S:
            self._write(now, text, about)
            return
        self._left_out += 1
        if (took_s, now) >= self._worst[:2]:
            self._worst = (took_s, now, text, about or {})

    def _write(self, now: float, text: str, about: Fields | None) -> None:
        more = ""
        if self._left_out:
            since_s = now - self._told_at
            more = f" ({self._left_out} more like this in the last {since_s:.0f} s)"
        _log.warning("%s. %s%s", text, self._advice, more, extra=about)
        self._told_at = now
        self._left_out = 0
        self._worst = (0.0, 0.0, "", {})


class Measured(Coroutine[Any, Any, None]):
    """A lane's coroutine whose steps are measured. For its task it is the coroutine itself."""

    __slots__ = ("_close", "_inner", "_send", "_steps", "_throw", "began", "rest", "run", "task")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.run: Run | None = None
        """What the lane runs now, or ran last in this step; kept by the lane."""
        self.began = 0.0
        """When this step began."""
        self.task: asyncio.Task[Any] | None = None
        """The lane's own; None before its first step."""
        self.rest: Any = None
        """What a step that others made for it has left to the lane."""

    def drive(self, inner: Coroutine[Any, Any, None]) -> Measured:
        """Take the coroutine to drive; apart from ``__init__`` because it needs to know this object."""
        self._inner = inner
        self._send = inner.send
        self._throw = inner.throw
        self._close = inner.close
        return self

    def send(self, value: Any) -> Any:
        steps = self._steps
        self.began = began = steps.monotonic()
        try:
            return self._send(value)
        finally:
            ended = steps.monotonic()
            if ended >= steps.due:
                steps.late(self.run, began, ended)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        # The form of three arguments, which callers of an abstract coroutine may use, is deprecated.
        return self.measure(self._throw, kind if value is None else value)

    def measure(self, step: Callable[[Any], Any], value: Any) -> Any:
        """Call ``step(value)`` as a step of the lane."""
        steps = self._steps
        self.began = began = steps.monotonic()
        try:
            return step(value)
        finally:
            ended = steps.monotonic()
            if ended >= steps.due:
                steps.late(self.run, began, ended)

    def close(self) -> None:
        self._close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        # What a debugger asks a coroutine for: its frame, its code, what it waits for.
        return getattr(self._inner, name)


def handler_name(methods: HandlerMethods, run: Run) -> str:
    """The qualified name of the handler method that ``run`` is for."""
    called = {ExciseMessage: "on_excise", Timer: "on_timer"}.get(type(run.event), "on_message")
    name = getattr(getattr(methods, called), "__qualname__", None)
    if isinstance(name, str):
        return name
    return f"{methods.name}.{called}"
