"""A member whose handlers set timers and may fail: ``python -m tests.durable.member OPTIONS``.

A message says what to do: ``timers`` are seconds (of the wall clock) to set for its key, and until the
wall clock shows ``fails_until`` its handler fails.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prosody.model.times import seconds_from_utc, utc_from_seconds
from tests.processes.fleet import Fleet
from tests.processes.history import History
from tests.processes.member import Handler, run

if TYPE_CHECKING:
    from prosody import Context, Message, Timer

SET, FIRED = "set", "fired"


class Instant(NamedTuple):
    """A timer that was set, or has fired."""

    member: str
    what: str
    key: str
    second: int
    wall: float


class TimerHandler(Handler):
    """Writes down each timer that was set, when that has returned, and each that has fired."""

    async def on_timer(self, context: Context, timer: Timer) -> None:
        self._write(FIRED, timer.key, seconds_from_utc(timer.time))

    async def _work(self, context: Context, message: Message) -> None:
        if time.time() < message.payload.get("fails_until", 0.0):
            raise ValueError("not yet")

    async def on_message(self, context: Context, message: Message) -> None:
        for second in message.payload.get("timers", ()):
            await context.schedule(utc_from_seconds(second))
            self._write(SET, message.key, second)
        await super().on_message(context, message)

    def _write(self, what: str, key: str, second: int) -> None:
        self._writer.write(what, key=key, second=second)


class TimerHistory(History):
    """Reads the timers too."""

    def __init__(self, member: str, path: Path) -> None:
        super().__init__(member, path)
        self.timers: list[Instant] = []

    def take(self, line: dict[str, Any]) -> None:
        if line["what"] in {SET, FIRED}:
            facts = line["what"], line["key"], line["second"], line["wall"]
            self.timers.append(Instant(self.member, *facts))
        else:
            super().take(line)


class TimerFleet(Fleet):
    """Members of this kind."""

    program = "tests.durable.member"
    history = TimerHistory

    def timers(self, what: str) -> list[Instant]:
        """All that was set, or has fired, at all members."""
        found = []
        for member in self.members:
            assert isinstance(member.history, TimerHistory)
            found += [instant for instant in member.history.timers if instant.what == what]
        return found


if __name__ == "__main__":
    run(TimerHandler)
