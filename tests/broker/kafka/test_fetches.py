"""How a consumer fetches: records go to the poll that waits, or into aiokafka's buffers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.client import ConnectionGroup

from prosody.broker.kafka.fetches import AT_ONCE_MAX
from prosody.broker.kafka.polls import Unreadable
from tests.broker.kafka.consuming import NODE, T0, T1, Consumer, consuming, end_of
from tests.broker.kafka.fetched import batch
from tests.broker.kafka.line import Line, turns
from tests.support import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


def test_records_go_to_the_poll_that_waits() -> None:
    """Before the next fetch, with the position moved, in the callback that received them."""

    async def main() -> None:
        async with consuming() as one:
            await one.begin()
            poll = await one.wait(one.taker)
            for begin in (0, 3, 6):
                one.answer((0, batch(begin, begin + 1, begin + 2)), (1, b""))
                assert one.position(0) == begin + 3
            one.answer((1, batch(0)), (0, batch(9)))
            assert one.taker.taken == [
                (T0, [0, 1, 2]), (T0, [3, 4, 5]), (T0, [6, 7, 8]), (T1, [0]), (T0, [9]),
            ]  # fmt: skip
            assert one.taker.sent == [1, 2, 3, 4, 4]
            assert one.taker.begun == [1, 2, 3, 5], "not once for each answer, when all was taken"
            await turns()
            assert not poll.done()
            assert not one.buffered()
            assert not one.asked

    run_virtual(main())


async def test_records_before_the_position_are_not_taken() -> None:
    """A broker answers with whole batches."""
    async with consuming() as one:
        one.state(one.lower[0]).seek(2)
        await one.begin()
        await one.wait(one.taker)
        one.answer((0, batch(0, 1, 2, 3)))
        assert one.taker.taken == [(T0, [2, 3])]
        assert one.position(0) == 4


async def test_a_batch_of_which_nothing_is_left_is_no_news() -> None:
    async with consuming() as one:
        one.state(one.lower[0]).seek(2)
        await one.begin()
        await one.wait(one.taker)
        one.answer((0, batch(0, 1)))
        assert not one.taker.taken
        assert not one.buffered()
        assert one.position(0) == 2


def _unreadable(one: Consumer) -> None:
    one.polls.unreadable[T0] = Unreadable(7, one.runtime.time, "damaged")


def _sent_elsewhere(one: Consumer) -> None:
    one.assignment.held[T0].position = 3


MANY = tuple(range(AT_ONCE_MAX + 1))
BUFFERED: dict[str, tuple[Callable[[Consumer], Any], bytes, list[int] | None]] = {
    "the poll does not want them": (
        lambda one: setattr(one.taker, "wanted", {T1}), batch(0, 1), None,
    ),
    "they are compressed": (lambda one: None, batch(0, 1, codec=1), [0, 1]),
    "they are many": (lambda one: None, batch(*MANY), list(MANY[:1000])),
    "their partition could not be read": (_unreadable, batch(0, 1), [0, 1]),
    "their partition may not be polled": (
        lambda one: one.assignment.pollable.pop(T0), batch(0, 1), None,
    ),
    "their partition is sent elsewhere": (_sent_elsewhere, batch(0, 1), None),
    "their partition is not held": (
        lambda one: (one.assignment.held.pop(T0), one.assignment.pollable.pop(T0)),
        batch(0, 1), None,
    ),
}  # fmt: skip
"""What comes before, what is fetched, and what the poll gives then; None: it goes on waiting."""


@pytest.mark.parametrize("name", BUFFERED)
async def test_records_are_buffered_when(name: str) -> None:
    before, data, polled = BUFFERED[name]
    async with consuming() as one:
        await one.begin()
        poll = await one.wait(one.taker)
        before(one)
        one.answer((0, data), (1, batch(0)))
        assert one.taker.taken == [(T1, [0])]
        assert one.buffered() == [0]
        assert one.position(0) == 0
        assert len(one.written) == 1, "it is fetched again although it is buffered"
        await turns()
        if polled is None:
            assert not poll.done()
            assert one.buffered() == [0]
        else:
            (found,) = end_of(poll).values()
            assert [record.offset for record in found] == polled
            assert one.position(0) == len(polled)


async def test_records_are_buffered_as_soon_as_aiokafka_is_to_see_the_fetches() -> None:
    async with consuming() as one:
        await one.begin()
        poll = await one.wait(one.taker)
        one.polls._buffers._bytes[one.lower[1]] = None
        one.answer((0, batch(0)), (1, batch(0)))
        assert not one.taker.taken
        assert one.buffered() == [0, 1]
        await turns()
        assert set(end_of(poll)) == {T0, T1}


async def test_records_are_buffered_while_nobody_waits() -> None:
    async with consuming() as one:
        fetch = await one.begin()
        one.answer((0, batch(0, 1)))
        assert one.buffered() == [0]
        # For so long aiokafka fetches nothing else from that broker.
        assert one.fetcher._records[one.lower[0]]._backoff == one.fetcher._prefetch_backoff
        await turns()
        assert end_of(fetch) is False  # it is for the routine to plan without this partition
        (found,) = (await one.take()).values()
        assert [record.offset for record in found] == [0, 1]


async def test_a_poll_without_a_taker_brings_what_comes() -> None:
    async with consuming() as one:
        await one.begin()
        poll = await one.wait(None)
        one.answer((0, batch(0, 1)))
        await turns()
        assert list(end_of(poll)) == [T0]
        assert len(one.written) == 2, "the chain did not go on, though the poll took all there was"
        one.answer((1, batch(0)))
        assert one.buffered() == [1]


async def test_nothing_is_handed_to_a_poll_that_has_ended() -> None:
    async with consuming() as one:
        await one.begin()
        poll = await one.wait(one.taker)
        one.polls.wake()
        await turns()
        assert end_of(poll) == {}
        one.answer((0, batch(0)))
        assert not one.taker.taken
        assert one.buffered() == [0]


# -- its beginning and its end ---------------------------------------------------------------------------


async def test_a_cancelled_fetch_is_over_in_order() -> None:
    async with consuming() as one:
        fetch = await one.begin()
        fetch.cancel()
        await turns()
        assert end_of(fetch) is False
        assert not one.fetches.looks_after(one.lower[0])
        one.answer((0, batch(0)))
        assert not one.buffered()
        await one.begin()
        one.answer((0, batch(0)))
        assert one.buffered() == [0]


async def test_metadata_has_all_planned_anew() -> None:
    """What is under way is awaited, and taken."""
    async with consuming() as one:
        fetch = await one.begin()
        await one.wait(one.taker)
        (listener,) = one.listeners
        listener(one.client.cluster)
        await turns()
        assert not fetch.done()
        one.answer((0, batch(0)))
        assert one.taker.taken == [(T0, [0])]
        await turns()
        assert end_of(fetch) is False
        assert (len(one.written), one.asked) == (1, 0)


async def test_what_a_chain_looks_after_is_told_to_nobody() -> None:
    """Room for more of other partitions is for aiokafka's routine to see."""
    async with consuming() as one:
        zero, first = one.lower
        one.fetcher._records[first] = object()
        for begun in (False, True):
            for partition in (zero, first):
                told = one.fetcher._wait_consume_future = asyncio.get_running_loop().create_future()
                one.fetcher._records.setdefault(partition, object())
                assert one.fetches.looks_after(partition) is begun
                one.polls._buffers._drop(partition)
                assert told.done() is not begun
            one.fetcher._records[first] = object()
            if not begun:
                await one.begin(0)
        one.line.close()
        await turns()
        assert not one.fetches.looks_after(zero)


async def test_a_new_connection_is_used_as_the_one_before() -> None:
    async with consuming() as one:
        for _ in range(2):
            await one.begin()
            poll = await one.wait(one.taker)
            one.answer((0, batch(one.position(0))))
            one.polls.wake()
            await poll
            one.line.close()
            await turns()
            one.line = Line()
            one.client._conns[NODE, ConnectionGroup.DEFAULT] = one.line.connection
        assert one.taker.taken == [(T0, [0]), (T0, [1])]
