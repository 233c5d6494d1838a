"""Polling over aiokafka's buffers: nothing is lost, and no partition stops another."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import errors as lower

from prosody.broker.kafka.polls import READ_RETRY_S
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from tests.broker.kafka.fetched import Fetched, batch, damaged, misnamed

CODECS = {"plain": 0, "gzip": 1, "lz4": 3}


@pytest.fixture
async def one() -> Any:
    fetched = Fetched(1)
    yield fetched
    fetched.close()


@pytest.fixture
async def two() -> Any:
    fetched = Fetched(2)
    yield fetched
    fetched.close()


async def test_what_is_taken_and_how_much(two: Fetched) -> None:
    for partition in range(2):
        two.write(partition, (4, batch(*range(5))))
    assert await two.poll(records_max=7) == {0: [0, 1, 2, 3, 4], 1: [0, 1]}
    assert (two.position(0), two.position(1)) == (5, 2)
    assert await two.poll() == {1: [2, 3, 4]}
    assert await two.poll() == {}


async def test_a_partition_that_cannot_be_read_takes_nothing_from_the_others(two: Fetched) -> None:
    two.write(0, (4, batch(*range(5))))
    two.write(1, (2, damaged(0, 1, 2)))
    assert await two.poll() == {0: [0, 1, 2, 3, 4]}
    with pytest.raises(
        BrokerError, match=r"^t/1 cannot be read at offset 0: CorruptRecord"
    ) as told:
        await two.poll()
    assert not told.value.retriable
    two.write(0, (9, batch(*range(5, 10))))
    assert await two.poll() == {0: [5, 6, 7, 8, 9]}
    assert list(two.polls.unreadable) == [TopicPartition("t", 1)]
    assert two.position(1) == 0


async def test_it_is_tried_again_at_a_pace_and_told_once(one: Fetched) -> None:
    one.write(0, (1, damaged(0, 1)))
    with pytest.raises(BrokerError):
        await one.poll()
    for _ in range(100):
        assert await one.poll() == {}
    fetches = sum(one.fetches.values())
    assert fetches == 2  # the second one waits in its buffer
    for _ in range(5):
        one.runtime.time += READ_RETRY_S
        assert await one.poll() == {}
    assert sum(one.fetches.values()) == fetches + 4  # the next is fetched when room is seen


async def test_it_goes_on_when_it_can_be_read_again(
    one: Fetched, caplog: pytest.LogCaptureFixture
) -> None:
    one.write(0, (1, damaged(0, 1)))
    with pytest.raises(BrokerError):
        await one.poll()
    one.logs[one.lower[0]] = [(1, batch(0, 1))]
    one.runtime.time += READ_RETRY_S
    with caplog.at_level("INFO", "prosody"):
        assert await one.poll() == {0: [0, 1]}
    assert "t/0 can be read again" in caplog.text
    assert not one.polls.unreadable


async def test_a_seek_past_it_is_tried_at_once(one: Fetched) -> None:
    one.write(0, (1, damaged(0, 1)), (3, batch(2, 3)))
    with pytest.raises(BrokerError):
        await one.poll()
    one.consumer.seek(one.lower[0], 2)
    assert await one.poll() == {0: [2, 3]}


async def test_good_records_before_a_bad_batch_come_out(one: Fetched) -> None:
    one.write(0, (2, batch(0, 1, 2)), (4, damaged(3, 4)))
    assert await one.poll() == {0: [0, 1, 2]}
    with pytest.raises(BrokerError, match="cannot be read at offset 3"):
        await one.poll()
    assert one.position(0) == 3


async def test_what_stays_is_polled_while_a_join_is_under_way(two: Fetched) -> None:
    for partition in range(2):
        two.write(partition, (4, batch(*range(5))))
    assert await two.poll(records_max=2) == {0: [0, 1]}
    two.subscription.begin_reassignment()
    assert await two.poll(records_max=4) == {1: [0, 1, 2, 3]}
    assert (two.position(0), two.position(1)) == (2, 4)
    two.assignment.pollable.pop(TopicPartition("t", 1))  # it is to move
    assert await two.poll() == {0: [2, 3, 4]}


async def test_a_partition_sent_elsewhere_during_a_join_waits_for_its_end(two: Fetched) -> None:
    """Its records come from where aiokafka has it, and would be taken for those behind the new place."""
    for partition in range(2):
        two.write(partition, (4, batch(*range(5))))
    two.subscription.begin_reassignment()
    holding = two.assignment.held[TopicPartition("t", 0)]
    holding.position = 3
    assert await two.poll() == {1: [0, 1, 2, 3, 4]}
    holding.position = None
    assert await two.poll() == {0: [0, 1, 2, 3, 4]}


async def test_what_the_coordinator_has_to_say_is_told_during_a_join(one: Fetched) -> None:
    def check_errors() -> None:
        raise lower.GroupAuthorizationFailedError("g")

    one.subscription.begin_reassignment()
    one.consumer._coordinator.check_errors = check_errors
    with pytest.raises(BrokerError, match="GroupAuthorizationFailed"):
        await one.poll()


async def test_a_partition_that_was_given_away_is_forgotten(one: Fetched) -> None:
    one.write(0, (1, damaged(0, 1)))
    with pytest.raises(BrokerError):
        await one.poll()
    one.assignment.held.clear()
    await one.take()
    assert not one.polls.unreadable


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_a_header_name_that_is_not_utf8_stops_nothing(one: Fetched, codec: int) -> None:
    one.write(0, (1, batch(0, 1, codec=codec)), (3, misnamed(2, 3)), (5, batch(4, 5, codec=codec)))
    assert await one.poll() == {0: [0, 1]}
    await one.fetch()
    records = (await one.take())[TopicPartition("t", 0)]
    assert [record.offset for record in records] == [2, 3, 4, 5]
    assert [record.value for record in records] == [b"2", b"3", b"4", b"5"]
    assert records[0].headers == (("first", b"1"), ("\\xff\\xfe\\xfd\\xfc", b"2"))
    assert not one.polls.unreadable
    one.write(0, (6, batch(6)))
    assert await one.poll() == {0: [6]}
    assert not one.polls._buffers._bytes


async def test_such_a_record_at_the_very_beginning_and_a_small_poll(one: Fetched) -> None:
    one.write(0, (2, misnamed(0, 1, 2)))
    found = [await one.poll(records_max=1) for _ in range(5)]
    assert found == [{}, {0: [0]}, {0: [1]}, {0: [2]}, {}]


async def test_a_bad_checksum_among_such_records_is_told(one: Fetched) -> None:
    one.write(0, (1, misnamed(0, 1)), (2, damaged(2)))
    assert await one.poll() == {}
    assert await one.poll() == {0: [0, 1]}
    with pytest.raises(BrokerError, match="cannot be read at offset 2"):
        await one.poll()


async def test_what_aiokafka_noted_about_one_partition(two: Fetched) -> None:
    two.write(0, (0, batch(0)))
    two.write(1, (0, batch(0)))
    await two.fetch()
    del two.fetcher._records[two.lower[1]]
    two.fetcher._set_error(two.lower[1], lower.TopicAuthorizationFailedError("t"))
    assert [tp.partition for tp in await two.take()] == [0]
    with pytest.raises(BrokerError, match=r"t/1 .*access rules") as told:
        await two.take()
    assert "replica" not in str(told.value)


async def test_out_of_range_is_for_the_assignment(two: Fetched) -> None:
    two.write(0, (0, batch(0)))
    two.refused.add(two.lower[1])
    assert await two.poll() == {0: [0]}
    assert two.out_of_range == [(TopicPartition("t", 1), 0)]
    assert not two.polls.unreadable
