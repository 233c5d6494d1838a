"""One partition: admission, ends, commits, draining, faults."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from prosody._core.offset_set import decode_finished
from prosody.broker.protocol import Start
from prosody.consume.progress import Reached
from prosody.model.message import ExciseMessage, Message
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from prosody.model.run import Run
from tests.consume.fakes import Around, Stage, lanes_of, record, records
from tests.support import settle

if TYPE_CHECKING:
    from prosody.consume.partition import Partition


async def test_admits_no_more_than_max_uncommitted_and_refills() -> None:
    stage = Stage()
    around = Around(stage, max_uncommitted=3)
    partition = around.partition()
    partition.receive([record(n, f"k{n}".encode()) for n in range(6)])
    await settle()
    assert (partition.uncommitted, stage.offsets) == (3, [0, 1, 2])
    assert not partition.wants_records
    stage.end(1)
    await settle()
    assert (partition.uncommitted, stage.offsets) == (3, [0, 2, 3])
    for offset in (0, 2, 3):
        stage.end(offset)
    await settle()
    assert (stage.offsets, partition.wants_records, around.wants) == ([4, 5], True, 1)
    assert partition.to_commit() == 4
    await close(partition, stage)


async def test_a_key_is_taken_in_order_and_one_at_a_time() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    partition.receive([*records(0, 1, key=b"a"), *records(2, key=b"b"), *records(3, key=b"a")])
    await settle()
    assert stage.offsets == [0, 2]
    stage.end(0)
    await settle()
    assert stage.offsets == [2, 1]
    stage.end(1)
    await settle()
    assert stage.offsets == [2, 3]
    await close(partition, stage)


async def test_what_is_delivered_again_is_not_handled_again() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    partition.receive(records(5, 6))
    partition.receive(records(5, 6, 7))
    await settle()
    stage.end(5)
    await settle()
    stage.end(6)
    await settle()
    assert stage.seen == [5, 6, 7]
    assert partition.uncommitted == 1
    await close(partition, stage)


async def test_gaps_and_what_is_not_for_the_handler_are_committed() -> None:
    stage = Stage()
    partition = Around(stage, allowed=["order."]).partition(start=Start(3))
    partition.receive(
        [
            record(3, value=b'{"type": "order.made"}'),
            record(9, value=b'{"type": "invoice.made"}'),
            record(10, value=None),
            record(11, value=b"\xff"),
            record(12, key=b"\xff"),
            record(14, value=b"{}", headers=[("source-system", b"service")]),
        ]
    )
    await settle()
    assert (stage.seen, partition.uncommitted, partition.to_commit()) == ([3], 1, 3)
    assert decode_finished(partition.progress.text(100), 3) == [(4, 15)]
    stage.end(3)
    await settle()
    assert partition.to_commit() == 15
    await close(partition, stage)


async def test_records_without_key_or_value_and_undecodable_ones_can_be_taken() -> None:
    stage = Stage()
    partition = Around(stage, takes_excise=True, takes_undecodable=True).partition()
    partition.receive(
        [record(0, None), record(1, b"b", None), record(2, b"c", b""), record(3, b"\xff", b"{}")]
    )
    await settle()
    runs: dict[int, Run] = {run.record.offset: run for run, _ in stage.on_stage}
    assert sorted(runs) == [0, 1, 2, 3]
    assert isinstance(runs[0].event, Message)
    assert runs[0].key == ""
    assert isinstance(runs[1].event, ExciseMessage)
    assert (runs[2].event, runs[2].key) == (None, "c")
    assert "the value is not JSON: it is empty" in str(runs[2].error)
    assert (runs[3].event, runs[3].key) == (None, "\\xff")
    await close(partition, stage)


async def test_committed_offsets_never_pass_what_is_unfinished() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    partition.receive([record(n, f"k{n}".encode()) for n in range(4)])
    await settle()
    for offset, expected in ((2, 0), (1, 0), (0, 3), (3, 4)):  # at 0 with more metadata
        stage.end(offset)
        await settle()
        assert partition.to_commit() == expected
    partition.progress.committed = Reached(4, 0)
    assert partition.to_commit() is None
    await close(partition, stage)


@pytest.mark.parametrize("kind", list(Kind))
async def test_only_an_abandoned_run_stays_uncommitted(kind: Kind) -> None:
    stage = Stage()
    partition = Around(stage).partition()
    partition.receive(records(0))
    await settle()
    run = stage.on_stage[0][0]
    stage.end(0, Outcome(kind))
    await settle()
    assert partition.uncommitted == (kind is Kind.ABANDONED)
    assert (run.finished, partition.queue.in_flight, partition.runs) == (True, 0, set())
    await close(partition, stage)


async def test_stalled_is_the_age_of_the_oldest() -> None:
    stage = Stage()
    partition = Around(stage).partition()
    assert not partition.is_stalled(1e9, 1.0)
    partition.receive(records(0))
    await asyncio.sleep(5.0)
    partition.receive(records(1, key=b"other"))
    await settle()
    assert partition.is_stalled(5.0, 5.0)
    stage.end(0)
    await settle()
    assert not partition.is_stalled(5.0, 5.0)
    await close(partition, stage)


# Draining


async def test_a_drain_ends_with_the_last_handler_and_starts_nothing_more() -> None:
    stage = Stage()
    partition = Around(stage, max_uncommitted=3).partition()
    partition.receive(records(0, 1, 2, 3))
    await settle()
    drains = [asyncio.create_task(partition.drain(8.0, 10.0)) for _ in range(2)]
    await asyncio.sleep(3.0)
    assert not drains[0].done()
    partition.receive(records(4))
    stage.end(0)
    await asyncio.gather(*drains)
    await settle()
    assert asyncio.get_running_loop().time() == 3.0
    assert (stage.seen, partition.to_commit()) == ([0], 1)
    assert (partition.closed, partition.cancelling, partition.wants_records) == (True, False, False)
    assert (partition.queue.queued, partition.queue.in_flight) == (0, 0)


async def test_a_drain_cancels_then_leaves_behind(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    told: dict[int, float] = {}
    stubborn_ends = asyncio.Event()

    async def handler(run: Run) -> Outcome:
        run.handling = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told[run.record.offset] = loop.time()
            if run.record.offset == 1:
                await stubborn_ends.wait()
        finally:
            run.handling = False
        task = asyncio.current_task()
        assert task is not None
        while task.cancelling():
            task.uncancel()
        return ABANDONED if run.record.offset == 0 else SUCCESS

    partition = Around(handler).partition()
    partition.receive([record(0, b"a"), record(1, b"b")])
    await settle()
    await partition.drain(8.0, 10.0)
    assert told == pytest.approx({0: 8.0, 1: 8.0})
    assert loop.time() == pytest.approx(10.0)
    assert "left behind" in caplog.text
    assert "offset 1" in caplog.text
    assert partition.to_commit() is None
    stubborn_ends.set()
    await settle()
    assert (partition.runs, partition.queue.in_flight) == (set(), 0)


async def test_a_lost_partition_cancels_at_once() -> None:
    stage = Stage()
    around = Around(stage)
    partition = around.partition()
    partition.receive(records(0, 1))
    await settle()
    partition.lose()
    await settle()
    assert asyncio.get_running_loop().time() == 0.0
    assert (partition.closed, stage.offsets, partition.queue.queued) == (True, [], 0)
    assert partition.to_commit() is None
    assert around.faults == []


@pytest.mark.parametrize("lost_at_s", [1.0, 20.0], ids=["draining", "waiting for the end"])
async def test_no_wait_outlasts_the_loss(
    lost_at_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    ends = asyncio.Event()

    async def stubborn(run: Run) -> Outcome:
        run.handling = True
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue
        run.handling = False
        return SUCCESS

    partition = Around(stubborn).partition()
    partition.receive(records(0))
    await settle()

    async def end() -> None:
        await partition.drain(8.0, 10.0)
        await partition.wait_ended()

    ending = asyncio.create_task(end())
    await asyncio.sleep(lost_at_s)
    partition.lose()
    await ending
    assert asyncio.get_running_loop().time() == lost_at_s
    assert caplog.text.count("left behind") == (lost_at_s > 10.0)
    assert "waits for handlers" not in caplog.text
    ends.set()
    await settle()


async def test_an_interrupted_wait_ends_with_admission() -> None:
    waits: list[bool] = []

    async def waiting(run: Run) -> Outcome:
        run.interruptible = asyncio.get_running_loop().create_future()
        waits.append(await run.interruptible)
        return ABANDONED

    partition = Around(waiting).partition()
    partition.receive(records(0))
    await settle()
    await partition.drain(8.0, 10.0)
    assert waits == [False]
    assert asyncio.get_running_loop().time() == 0.0


# Faults of ours


async def test_a_fault_in_a_run_stops_its_key_before_it_is_free() -> None:
    stage = Stage()
    around = Around(stage)
    partition = around.partition()
    partition.receive(records(0))
    await settle()
    stage.end(0)  # the turn of the lanes has begun: from now on they go from run to run
    await settle()
    partition.receive([*records(1, 2, key=b"a"), record(3, b"b"), record(4, b"c")])
    await settle()
    fault = ZeroDivisionError("a bug")
    stage.end(1, fault)
    stage.end(3)  # its lane looks for work in the very turn in which the other one fails
    await settle()
    assert (around.faults, stage.seen) == ([fault], [0, 1, 3, 4])
    assert (partition.running, partition.progress.offset) == (False, 1)
    stage.end(4, RuntimeError("another bug"))
    await settle()
    assert around.faults == [fault]
    await close(partition, stage)


async def test_a_fault_in_admission_is_the_partitions_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    stage = Stage()
    around = Around(stage, max_uncommitted=1)
    partition = around.partition()
    partition.receive([record(4, b"a"), record(5, b"b")])
    await settle()
    monkeypatch.setattr(partition.inbox, "_plain", SimpleNamespace(admit=fails))
    stage.end(4)
    await settle()
    assert (len(around.faults), partition.running, partition.progress.offset) == (1, False, 5)
    await close(partition, stage)


async def test_a_fault_before_anything_was_admitted_resumes_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around = Around(Stage())
    partition = around.partition(start=Start(7))
    monkeypatch.setattr(around.runtime, "monotonic", lambda: "no number")
    partition.receive(records(7, 8))
    assert (len(around.faults), partition.progress.offset) == (1, 7)
    await partition.drain(0.0, 0.0)


async def close(partition: Partition, stage: Stage) -> None:
    drained = asyncio.create_task(partition.drain(8.0, 10.0))
    await settle()
    for offset in stage.offsets:
        stage.end(offset)
    await drained
    await settle()
    assert (partition.runs, partition.queue.queued, partition.queue.in_flight) == (set(), 0, 0)
    assert not lanes_of(partition)._tasks
