"""The same fetch again and again: what is sent, what ends it, what is left for aiokafka."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchResponse_v11

from prosody.broker.kafka.frames import Frames
from tests.broker.kafka.chained import (
    EMPTY,
    END,
    FAR,
    OTHER,
    STABLE,
    STEP,
    A,
    B,
    C,
    Scene,
    answer_of,
    bytes_of,
    fetch_of,
    scene_of,
)
from tests.broker.kafka.fetched import batch
from tests.broker.kafka.line import Line, frame, turns
from tests.support import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_each_request_is_what_aiokafka_would_send() -> None:
    async with scene_of() as scene:
        await scene.begin()
        scene.expect(0, 0, 0)
        scene.answer(answer_of((A, batch(0)), (B, b""), (C, batch(0))))
        scene.expect(STEP, 0, STEP)
        scene.answer(EMPTY)
        scene.expect(STEP, 0, STEP)
        scene.answer(answer_of((B, batch(0)), (C, batch(10))))
        scene.expect(STEP, STEP, 2 * STEP)
        scene.state(A).seek(2**40)
        scene.answer(EMPTY)
        scene.expect(2**40, STEP, 2 * STEP)
        assert len(scene.wire.sent) == 5


async def test_over_a_connection_of_aiokafka_too() -> None:
    """With the number of the request, whichever of the two sends it."""
    line, plain = Line(), Line()
    try:
        async with scene_of(frames=Frames(line.connection)) as scene:
            await scene.begin()
            line.feed(frame(line.number, answer_of((A, batch(0)))[4:]))
            for offset in (0, STEP):
                sending = plain.connection.send(fetch_of({A: offset, B: 0, C: 0}))
                sending.close()  # its answer is of no interest
            assert line.ears.written == plain.ears.written
    finally:
        line.close()
        plain.close()
        await turns()


def test_the_next_fetch_is_sent_after_records_are_handed_over() -> None:
    async def main() -> None:
        async with scene_of() as scene:
            await scene.begin()
            data = batch(0, 1)
            scene.answer(answer_of((B, data), (A, b"")))
            assert scene.log == ["send", "take", "hand over", "send"]
            assert scene.taken.brought == [(B, 0, data)]
            scene.answer(EMPTY)
            assert scene.log[4:] == ["send"]

    run_virtual(main())


def test_where_handlers_compute_for_long_the_next_fetch_is_sent_before() -> None:
    async def main() -> None:
        async with scene_of() as scene:
            await scene.begin()
            loop: Any = asyncio.get_running_loop()
            hand_over = scene.taken.hand_over

            def compute() -> None:
                hand_over()
                loop._now += times_s.pop(0)

            scene.taken.hand_over = compute  # type: ignore[method-assign]
            times_s = [0.0004, 0.0006, 0.0006, 0.0004, 0.0004]
            orders = []
            for place in range(len(times_s)):
                scene.log.clear()
                scene.answer(answer_of((A, batch(place * STEP))))
                orders.append(scene.log[1:])
            after, before = ["hand over", "send"], ["send", "hand over"]
            assert orders == [after, after, before, before, after]

    run_virtual(main())


def test_a_handler_that_computes_for_minutes_is_no_broker_that_does_not_answer() -> None:
    async def main() -> None:
        async with scene_of() as scene:
            await scene.begin()
            loop: Any = asyncio.get_running_loop()

            def compute() -> None:
                loop._now += 100.0

            scene.taken.hand_over = compute  # type: ignore[method-assign]
            for left in (False, True):
                scene.taken.left = left
                scene.answer(answer_of((A, batch(scene.state(A).position))))
                await turns()
                assert not scene.wire.closed
            assert scene.chain.looks_after(A)

    run_virtual(main())


async def test_what_is_left_buffered_is_polled_before_the_next_fetch() -> None:
    async with scene_of() as scene:
        await scene.begin()
        scene.taken.left = True
        scene.answer(answer_of((A, batch(0))))
        assert scene.log == ["send", "take", "hand over"]
        scene.state(A).seek(3)
        await asyncio.sleep(0)
        scene.expect(3, 0, 0)
        assert len(scene.wire.sent) == 2


async def test_one_that_has_ended_sends_nothing_more() -> None:
    """Not even where the next fetch was about to be sent."""
    async with scene_of() as scene:
        await scene.begin()
        scene.taken.left = True
        scene.answer(answer_of((A, batch(0))))
        scene.chain.set_exception(KafkaConnectionError("lost"))
        await turns()
        assert len(scene.wire.sent) == 1


async def test_the_ends_of_the_logs_are_noted() -> None:
    async with scene_of() as scene:
        await scene.begin()
        scene.answer(answer_of((A, b""), (C, batch(0))))
        for tp, noted in ((A, (END, STABLE)), (C, (END, STABLE)), (B, (None, None))):
            assert (scene.state(tp).highwater, scene.state(tp).lso) == noted


async def test_a_partition_that_was_sent_elsewhere_meanwhile() -> None:
    """What was asked for before is dropped, also where it is the same bytes."""
    async with scene_of() as scene:
        await scene.begin()
        scene.state(A).seek(50)
        scene.answer(answer_of((A, batch(0)), (B, batch(0))))
        assert [tp for tp, _, _ in scene.taken.brought] == [B]
        assert scene.state(A).highwater is None
        assert scene.state(A).position == 50
        scene.expect(50, STEP, 0)
        scene.answer(answer_of((A, batch(50))))
        scene.expect(50 + STEP, STEP, 0)


# -- what ends it ----------------------------------------------------------------------------------------


def _close(scene: Scene) -> None:
    scene.wire.open = False


ENDS: dict[str, Callable[[Scene], Any]] = {
    "paused": lambda scene: scene.state(A).pause(),
    "without a position": lambda scene: scene.state(C).await_reset(-2),
    "buffered": lambda scene: scene.fetcher._records.update({B: object()}),
    "another partition can be fetched": lambda scene: scene.fetcher._records.pop(OTHER),
    "the fetcher is closed": lambda scene: setattr(scene.fetcher, "_closed", True),
    "aiokafka is to see the fetches": lambda scene: setattr(scene.taken, "allowed", False),
    "there is new metadata": lambda scene: setattr(scene.chain, "stale", True),
    "the connection is closed": _close,
}


@pytest.mark.parametrize("name", ENDS)
async def test_it_ends_before_it_begins(name: str) -> None:
    async with scene_of(OTHER, FAR) as scene:
        ENDS[name](scene)
        await scene.begin()
        assert await scene.result() is None
        assert scene.chain.ended
        assert not scene.wire.sent


@pytest.mark.parametrize("name", ENDS)
async def test_it_ends_with_an_answer(name: str) -> None:
    """What the answer brought is not lost."""
    async with scene_of(OTHER, FAR) as scene:
        await scene.begin()
        assert scene.chain.looks_after(A)
        assert scene.chain.looks_after(OTHER)
        assert not scene.chain.looks_after(FAR)
        ENDS[name](scene)
        if not scene.chain.done():
            scene.answer(answer_of((A, batch(0)), (B, batch(0))))
            assert scene.log == ["send", "take", "hand over"]
        assert await scene.result() is None
        assert len(scene.wire.sent) == 1
        assert scene.chain.done()
        assert not scene.chain.looks_after(A)
        assert not scene.chain.looks_after(OTHER)


async def test_it_ends_once() -> None:
    """The connection may be lost in the turn in which it ends by itself."""
    async with scene_of() as scene:
        await scene.begin()
        scene.answer(ODD["a refused partition"])
        scene.chain.set_exception(KafkaConnectionError())
        left = await scene.result()
        assert left is not None
        assert left.answer() is not None


async def test_a_fault_of_ours_leaves_the_answer_to_aiokafka(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was taken before it is handed over all the same."""
    async with scene_of() as scene:
        await scene.begin()

        def fault(brought: object) -> bool:
            raise RuntimeError("a fault")

        scene.taken.take = fault  # type: ignore[method-assign]
        scene.answer(answer_of((A, batch(0))))
        assert scene.log == ["send", "hand over"]
        left = await scene.result()
        assert left is not None
        assert left.answer().topics
        assert "internal fault in the answer to a fetch" in caplog.text


async def test_a_partition_that_is_resumed_is_fetched_too() -> None:
    async with scene_of(OTHER) as scene:
        scene.state(OTHER).pause()
        scene.fetcher._records.clear()
        await scene.begin()
        scene.answer(EMPTY)
        assert len(scene.wire.sent) == 2
        scene.state(OTHER).resume()
        scene.answer(EMPTY)
        assert await scene.result() is None


async def test_it_goes_on_beside_another_brokers_partition() -> None:
    async with scene_of(OTHER, FAR) as scene:
        del scene.fetcher._records[FAR]
        await scene.begin()
        scene.answer(EMPTY)
        assert len(scene.wire.sent) == 2


async def test_a_lost_assignment() -> None:
    """Whatever comes then is for aiokafka, which drops it."""
    async with scene_of() as scene:
        scene.assignment._unassign()
        await scene.begin()
        assert await scene.result() is None
        assert not scene.wire.sent
    async with scene_of() as scene:
        await scene.begin()
        scene.assignment._unassign()
        scene.answer(answer_of((A, batch(0))))
        assert await scene.result() is not None
        assert not scene.taken.brought
        assert len(scene.wire.sent) == 1


async def test_a_cancelled_one_drops_what_comes_late() -> None:
    line = Line()
    try:
        async with scene_of(frames=Frames(line.connection)) as scene:
            await scene.begin()
            assert scene.task is not None
            scene.taken.left = True
            scene.task.cancel()
            line.feed(frame(line.number, answer_of((A, batch(0)))[4:]))  # before the task knows
            assert scene.taken.brought
            await turns()
            assert scene.task.cancelled()
            assert len(line.ears.written) == 1
        async with scene_of(frames=scene.frames) as scene:
            await scene.begin()
            assert scene.task is not None
            scene.task.cancel()
            await turns()
            line.feed(frame(line.number, answer_of((A, batch(0)))[4:]))
            await turns()
            assert not scene.log
            assert len(line.ears.written) == 2
    finally:
        line.close()
        await turns()


# -- what is left for aiokafka ---------------------------------------------------------------------------

ODD = {
    "a refused partition": answer_of((A, b""), error=1),
    "aborted transactions": answer_of((A, batch(3)), aborted=[(1, 2)]),
    "a part of a batch": answer_of((A, batch(3)[:-1])),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_answer_that_is_not_plain(name: str) -> None:
    async with scene_of() as scene:
        await scene.begin()
        scene.state(C).seek(5)
        scene.answer(EMPTY)
        scene.answer(ODD[name])
        left = await scene.result()
        assert left is not None
        assert bytes_of(left) == bytes_of(fetch_of({A: 0, B: 0, C: 5}))
        whole = FetchResponse_v11.decode(io.BytesIO(ODD[name][4:]))
        assert left.answer().to_object() == whole.to_object()
        assert not scene.taken.brought


async def test_a_failure() -> None:
    async with scene_of() as scene:
        await scene.begin()
        scene.chain.set_exception(KafkaConnectionError("away"))
        left = await scene.result()
        assert left is not None
        assert left.topics == fetch_of({A: 0, B: 0, C: 0}).topics
        with pytest.raises(KafkaConnectionError, match="away"):
            left.answer()


async def test_a_partition_that_nobody_asked_for_breaks_nothing() -> None:
    """An exception here would be the transport's, and the chain never end."""
    async with scene_of() as scene:
        await scene.begin()
        scene.answer(answer_of((OTHER, batch(0)), (A, batch(0))))
        assert [tp for tp, _, _ in scene.taken.brought] == [A]
        scene.expect(STEP, 0, 0)


def test_a_broker_that_does_not_answer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with scene_of() as scene:
            await scene.begin()
            await asyncio.sleep(30.0)
            scene.answer(EMPTY)  # the time begins anew
            await asyncio.sleep(39.0)
            assert not scene.wire.closed
            assert scene.task is not None
            await asyncio.wait((scene.task,))
            left = await scene.result()
            assert loop.time() == pytest.approx(70.0)
            assert scene.wire.closed == [CloseReason.CONNECTION_TIMEOUT]
            assert left is not None
            with pytest.raises(KafkaConnectionError):
                left.answer()

    run_virtual(main())
