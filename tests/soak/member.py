"""A member whose handlers fail by chance and set timers: ``python -m tests.soak.member OPTIONS``."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, ClassVar

from prosody import TransientError
from prosody.model.times import utc_from_seconds
from tests.durable.member import SET, TimerFleet, TimerHandler
from tests.processes.member import run
from tests.soak.work import FAILING, FAILS_OF_ALL, TIMED, TIMER_S

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from prosody import Context, Message
    from tests.processes.fleet import Member

DEADLINE_S = 240.0
"""Of every wait: a server may be away for half a minute, and one after the other."""


class SoakHandler(TimerHandler):
    """Does what the family of the key asks for."""

    async def _work(self, context: Context, message: Message) -> None:
        if message.key.startswith(TIMED):
            second = int(time.time()) + random.randint(*TIMER_S)
            await context.schedule(utc_from_seconds(second))
            self._write(SET, message.key, second)
        await asyncio.sleep(self._work_s(message))
        if message.key.startswith(FAILING) and random.random() < FAILS_OF_ALL:
            raise TransientError("by chance")


class SoakFleet(TimerFleet):
    """Members of this kind. One that cannot begin, because a server is away, gets a successor."""

    program: ClassVar[str] = "tests.soak.member"
    deadline_s: ClassVar[float] = DEADLINE_S

    def wanted(self) -> list[Member]:
        """Those that are to run, whether they have begun yet or not."""
        return [member for member in self.members if member.expected_to_run]

    def all_up(self) -> bool:
        """Whether each of them has subscribed."""
        return all(member.history.told("up") for member in self.wanted())

    def _holds(self, condition: Callable[[], bool]) -> bool:
        gone = [member for member in self.wanted() if member.gone]
        self.read()
        for member in gone:
            if not member.history.told("up"):
                member.expected_to_run = False
                self.launch(f"{member.name}+")
        return super()._holds(condition)


class EndingFleet(SoakFleet):
    """For a mode in which a message may end without having been handled."""

    def handled_of(self) -> Counter[str]:
        """The highest number of each key of which a run has ended, well or not."""
        highest = super().handled_of()
        for run_ in self.runs():
            if run_.ended is not None:
                highest[run_.key] = max(highest[run_.key], run_.seq)
        return highest


if __name__ == "__main__":
    run(SoakHandler)
