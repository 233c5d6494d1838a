"""What a handler can rely on: order, concurrency, commits, resumption, sharing."""

from __future__ import annotations

import asyncio

from prosody import Context, Message
from tests.client.support import Place, Recorder, eventually

KEYS = 20


def orders(count: int) -> list[tuple[bytes, dict[str, int]]]:
    return [(b"key-%d" % (i % KEYS), {"i": i}) for i in range(count)]


def assert_in_order(recorder: Recorder) -> None:
    for key, payloads in recorder.by_key().items():
        numbers = [p["i"] for p in payloads]
        assert numbers == sorted(numbers), key


async def test_every_message_arrives_in_order_of_its_key(place: Place) -> None:
    await place.create_topic()
    await place.put_many(orders(400))
    recorder = Recorder()
    client = place.client()
    await client.subscribe(recorder)
    await recorder.until_handled(400)
    assert len(recorder.handled) == 400
    assert_in_order(recorder)


async def test_messages_sent_by_a_client_arrive_whole(place: Place) -> None:
    await place.create_topic()
    client = place.client()
    recorder = Recorder()
    await client.subscribe(recorder)
    payloads = [None, True, 1, 2**70, 1.5, "tëxt", [1, [2]], {"b": {"c": None}, "a": 1}]
    for payload in payloads:
        await client.send(place.topic, "clé", payload)
    await recorder.until_handled(len(payloads))
    assert [m.payload for m in recorder.handled] == payloads
    first = recorder.handled[0]
    assert (first.topic, first.key, first.offset) == (place.topic, "clé", 0)
    assert first.timestamp.utcoffset() is not None


async def test_one_key_runs_alone_and_keys_run_together(place: Place) -> None:
    await place.create_topic()
    release = asyncio.Event()

    async def wait(context: Context, message: Message) -> None:
        await release.wait()

    await place.put_many(
        [(b"a", {"i": i}) for i in range(3)] + [(b"b", {"i": 0}), (b"c", {"i": 0})]
    )
    recorder = Recorder(wait)
    await place.client().subscribe(recorder)
    await recorder_running(recorder, {"a", "b", "c"})
    assert recorder.running["a"] == 1
    release.set()
    await recorder.until_handled(5)
    assert recorder.overlaps == 0
    assert_in_order(recorder)


async def recorder_running(recorder: Recorder, keys: set[str]) -> None:
    async def all_run() -> bool:
        return {key for key, n in recorder.running.items() if n} == keys

    await eventually(all_run, f"{keys} should run")


async def test_max_concurrency_bounds_running_handlers(place: Place) -> None:
    await place.create_topic()
    await place.put_many(orders(60))

    async def turn(context: Context, message: Message) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    recorder = Recorder(turn)
    await place.client(max_concurrency=3).subscribe(recorder)
    await recorder.until_handled(60)
    assert recorder.most_running == 3


async def test_offsets_are_committed_while_running(place: Place) -> None:
    await place.create_topic()
    await place.put_many(orders(100))
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(100)

    async def nothing_left() -> bool:
        return await place.lag() == 0

    await eventually(nothing_left, "all offsets should be committed")


async def test_a_new_client_goes_on_where_the_last_one_ended(place: Place) -> None:
    await place.create_topic()
    await place.put_many(orders(100))
    first = Recorder()
    # An interval so long that only the final commit of unsubscribe can be what is found.
    client = place.client(commit_interval=3600.0)
    await client.subscribe(first)
    await first.until_handled(100)
    await client.unsubscribe()
    assert await place.lag() == 0
    await place.put_many([(b"key-1", {"i": 1000})])
    second = Recorder()
    await place.client().subscribe(second)
    await second.until_handled(1)
    assert [m.payload["i"] for m in second.handled] == [1000]


async def test_what_was_unfinished_runs_again_and_what_was_finished_does_not(place: Place) -> None:
    await place.create_topic(partitions=1)
    await place.put_many([(b"slow", {"i": 0}), (b"quick", {"i": 1}), (b"quick", {"i": 2})])

    async def slow_never_ends(context: Context, message: Message) -> None:
        if message.key == "slow":
            await asyncio.Event().wait()

    first = Recorder(slow_never_ends)
    client = place.client(shutdown_timeout=0.5)
    await client.subscribe(first)
    await first.until_handled(2)
    await client.unsubscribe()
    assert await place.lag() == 3
    second = Recorder()
    await place.client().subscribe(second)
    await place.nothing_left()
    assert [message.key for message in second.handled] == ["slow"]


async def test_two_members_share_the_partitions(place: Place) -> None:
    await place.create_topic()
    one, two = place.client(), place.client()
    first, second = Recorder(), Recorder()
    await one.subscribe(first)
    await two.subscribe(second)

    async def shared() -> bool:
        counts = await one.assigned_partition_count(), await two.assigned_partition_count()
        return counts == (2, 2)

    await eventually(shared, "each member should hold two partitions")
    await place.put_many(orders(200))

    async def all_handled() -> bool:
        return len(first.handled) + len(second.handled) >= 200

    await eventually(all_handled, "all messages should be handled")
    assert first.handled
    assert second.handled
    both = [*first.handled, *second.handled]
    assert len({(m.partition, m.offset) for m in both}) == 200
    assert_in_order(first)
    assert_in_order(second)
    assert not {m.partition for m in first.handled} & {m.partition for m in second.handled}


async def test_a_member_that_leaves_hands_its_work_over(place: Place) -> None:
    await place.create_topic()
    one, two = place.client(), place.client()
    first, second = Recorder(), Recorder()
    await one.subscribe(first)
    await place.put_many(orders(100))
    await first.until_handled(100)
    await two.subscribe(second)

    async def shared() -> bool:
        return await two.assigned_partition_count() == 2

    await eventually(shared, "the second member should hold partitions")
    await one.unsubscribe()
    await place.put_many([(key, {"i": value["i"] + 100}) for key, value in orders(100)])
    await second.until_handled(100)
    numbers = [m.payload["i"] for m in second.handled]
    assert len(numbers) == len(set(numbers)) == 100
    assert min(numbers) == 100, "nothing that was committed runs again"


async def test_a_full_partition_does_not_hold_up_another(place: Place) -> None:
    await place.create_topic()
    await place.put_many(orders(400))
    blocked: set[int] = set()

    async def block_one_partition(context: Context, message: Message) -> None:
        blocked.add(message.partition) if not blocked else None
        if message.partition in blocked:
            await asyncio.Event().wait()

    recorder = Recorder(block_one_partition)
    client = place.client(max_uncommitted=8, max_concurrency=64, shutdown_timeout=0.2)
    await client.subscribe(recorder)

    def others_done(r: Recorder) -> bool:
        return len({(m.partition, m.offset) for m in r.handled}) >= 400 - in_blocked

    in_blocked = await count_in_partition(place, recorder, blocked)
    await recorder.until(others_done)
    admitted = [m for m in recorder.attempts if m.partition in blocked]
    assert len(admitted) <= 8


async def count_in_partition(place: Place, recorder: Recorder, blocked: set[int]) -> int:
    from prosody.broker.partitioners import partition_for

    await recorder.until(lambda r: bool(blocked))
    (partition,) = blocked
    return sum(partition_for("crc32", key, 4, lambda: 0.0) == partition for key, _ in orders(400))
