"""Answers on a connection of aiokafka: each to whoever asked, ours in the callback that received it."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.protocol.admin import ApiVersionRequest
from hypothesis import given
from hypothesis import strategies as st

from prosody.broker.kafka.frames import Frames, is_quiet
from tests.broker.kafka.line import (
    LIMIT_S,
    Asked,
    Line,
    connected,
    frame,
    lookup,
    open_line,
    request,
    turns,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


async def test_an_answer_in_one_piece_is_told_by_the_callback_that_received_it() -> None:
    async with connected() as (broker, connection):
        fed: list[bytes] = []
        connection._reader.feed_data = fed.append
        frames, asked = Frames(connection), Asked()
        assert frames.send(request(), asked)
        assert not is_quiet(connection)
        await broker.answer(b"records")
        await asked.wait()
        assert [answer[4:] for answer in asked.answers] == [b"records"]
        assert asked.by == [None], "a task told, which had to be woken first"
        assert not fed, "the reader has it too"
        assert is_quiet(connection)


async def test_requests_of_both_kinds_share_a_connection() -> None:
    async with connected() as (broker, connection):
        frames = Frames(connection)
        for said in range(1, 20):
            asked = Asked()
            before = asyncio.create_task(Line.lookup(connection.send(ApiVersionRequest())))
            assert frames.send(request(), asked)
            behind = asyncio.create_task(Line.lookup(connection.send(ApiVersionRequest())))
            await broker.answer(lookup(said))
            await broker.answer(b"%d" % said)
            await broker.answer(lookup(-said))
            async with asyncio.timeout(LIMIT_S):
                assert (await before, await behind) == (said, -said)
            assert [answer[4:] for answer in asked.answers] == [b"%d" % said]
        assert is_quiet(connection)


async def test_a_lost_connection_is_told() -> None:
    async with connected() as (broker, connection):
        frames, asked = Frames(connection), Asked()
        assert frames.send(request(), asked)
        broker.writer.close()
        await asked.wait()
        assert [type(error).__name__ for error in asked.errors] == ["KafkaConnectionError"]
        assert not asked.answers
        assert not is_quiet(connection)
        assert not frames.send(request(), Asked())
        assert not connection._requests


# -- byte by byte ----------------------------------------------------------------------------------------


async def test_what_is_sent_has_the_number_that_its_answer_is_known_by() -> None:
    async with open_line() as line:
        frames = Frames(line.connection)
        for _ in range(3):
            kept = request()
            assert frames.send(kept, Asked())
            line.connection._last_action = 0.0
            line.feed(frame(line.number, b""))
            assert line.connection._last_action > 0.0, "aiokafka would take it for idle"
            assert line.ears.written[-1] == bytes(request(line.connection._correlation_id))
            kept[:] = bytes(len(kept))  # what is on its way is a copy
            assert line.ears.written[-1] == bytes(request(line.connection._correlation_id))
        assert is_quiet(line.connection)


async def test_the_answer_to_an_own_request_goes_to_its_future() -> None:
    async with open_line() as line:
        frames, asked = Frames(line.connection), Asked()
        own = line.own()
        assert frames.send(request(), asked)
        number = line.number
        line.feed(frame(number - 1, lookup(7)))
        await turns()
        assert own.result() == 7
        assert not asked.answers
        line.feed(frame(number, b"x"))
        assert asked.answers == [frame(number, b"x")[4:]]


async def test_an_asking_that_wants_nothing_more_gets_nothing() -> None:
    async with open_line() as line:
        frames = Frames(line.connection)
        for pieces in (1, 2):
            late, asked = Asked(done=True), Asked()
            assert frames.send(request(), late)
            assert frames.send(request(), asked)
            for number, body in ((line.number - 1, b"late"), (line.number, b"due")):
                data = frame(number, body)
                for piece in (data[: len(data) // pieces], data[len(data) // pieces :]):
                    if piece:
                        line.feed(piece)
                        await turns()
            assert not late.answers
            assert asked.answers == [frame(line.number, b"due")[4:]]
        assert is_quiet(line.connection)


HEAD = 8
"""Of an answer: its size and its number, which show whose it is."""


@pytest.mark.parametrize("split", range(1, HEAD))
async def test_an_answer_that_does_not_show_whose_it_is_comes_by_the_reader(split: int) -> None:
    """Its second piece is like an answer by itself when the size came alone."""
    async with open_line() as line:
        line.connection._correlation_id = 7
        frames, asked, later = Frames(line.connection), Asked(), Asked()
        assert frames.send(request(), asked)
        whole = frame(8, struct.pack(">i", 8) + b"rest")
        assert struct.unpack_from(">ii", whole, 4) == (len(whole) - 8, 8)
        line.feed(whole[:split])
        await turns()
        assert not is_quiet(line.connection)
        line.feed(whole[split:])
        assert not asked.answers, "it went past what the reader has"
        await turns()
        assert asked.answers == [whole[4:]]
        assert frames.send(request(), later)
        line.feed(frame(9, b"next"))
        assert later.answers == [frame(9, b"next")[4:]]


@pytest.mark.parametrize("step", [1, 3, 100])
@pytest.mark.parametrize("first", [HEAD, HEAD + 1, HEAD + 150])
async def test_an_answer_in_pieces_is_told_with_its_last_byte(first: int, step: int) -> None:
    async with open_line() as line:
        frames, asked, later = Frames(line.connection), Asked(), Asked()
        assert frames.send(request(), asked)
        whole = frame(line.number, bytes(range(200)))
        pieces = [whole[:first], *(whole[at : at + step] for at in range(first, len(whole), step))]
        for piece in pieces:
            assert not asked.answers
            assert not is_quiet(line.connection)
            line.feed(piece)
        assert asked.answers == [whole[4:]]
        assert is_quiet(line.connection)
        assert frames.send(request(), later)
        whole = frame(line.number, b"next")
        line.feed(whole[:-1])
        assert not later.answers
        line.feed(whole[-1:])
        assert later.answers == [whole[4:]]


@pytest.mark.parametrize("split", [HEAD, HEAD + 2, None])
async def test_what_comes_with_the_end_of_an_answer_is_received_too(split: int | None) -> None:
    async with open_line() as line:
        frames, first, second = Frames(line.connection), Asked(), Asked()
        assert frames.send(request(), first)
        assert frames.send(request(), second)
        number = line.number
        own = line.own()
        await turns()
        data = frame(number - 1, b"first") + frame(number, b"second") + frame(number + 1, lookup(3))
        if split is not None:
            line.feed(data[:split])
            data = data[split:]
        line.feed(data)
        assert first.answers == [frame(number - 1, b"first")[4:]]
        assert second.answers == [frame(number, b"second")[4:]]
        await turns()
        assert own.result() == 3


async def test_a_connection_lost_in_the_middle_of_an_answer_is_told() -> None:
    async with connected() as (broker, connection):
        frames, asked = Frames(connection), Asked()
        assert frames.send(request(), asked)
        await broker.asked.get()
        broker.writer.write(frame(connection._correlation_id, b"records")[:-1])
        await broker.writer.drain()
        broker.writer.close()
        await asked.wait()
        assert [type(error).__name__ for error in asked.errors] == ["KafkaConnectionError"]
        assert not asked.answers


async def test_a_wrong_number_closes_the_connection() -> None:
    async with open_line() as line:
        frames, asked = Frames(line.connection), Asked()
        assert frames.send(request(), asked)
        line.feed(frame(line.number + 1, b""))
        await turns()
        assert [type(error).__name__ for error in asked.errors] == ["CorrelationIdError"]
        assert not line.connection.connected()


@pytest.mark.timeout(5)
@pytest.mark.parametrize(("size", "seen"), [(-4, 5), (-4, 8), (0, 8), (3, 8)])
async def test_a_size_that_has_no_room_for_a_number_closes_the_connection(
    size: int, seen: int
) -> None:
    """As it does without us."""
    async with open_line() as line:
        frames, asked = Frames(line.connection), Asked()
        assert frames.send(request(), asked)
        line.feed(struct.pack(">ii", size, line.number)[:seen])
        await turns()
        assert [type(error).__name__ for error in asked.errors] == ["KafkaConnectionError"]


KINDS = st.sampled_from(("ours", "done", "own"))
"""Of askings: ours, ours that wants nothing more, aiokafka's own."""


@given(
    kinds=st.lists(st.tuples(KINDS, st.integers(0, 12)), min_size=1, max_size=8),
    cuts=st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=12),
)
def test_each_gets_its_own_answer_in_order(
    kinds: Sequence[tuple[str, int]], cuts: Sequence[tuple[int, bool]]
) -> None:
    """However the bytes are cut, and whether or not aiokafka reads between two pieces."""
    asyncio.run(_play(kinds, dict(cuts)))


async def _play(kinds: Sequence[tuple[str, int]], cuts: dict[int, bool]) -> None:
    async with open_line() as line:
        frames = Frames(line.connection)
        askings: list[Asked | asyncio.Task[Any]] = []
        data = b""
        expected: list[Any] = []
        for place, (kind, size) in enumerate(kinds):
            if kind == "own":
                askings.append(line.own())
                body = lookup(place)
                expected.append(place)
            else:
                asked = Asked(done=kind == "done")
                askings.append(asked)
                assert frames.send(request(), asked)
                body = bytes((place,)) * size
                expected.append([] if kind == "done" else [frame(line.number, body)[4:]])
            data += frame(line.number, body)
        requests = list(line.connection._requests)
        at = 0
        for end in sorted({cut for cut in cuts if 0 < cut < len(data)} | {len(data)}):
            line.feed(data[at:end])
            if cuts.get(end):
                await turns()
            # In order: whoever has been told is not behind one that has not been.
            told = len(requests) - len(line.connection._requests)
            assert list(line.connection._requests) == requests[told:]
            at = end
        await turns()
        found = [one.answers if isinstance(one, Asked) else one.result() for one in askings]
        assert found == expected
        assert is_quiet(line.connection)
        last = Asked()
        assert frames.send(request(), last)
        line.feed(frame(line.number, b"last"))
        assert len(last.answers) == 1, "it no longer knows where a frame begins"
