"""Admission: bounded by what is unfinished, and by what the metadata of a commit can hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody._core.offset_set import MAX_TEXT
from prosody.broker.protocol import Start
from prosody.consume.progress import METADATA_MAX
from prosody.consume.remembered import encode_runs
from prosody.model.outcome import SUCCESS, Outcome
from tests.consume.fakes import Around, Stage, record
from tests.support import settle

if TYPE_CHECKING:
    from prosody.consume.partition import Partition
    from prosody.model.run import Run


class Stuck:
    """The stack: offsets divisible by ``every`` wait for the test; all others end at once."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.waiting: dict[int, asyncio.Future[Outcome]] = {}
        self.seen = 0

    async def __call__(self, run: Run) -> Outcome:
        self.seen += 1
        offset = run.record.offset
        if offset % self.every:
            return SUCCESS
        self.waiting[offset] = asyncio.get_running_loop().create_future()
        try:
            return await self.waiting[offset]
        finally:
            del self.waiting[offset]

    def end(self, *offsets: int) -> None:
        for offset in offsets:
            self.waiting[offset].set_result(SUCCESS)


class Feed:
    """Gives records as a poller does: whenever the partition wants some."""

    def __init__(self, partition: Partition, start: int = 0, **fields: object) -> None:
        self.partition = partition
        self.next = start
        self.fields = fields

    async def give(self, upto: int, step: int = 1) -> None:
        while self.next < upto and self.partition.wants_records:
            stop = min(self.next + 1000 * step, upto)
            self.partition.receive(
                [
                    record(n, b"%d" % n, **self.fields)  # type: ignore[arg-type]
                    for n in range(self.next, stop, step)
                ]
            )
            self.next = stop
            await settle()


def fits(partition: Partition, limit: int) -> bool:
    return partition.progress.text(limit) == partition.progress.text(MAX_TEXT)


@pytest.mark.parametrize("filtered", [False, True])
async def test_admission_stops_behind_a_stuck_head_and_goes_on_when_it_ends(filtered: bool) -> None:
    """One head, finished followers in the thousands, a metadata limit that they reach."""
    limit = 33
    stuck = Stuck(every=1_000_000)
    around = Around(stuck, metadata_max=limit, allowed=["order."])
    partition = around.partition()
    partition.receive([record(0, value=b'{"type": "order.made"}')])
    await settle()
    fields = {} if filtered else {"value": b'{"type": "order.made"}'}
    feed = Feed(partition, 1, **fields)
    await feed.give(20_000)
    stopped_at = partition.tracker.last_admitted
    assert stopped_at is not None
    assert 1_000 < stopped_at < 10_000
    assert not partition.wants_records
    assert (partition.uncommitted, partition.progress.offset) == (1, 0)
    assert partition.tracker.encoded_length() + 22 > limit
    assert fits(partition, limit)
    await settle()
    assert partition.tracker.last_admitted == stopped_at
    stuck.end(0)
    await settle()
    assert partition.wants_records
    assert partition.progress.offset == feed.next
    await feed.give(9_000)
    assert partition.progress.offset == max(feed.next, 9_000)
    assert asyncio.get_running_loop().time() == 0.0  # nothing was polled for
    await partition.drain(0.0, 0.0)


async def test_holes_in_the_offsets_count_too() -> None:
    stuck = Stuck(every=1_000_000)
    partition = Around(stuck, metadata_max=45).partition()
    partition.receive([record(0), *[record(10**n + 1, b"%d" % n) for n in range(1, 18)]])
    await settle()
    assert stuck.seen < 18
    assert partition.tracker.encoded_length() + 22 > 45
    assert fits(partition, 45)
    stuck.end(0)
    await settle()
    assert (stuck.seen, partition.progress.offset) == (18, 10**17 + 2)
    await partition.drain(0.0, 0.0)


async def test_the_whole_limit_is_used_and_never_passed() -> None:
    """Every third record is stuck, with room for all of them: the metadata is what ends admission."""
    stuck = Stuck(every=3)
    partition = Around(stuck, max_uncommitted=100_000).partition()
    feed = Feed(partition)
    await feed.give(100_000)
    assert not partition.wants_records
    assert len(partition.progress.text(MAX_TEXT)) > 0.8 * METADATA_MAX
    assert fits(partition, METADATA_MAX)
    admitted = stuck.seen
    assert admitted > 12_000
    stuck.end(*sorted(stuck.waiting)[1::2])  # now most of it is finished, and what is not is sparse
    await settle()
    assert stuck.seen > admitted
    assert fits(partition, METADATA_MAX)
    while stuck.waiting:
        stuck.end(*stuck.waiting)
        await settle()
    assert partition.progress.offset == feed.next
    await partition.drain(0.0, 0.0)


async def test_what_was_finished_before_is_neither_decoded_nor_run() -> None:
    stage = Stage()
    around = Around(stage, max_uncommitted=2)
    note = encode_runs(4, [(5, 8), (9, 10)], 100)
    partition = around.partition(start=Start(4, note, 20))
    broken = record(5, value=b"\xff{")
    partition.receive([record(4, b"a"), broken, *(record(n, b"%d" % n) for n in range(6, 12))])
    await settle()
    assert stage.offsets == [4, 8]  # what is finished takes no place
    stage.end(4)
    await settle()
    assert (stage.offsets, partition.progress.offset) == ([8, 10], 8)
    stage.end(8)
    await settle()
    assert (stage.offsets, partition.progress.offset) == ([10, 11], 10)
    for offset in (10, 11):
        stage.end(offset)
    await settle()
    assert partition.progress.offset == 12
    assert stage.seen == [4, 8, 10, 11]
    await partition.drain(0.0, 0.0)


async def test_a_record_below_the_start_is_ignored() -> None:
    stage = Stage()
    partition = Around(stage).partition(start=Start(4))
    partition.receive([record(n, b"%d" % n) for n in (2, 3, 4, 5)])
    await settle()
    assert stage.offsets == [4, 5]
    for offset in (4, 5):
        stage.end(offset)
    await settle()
    await partition.drain(0.0, 0.0)


async def test_a_note_that_fills_the_limit_still_lets_one_record_go_on_at_a_time() -> None:
    """Also then nothing is left out of what goes out, and the room comes back bit by bit."""
    limit = 60
    runs = [(n, n + 1) for n in range(2, 220, 2)]
    while len(note := encode_runs(0, runs, MAX_TEXT)) > limit:
        runs.pop()
    stage = Stage()
    partition = Around(stage, max_uncommitted=1000, metadata_max=limit).partition(
        start=Start(0, note, 1000)
    )
    partition.receive([record(n, b"%d" % n) for n in range(300)])
    most = 0
    await settle()
    while partition.progress.offset < 300:
        assert stage.offsets, "nothing runs, and something is left"
        assert fits(partition, limit)
        most = max(most, len(stage.offsets))
        if len(stage.seen) < 10:
            assert len(stage.offsets) == 1
        stage.end(stage.offsets[-1])
        await settle()
    assert most > 10
    assert len(stage.seen) == len(set(stage.seen)) == 300 - len(runs)
    await partition.drain(0.0, 0.0)
