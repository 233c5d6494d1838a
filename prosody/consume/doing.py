"""What a run is doing, in words; and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from prosody.errors import MonopolizationError, StoreError
from prosody.middleware.defer import error_text
from prosody.middleware.retry import Pause

if TYPE_CHECKING:
    from prosody.middleware.scheduler import Scheduler
    from prosody.model.run import Run
    from prosody.runtime import Runtime

TEXT_MAX: Final = 200
"""Characters of a key or of an error that are shown."""


def doing(run: Run, scheduler: Scheduler, runtime: Runtime) -> str:
    """What a run that is not finished does or waits for."""
    if run.handling:
        told = ", told to stop" if run.cancelled else ""
        for_s = runtime.monotonic() - run.began
        return f"its handler runs (attempt {run.attempt}{told}), for {seconds(for_s)} so far"
    if scheduler.awaited_by(run):
        return f"it waits for a permit ({scheduler.in_use} in use)"
    if run.task is None:
        return "the store is being asked whether it was handled before"
    if isinstance(run.interruptible, Pause):
        return _pausing(run, run.interruptible, runtime)
    if run.interruptible is not None:
        return "what is deferred of its key is being read"
    return f"it is between the steps of attempt {run.attempt}"


def _pausing(run: Run, pause: Pause, runtime: Runtime) -> str:
    until = later(runtime, pause.until)
    because = "" if pause.cause is None else f": {shown(pause.cause)}"
    if isinstance(pause.cause, MonopolizationError):
        return f"it is held back until {until}, as its key takes too much handler time{because}"
    if isinstance(pause.cause, StoreError):
        return f"it waits for a store, which is asked again at {until}{because}"
    if run.timer is not None and run.timer.handled:
        return f"it is handled; its timer is removed from the store at {until}, after a failure"
    return f"it is in backoff after attempt {run.attempt}, until {until}{because}"


def seconds(value_s: float) -> str:
    """A stretch of time, at most to a tenth of a second."""
    return f"{value_s:.0f} s" if value_s >= 10.0 else f"{max(value_s, 0.0):.1f} s"


def later(runtime: Runtime, at: float) -> str:
    """A time to come, on the monotonic clock: when it is on the wall, and in how long."""
    left_s = at - runtime.monotonic()
    return f"{iso(runtime.wall() + left_s)} (in {seconds(left_s)})"


def iso(wall_s: float) -> str:
    """Seconds since 1970 as a date and time in UTC."""
    return f"{datetime.fromtimestamp(wall_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def iso_of(runtime: Runtime, at: float) -> str:
    """A time on the monotonic clock as a date and time in UTC."""
    return iso(runtime.wall() - runtime.monotonic() + at)


def shown(error: BaseException) -> str:
    """An error as a part of a sentence."""
    return short(error_text(error))


def short(text: str) -> str:
    """A text that others made, cut when long."""
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."
