"""Steps: a handler that blocks the event loop is named, once, and nobody else is blamed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from prosody.consume import steps as the_module
from prosody.consume.steps import Measured, Steps, handler_name
from prosody.model.handler import HandlerMethods
from prosody.model.message import ExciseMessage, Timer, utc_from_ms
from tests.middleware.fakes import make_run
from tests.mutant import mutant
from tests.support import FakeRuntime, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.model.run import Run

SESSION_S = 45.0


class Orders:
    async def on_message(self, *_: object) -> None: ...

    async def on_excise(self, *_: object) -> None: ...

    async def on_timer(self, *_: object) -> None: ...


class Scene:
    """The steps of lanes on a clock that moves when the test says that a handler blocks."""

    def __init__(self, module: Any = the_module) -> None:
        self.now = 0.0
        self.told: list[str] = []
        runtime = FakeRuntime()
        runtime.monotonic = lambda: self.now  # type: ignore[method-assign]
        self.steps: Steps = module.Steps(HandlerMethods(Orders()), SESSION_S, runtime)
        self.measured: type[Measured] = module.Measured

    # What a logger asks of a handler
    level = logging.NOTSET

    def handle(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.WARNING
        self.told.append(record.getMessage())

    def attempt(self, offset: int = 0) -> Run:
        """A run whose handler begins now."""
        run = make_run(offset)
        run.attempt = 1
        run.began = self.now
        return run

    async def step(self, seconds: float, run: Run | None) -> None:
        """A lane whose one step takes ``seconds``; ``run`` is its last."""
        lane = self.measured(self.steps)

        async def inner() -> None:
            lane.run = run
            self.now += seconds

        await asyncio.ensure_future(lane.drive(inner()))

    async def blocks(self, seconds: float, offset: int = 0) -> None:
        await self.step(seconds, self.attempt(offset))


async def names_the_handler(scene: Scene) -> None:
    await scene.blocks(1.5, offset=7)
    (line,) = scene.told
    assert "handler Orders.on_message blocked the event loop for 1.5 s" in line
    assert "topic 'orders' partition 3 offset 7 key 'k'" in line
    assert "session_timeout (45 s)" in line
    assert "asyncio.to_thread" in line


async def is_silent_below_a_second(scene: Scene) -> None:
    scene.steps.expect(0.5)
    for _ in range(50):
        await scene.blocks(0.9)
    assert scene.told == []


async def measures_what_follows_a_cancellation(scene: Scene) -> None:
    lane = scene.measured(scene.steps)

    async def inner() -> None:
        lane.run = scene.attempt()
        try:
            await asyncio.Event().wait()
        finally:
            scene.now += 2.0

    task = asyncio.ensure_future(lane.drive(inner()))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert len(scene.told) == 1


async def tells_one_in_ten_seconds(scene: Scene) -> None:
    for offset in range(4):
        await scene.blocks(3.0, offset)
    assert len(scene.told) == 1
    scene.now += 1.0
    await scene.blocks(3.0, offset=4)
    assert len(scene.told) == 2
    assert "offset 4" in scene.told[1]
    assert scene.told[1].endswith("(3 more like this in the last 13 s)")
    await scene.blocks(20.0, offset=5)
    assert len(scene.told) == 3
    assert "more like this" not in scene.told[2]


async def tells_what_was_left_out_when_nothing_follows(scene: Scene) -> None:
    await scene.blocks(3.0, offset=0)
    await scene.blocks(4.0, offset=1)
    await scene.blocks(2.0, offset=2)
    scene.now += 3.5
    scene.steps.expect(scene.now)
    scene.steps.arrived(scene.now)
    assert len(scene.told) == 1
    scene.now += 1.0
    scene.steps.expect(scene.now)
    scene.steps.arrived(scene.now)
    assert len(scene.told) == 2
    assert scene.told[1].startswith("6 s ago handler Orders.on_message blocked")
    assert "offset 1" in scene.told[1]
    assert scene.told[1].endswith("(1 more like this in the last 10 s)")
    scene.now += 100.0
    scene.steps.expect(scene.now)
    scene.steps.arrived(scene.now)
    assert len(scene.told) == 2


async def blames_no_handler_for_what_came_before_it(scene: Scene) -> None:
    lane = scene.measured(scene.steps)

    async def inner() -> None:
        scene.now += 5.0  # decoding
        lane.run = scene.attempt()
        scene.now += 0.9

    await asyncio.ensure_future(lane.drive(inner()))
    await scene.step(5.0, None)
    await scene.step(5.0, make_run())  # admitted, its handler never called
    assert scene.told == []


async def sees_others_block(scene: Scene) -> None:
    for _ in range(10):
        scene.steps.expect(scene.now + 0.5)
        await scene.blocks(0.9)
        scene.steps.arrived(scene.now)
    scene.steps.expect(scene.now + 0.5)
    scene.now += 3.5  # a task that is no lane
    scene.steps.arrived(scene.now)
    (line,) = scene.told
    assert "blocked for 3.0 s, not by a handler of this consumer itself" in line
    assert "session_timeout (45 s)" in line


async def tells_a_block_once(scene: Scene) -> None:
    scene.steps.expect(scene.now + 0.5)
    scene.now += 0.2
    await scene.blocks(8.0)
    scene.now += 0.9
    scene.steps.arrived(scene.now)
    assert len(scene.told) == 1
    scene.now += 20.0
    scene.steps.expect(scene.now)
    scene.steps.arrived(scene.now)
    assert len(scene.told) == 1, "left out, so it comes later"


async def tells_of_handlers_that_are_late_together(scene: Scene) -> None:
    scene.steps.expect(scene.now + 0.5)
    for offset in range(10):
        await scene.blocks(0.4, offset)
    scene.steps.arrived(scene.now)
    (line,) = scene.told
    assert "late by 3.5 s: handlers took 3.5 s of it together" in line
    assert "none of them more than 0.4 s" in line


async def is_silent_while_the_loop_is_in_time(scene: Scene) -> None:
    for _ in range(100):
        scene.steps.expect(scene.now + 0.5)
        for offset in range(4):
            await scene.blocks(0.3, offset)
        scene.now += 0.1
        scene.steps.arrived(scene.now)
    assert scene.told == []


SCENARIOS: list[Callable[[Scene], Awaitable[None]]] = [
    names_the_handler,
    is_silent_below_a_second,
    measures_what_follows_a_cancellation,
    tells_one_in_ten_seconds,
    tells_what_was_left_out_when_nothing_follows,
    blames_no_handler_for_what_came_before_it,
    sees_others_block,
    tells_a_block_once,
    tells_of_handlers_that_are_late_together,
    is_silent_while_the_loop_is_in_time,
]


async def play(scenario: Callable[[Scene], Awaitable[None]], module: Any = the_module) -> None:
    scene = Scene(module)
    module._log.addHandler(scene)
    try:
        await scenario(scene)
    finally:
        module._log.removeHandler(scene)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    await play(scenario)


MUTANTS = {
    "throw is not measured": (
        "return self.measure(self._throw, kind if value is None else value)",
        "return self._throw(kind if value is None else value)",
    ),
    "every block is told": (
        "if now - self._told_at >= _QUIET_S:\n            self._write",
        "if True:\n            self._write",
    ),
    "what is left out is not counted": ("        self._left_out += 1\n", ""),
    "what is left out is never told": ("if self._left_out and now", "if False and now"),
    "the longest is not kept": (
        "if (took_s, now) >= self._worst[:2]:",
        "if True:",
    ),
    "decoding is the handler's": ("began = max(began, run.began)", "pass"),
    "a run without a handler is blamed": ("if run is None or not run.attempt:", "if run is None:"),
    "a handler's block is told as another's too": (
        "others_s = late_s - self._by_handlers_s",
        "others_s = late_s",
    ),
    "time before the watch was due counts": (
        "self._by_handlers_s += ended - max(began, self.due)",
        "self._by_handlers_s += ended - began",
    ),
    "a told block is told as one of many too": (
        "elif late_s >= BLOCKED_S > self._longest_s:",
        "elif late_s >= BLOCKED_S:",
    ),
    "nobody else is seen": ("if others_s >= BLOCKED_S:", "if False:"),
    "a shorter step is told": ("if took_s >= BLOCKED_S:", "if took_s >= BLOCKED_S / 2:"),
    "the sum is never set back": ("self._by_handlers_s = self._longest_s = 0.0", "pass"),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(name: str) -> None:
    module = mutant("consume.steps", *MUTANTS[name])

    def shows(scenario: Callable[[Scene], Awaitable[None]]) -> bool:
        try:
            run_virtual(play(scenario, module))
        except (AssertionError, ValueError):
            return True
        return False

    assert any(shows(scenario) for scenario in SCENARIOS), f"nothing shows that {name}"


async def test_for_its_task_it_is_the_coroutine() -> None:
    lane = Measured(Scene().steps)
    resumed = asyncio.get_running_loop().create_future()
    seen: list[object] = []

    async def inner() -> None:
        seen.append(await resumed)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
        raise ValueError("the end")

    task = asyncio.ensure_future(lane.drive(inner()))
    await asyncio.sleep(0)
    assert task.get_stack()[0].f_code.co_name == "inner"
    assert "inner" in repr(task)
    resumed.set_result("a value")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(ValueError, match="the end"):
        await task
    assert seen == ["a value", "cancelled"]


async def test_it_can_be_awaited_thrown_into_and_closed() -> None:
    steps = Scene().steps
    closed: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(0)
        except ValueError:
            closed.append("thrown")
        except GeneratorExit:
            closed.append("closed")
            raise

    await Measured(steps).drive(inner())
    lane = Measured(steps).drive(inner())
    lane.send(None)
    with pytest.raises(StopIteration):
        lane.throw(ValueError, ValueError("x"), None)
    lane = Measured(steps).drive(inner())
    lane.send(None)
    lane.close()
    assert closed == ["thrown", "closed"]


class Called:
    def __call__(self, *_: object) -> None: ...


async def test_the_name_of_the_method() -> None:
    methods = HandlerMethods(Orders())
    assert handler_name(methods, make_run()) == "Orders.on_message"
    excise = make_run(event=ExciseMessage("orders", 3, 0, utc_from_ms(0), "k"))
    assert handler_name(methods, excise) == "Orders.on_excise"
    timer = make_run(event=Timer("k", utc_from_ms(0)))
    assert handler_name(methods, timer) == "Orders.on_timer"
    odd = Orders()
    odd.on_message = odd.on_excise = Called()  # type: ignore[method-assign, assignment]
    assert handler_name(HandlerMethods(odd), make_run()) == "Orders.on_message"
    assert handler_name(HandlerMethods(odd), excise) == "Orders.on_excise"
