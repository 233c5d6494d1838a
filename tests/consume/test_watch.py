"""The watch: what stands still, is lost or held up is told once, and so is its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.protocol import TopicPartition
from prosody.consume import watch as the_module
from prosody.middleware.retry import pause
from prosody.model.outcome import SUCCESS, Outcome
from prosody.observe.storm import BURST, QUIET_S
from tests.consume.fakes import Around, Stage, record, records
from tests.mutant import mutant
from tests.support import other_tasks, run_virtual, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.consume.partition import Partition
    from prosody.consume.watch import Watch
    from prosody.model.run import Run

THRESHOLD_S = 30.0


class Scene:
    """A watch over one partition, whose handlers wait on a stage behind one permit."""

    def __init__(self, module: Any = the_module) -> None:
        self.module = module
        self.told: list[tuple[str, str]] = []
        self.problem: str | None = None
        self.stage = Stage()
        self.around = Around(self.on_stage, permits=1)
        self.partition = self.around.partition()
        self.held: tuple[Partition, ...] = (self.partition,)
        self.polls = True
        self.stood_still_at = 0.0
        self.blocked_s = 0.0
        clock = self.around.runtime.monotonic
        self.around.runtime.monotonic = lambda: clock() + self.blocked_s  # type: ignore[method-assign]
        watch = module.Watch(
            self,
            self,
            self,
            self.around.scheduler,
            self.around.steps,
            self.around.storms,
            self.around.shared.stack.timeout.lanes,
            THRESHOLD_S,
            self.around.runtime,
        )
        self.watch: Watch = watch
        asyncio.ensure_future(self.watch.run())  # noqa: RUF006  # cancelled with all others at the end
        logging.getLogger("prosody.watch").addHandler(self)  # type: ignore[arg-type]

    # What a logger asks of a handler
    level = logging.NOTSET

    def handle(self, record: logging.LogRecord) -> None:
        self.told.append((record.levelname, record.getMessage()))

    # Assignment and poller

    def partitions(self) -> tuple[Partition, ...]:
        return self.held

    @property
    def last_poll(self) -> float:
        return self.around.runtime.monotonic() if self.polls else self.stood_still_at

    def polls_no_more(self) -> None:
        self.polls, self.stood_still_at = False, self.around.runtime.monotonic()

    async def on_stage(self, run: Run) -> Outcome:
        run.attempt = 1
        return await self.stage(run)

    async def end(self) -> None:
        logging.getLogger("prosody.watch").removeHandler(self)  # type: ignore[arg-type]
        self.around.torn_down = True  # what still runs is not taken up by another lane
        for task in other_tasks():
            task.cancel()
        await settle()


async def tells_a_stall_once_and_its_end(scene: Scene) -> None:
    await asyncio.sleep(100.0)  # nothing to do is no stall
    scene.partition.receive(records(5))
    await asyncio.sleep(29.0)
    assert (scene.told, scene.watch.stalled()) == ([], [])
    await asyncio.sleep(2.0)
    assert len(scene.watch.stalled()) == 1
    await asyncio.sleep(100.0)
    ((level, text),) = scene.told
    assert level == "ERROR"
    assert "topic 'orders' partition 0 offset 5 key 'k' is unfinished for 30 s" in text
    assert "its handler runs (attempt 1)" in text
    assert "stall_threshold is 30 s" in text
    assert "for 131 s" in scene.watch.stalled()[0]
    scene.stage.end(5)
    await asyncio.sleep(2.0)
    assert scene.watch.stalled() == []
    assert len(scene.told) == 2
    assert scene.told[1][0] == "INFO"
    assert "topic 'orders' partition 0 moves again" in scene.told[1][1]


async def tells_a_second_stall(scene: Scene) -> None:
    for offset in range(2):
        scene.partition.receive(records(offset))
        await asyncio.sleep(31.0)
        scene.stage.end(offset)
        await asyncio.sleep(1.0)
    assert [level for level, _ in scene.told] == ["ERROR", "INFO"] * 2


async def is_silent_about_a_stalled_partition_that_is_given_up(scene: Scene) -> None:
    scene.partition.receive(records(0))
    await asyncio.sleep(31.0)
    scene.held = ()
    await asyncio.sleep(31.0)
    assert len(scene.told) == 1


async def says_what_the_oldest_waits_for(scene: Scene) -> None:
    keys = (b"a", b"a", b"b", b"c", b"d")
    scene.partition.receive([record(offset, key) for offset, key in enumerate(keys)])
    await settle()
    await asyncio.sleep(31.0)
    (text,) = scene.watch.stalled()
    assert "offset 0 key 'a' is unfinished for 31 s: its handler runs (attempt 1)" in text
    scene.stage.end(0)  # the permit goes to 2; 3, 4 and 1 wait for it
    await settle()
    (text,) = scene.watch.stalled()
    assert "offset 1 key 'a' is unfinished for 31 s: it waits for a permit (1 in use)" in text
    for offset in (2, 3, 4, 1):
        scene.stage.end(offset)
        await settle()
    assert scene.watch.stalled() == []


async def knows_a_permit_from_a_backoff(scene: Scene) -> None:
    other = scene.around.partition(TopicPartition("other", 1), 2)
    other.receive([record(0, topic="other", partition=1)])
    await settle()
    scene.partition.receive(records(0))
    await asyncio.sleep(31.0)
    assert "it waits for a permit (1 in use)" in scene.watch.stalled()[0]
    scene.stage.end(0)
    await settle()
    scene.stage.end(0)
    await other.drain(0.0, 0.0)

    async def backoff(run: Run) -> Outcome:
        run.attempt = 3
        await pause(run, 100.0)
        return SUCCESS

    around = Around(backoff)
    around.torn_down = True
    waiting = around.partition()
    scene.held = (waiting,)
    waiting.receive(records(0))
    await asyncio.sleep(31.0)
    assert "it is in backoff after attempt 3" in scene.watch.stalled()[0]
    await waiting.drain(0.0, 0.0)
    await settle()


async def says_that_a_handler_was_told_to_stop(scene: Scene) -> None:
    scene.partition.receive(records(0))
    await asyncio.sleep(31.0)
    scene.stage.on_stage[0][0].cancelled = True
    assert "its handler runs (attempt 1, told to stop)" in scene.watch.stalled()[0]


async def says_what_stays_unfinished_in_a_partition_that_ends(scene: Scene) -> None:
    scene.partition.receive([record(0, b"a"), record(1, b"a")])
    await settle()
    draining = asyncio.ensure_future(scene.partition.drain(500.0, 500.0))
    await settle()
    scene.stage.end(0)
    await draining
    await asyncio.sleep(31.0)
    assert (
        "offset 1 is unfinished for 31 s: its partition starts nothing" in scene.watch.stalled()[0]
    )


async def tells_a_poll_loop_that_stands_still(scene: Scene) -> None:
    scene.polls_no_more()
    await asyncio.sleep(29.0)
    assert scene.told == []
    await asyncio.sleep(10.0)
    ((level, text),) = scene.told
    assert (level, "no poll has succeeded for 30 s" in text) == ("ERROR", True)
    scene.problem = "no broker can be reached"  # does not end the stall
    await asyncio.sleep(1.0)
    scene.problem = None
    await asyncio.sleep(1.0)
    assert len(scene.told) == 1
    scene.polls = True
    await asyncio.sleep(1.0)
    assert scene.told[-1][0] == "INFO"
    assert "the poll loop moves again" in scene.told[-1][1]


async def an_outage_excuses_the_poll_loop(scene: Scene) -> None:
    scene.polls_no_more()
    scene.problem = "no broker can be reached"
    await asyncio.sleep(100.0)
    scene.problem = None
    await asyncio.sleep(20.0)
    assert scene.watch.stalled() == []
    assert "ERROR" not in {level for level, _ in scene.told}


async def tells_an_outage_once_and_its_end(scene: Scene) -> None:
    scene.problem = "no broker can be reached"
    await asyncio.sleep(60.25)
    assert scene.told == [
        (
            "WARNING",
            "connection to Kafka lost: no broker can be reached; consumption goes on by itself when "
            "it is back",
        )
    ]
    scene.problem = None
    await asyncio.sleep(60.0)
    assert scene.told[1:] == [("INFO", "connection to Kafka is back after 60.0 s")]
    scene.problem = "again"
    await asyncio.sleep(60.0)
    assert len(scene.told) == 3


async def is_silent_about_a_short_outage(scene: Scene) -> None:
    for _ in range(3):
        scene.problem = "no broker can be reached"
        await asyncio.sleep(1.8)
        scene.problem = None
        await asyncio.sleep(1.0)
    assert scene.told == []


async def sees_a_loop_that_is_blocked_by_others(scene: Scene) -> None:
    await asyncio.sleep(0.6)
    scene.blocked_s += 5.0
    await asyncio.sleep(0.5)
    ((level, text),) = scene.told
    assert level == "WARNING"
    assert "the event loop was blocked for 5.0 s, not by a handler of this consumer" in text
    await asyncio.sleep(100.0)
    assert len(scene.told) == 1


async def tells_what_a_storm_left_out(scene: Scene) -> None:
    storm = scene.around.storms.of(logging.getLogger("prosody.watch"))
    for _ in range(BURST + 3):
        storm.allows(logging.WARNING)
    await asyncio.sleep(QUIET_S + 1.0)
    ((_, text),) = scene.told
    assert text.endswith("(3 more like this in the last 5 s)")


SCENARIOS: list[Callable[[Scene], Awaitable[None]]] = [
    tells_a_stall_once_and_its_end,
    tells_a_second_stall,
    is_silent_about_a_stalled_partition_that_is_given_up,
    says_what_the_oldest_waits_for,
    knows_a_permit_from_a_backoff,
    says_that_a_handler_was_told_to_stop,
    says_what_stays_unfinished_in_a_partition_that_ends,
    tells_a_poll_loop_that_stands_still,
    an_outage_excuses_the_poll_loop,
    tells_an_outage_once_and_its_end,
    is_silent_about_a_short_outage,
    sees_a_loop_that_is_blocked_by_others,
    tells_what_a_storm_left_out,
]


async def play(scenario: Callable[[Scene], Awaitable[None]], module: Any = the_module) -> None:
    scene = Scene(module)
    try:
        await scenario(scene)
    finally:
        await scene.end()


@pytest.fixture(autouse=True)
def information(caplog: pytest.LogCaptureFixture) -> None:
    """Lets the lines at INFO come as far as the scene."""
    caplog.set_level(logging.INFO, "prosody.watch")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    await play(scenario)


MUTANTS = {
    "a stall is told at every look": ("self._told[what] = (now, name)", "pass"),
    "the end of a stall is not told": ('if getattr(what, "partition", what) in held:', "if False:"),
    "given up is told as moving": ('if getattr(what, "partition", what) in held:', "if True:"),
    "a stall is told but once": ("self._told.pop(what)", "self._told[what]"),
    "an outage is told at every look": ("self._lost_told = True", "pass"),
    "an outage is told at once": ("now - self._lost_since >= LOST_S", "True"),
    "short outages add up": ("            self._lost_since = None\n", ""),
    "the end of an outage is told of any": ("if self._lost_told and self._lost", "if self._lost"),
    "a second outage is not told": ("            self._lost_told = False\n", ""),
    "an outage is a stall": (
        "max(self._poller.last_poll, self._lost_last)",
        "self._poller.last_poll",
    ),
    "an outage ends the stall of the poll loop": (
        "        if self._poller not in self._told:\n            self._lost_last",
        "        if True:\n            self._lost_last",
    ),
    "the poll loop is not looked at": ("if idle_s >= self._threshold_s:", "if False:"),
    "the lateness is not looked at": ("self._steps.arrived(now)", "pass"),
    "what a storm left out is never told": ("self._storms.settle()", "pass"),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(name: str) -> None:
    module = mutant("consume.watch", *MUTANTS[name])

    def shows(scenario: Callable[[Scene], Awaitable[None]]) -> bool:
        try:
            run_virtual(play(scenario, module))
        except (AssertionError, ValueError):
            return True
        return False

    assert any(shows(scenario) for scenario in SCENARIOS), f"nothing shows that {name}"
