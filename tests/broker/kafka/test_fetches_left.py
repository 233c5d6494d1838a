"""What is left to aiokafka's own way of fetching, and what it makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.fetch import FetchRequest

from prosody.errors import BrokerError
from tests.broker.kafka.chained import answer_of
from tests.broker.kafka.consuming import T0, T1, Consumer, consuming, end_of
from tests.broker.kafka.fetched import batch, damaged
from tests.broker.kafka.line import frame, turns

if TYPE_CHECKING:
    from collections.abc import Callable


def _other_version(one: Consumer) -> None:
    one.line.connection._versions = {1: (0, 10)}


OWN_WAY: dict[str, Callable[[Consumer], Any]] = {
    "fetches are to be seen": lambda one: one.polls._buffers._bytes.update({one.lower[0]: None}),
    "something is asked": lambda one: one.line.connection._requests.append((0, None, None)),
    "something is received": lambda one: one.line.reader._buffer.extend(b"x"),
    "the broker speaks another version": _other_version,
    "there is no connection": lambda one: one.client._conns.clear(),
}


@pytest.mark.parametrize("name", OWN_WAY)
async def test_aiokafka_fetches_by_itself_when(name: str) -> None:
    async with consuming() as one:
        one.write(0, (1, batch(0, 1)))
        feed = one.line.reader.feed_data
        OWN_WAY[name](one)
        fetch = await one.begin()
        assert end_of(fetch) is False  # whoever waits was told already
        assert one.asked == 1
        assert not one.written
        assert one.buffered() == [0]
        assert one.line.reader.feed_data == feed
        one.line.connection._requests.clear()


async def test_a_broker_too_old_is_aiokafkas_to_refuse() -> None:
    """An exception here would end aiokafka's fetching routine."""
    async with consuming() as one:
        one.line.connection._versions = {1: (0, 3)}
        with pytest.raises(IncompatibleBrokerVersion):
            FetchRequest(1, 1, 1, 1, []).prepare(one.line.connection._versions)
        fetch = await one.begin()
        assert fetch.exception() is None
        assert one.asked == 1


async def test_what_a_chain_does_not_understand_goes_through_aiokafka() -> None:
    async with consuming() as one:
        fetch = await one.begin()
        one.answer((0, b""), error=1)
        await turns()
        assert end_of(fetch) is False
        assert not one.asked
        await one.take()
        assert one.out_of_range == [(T0, 0)]


async def test_a_batch_too_short_to_be_one_breaks_nothing() -> None:
    """Its length is within what was fetched, but there is no such batch."""
    async with consuming() as one:
        await one.begin()
        data = bytearray(batch(0, 1))
        data[8:12] = (5).to_bytes(4, "big")
        one.answer((0, bytes(data)))
        with pytest.raises(BrokerError, match="t/0 cannot be read at offset 0"):
            await one.take()


async def test_an_answer_that_cannot_be_decoded_is_fetched_again() -> None:
    """aiokafka takes it for a lost connection; an exception here would end its fetching routine."""
    async with consuming() as one:
        one.fetcher._retry_backoff = 0.0
        fetch = await one.begin()
        one.line.feed(frame(one.line.number, answer_of((one.lower[0], batch(0)))[4:-40]))
        await turns()
        assert fetch.exception() is None
        assert not one.buffered()


async def test_records_that_are_damaged_are_not_taken() -> None:
    async with consuming() as one:
        await one.begin()
        poll = await one.wait(one.taker)
        one.answer((0, damaged(0, 1)), (1, batch(0)))
        await turns()
        assert one.taker.taken == [(T1, [0])]
        assert poll.done()
        with pytest.raises(BrokerError, match="t/0 cannot be read at offset 0"):
            await poll
        assert one.position(0) == 0


async def test_a_fault_of_who_takes_is_told_by_the_poll_and_loses_nothing() -> None:
    async with consuming() as one:
        one.write(0, (1, batch(0, 1)))
        await one.begin()
        poll = await one.wait(one.taker)

        def take(brought: object) -> None:
            raise RuntimeError("a fault")

        one.polls._buffers.fetches.waiting.take = take
        one.answer((0, batch(0, 1)), (1, batch(0)))
        await turns()
        with pytest.raises(RuntimeError, match="a fault"):
            poll.result()
        assert (one.position(0), one.position(1)) == (0, 0)
