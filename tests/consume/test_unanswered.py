"""What waits for the store to say whether it was handled before: it takes no lane, and keeps its place."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import prosody.consume.partition as partition_module
from prosody.consume import unanswered as the_module
from prosody.consume.doing import doing
from prosody.errors import StoreError
from prosody.stores.answer import StoreAnswer
from tests.consume.fakes import Around, Stage, lanes_of, record
from tests.mutant import mutant
from tests.support import run_virtual, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.model.run import Run


class Asking:
    """Partitions whose records each wait for an answer of the test's; ``k1`` is known at once."""

    def __init__(self, **options: Any) -> None:
        self.stage = Stage()
        self.around = Around(self.stage, **options)
        self.asked: dict[int, StoreAnswer[bool]] = {}
        self.runs: dict[int, Run] = {}
        object.__setattr__(self.around.shared, "admitted", self._admitted)
        self.partition = self.around.partition()

    def _admitted(self, run: Run) -> None:
        assert run.record is not None
        asked: StoreAnswer[bool] = StoreAnswer.open()
        if run.key == "known":
            asked.set_result(False)
        self.asked[run.record.offset] = asked
        self.runs[run.record.offset] = run
        run.duplicate = SimpleNamespace(asked=asked, finished=False)

    async def receive(self, *keys: str) -> None:
        value = b'{"id": "x"}'
        self.partition.receive([record(n, key.encode(), value) for n, key in enumerate(keys)])
        await settle()

    async def answer(self, offset: int) -> None:
        self.asked[offset].set_result(False)
        await settle()

    async def end(self) -> None:
        for asked in self.asked.values():
            if not asked.done():
                asked.set_result(False)
        await settle()
        while self.stage.on_stage:
            self.stage.end(self.stage.offsets[0])
            await settle()
        await self.partition.drain(8.0, 10.0)
        assert not self.partition.unanswered.runs


async def without_a_lane() -> None:
    """However many wait, others run at once; and no lane waits with them."""
    s = Asking(permits=2, max_uncommitted=100)
    receiving = asyncio.create_task(s.receive(*[f"k{n}" for n in range(50)], "known"))
    await asyncio.sleep(0)
    assert len(s.partition.unanswered.runs) == 50, "what is known already waits for nothing"
    await receiving
    assert s.stage.offsets == [50]
    assert len(lanes_of(s.partition)._tasks) <= 2
    assert s.around.scheduler.in_use == 1
    assert s.partition.waiting == 50
    await s.answer(7)
    assert s.stage.offsets == [50, 7]
    await s.end()
    assert sorted(s.stage.seen) == list(range(51))
    assert (s.partition.uncommitted, s.partition.to_commit()) == (0, 51)


async def in_the_order_of_the_key() -> None:
    """A follower does not overtake a head that still waits, though its own answer has come."""
    s = Asking()
    await s.receive("a", "a", "b")
    await s.answer(1)
    assert s.stage.offsets == []
    await s.answer(0)
    assert s.stage.offsets == [0]
    s.stage.end(0)
    await settle()
    assert s.stage.offsets == [1]
    await s.end()


async def a_failed_look_up() -> None:
    """Nor does an answer that does not come, or a look-up that was cancelled, hold it back for good."""
    s = Asking()
    await s.receive("a", "b")
    s.asked[0].set_exception(StoreError("not now", retriable=True))
    s.asked[1].cancel()
    await settle()
    assert s.asked[0].exception() is not None
    assert s.stage.offsets == [0, 1]
    await s.end()


async def at_the_end() -> None:
    """A partition that ends waits for no answer; one that comes later starts nothing."""
    s = Asking()
    await s.receive("a", "b", "known")
    drain = asyncio.create_task(s.partition.drain(8.0, 10.0))
    await settle()
    assert [run.key for run in s.partition.runs] == ["known"]
    await s.answer(0)
    assert s.stage.offsets == [2]
    s.stage.end(2)
    await drain
    assert asyncio.get_running_loop().time() == 0.0
    await s.answer(1)
    assert s.stage.seen == [2]
    assert not s.partition.unanswered.runs
    assert not s.partition.to_commit(), "neither of the two is done"
    assert s.around.scheduler.waiting == s.around.scheduler.in_use == 0
    assert not s.around.faults


async def what_it_does_in_words() -> None:
    s = Asking(permits=1)
    await s.receive("known", "a", "b")
    scheduler, runtime = s.around.scheduler, s.around.runtime
    assert doing(s.runs[1], scheduler, runtime) == (
        "the store is being asked whether it was handled before"
    )
    await s.answer(1)
    assert doing(s.runs[1], scheduler, runtime) == "it waits for a permit (1 in use)"
    await s.end()


async def no_fault_of_ours() -> None:
    """A run whose store has just answered ends like any other when its partition fails."""
    s = Asking()
    await s.receive("a", "b")
    s.asked[0].set_result(False)
    s.partition.fault(RuntimeError("a fault"))
    await settle()
    assert (s.stage.seen, len(s.partition.runs)) == ([], 0)
    await s.partition.drain(8.0, 10.0)
    assert not s.partition.to_commit()


SCENARIOS = [
    without_a_lane, in_the_order_of_the_key, a_failed_look_up, at_the_end, what_it_does_in_words,
    no_fault_of_ours,
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_waiting_for_an_answer(scenario: Callable[[], Awaitable[None]]) -> None:
    run_virtual(scenario())


MUTANTS = {
    "nothing waits": (
        "            return False\n        self.runs.add(run)\n",
        "            return False\n        return False\n",
    ),
    "what was answered waits": ("asked is None or asked.done() or", "asked is None or"),
    "nobody is told": ("        self._answered(run)\n", "        pass\n"),
    "whoever was answered is kept": (
        "        self.runs.discard(run)\n        self._answered",
        "        self._answered",
    ),
    "what was let go of comes back": ("        asked.about = asked.listener = None\n", ""),
    "what is let go of was not held": (
        "listener = None\n        return True\n",
        "listener = None\n        return False\n",
    ),
    "what was let go of is kept": (
        "        self.runs.discard(run)\n        asked =",
        "        asked =",
    ),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("rule", list(MUTANTS))
def test_without_this_rule_it_is_seen(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = mutant("consume.unanswered", *MUTANTS[rule])
    monkeypatch.setattr(partition_module, the_module.Unanswered.__name__, changed.Unanswered)
    with pytest.raises(Exception):  # noqa: B017, PT011  # whatever a missing rule leads to
        play_all()
    gc.collect()  # what it has left behind says so here, not in a later test


def play_all() -> None:
    for scenario in SCENARIOS:
        run_virtual(scenario())
