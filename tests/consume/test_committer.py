"""The committer: explicit offsets of partitions still held, one commit at a time, with metadata."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from prosody._core.offset_set import decode_finished
from prosody.broker.protocol import Start, TopicPartition
from prosody.consume.committer import Committer
from prosody.consume.progress import METADATA_MAX, Progress
from prosody.errors import BrokerError
from tests.consume.fakes import FakeConsumer
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from prosody.consume.assignment import Assignment
    from prosody.consume.partition import Partition

A, B, C = (TopicPartition("orders", n) for n in range(3))


class Part:
    """A partition, as the committer sees it: nothing below ``offset`` is unfinished."""

    def __init__(self, tp: TopicPartition, offset: int = 0) -> None:
        self.topic_partition = tp
        self.name = f"{tp.topic} {tp.partition}"
        self.progress = Progress(self.name, Start(0))
        self.upto = 0
        self.reach(offset)

    def reach(self, offset: int) -> None:
        for earlier in range(self.upto, offset):
            self.progress.tracker.admit(earlier, 0.0)
            self.progress.tracker.complete(earlier)
        self.upto = max(self.upto, offset)

    def begin(self, upto: int) -> None:
        for offset in range(self.upto, upto):
            self.progress.tracker.admit(offset, 0.0)
        self.upto = upto

    def finish(self, *offsets: int) -> None:
        for offset in offsets:
            self.progress.tracker.complete(offset)

    @property
    def saved(self) -> bool:
        return self.progress.to_commit() is None


class Held:
    """The assignment, as the committer sees it."""

    def __init__(self, *partitions: Part) -> None:
        self.held = {p.topic_partition: p for p in partitions}

    def partitions(self) -> tuple[Part, ...]:
        return tuple(self.held.values())

    def get(self, tp: TopicPartition) -> Part | None:
        return self.held.get(tp)


def committer(consumer: FakeConsumer, held: Held, interval_s: float = 5.0) -> Committer:
    return Committer(consumer.as_broker(), cast("Assignment", held), interval_s, FakeRuntime())


def final(parts: tuple[Part, ...]) -> tuple[Partition, ...]:
    return cast("tuple[Partition, ...]", parts)


def busy(times: int) -> list[Exception]:
    return [BrokerError("busy", retriable=True) for _ in range(times)]


async def test_commits_what_moved_on_an_interval() -> None:
    consumer, a, b = FakeConsumer(), Part(A, 3), Part(B)
    loop = asyncio.create_task(committer(consumer, Held(a, b)).run())
    await asyncio.sleep(4.9)
    assert consumer.commits == []
    await asyncio.sleep(0.2)
    assert consumer.commits == [{A: 3}]
    await asyncio.sleep(10.0)
    assert len(consumer.commits) == 1
    a.reach(4)
    b.reach(9)
    await asyncio.sleep(5.0)
    assert consumer.commits[1:] == [{A: 4, B: 9}]
    assert a.saved
    assert b.saved
    loop.cancel()
    await settle()


async def test_an_interval_of_zero_leaves_the_loop_its_rest() -> None:
    consumer = FakeConsumer()
    loop = asyncio.create_task(committer(consumer, Held(Part(A, 3)), 0.0).run())
    await settle()  # does not return when something runs in circles
    await asyncio.sleep(0.1)
    assert consumer.commits == [{A: 3}]
    loop.cancel()
    await settle()


async def test_a_failed_commit_is_in_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    consumer.errors = [BrokerError("busy", retriable=True), BrokerError("no", retriable=False)]
    loop = asyncio.create_task(committer(consumer, Held(a)).run())
    await asyncio.sleep(11.0)
    assert (consumer.commits, a.saved) == ([], False)
    a.reach(5)
    await asyncio.sleep(5.0)
    assert (consumer.commits, a.saved) == ([{A: 5}], True)
    assert caplog.text.count("commit failed") == 1  # once for each outage
    loop.cancel()
    await settle()


# Metadata


async def test_what_finished_ahead_is_committed_with_the_offset() -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    a.begin(8)
    a.finish(5, 6)
    loop = asyncio.create_task(committer(consumer, Held(a)).run())
    await asyncio.sleep(5.1)
    a.finish(7)  # the offset stays, and there is more to say
    await asyncio.sleep(10.0)
    a.finish(3)
    await asyncio.sleep(5.0)
    assert consumer.commits == [{A: 3}, {A: 3}, {A: 4}]
    notes = [
        (offset[A], text[A]) for offset, text in zip(consumer.commits, consumer.texts, strict=True)
    ]
    assert [decode_finished(text, offset) for offset, text in notes] == [
        [(5, 7)], [(5, 8)], [(5, 8)],
    ]  # fmt: skip
    loop.cancel()
    await settle()


async def test_metadata_that_the_broker_refuses_is_made_shorter_and_the_commit_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer, a, b = FakeConsumer(), Part(A), Part(B, 1)
    consumer.text_max = 100
    a.begin(600)
    a.finish(*range(1, 600, 2))
    one = committer(consumer, Held(a, b))
    await one.commit_finally(final((a, b)), 10.0)
    assert asyncio.get_running_loop().time() == 0.0
    assert consumer.commits == [{A: 0, B: 1}]
    assert 50 < len(consumer.texts[0][A]) <= 64  # 4,096 halved until it was below what was refused
    assert a.saved
    warnings = [r.getMessage() for r in caplog.records]
    assert len(warnings) == 2  # from some 150 characters: refused at 128 once more
    assert "sending 64 at most" in warnings[-1]

    consumer.text_max = 40  # less than the least: none at all from now on
    a.finish(2)
    await one.commit_finally(final((a,)), 10.0)
    assert consumer.texts[1:] == [{A: ""}]
    assert "sending 0 at most" in caplog.text
    consumer.text_max = METADATA_MAX
    a.finish(4)
    await one.commit_finally(final((a,)), 10.0)
    assert consumer.texts[2:] == [{A: ""}]


async def test_a_broker_that_refuses_even_no_metadata_does_not_make_a_loop() -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    consumer.text_max = -1
    await committer(consumer, Held(a)).commit_finally(final((a,)), 10.0)
    assert (consumer.commits, len(consumer.tried)) == ([], 1)


# Rebalances


async def test_a_commit_waits_for_the_join_and_is_computed_after_it() -> None:
    consumer, a, b = FakeConsumer(), Part(A, 3), Part(B, 4)
    held = Held(a, b)
    loop = asyncio.create_task(committer(consumer, held).run())
    consumer.joined.clear()
    await asyncio.sleep(7.0)
    a.reach(5)
    del held.held[B]  # the join gave it to another member
    assert consumer.tried == []
    consumer.joined.set()
    await settle()
    assert consumer.commits == [{A: 5}]
    loop.cancel()
    await settle()


async def test_a_commit_that_met_a_join_is_computed_anew() -> None:
    consumer, a, b = FakeConsumer(), Part(A, 3), Part(B, 4)
    held = Held(a, b)
    consumer.hanging = asyncio.Event()
    last = asyncio.create_task(
        committer(consumer, held).commit_finally(final(held.partitions()), None)
    )
    await settle()
    consumer.joined.clear()
    consumer.hanging.set()
    await asyncio.sleep(60.0)
    assert (consumer.tried, consumer.commits) == ([{A, B}], [])
    a.reach(9)
    held.held[B] = Part(B, 1)  # lost, and assigned again: another object
    consumer.joined.set()
    await last
    assert consumer.commits == [{A: 9}]


# Final commits


async def test_the_final_commit_is_repeated_while_that_may_help() -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    consumer.errors = busy(3)
    held = Held(a)
    await committer(consumer, held).commit_finally(final(held.partitions()), 10.0)
    assert consumer.commits == [{A: 3}]


async def test_the_final_commit_of_a_revoke_has_no_limit_of_its_own() -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    consumer.errors = busy(10_000)
    held = Held(a)
    await committer(consumer, held).commit_finally(final(held.partitions()), None)
    assert consumer.commits == [{A: 3}]
    assert asyncio.get_running_loop().time() > 600.0


async def test_final_commits_do_not_wait_for_each_other() -> None:
    consumer, a, b = FakeConsumer(), Part(A, 3), Part(B, 4)
    held = Held(a, b)
    one = committer(consumer, held)
    consumer.errors = busy(1)
    first = asyncio.create_task(one.commit_finally(final((a,)), None))
    second = asyncio.create_task(one.commit_finally(final((b,)), None))
    await settle()
    assert (first.done(), second.done(), consumer.commits) == (False, True, [{B: 4}])
    await first
    assert consumer.commits == [{B: 4}, {A: 3}]


async def test_a_final_commit_refused_for_good_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    consumer.errors = [BrokerError("no", retriable=False)]
    held = Held(a)
    await committer(consumer, held).commit_finally(final(held.partitions()), 10.0)
    assert (consumer.commits, a.saved) == ([], False)
    assert asyncio.get_running_loop().time() == 0.0
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1
    assert "refused for good" in errors[0]
    assert "will run again: orders 0 from offset 0" in errors[0]


async def test_one_partition_that_is_refused_does_not_spoil_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer, a, b, c = FakeConsumer(), Part(A, 3), Part(B, 4), Part(C, 5)
    consumer.refused = {B}
    held = Held(a, b, c)
    await committer(consumer, held).commit_finally(final(held.partitions()), 10.0)
    assert consumer.commits == [{A: 3}, {C: 5}]
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1
    assert "will run again: orders 1 from offset 0" in errors[0]
    assert "orders 0" not in errors[0]


async def test_a_final_commit_ends_when_the_partition_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    consumer.errors = busy(1000)
    held = Held(a)
    last = asyncio.create_task(committer(consumer, held).commit_finally(final((a,)), None))
    await asyncio.sleep(1.0)
    del held.held[A]
    await last
    assert asyncio.get_running_loop().time() < 1.2
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


async def test_the_final_commit_of_a_shutdown_has_a_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    consumer.hanging = asyncio.Event()
    held = Held(a, Part(B))
    await committer(consumer, held).commit_finally(final(held.partitions()), 10.0)
    assert asyncio.get_running_loop().time() == pytest.approx(10.0)
    assert "last commit not acknowledged within 10 s" in caplog.text
    assert "will run again: orders 0 from offset 0" in caplog.text
    assert "orders 1" not in caplog.text


async def test_a_commit_that_hangs_does_not_hold_up_the_final_one_for_ever() -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    held = Held(a)
    one = committer(consumer, held, 1.0)
    loop = asyncio.create_task(one.run())
    consumer.hanging = asyncio.Event()
    await asyncio.sleep(1.5)
    await one.commit_finally(final(held.partitions()), 10.0)
    assert asyncio.get_running_loop().time() == pytest.approx(11.5)
    loop.cancel()
    await settle()


async def test_one_commit_at_a_time_and_none_older_than_the_last() -> None:
    consumer, a = FakeConsumer(), Part(A, 3)
    held = Held(a)
    one = committer(consumer, held, 1.0)
    consumer.hanging = asyncio.Event()
    loop = asyncio.create_task(one.run())
    await asyncio.sleep(1.5)
    a.reach(5)
    last = asyncio.create_task(one.commit_finally(final(held.partitions()), 10.0))
    await settle()
    consumer.hanging.set()
    await last
    assert consumer.commits == [{A: 3}, {A: 5}]
    assert consumer.committing_most == 1
    loop.cancel()
    await settle()


async def test_a_partition_lost_meanwhile_does_not_spoil_the_commit_of_the_others() -> None:
    consumer, a, b = FakeConsumer(), Part(A, 3), Part(B, 7)
    held = Held(a, b)
    partitions = final(held.partitions())
    del held.held[B]
    await committer(consumer, held).commit_finally(partitions, 10.0)
    assert consumer.commits == [{A: 3}]
    held.held[B] = Part(B, 1)  # assigned again: another object, which has not finished 7
    await committer(consumer, held).commit_finally(partitions, 10.0)
    assert len(consumer.commits) == 1
