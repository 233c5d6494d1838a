"""The cooperative rebalance through random histories of a group, and mutants of what makes it safe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.kafka import handover, rebalance
from tests.broker.kafka.rounds_world import Fault, World, play
from tests.support import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = range(40)
MUTANT_SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
def test_comings_and_goings_in_order_run_nothing_twice(seed: int) -> None:
    play(seed, graceful=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_crashes_and_silence_lose_nothing(seed: int) -> None:
    play(seed, graceful=False)


async def _sleep_through_anothers_life() -> None:
    """One member stands still while another takes over, works, and leaves in order."""
    world = World(1)
    world.join()
    world.join()
    await asyncio.sleep(15.0)
    sleeper, other = world.nodes
    sleeping = asyncio.create_task(sleeper.freeze(60.0))
    await asyncio.sleep(30.0)
    world.nodes.remove(other)
    await other.leave()
    await sleeping
    await world.play(0)


def test_who_slept_through_anothers_life_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    run_virtual(_sleep_through_anothers_life())
    monkeypatch.setattr(handover.CooperativeAssignment, "_lose_if_reset", lambda self: None)
    with pytest.raises(Fault, match=r"goes back|reads|again"):
        run_virtual(_sleep_through_anothers_life())


def test_a_fault_tells_its_whole_history_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _forgets_positions(monkeypatch)
    with pytest.raises(Fault, match="seed 0: ") as fault:
        play(0, graceful=True)
    first, *history, last = str(fault.value).splitlines()
    assert history[0].endswith("node-1 joins")
    assert first.removeprefix("seed 0: ") in next(line for line in history if "FAULT" in line)
    assert last == "replay with: python -m tests.broker.kafka.rounds_world --graceful 0"


def test_fifty_join_at_once() -> None:
    """Into a group of one that holds everything and is at work."""

    async def main() -> None:
        world = World(1, graceful=True)
        world.topics["t0"] = 120
        world._grow("t0")
        world.join()
        await asyncio.sleep(5.0)
        for _ in range(50):
            world.join()
        await world.play(0)
        assert world.group.failed

    run_virtual(main())


def _claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = handover.CooperativeAssignment.claim
    monkeypatch.setattr(
        handover.CooperativeAssignment,
        "claim",
        lambda self: claim(self)._replace(partitions=frozenset(), generation=-1),
    )


def _forgets_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover.CooperativeAssignment, "_note_positions", lambda self: None)


def _releases_without_draining(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hand_over(self: Any, tp: Any, holding: Any) -> None:
        del self.held[tp]
        self._rejoin()

    monkeypatch.setattr(handover.CooperativeAssignment, "_hand_over", hand_over)


def _never_joins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover.CooperativeAssignment, "_rejoin", lambda self: None)


def _commits_during_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def join_begins(self: Any) -> None:
        return

    monkeypatch.setattr(rebalance.Assignment, "_join_begins", join_begins)


@pytest.mark.parametrize(
    "mutate",
    [
        _claims_nothing,
        _forgets_positions,
        _releases_without_draining,
        _never_joins_again,
        _commits_during_joins,
    ],
)
def test_each_rule_is_needed(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    for seed in MUTANT_SEEDS:
        for graceful in (True, False):
            try:
                play(seed, graceful=graceful)
            except (Fault, AssertionError, KeyError):
                return
    pytest.fail("no history of the list notices")
