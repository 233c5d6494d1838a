"""Copies are passed over, whatever the store does; what is new is handled, whatever the store does."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

from prosody.broker.protocol import TopicPartition
from prosody.errors import StoreDownError, StoreError
from prosody.middleware import deduplication as module
from prosody.middleware.deduplication import Deduplication, Recent
from prosody.model.message import ExciseMessage, Message, Timer, utc_from_ms
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from prosody.stores.hashing import message_identity
from prosody.stores.memory.dedup import MemoryDedupStore
from prosody.stores.memory.state import MemoryStoreState
from tests.middleware.fakes import (
    DEFERRED,
    PERMANENT,
    TRANSIENT,
    FakePartition,
    Gate,
    Inner,
    in_lane,
    make_run,
    storms,
)
from tests.support import FakeRuntime, other_tasks, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.timers.due import DueTimer

LATE = StoreError("not done within 10 s", retriable=True)


class Scene:
    """The layer over a store whose every call the test may hold up, or let fail."""

    def __init__(
        self, cache_size: int = 100, state: MemoryStoreState | None = None, recent: Any = None
    ) -> None:
        self.state = state or MemoryStoreState()
        self.calls: list[str] = []
        self.held: list[tuple[str, asyncio.Future[None]]] = []
        self.holding: set[str] = set()
        """Calls of these names wait until the test lets them go."""
        self.failing: set[str] = set()
        self.state.on_call = self._on_call
        self.store = MemoryDedupStore(self.state, FakeRuntime(), 3600.0)
        self.layer = Deduplication(cache_size, "1", "g", self.store, storms(), recent)
        self.partition = FakePartition()
        self.offset = 0

    def _on_call(self, name: str) -> Awaitable[None] | None:
        self.calls.append(name)
        if name in self.failing:
            raise LATE
        if name not in self.holding:
            return None
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held.append((name, waiting))
        return waiting

    def let_go(self, name: str, error: StoreError | None = None) -> None:
        """The oldest call of this name that is held up has its effect, or fails."""
        found = next(each for each in self.held if each[0] == name)
        self.held.remove(found)
        if error is None:
            found[1].set_result(None)
        else:
            found[1].set_exception(error)

    def admit(self, event_id: Any = "e1", key: str = "k", **fields: Any) -> Run:
        payload = fields.get("payload", {"id": event_id})
        message = Message("orders", 3, self.offset, utc_from_ms(1_000), key, payload)
        run = make_run(self.offset, self.partition, key=key, event=message)
        self.offset += 1
        self.layer.admitted(run)
        return run

    async def pass_through(self, inner: Call, run: Run | None = None) -> Outcome:
        """Take a run through the layer."""
        return await in_lane(self.layer.wrap(inner), self.admit() if run is None else run)


async def test_a_copy_is_not_handled(caplog: pytest.LogCaptureFixture) -> None:
    scene, inner = Scene(), Inner()
    assert await scene.pass_through(inner) is SUCCESS
    copy = scene.admit()
    with caplog.at_level(logging.DEBUG, "prosody.deduplication"):
        assert await scene.pass_through(inner, copy) is SUCCESS
    assert len(inner.runs) == 1
    assert scene.layer.hits == 1
    assert caplog.messages == [f"handled before, passed over: {copy.where()}"]


@pytest.mark.parametrize(
    "other", [{"event_id": "e2"}, {"key": "k2"}, {"partition": 4}, {"topic": "others"}]
)
async def test_only_the_same_id_key_and_partition_make_a_copy(other: dict[str, Any]) -> None:
    scene, inner = Scene(), Inner()
    await scene.pass_through(inner)
    tp = scene.partition.topic_partition
    scene.partition.topic_partition = TopicPartition(
        other.pop("topic", tp.topic), other.pop("partition", tp.partition)
    )
    await scene.pass_through(inner, scene.admit(**other))
    assert len(inner.runs) == 2


@pytest.mark.parametrize(
    "payload",
    [{}, {"id": 1}, {"id": None}, {"id": ["e1"]}, {"a": {"id": "e1"}}, ["id"], "id", None],
)
async def test_without_a_text_id_nothing_is_asked_or_recorded(payload: Any) -> None:
    scene, inner = Scene(), Inner()
    for _ in range(2):
        run = scene.admit(payload=payload)
        assert run.duplicate is None
        assert await scene.pass_through(inner, run) is SUCCESS
    assert (len(inner.runs), scene.calls, len(scene.layer.recent)) == (2, [], 0)


async def test_without_an_id_the_layer_is_no_coroutine() -> None:
    answer = asyncio.get_running_loop().create_future()
    call = Scene().layer.wrap(cast("Call", lambda run: answer))
    assert call(make_run()) is answer


async def test_other_events_pass() -> None:
    scene = Scene()
    for event in (
        ExciseMessage("orders", 3, 0, utc_from_ms(0), "k"),
        Timer("k", utc_from_ms(0)),
        None,
    ):
        run = make_run(event=event)
        scene.layer.admitted(run)
        assert run.duplicate is None


async def test_the_identity_is_that_of_the_other_libraries() -> None:
    scene = Scene()
    await scene.pass_through(Inner())
    assert list(scene.state.seen) == [message_identity("1", "g", "orders", 3, "k", "e1")]


async def test_the_store_is_asked_at_admission_and_its_answer_fills_the_memory() -> None:
    state = MemoryStoreState()
    await Scene(state=state).pass_through(Inner())
    scene, inner = Scene(state=state), Inner()
    run = scene.admit()
    await settle()
    assert scene.calls == ["dedup.seen"]
    assert await scene.pass_through(inner, run) is SUCCESS
    assert await scene.pass_through(inner) is SUCCESS
    assert inner.runs == []
    assert scene.calls == ["dedup.seen"], "the second copy is known without the store"
    assert scene.layer.hits == 2


@pytest.mark.parametrize(
    ("outcome", "remembered"),
    [
        (SUCCESS, True), (PERMANENT, True),
        (TRANSIENT, False), (DEFERRED, False), (ABANDONED, False),
    ],
)  # fmt: skip
async def test_what_is_finished_is_recorded(outcome: Outcome, remembered: bool) -> None:
    scene, inner = Scene(), Inner(outcome)
    assert await scene.pass_through(inner) is outcome
    await settle()
    assert len(scene.state.seen) == len(scene.layer.recent) == remembered
    await scene.pass_through(inner)
    assert len(inner.runs) == (1 if remembered else 2)


async def test_an_error_out_of_the_stack_passes_unrecorded() -> None:
    async def broken(run: Run) -> Outcome:
        raise KeyError("a fault of the library's own")

    scene = Scene()
    with pytest.raises(KeyError):
        await scene.pass_through(broken)
    assert (len(scene.layer.recent), scene.calls) == (0, ["dedup.seen"])


async def test_nothing_is_recorded_before_the_handler_has_ended() -> None:
    scene, gate = Scene(), Gate()
    lane = in_lane(scene.layer.wrap(gate), scene.admit())
    await settle()
    assert (len(scene.layer.recent), scene.calls) == (0, ["dedup.seen"])
    gate.let_out()
    await lane


# -- the store is slow or away


async def test_a_message_waits_for_the_answer_without_its_permit() -> None:
    scene, inner = Scene(), Inner()
    scene.holding.add("dedup.seen")
    run = scene.admit()
    lane = in_lane(scene.layer.wrap(inner), run)
    await settle()
    assert (inner.runs, scene.partition.gave_back) == ([], [run])
    scene.let_go("dedup.seen")
    assert await lane is SUCCESS
    assert (inner.runs, run.interruptible) == ([run], None)


async def test_an_answer_that_is_there_costs_no_permit() -> None:
    scene = Scene()
    run = scene.admit()
    await settle()
    await scene.pass_through(Inner(), run)
    assert scene.partition.gave_back == []


async def test_a_shutdown_ends_the_wait_for_the_answer() -> None:
    scene, inner = Scene(), Inner()
    scene.holding.add("dedup.seen")
    run = scene.admit()
    lane = in_lane(scene.layer.wrap(inner), run)
    await settle()
    scene.partition.running = False
    run.interrupt()
    assert await lane is ABANDONED
    # In the drain already: a run that comes to its turn does not begin to wait.
    assert await scene.pass_through(inner) is ABANDONED
    assert inner.runs == []
    scene.partition.gave_back.clear()
    del run, lane
    await settle()
    assert other_tasks() == set(), "a look-up that nobody waits for has ended"


async def test_after_a_shutdown_cut_it_short_the_store_is_asked_again() -> None:
    state = MemoryStoreState()
    await Scene(state=state).pass_through(Inner())
    scene, inner = Scene(state=state), Inner()
    scene.holding.add("dedup.seen")
    run = scene.admit()
    lane = in_lane(scene.layer.wrap(inner), run)
    await settle()
    scene.partition.running = False
    run.interrupt()
    await lane
    scene.holding.clear()
    scene.partition = (
        FakePartition()
    )  # the same one, assigned again, while the first run is not gone
    assert await scene.pass_through(inner) is SUCCESS
    assert (inner.runs, scene.layer.hits) == ([], 1)


async def test_a_cancelled_lane_leaves_its_run_to_another_which_asks_again() -> None:
    state = MemoryStoreState()
    await Scene(state=state).pass_through(Inner())
    scene, inner = Scene(state=state), Inner()
    scene.holding.add("dedup.seen")
    run = scene.admit()
    lane = in_lane(scene.layer.wrap(inner), run)
    await settle()
    lane.cancel()  # by a handler that this task ran before
    with pytest.raises(asyncio.CancelledError):
        await lane
    scene.holding.clear()
    assert await scene.pass_through(inner, run) is SUCCESS
    assert (inner.runs, scene.layer.hits) == ([], 1)


async def test_a_store_that_cannot_be_read_has_seen_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene, inner = Scene(), Inner()
    scene.holding.add("dedup.seen")
    lane = in_lane(scene.layer.wrap(inner), scene.admit())
    await settle()
    scene.let_go("dedup.seen", LATE)
    assert await lane is SUCCESS
    assert (len(inner.runs), scene.layer.unread) == (1, 1)
    assert "taken as new: not done within 10 s" in caplog.text
    assert await scene.pass_through(inner) is SUCCESS
    assert len(inner.runs) == 1, "the memory knows it all the same"


async def test_a_store_that_is_down_costs_no_time() -> None:
    scene, inner = Scene(), Inner()
    scene.state.on_call = None
    scene.state.outage()
    with pytest.raises(StoreDownError):
        scene.store.seen(b"")
    run = scene.admit()
    assert await scene.pass_through(inner, run) is SUCCESS
    assert (run.unwritten, scene.partition.gave_back) == (False, [])
    assert (scene.layer.unread, scene.layer.unrecorded) == (1, 1)
    assert await scene.pass_through(inner) is SUCCESS
    assert (len(inner.runs), scene.layer.hits) == (1, 1)


@pytest.mark.parametrize("outcome", [SUCCESS, PERMANENT])
async def test_a_store_that_cannot_be_written_changes_no_outcome(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    scene, inner = Scene(), Inner(outcome)
    scene.failing.add("dedup.record")
    run = scene.admit()
    assert await scene.pass_through(inner, run) is outcome
    await settle()
    assert scene.partition.written_runs == [run], "its offset waits no longer"
    assert (len(inner.runs), scene.layer.unrecorded) == (1, 1)
    assert "handled, but not recorded in the store" in caplog.text


async def test_a_fault_in_the_store_is_no_failure_of_a_message() -> None:
    class Broken:
        def seen(self, identity: bytes) -> asyncio.Future[bool]:
            raise TypeError("a fault of the library's own")

        def record(self, identity: bytes) -> asyncio.Future[None]:
            raise TypeError("a fault of the library's own")

    scene, inner = Scene(), Inner()
    scene.layer = Deduplication(9, "1", "g", Broken(), storms())
    assert await scene.pass_through(inner) is SUCCESS
    assert (scene.layer.unread, scene.layer.unrecorded) == (1, 1)


async def test_without_a_store_the_memory_does_it_alone() -> None:
    scene, inner = Scene(), Inner()
    scene.layer = Deduplication(9, "1", "g", None, storms())
    run = scene.admit()
    await scene.pass_through(inner, run)
    await scene.pass_through(inner)
    assert (len(inner.runs), scene.layer.hits, run.unwritten, scene.calls) == (1, 1, False, [])


# -- the record


async def test_the_record_is_written_behind_the_back_of_the_run() -> None:
    scene = Scene()
    scene.holding.add("dedup.record")
    run = scene.admit()
    assert await scene.pass_through(Inner(), run) is SUCCESS
    assert run.unwritten
    await settle()
    assert scene.partition.written_runs == []
    scene.let_go("dedup.record")
    await settle()
    assert scene.partition.written_runs == [run]


async def test_of_a_deferred_message_the_offset_waits_for_nothing() -> None:
    scene = Scene(cache_size=1)
    scene.holding.add("dedup.record")
    run = scene.admit()
    run.timer = cast("DueTimer", object())
    await scene.pass_through(Inner(), run)
    assert not run.unwritten
    # While its record is on the way, a copy is told even without the memory.
    scene.layer.recent.note(b"another")
    run.duplicate = None
    del run
    inner = Inner()
    assert await scene.pass_through(inner) is SUCCESS
    assert inner.runs == []
    scene.let_go("dedup.record")
    await settle()
    assert scene.partition.written_runs == []
    assert len(scene.state.seen) == 1


# -- copies at the same time


async def test_a_copy_admitted_before_the_first_has_finished_is_told_by_the_memory() -> None:
    scene, inner = Scene(), Inner()
    first, second = scene.admit(), scene.admit()
    assert scene.calls == [] or len(scene.calls) == 1, "both share one question"
    await scene.pass_through(inner, first)
    await scene.pass_through(inner, second)
    assert len(inner.runs) == 1


async def test_so_it_is_when_the_memory_has_forgotten_it_and_the_store_is_away() -> None:
    scene, inner = Scene(cache_size=1), Inner()
    scene.failing.update(("dedup.seen", "dedup.record"))
    first, second = scene.admit(), scene.admit()
    await scene.pass_through(inner, first)
    await scene.pass_through(inner, scene.admit("another"))
    assert not scene.layer.recent.knows(second.duplicate.identity)
    await scene.pass_through(inner, second)
    assert [run.record.offset for run in inner.runs if run.record] == [0, 2]


async def test_a_copy_admitted_while_the_record_is_on_its_way_is_told() -> None:
    scene, inner = Scene(cache_size=1), Inner()
    scene.holding.add("dedup.record")
    await scene.pass_through(inner, first := scene.admit())
    await scene.pass_through(inner, scene.admit("another"))
    assert first.unwritten
    await scene.pass_through(inner)
    assert len(inner.runs) == 2
    scene.let_go("dedup.record")
    scene.let_go("dedup.record")
    await settle()


async def test_a_copy_that_waits_for_the_store_is_told_by_the_memory_afterwards() -> None:
    """Two owners overlap: the old one's handler ends while the new one's look-up is under way."""
    scene, gate = Scene(), Gate()
    old = in_lane(scene.layer.wrap(gate), scene.admit())
    await settle()
    scene.partition = FakePartition()
    scene.holding.add("dedup.seen")
    inner = Inner()
    new = in_lane(scene.layer.wrap(inner), scene.admit())
    await settle()
    gate.let_out()
    await old
    scene.let_go("dedup.seen", LATE)
    assert await new is SUCCESS
    assert inner.runs == []


async def test_a_later_copy_asks_anew_when_the_first_has_had_its_answer() -> None:
    """Another process may have finished the message meanwhile."""
    scene, gate = Scene(), Gate()
    lane = in_lane(scene.layer.wrap(gate), scene.admit())
    await settle()
    scene.state.on_call = None
    await scene.store.record(message_identity("1", "g", "orders", 3, "k", "e1"))
    assert scene.admit().duplicate.asked.result()
    gate.let_out(TRANSIENT)
    await lane


async def test_a_copy_admitted_in_the_moment_of_the_answer_takes_nothing_away() -> None:
    scene, inner = Scene(), Inner()
    scene.holding.add("dedup.seen")
    first = in_lane(scene.layer.wrap(inner), scene.admit())
    await settle()
    scene.partition.gave_back[0].duplicate.asked.set_result(False)
    second = scene.admit()  # before the lane of the first has had its turn
    assert await first is SUCCESS
    assert await scene.pass_through(inner, second) is SUCCESS
    assert len(inner.runs) == 1
    for _, waiting in scene.held:
        waiting.cancel()
    await settle()


async def test_copies_behind_a_deferred_head_are_told_when_they_run() -> None:
    """Both were admitted, and deferred, long before the head succeeds: each is admitted once more."""
    scene, inner = Scene(), Inner(DEFERRED, DEFERRED, SUCCESS)
    await scene.pass_through(inner)
    await scene.pass_through(inner)
    assert len(inner.runs) == 2
    timer_run = scene.admit(payload={})
    timer_run.timer = cast("DueTimer", object())
    call = scene.layer.wrap(inner)
    for offset in (0, 1):
        message = Message("orders", 3, offset, utc_from_ms(1_000), "k", {"id": "e1"})
        timer_run.take_on(make_run(offset).record, message)
        assert timer_run.duplicate is None
        scene.layer.admitted(timer_run)
        assert (await call(timer_run)).kind is Kind.SUCCESS
    assert len(inner.runs) == 3


# -- memory


async def test_entries_go_with_their_runs() -> None:
    scene = Scene()
    scene.holding.add("dedup.seen")
    runs = [scene.admit("e1"), scene.admit("e1"), scene.admit("e2")]
    assert len(scene.layer._entries) == 2
    del runs[0]
    assert len(scene.layer._entries) == 2
    runs.clear()
    assert scene.layer._entries == {}
    await settle()
    assert other_tasks() == set(), "nobody asks for them any more"


async def test_failures_that_nobody_looks_at_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.holding.add("dedup.seen")
    run = scene.admit()
    await settle()
    scene.let_go("dedup.seen", LATE)
    await settle()
    assert run.duplicate.asked.done()
    del run
    gc.collect()
    assert caplog.text == ""


async def test_after_a_failed_look_up_runs_are_freed_without_the_garbage_collector() -> None:
    scene = Scene()
    scene.holding.add("dedup.seen")
    run = scene.admit()
    lane = in_lane(scene.layer.wrap(Inner()), run)
    await settle()
    scene.let_go("dedup.seen", StoreError("late", retriable=True))
    await lane
    await settle()
    scene.partition.gave_back.clear()
    scene.partition.written_runs.clear()
    gc.disable()
    try:
        del run, lane
        assert scene.layer._entries == {}
    finally:
        gc.enable()


async def test_partitions_that_come_and_go_leave_nothing_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PARTITIONS_MOST", 3)
    scene, inner = Scene(), Inner()
    for number in range(20):
        scene.partition.topic_partition = TopicPartition("orders", number)
        await scene.pass_through(inner)
        await scene.pass_through(inner)
        assert len(scene.layer._identities) <= 3
    assert len(inner.runs) == 20


def test_the_memory_keeps_what_was_noted_last() -> None:
    recent = Recent(3)
    for identity in (b"a", b"b", b"c", b"a", b"d"):
        recent.note(identity)
    assert [recent.knows(x) for x in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert len(recent) == 3


async def test_the_memory_can_outlive_a_subscription() -> None:
    first, inner = Scene(), Inner()
    await first.pass_through(inner)
    second = Scene(recent=first.layer.recent)
    await second.pass_through(inner)
    assert (len(inner.runs), second.calls) == (1, [])
