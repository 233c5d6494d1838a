"""The committer: explicit offsets of partitions still held, one commit at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from prosody.broker.protocol import TopicPartition
from prosody.consume.committer import Committer
from prosody.errors import BrokerError
from tests.consume.fakes import FakeConsumer
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from prosody.consume.assignment import Assignment
    from prosody.consume.partition import Partition

A, B = TopicPartition("orders", 0), TopicPartition("orders", 1)


class Offsets:
    """A partition, as the committer sees it."""

    def __init__(self, tp: TopicPartition, offset: int | None) -> None:
        self.topic_partition = tp
        self.offset = offset
        self.committed: int | None = None
        self.name = f"{tp.topic} {tp.partition}"

    def to_commit(self) -> int | None:
        return None if self.offset == self.committed else self.offset


class Held:
    """The assignment, as the committer sees it."""

    def __init__(self, *partitions: Offsets) -> None:
        self.held = {p.topic_partition: p for p in partitions}

    def partitions(self) -> tuple[Offsets, ...]:
        return tuple(self.held.values())

    def get(self, tp: TopicPartition) -> Offsets | None:
        return self.held.get(tp)


def committer(consumer: FakeConsumer, held: Held, interval_s: float = 5.0) -> Committer:
    return Committer(consumer.as_broker(), cast("Assignment", held), interval_s, FakeRuntime())


def final(parts: tuple[Offsets, ...]) -> tuple[Partition, ...]:
    return cast("tuple[Partition, ...]", parts)


async def test_commits_what_moved_on_an_interval() -> None:
    consumer, a, b = FakeConsumer(), Offsets(A, 3), Offsets(B, None)
    loop = asyncio.create_task(committer(consumer, Held(a, b)).run())
    await asyncio.sleep(4.9)
    assert consumer.commits == []
    await asyncio.sleep(0.2)
    assert consumer.commits == [{A: 3}]
    await asyncio.sleep(10.0)
    assert len(consumer.commits) == 1
    a.offset, b.offset = 4, 9
    await asyncio.sleep(5.0)
    assert consumer.commits[1:] == [{A: 4, B: 9}]
    assert (a.committed, b.committed) == (4, 9)
    loop.cancel()
    await settle()


async def test_an_interval_of_zero_leaves_the_loop_its_rest() -> None:
    consumer = FakeConsumer()
    loop = asyncio.create_task(committer(consumer, Held(Offsets(A, 3)), 0.0).run())
    await settle()  # does not return when something runs in circles
    await asyncio.sleep(0.1)
    assert consumer.commits == [{A: 3}]
    loop.cancel()
    await settle()


async def test_a_failed_commit_is_in_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    consumer, a = FakeConsumer(), Offsets(A, 3)
    consumer.errors = [BrokerError("busy", retriable=True), BrokerError("no", retriable=False)]
    loop = asyncio.create_task(committer(consumer, Held(a)).run())
    await asyncio.sleep(11.0)
    assert (consumer.commits, a.committed) == ([], None)
    await asyncio.sleep(5.0)
    assert (consumer.commits, a.committed) == ([{A: 3}], 3)
    assert caplog.text.count("commit failed") == 1  # once for each outage
    loop.cancel()
    await settle()


async def test_the_final_commit_is_repeated_while_that_may_help() -> None:
    consumer, a = FakeConsumer(), Offsets(A, 3)
    consumer.errors = [BrokerError("busy", retriable=True)] * 3
    held = Held(a)
    await committer(consumer, held).commit_finally(final(held.partitions()), 10.0)
    assert consumer.commits == [{A: 3}]


async def test_a_final_commit_refused_for_good_is_given_up() -> None:
    consumer, a = FakeConsumer(), Offsets(A, 3)
    consumer.errors = [BrokerError("no", retriable=False)]
    held = Held(a)
    await committer(consumer, held).commit_finally(final(held.partitions()), 10.0)
    assert (consumer.commits, a.committed) == ([], None)
    assert asyncio.get_running_loop().time() == 0.0


async def test_the_final_commit_has_a_deadline(caplog: pytest.LogCaptureFixture) -> None:
    consumer, a = FakeConsumer(), Offsets(A, 3)
    consumer.hanging = asyncio.Event()
    held = Held(a, Offsets(B, None))
    await committer(consumer, held).commit_finally(final(held.partitions()), 10.0)
    assert asyncio.get_running_loop().time() == pytest.approx(10.0)
    assert "final commit not acknowledged within 10 s" in caplog.text
    assert "orders 0" in caplog.text
    assert "orders 1" not in caplog.text


async def test_a_commit_that_hangs_does_not_hold_up_the_final_one_for_ever() -> None:
    consumer, a = FakeConsumer(), Offsets(A, 3)
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
    consumer, a = FakeConsumer(), Offsets(A, 3)
    held = Held(a)
    one = committer(consumer, held, 1.0)
    consumer.hanging = asyncio.Event()
    loop = asyncio.create_task(one.run())
    await asyncio.sleep(1.5)
    a.offset = 5
    last = asyncio.create_task(one.commit_finally(final(held.partitions()), 10.0))
    await settle()
    consumer.hanging.set()
    await last
    assert consumer.commits == [{A: 3}, {A: 5}]
    assert consumer.committing_most == 1
    loop.cancel()
    await settle()


async def test_a_partition_lost_meanwhile_does_not_spoil_the_commit_of_the_others() -> None:
    consumer, a, b = FakeConsumer(), Offsets(A, 3), Offsets(B, 7)
    held = Held(a, b)
    partitions = final(held.partitions())
    del held.held[B]
    await committer(consumer, held).commit_finally(partitions, 10.0)
    assert consumer.commits == [{A: 3}]
    held.held[B] = Offsets(B, 1)  # assigned again: another object, which has not finished 7
    await committer(consumer, held).commit_finally(partitions, 10.0)
    assert len(consumer.commits) == 1
