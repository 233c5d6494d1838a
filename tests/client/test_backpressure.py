"""Full partitions: others go on, room is used at once, nothing is fetched twice, the group waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator

from prosody import Context, Message
from prosody.broker.kafka import chain
from prosody.broker.memory.log import PartitionLog
from prosody.consume import poller
from prosody.consume.progress import ADMISSION_CHARS, METADATA_MAX
from tests.client.support import DEADLINE_S, Place, Recorder, eventually, run_simulated

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_S = 3600.0


class Gate:
    """A handler behaviour: keys beginning with ``stuck`` wait until the gate opens."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def __call__(self, context: Context, message: Message) -> None:
        if message.key.startswith("stuck"):
            await self.opened.wait()


def numbered(key: bytes, count: int) -> list[tuple[bytes, dict[str, int]]]:
    return [(key, {"i": i}) for i in range(count)]


def keys_of_two_partitions() -> tuple[bytes, bytes]:
    """A ``stuck`` and a ``free`` key that live in different ones of four partitions."""
    from prosody.broker.partitioners import partition_for

    def place_of(key: bytes) -> int:
        return partition_for("crc32", key, 4, lambda: 0.0)

    free = b"free"
    stuck = next(k for n in range(99) if place_of(k := b"stuck-%d" % n) != place_of(free))
    return stuck, free


# -- a full partition ----------------------------------------------------------------------------


async def test_a_full_partition_waits_and_the_other_is_served_to_its_end(place: Place) -> None:
    await place.create_topic()
    stuck, free = keys_of_two_partitions()
    await place.put_many(numbered(stuck, 300) + numbered(free, 300))
    gate = Gate()
    recorder = Recorder(gate)
    # An hour's poll interval: only news of records and of room may carry this.
    client = place.client(max_uncommitted=5, poll_interval=HOUR_S)
    await client.subscribe(recorder)
    await recorder.until_handled(300)
    assert {m.key for m in recorder.handled} == {"free"}
    assert Counter(m.key for m in recorder.attempts)[stuck.decode()] == 1
    gate.opened.set()
    await recorder.until_handled(600)
    for payloads in recorder.by_key().values():
        assert [p["i"] for p in payloads] == list(range(300))
    await place.nothing_left()


async def test_new_records_of_a_free_partition_arrive_while_another_is_full(place: Place) -> None:
    await place.create_topic()
    stuck, free = keys_of_two_partitions()
    await place.put_many(numbered(stuck, 50))
    gate = Gate()
    recorder = Recorder(gate)
    await place.client(max_uncommitted=5, poll_interval=HOUR_S).subscribe(recorder)
    await recorder.until(lambda r: bool(r.attempts))
    for i in range(3):
        await place.put({"i": i}, key=free)
        await recorder.until_handled(i + 1)
    gate.opened.set()
    await recorder.until_handled(53)


# -- what can be noted ---------------------------------------------------------------------------


@pytest.mark.timeout(180)
async def test_no_more_is_taken_in_than_a_commit_can_note(place: Place) -> None:
    """Every second record is stuck: what finished ahead is as long to note as can be."""
    count, commit_s = 18_000, 0.2
    await place.create_topic(partitions=1)
    await place.put_many([(b"key-%d" % i, i) for i in range(count)])

    async def behave(context: Context, message: Message) -> None:
        if message.payload % 2 == 0:
            await asyncio.Event().wait()

    first = Recorder(behave)
    client = place.client(
        max_uncommitted=count, max_concurrency=count, commit_interval=commit_s, shutdown_timeout=0.5
    )
    await client.subscribe(first)

    loop = asyncio.get_running_loop()
    last, since = ("", 0), loop.time()

    async def stands_still() -> bool:
        nonlocal last, since
        now = await place.note(), len(first.attempts)
        if now != last:
            last, since = now, loop.time()
        return bool(now[0]) and loop.time() - since > 3 * commit_s

    await eventually(stands_still, "admission should have stopped")
    taken_in = len(first.attempts)
    stuck = {message.offset for message in first.attempts if message.payload % 2 == 0}
    assert taken_in < count
    assert len(first.handled) == taken_in - len(stuck)
    await client.unsubscribe()  # ends those that are stuck; the others are noted
    # Where one more might not have fitted, and not much earlier.
    assert METADATA_MAX - 2 * ADMISSION_CHARS < len(await place.note()) <= METADATA_MAX
    assert len(first.attempts) == taken_in

    second = Recorder()
    await client.subscribe(second)
    await second.until_handled(count - len(first.handled))
    await place.nothing_left()
    offsets = [message.offset for message in first.handled + second.attempts]
    assert sorted(offsets) == list(range(count)), "each once"
    assert await place.note() == ""
    await client.unsubscribe()

    third = Recorder()
    await place.put("afterwards")
    await client.subscribe(third)
    await third.until_handled(1)
    await place.nothing_left()
    assert [message.payload for message in third.handled] == ["afterwards"]


def test_a_restart_at_the_limit_takes_in_as_much_as_before() -> None:
    """What the note names was within the limit with all of it outstanding, and so it is again."""

    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        await place.put_many([(b"key-%d" % n, n) for n in range(18_000)])

        async def every_second_one_is_stuck(context: Context, message: Message) -> None:
            if message.payload % 2 == 0:
                await asyncio.Event().wait()

        running = []
        for _ in range(2):
            recorder = Recorder(every_second_one_is_stuck)
            client = place.client(
                max_uncommitted=18_000, max_concurrency=18_000, shutdown_timeout=0.5
            )
            await client.subscribe(recorder)
            await asyncio.sleep(60.0)
            running.append(sum(recorder.running.values()))
            await client.unsubscribe()
        assert running[0] > 5_000, "the limit was reached"
        assert running[0] == pytest.approx(running[1], rel=0.05)

    run_simulated(main)


# -- room is used at once ------------------------------------------------------------------------


async def all_through_small_limits(place: Place) -> float:
    """Take 500 records through two places, by an idle poll of an hour; how long it took by the clock."""
    await place.create_topic(partitions=1)
    await place.put_many([(b"key-%d" % (i % 7), {"i": i}) for i in range(500)])

    async def turn(context: Context, message: Message) -> None:
        await asyncio.sleep(0)

    recorder = Recorder(turn)
    client = place.client(
        max_uncommitted=2, poll_interval=HOUR_S, commit_interval=HOUR_S, stall_threshold=10 * HOUR_S
    )
    began = place.runtime.monotonic()
    await client.subscribe(recorder)
    async with asyncio.timeout(10 * HOUR_S):
        while len(recorder.handled) < 500:  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(0)
    assert recorder.most_running <= 2
    return place.runtime.monotonic() - began


def test_a_freed_place_takes_the_next_record_without_the_clock_moving() -> None:
    async def main(place: Place) -> None:
        assert await all_through_small_limits(place) == 0.0

    run_simulated(main)


def test_the_rule_is_seen_to_be_broken_when_nobody_tells_of_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)

        async def takes_a_while(context: Context, message: Message) -> None:
            await asyncio.sleep(0.001)

        recorder = Recorder(takes_a_while)
        began = place.runtime.monotonic()
        await place.client(max_uncommitted=2, poll_interval=HOUR_S).subscribe(recorder)
        await place.put_many([(b"k", {"i": i}) for i in range(1500)])
        while len(recorder.handled) < 1500:  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(1.0)
        assert place.runtime.monotonic() - began >= HOUR_S

    monkeypatch.setattr(poller.Poller, "want_records", lambda self: None)
    run_simulated(main)


# -- what was fetched is kept --------------------------------------------------------------------


async def test_what_was_fetched_is_kept_while_its_partition_is_full(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record, or batch of records, leaves the broker once."""
    # Much less than is fetched, so that most of a full partition stays where it was fetched.
    monkeypatch.setattr(poller, "POLL_RECORDS_MAX", 20)
    await place.create_topic()
    stuck, free = keys_of_two_partitions()
    records = numbered(stuck, 200) + numbered(free, 200)
    await place.put_many([(key, {**value, "pad": "x" * 500}) for key, value in records])
    seen: Counter[object] = Counter()
    (watch_reads if place.mock else watch_fetches)(monkeypatch, seen)
    gate = Gate()
    recorder = Recorder(gate)
    await place.client(max_uncommitted=3, max_concurrency=2).subscribe(recorder)
    await recorder.until_handled(200)
    for i in range(3):  # the partition stays full over many polls that bring records of another
        await place.put({"i": 200 + i}, key=free)
        await recorder.until_handled(201 + i)
    gate.opened.set()
    await recorder.until_handled(403)
    await place.nothing_left()
    assert seen
    assert set(seen.values()) == {1}


def watch_reads(monkeypatch: pytest.MonkeyPatch, seen: Counter[object]) -> None:
    read = PartitionLog.read

    def spy(self: PartitionLog, offset: int, max_records: int) -> Any:
        records = read(self, offset, max_records)
        seen.update((r.topic, r.partition, r.offset) for r in records)
        return records

    monkeypatch.setattr(PartitionLog, "read", spy)


def watch_fetches(monkeypatch: pytest.MonkeyPatch, seen: Counter[object]) -> None:
    """Counts record batches as the broker returns them, by their bytes."""
    lower: Callable[[bytes], Any] = fetcher.MemoryRecords
    read_answer = chain.read_answer

    def count(data: bytes) -> None:
        while len(data) >= 12:
            size = 12 + int.from_bytes(data[8:12], "big")
            if size <= len(data):  # else cut off by the broker, and fetched whole the next time
                seen[data[:size]] += 1
            data = data[size:]

    def answered(answer: bytes) -> Any:
        found = read_answer(answer)
        for *_, at, size in found or ():
            count(answer[at : at + size])
        return found

    def left_to_aiokafka(raw: bytes) -> Any:
        count(bytes(raw))
        return lower(raw)

    monkeypatch.setattr(chain, "read_answer", answered)
    monkeypatch.setattr(fetcher, "MemoryRecords", left_to_aiokafka)


# -- the group waits -----------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("place", ["kafka"], indirect=True)
async def test_membership_is_kept_while_everything_is_full(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A poll silence of a second would end the membership; everything stands still for several."""
    silence_s, heartbeats_wanted = 1.0, 10  # of which two make a second at most
    make = AIOKafkaConsumer.__init__

    def with_short_silence(self: Any, *args: Any, **options: Any) -> None:
        options["max_poll_interval_ms"] = round(silence_s * 1000)
        options["heartbeat_interval_ms"] = 500
        make(self, *args, **options)

    heartbeats = 0
    beat = GroupCoordinator._do_heartbeat

    async def counted(self: Any) -> bool:
        nonlocal heartbeats
        heartbeats += 1
        return await beat(self)  # type: ignore[no-any-return]

    monkeypatch.setattr(AIOKafkaConsumer, "__init__", with_short_silence)
    monkeypatch.setattr(GroupCoordinator, "_do_heartbeat", counted)
    await place.create_topic()
    keys = [b"stuck-%d" % n for n in range(40)]
    await place.put_many([(key, {"i": i}) for i in range(5) for key in keys])
    gate = Gate()
    recorder = Recorder(gate)
    client = place.client(max_uncommitted=1, poll_interval=HOUR_S)
    await client.subscribe(recorder)
    await recorder.until(lambda r: len(r.attempts) == 4)  # one of each partition: all are full
    before = heartbeats

    async def stood_still() -> bool:
        return heartbeats >= before + heartbeats_wanted

    await eventually(stood_still, "heartbeats should go on")
    assert await client.assigned_partition_count() == 4
    gate.opened.set()
    await recorder.until_handled(200)
    await place.nothing_left()
    assert len(recorder.attempts) == len(recorder.handled) == 200
    assert not [r for r in caplog.records if "lost" in r.getMessage()]


def test_the_group_hears_of_a_member_that_is_full_for_hours() -> None:
    hours, interval_s = 10, 60.0

    async def main(place: Place) -> None:
        await place.create_topic()
        keys = [b"stuck-%d" % n for n in range(40)]
        await place.put_many([(key, {"i": i}) for i in range(5) for key in keys])
        gate = Gate()
        recorder = Recorder(gate)
        client = place.client(
            max_uncommitted=1,
            poll_interval=interval_s,
            commit_interval=interval_s,
            stall_threshold=1 * HOUR_S,
            timeout=100 * HOUR_S,
        )
        await client.subscribe(recorder)
        await asyncio.sleep(1.0)
        calls: Counter[str] = Counter()
        place.cluster.on_call = lambda name, client_id: calls.update([name])
        await asyncio.sleep(hours * HOUR_S)
        assert calls["poll"] >= hours * HOUR_S / interval_s
        assert calls["commit"] == 0
        assert len(recorder.attempts) == 4
        assert await client.is_stalled()
        gate.opened.set()
        async with asyncio.timeout(DEADLINE_S):
            await recorder.until_handled(200)
        assert not await client.is_stalled()
        assert recorder.overlaps == 0

    run_simulated(main)
