"""Monopolization: a key that takes too much is held back until its window has room, and no longer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from prosody.config.options_qos import MonopolizationOptions, SchedulerOptions
from prosody.errors import MonopolizationError
from prosody.middleware.base import compose
from prosody.middleware.monopolization import Monopolization
from prosody.middleware.retry import Retry
from prosody.middleware.scheduler import Scheduler
from prosody.model.outcome import SUCCESS, Kind, Outcome, Refusal
from prosody.model.run import Run, WorkClass
from tests.middleware.fakes import FakePartition, in_lane, make_run, storms
from tests.mutant import mutant
from tests.support import FakeRuntime, run_virtual

WINDOW_S = 100.0
BUCKET_S = WINDOW_S / 64


class Scene:
    """A stack of monopolization and scheduler whose handlers take as long as they are told."""

    def __init__(
        self, threshold: float = 0.5, module: Any = None, cache_size: int = 100, permits: int = 10
    ) -> None:
        options = MonopolizationOptions(
            monopolization_threshold=threshold,
            monopolization_window=WINDOW_S,
            monopolization_cache_size=cache_size,
        )
        runtime, many = FakeRuntime(), storms()
        made = (module or Monopolization)(options, runtime, many)
        self.layer: Monopolization = made
        scheduler = Scheduler(permits, SchedulerOptions(), runtime, self.layer.meter)
        scheduler.wake = lambda: setattr(self, "taken", scheduler.take())
        self.takes_s = 0.0
        self.outcome = SUCCESS
        self.began: list[float] = []
        self.once = compose([self.layer, scheduler], self.handler)
        self.always = compose([Retry(1.0, 8.0, runtime, many), self.layer, scheduler], self.handler)

    async def handler(self, run: Run) -> Outcome:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        return self.outcome

    async def use(
        self, seconds: float, key: str = "k", partition: FakePartition | None = None
    ) -> Outcome:
        self.takes_s = seconds
        return await in_lane(self.once, make_run(key=key, partition=partition))


async def below_the_threshold_nothing_is_refused(scene: Scene) -> None:
    for _ in range(4):
        assert await scene.use(12.0) is SUCCESS


async def above_it_the_key_is_refused_until_its_window_has_room(scene: Scene) -> None:
    await scene.use(60.0)
    refused = await scene.use(0.0)
    assert isinstance(refused, Refusal)
    assert refused.kind is Kind.TRANSIENT
    # 60 s were used, 50 s are allowed: those from 0 to 10 must have left the window.
    assert refused.until == pytest.approx(110.0, abs=2 * BUCKET_S)
    await asyncio.sleep(refused.until - asyncio.get_running_loop().time())
    assert await scene.use(0.0) is SUCCESS


async def failures_count_as_well(scene: Scene) -> None:
    scene.outcome = Outcome(Kind.TRANSIENT, ValueError("why"))
    await scene.use(60.0)
    assert isinstance(await scene.use(0.0), Refusal)


async def other_keys_and_other_partitions_go_on(scene: Scene) -> None:
    await scene.use(60.0)
    assert await scene.use(0.0, "other") is SUCCESS
    elsewhere = FakePartition()
    elsewhere.number = 2
    assert await scene.use(0.0, "k", elsewhere) is SUCCESS


async def a_run_in_progress_counts_up_to_now(scene: Scene) -> None:
    """One that was left behind, for example, while the key is another lane's again."""
    scene.takes_s = 70.0
    running = in_lane(scene.once, make_run(key="k"))
    await asyncio.sleep(60.0)
    refused = await scene.once(make_run(key="k"))
    assert isinstance(refused, Refusal)
    await running


async def a_refused_event_runs_by_itself_when_there_is_room(scene: Scene) -> None:
    await scene.use(60.0)
    scene.takes_s = 1.0
    run = make_run(key="k")
    assert await in_lane(scene.always, run) is SUCCESS
    assert scene.began[-1] == pytest.approx(110.0, abs=2 * BUCKET_S)
    assert (run.work_class, scene.layer.refusals) == (WorkClass.NORMAL, 1)


async def a_key_is_never_held_back_for_good(scene: Scene) -> None:
    """Whatever it uses: it runs again, and its share stays near the threshold."""
    scene.takes_s = 7.0
    while asyncio.get_running_loop().time() < 3_600.0:
        assert await in_lane(scene.always, make_run(key="k")) is SUCCESS
    ran_s = 7.0 * len(scene.began)
    assert 0.45 < ran_s / 3_600.0 < 0.6


async def an_error_names_what_was_used_and_what_is_allowed(scene: Scene) -> None:
    await scene.use(60.0)
    refused = await scene.use(0.0)
    assert isinstance(refused.error, MonopolizationError)
    text = str(refused.error)
    assert "its key used 60" in text
    assert "monopolization_threshold = 0.5" in text
    assert "topic 'orders' partition 3 offset 0 key 'k'" in text


SCENARIOS = (
    below_the_threshold_nothing_is_refused,
    above_it_the_key_is_refused_until_its_window_has_room,
    failures_count_as_well,
    other_keys_and_other_partitions_go_on,
    a_run_in_progress_counts_up_to_now,
    a_refused_event_runs_by_itself_when_there_is_room,
    a_key_is_never_held_back_for_good,
    an_error_names_what_was_used_and_what_is_allowed,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test(scenario: Any) -> None:
    await scenario(Scene())


async def test_the_log_says_so_once_for_each_refusal(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    await scene.use(60.0)
    await scene.use(0.0)
    lines = [r for r in caplog.records if r.name == "prosody.monopolization"]
    assert [line.levelno for line in lines] == [logging.WARNING]
    assert lines[0].getMessage().startswith("key held back for 5")


async def test_a_threshold_of_1_refuses_nothing_and_one_of_0_all_that_ran_in_the_window() -> None:
    everything = Scene(threshold=1.0)
    for _ in range(5):
        assert await everything.use(90.0) is SUCCESS
    nothing = Scene(threshold=0.0)
    assert await nothing.use(1.0) is SUCCESS
    refused = await nothing.use(1.0)
    assert isinstance(refused, Refusal)
    assert refused.until - asyncio.get_running_loop().time() <= WINDOW_S + 2 * BUCKET_S


async def test_a_refusal_is_never_for_no_time_at_all() -> None:
    """A timer may fire a hair early; the event must not come back in the same turn for ever."""
    scene = Scene()
    await scene.use(60.0)
    now = asyncio.get_running_loop().time()
    scene.layer.meter = type("Meter", (), {"room_at": lambda *_: now})()  # type: ignore[assignment]
    refusal = await scene.layer._refuse(make_run(key="k"), 60.0, now)
    assert refusal.until > now


MUTANTS = {
    "everything is refused": ("if used_s > limit_s:", "if True:"),
    "nothing is refused": ("if used_s > limit_s:", "if False:"),
    "it is refused for a whole window": (
        "max(room_at, now + _LEAST_S)",
        "now + self._window_s",
    ),
    "it is refused for no time": ("max(room_at, now + _LEAST_S)", "now + _LEAST_S"),
    "the threshold is a time": (
        "options.monopolization_threshold * options.monopolization_window",
        "options.monopolization_threshold * 1.0",
    ),
    "keys are not told apart": ("used(run.place, now)", "used((1, 'k'), now)"),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(name: str) -> None:
    module = mutant("middleware.monopolization", *MUTANTS[name])

    def shows(scenario: Any) -> bool:
        async def main() -> None:
            await scenario(Scene(module=module.Monopolization))

        try:
            run_virtual(main())
        except AssertionError:
            return True
        return False

    assert any(shows(scenario) for scenario in SCENARIOS), f"nothing shows that {name}"
