"""``client.snapshot``: what it shows over virtual time, and that ``/debug/state`` is the very same."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import prosody
from prosody import Snapshot
from prosody.consume.keys import BUSIEST_MOST, DEFERRED_MOST
from prosody.consume.picture import RUNS_MOST, WAITING_MOST
from tests.client.probing import ask, probed, until
from tests.client.scene import Scene, played
from tests.client.support import Place, Recorder, eventually, run_simulated
from tests.support import WALL_AT_START_S

if TYPE_CHECKING:
    from prosody import Context, Message

TYPES = (
    prosody.Snapshot, prosody.PartitionSnapshot, prosody.OldestMessage, prosody.RunSnapshot,
    prosody.WaitingKey, prosody.BusyKey, prosody.DeferredKey,
)  # fmt: skip


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(WALL_AT_START_S + seconds, UTC)


@pytest.mark.parametrize("kind", TYPES)
def test_all_is_frozen_and_has_no_room_for_more(kind: Any) -> None:
    assert dataclasses.is_dataclass(kind)
    assert "__slots__" in vars(kind)
    assert kind.__dataclass_params__.frozen


def test_before_and_after_a_subscription() -> None:
    async def main(scene: Scene) -> None:
        client = scene.client
        assert await client.snapshot() == Snapshot(at(0.0), "configured", "not subscribed")
        assert (await scene.place.client(group_id=None).snapshot()).state == "unconfigured"
        await scene.begin(b"a")
        running = await client.snapshot()
        assert (running.state, running.not_ready) == ("running", None)
        stopping = asyncio.create_task(client.shutdown())
        await asyncio.sleep(0.1)
        leaving = await client.snapshot()
        assert (leaving.state, leaving.not_ready) == ("shut_down", "shutting down")
        assert leaving.state == await client.consumer_state()
        assert [p.state for p in leaving.partitions] == ["draining"]
        scene.open.set()
        await stopping
        after = await client.snapshot()
        assert (after.state, after.not_ready, after.partitions) == (
            "shut_down", "not subscribed", ()
        )  # fmt: skip

    played(main)


def test_a_partition_and_its_oldest_message() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a", b"b")
        scene.open.set()
        await scene.put(b"c")
        scene.open.clear()
        await scene.put(b"d", b"d", b"e")
        await asyncio.sleep(7.0)
        snapshot = await scene.client.snapshot()
        (partition,) = snapshot.partitions
        assert (partition.topic, partition.partition) == (scene.place.topic, 0)
        assert (partition.offset, partition.committed, partition.end, partition.lag) == (3, 3, 6, 3)
        assert (partition.uncommitted, partition.queued, partition.last_received) == (3, 1, 5)
        oldest = partition.oldest
        assert oldest is not None
        assert (oldest.offset, oldest.key, oldest.attempt) == (3, "d", 1)
        assert 8.0 <= oldest.age_s <= 12.0
        assert oldest.since == snapshot.at - timedelta(seconds=oldest.age_s)
        assert oldest.doing is not None
        assert oldest.doing.startswith("its handler runs (attempt 1)")
        assert snapshot.keys_running == 2
        assert [(r.key, r.offset, r.handling) for r in snapshot.runs] == [
            ("d", 3, True), ("e", 5, True)
        ]  # fmt: skip

    played(main)


def test_what_waits_the_longest_comes_first() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a", b"b")
        await scene.put(b"c")
        snapshot = await scene.client.snapshot()
        assert (snapshot.permits, snapshot.permits_in_use) == (1, 1)
        assert [w.key for w in snapshot.waiting] == ["b", "c"]
        first, second = snapshot.waiting
        assert (first.offset, first.timer, first.attempt) == (1, None, 0)
        assert first.waited_s > second.waited_s >= 1.0
        assert first.since == snapshot.at - timedelta(seconds=first.waited_s)

    played(main, max_concurrency=1)


def test_a_later_attempt_that_waits_for_a_permit_is_shown() -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin(b"a")
        scene.failing = False
        await scene.put(b"b")  # takes the permit while ``a`` is in backoff
        await asyncio.sleep(20.0)
        snapshot = await scene.client.snapshot()
        assert [(w.key, w.attempt) for w in snapshot.waiting] == [("a", 1)]
        assert [(r.key, r.handling) for r in snapshot.runs] == [("a", False), ("b", True)]

    played(main, defer_enabled=False, retry_base=10.0, max_retry_delay=10.0, max_concurrency=1)


@pytest.mark.parametrize("mode", ["pipeline", "best-effort"])
def test_the_busiest_keys(mode: str) -> None:
    async def main(scene: Scene) -> None:
        scene.takes_s = 4.0
        await scene.begin(b"a", b"b")
        await asyncio.sleep(8.0)
        scene.takes_s = 0.0
        await scene.put(b"b", b"c")
        await asyncio.sleep(1.0)
        busiest = (await scene.client.snapshot()).busiest
        assert [(b.key, b.handling) for b in busiest] == [("b", True), ("a", False), ("c", True)]
        # 4 s that ended some seconds ago, of which a little has been forgotten, and what runs.
        assert 5.0 < busiest[0].handler_s < 7.0
        assert 3.5 < busiest[1].handler_s < 4.0
        await asyncio.sleep(120.0)
        (busy,) = [b for b in (await scene.client.snapshot()).busiest if b.key == "a"]
        assert 1.7 < busy.handler_s < 2.0  # half of it

    played(main, mode=mode, monopolization_enabled=False)


def test_keys_of_a_partition_that_is_gone_are_not_busy() -> None:
    async def main(scene: Scene) -> None:
        scene.takes_s = 1.0
        await scene.begin(b"a")
        await scene.put()
        assert [b.key for b in (await scene.client.snapshot()).busiest] == ["a"]
        consumer = scene.client._consumer
        assert consumer is not None
        (partition,) = consumer.inside.assignment.partitions()
        consumer.inside.assignment.on_lost(frozenset([partition.topic_partition]))
        assert (await scene.client.snapshot()).busiest == ()

    played(main)


def test_deferred_keys() -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin(b"a", b"b")
        await scene.put(b"a")
        snapshot = await scene.client.snapshot()
        assert [(d.key, d.kind, d.failures, d.last_error) for d in sorted(
            snapshot.deferred, key=lambda d: d.key
        )] == [
            ("a", "message", 1, "ValueError: a bug of the handler"),
            ("b", "message", 1, "ValueError: a bug of the handler"),
        ]  # fmt: skip
        first, second = snapshot.deferred
        assert first.next_try is not None
        assert second.next_try is not None
        assert snapshot.at < first.next_try <= second.next_try <= snapshot.at + timedelta(minutes=1)
        (partition,) = snapshot.partitions
        assert (partition.deferred_messages, partition.deferred_timers) == (2, 0)
        assert partition.deferred_since is not None
        assert partition.timers_pending == snapshot.timers_pending == 0
        await asyncio.sleep(60.0)  # a second failure of each
        again = await scene.client.snapshot()
        assert [d.failures for d in again.deferred] == [2, 2]
        scene.failing = False
        scene.open.set()
        await asyncio.sleep(200.0)
        assert (await scene.client.snapshot()).deferred == ()

    played(main, defer_base=60.0)


def test_what_the_next_owner_knows_of_deferred_keys() -> None:
    """Names by the retry timers that are loaded; a count of those that lie farther ahead."""

    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin(b"far")
        await scene.client.unsubscribe()
        await scene.client.subscribe(scene)
        await scene.put()
        snapshot = await scene.client.snapshot()
        assert (snapshot.deferred, snapshot.deferred_not_shown) == ((), 1)
        # Loaded ten minutes ahead of its time, with its name; what it failed with is in the store only.
        for _ in range(20):
            await asyncio.sleep(60.0)
            snapshot = await scene.client.snapshot()
            if snapshot.deferred:
                break
        (deferred,) = snapshot.deferred
        assert (deferred.key, deferred.failures, deferred.last_error) == ("far", None, None)
        assert deferred.next_try is not None
        assert deferred.next_try <= snapshot.at + timedelta(minutes=10)

    played(main, defer_base=1500.0, defer_max_delay=3000.0)


def test_timers_that_are_pending() -> None:
    class Sets(Scene):
        async def on_message(self, context: Context, message: Message) -> None:
            for seconds in (60.0, 120.0):
                when = self.place.runtime.wall() + seconds
                await context.schedule(datetime.fromtimestamp(when, UTC))

    async def main(place: Place) -> None:
        scene = Sets(place)
        await scene.begin(b"a")
        snapshot = await scene.client.snapshot()
        assert snapshot.timers_pending == snapshot.partitions[0].timers_pending == 2
        await asyncio.sleep(62.0)  # one fires, and its handler hangs
        snapshot = await scene.client.snapshot()
        assert snapshot.timers_pending == 2
        (run,) = snapshot.runs
        assert (run.key, run.offset, run.handling) == ("a", None, True)
        assert run.timer is not None
        assert run.since - run.timer < timedelta(seconds=1)
        scene.open.set()

    run_simulated(main)


def test_all_lists_have_limits_and_say_what_they_leave_out() -> None:
    async def main(scene: Scene) -> None:
        keys = [b"k%03d" % n for n in range(RUNS_MOST + 50)]
        await scene.begin()
        await scene.place.put_many([(key, {}) for key in keys])
        await asyncio.sleep(1.0)
        snapshot = await scene.client.snapshot()
        shown = RUNS_MOST + 20
        assert (len(snapshot.runs), snapshot.runs_not_shown) == (RUNS_MOST, 20)
        assert (len(snapshot.waiting), snapshot.waiting_not_shown) == (WAITING_MOST, 10)
        assert len(snapshot.busiest) == BUSIEST_MOST
        assert snapshot.keys_running == shown
        scene.failing = True
        scene.open.set()
        await asyncio.sleep(1.0)
        await scene.place.put_many([(key, {}) for key in keys])
        await asyncio.sleep(1.0)
        snapshot = await scene.client.snapshot()
        assert len(snapshot.deferred) == DEFERRED_MOST
        assert snapshot.deferred_not_shown == len(keys) - DEFERRED_MOST
        assert len(json.dumps(snapshot.as_dict())) < 100_000

    played(
        main, max_concurrency=RUNS_MOST + 20, max_uncommitted=1000, defer_failure_threshold=1.0,
        defer_base=60.0,
    )  # fmt: skip


def test_long_keys_and_errors_are_cut() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"x" * 5_000)
        snapshot = await scene.client.snapshot()
        assert len(snapshot.runs[0].key) < 210
        assert len(snapshot.busiest[0].key) < 210

    played(main)


def test_in_json_times_are_iso_and_all_else_is_plain() -> None:
    async def main(scene: Scene) -> None:
        await scene.begin(b"a")
        found = (await scene.client.snapshot()).as_dict()
        assert json.loads(json.dumps(found)) == found
        assert found["at"] == "2023-11-14T22:13:22.000Z"
        assert found["runs"][0]["since"].endswith("Z")
        assert isinstance(found["partitions"][0]["oldest"]["age_s"], float)

    played(main)


async def test_over_both_brokers_and_over_http(place: Place) -> None:
    """The lag by what was fetched; ``/debug/state`` is ``snapshot().as_dict()``."""
    await place.create_topic(partitions=1)
    client = probed(place, debug_endpoint=True, max_uncommitted=2, mode="pipeline")
    open_ = asyncio.Event()

    async def hangs(context: Context, message: Message) -> None:
        await open_.wait()

    recorder = Recorder(hangs)
    await client.subscribe(recorder)
    await until(client, "/readyz", 200)
    await place.put_many([(b"k%d" % n, {}) for n in range(5)])
    await recorder.until(lambda r: len(r.attempts) == 2)

    async def end_is_known() -> bool:
        (partition,) = (await client.snapshot()).partitions
        return (partition.end, partition.lag, partition.uncommitted) == (5, 5, 2)

    await eventually(end_is_known, "the end of the log is known by what was fetched")
    served = json.loads((await ask(client, "/debug/state")).text)
    (partition,) = served["partitions"]
    assert (partition["end"], partition["lag"], partition["oldest"]["key"]) == (5, 5, "k0")
    now = (await client.snapshot()).as_dict()
    assert same_but_for_time(served) == same_but_for_time(now)
    open_.set()
    await recorder.until_handled(5)

    async def no_lag() -> bool:
        (partition,) = (await client.snapshot()).partitions
        return (partition.end, partition.lag) == (5, 0)

    await eventually(no_lag, "all is committed")


def same_but_for_time(value: Any) -> Any:
    """Without what another moment changes."""
    if isinstance(value, dict):
        moving = {"at", "since", "age_s", "doing", "waited_s", "handler_s"}
        return {k: same_but_for_time(v) for k, v in value.items() if k not in moving}
    return [same_but_for_time(v) for v in value] if isinstance(value, list) else value
