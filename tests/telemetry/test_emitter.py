"""The emitter: when it writes, and that nobody waits for it or fails with it."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.memory.batches import KEEP
from prosody.broker.protocol import BrokerBatches, ProducerSettings, TopicPartition, Written
from prosody.errors import BrokerError
from prosody.telemetry import emitter as module
from prosody.telemetry.buffer import CROWDED, EVENTS_MAX, Buffer
from prosody.telemetry.emitter import FLUSH_S, LINGER_S, SLICE_S, WRITE, Emitter
from prosody.telemetry.encoder import Encoder
from prosody.telemetry.events import FIELDS, MESSAGE, MESSAGE_SUCCEEDED
from prosody.telemetry.telling import QUIET_S
from tests.support import FakeRuntime, other_tasks, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TOPIC = "telemetry"
TP = TopicPartition("t", 0)
SETTINGS = ProducerSettings("me", None, "crc32")


class World:
    """An emitter over an embedded broker."""

    def __init__(self, *, auto_create: bool = True) -> None:
        self.runtime = FakeRuntime()
        self.cluster = MemoryCluster()
        self.broker: Any = MemoryBroker(
            self.cluster, runtime=self.runtime, auto_create_topics=auto_create
        )
        self.buffer = Buffer()
        encoder = Encoder(TOPIC, "g", "s", "h")
        self.emitter = Emitter(self, SETTINGS, TOPIC, self.buffer, encoder, self.runtime)
        self.made: list[Batches] = []
        self.hold: asyncio.Event | None = None
        self.writes: list[float] = []
        """When each began."""
        self.problem: BrokerError | None = None

    def batches(self, settings: ProducerSettings) -> BrokerBatches:
        self.made.append(Batches(self, self.broker.batches(settings)))
        return self.made[-1]

    # What an emitter asks of its broker is batches alone.
    consumer = reader = producer = admin = None  # type: ignore[assignment]

    def put(self, count: int, first: int = 0) -> None:
        for n in range(first, first + count):
            event = MESSAGE_SUCCEEDED, self.runtime.monotonic(), MESSAGE, TP, n, "k", ""
            self.buffer.add(event)

    @property
    def written(self) -> int:
        return sum(log.end for log in self.cluster.logs(TOPIC))


class Batches:
    """Those of the embedded broker; a write takes as long, and ends as badly, as a test says."""

    def __init__(self, world: World, inner: BrokerBatches) -> None:
        self._world = world
        self._inner = inner
        self.start, self.find, self.add = inner.start, inner.find, inner.add
        self.stopped = False

    async def write(self, timeout_s: float) -> Written:
        self._world.writes.append(self._world.runtime.monotonic())
        if self._world.hold is not None:
            await self._world.hold.wait()
        if self._world.problem is not None:
            return Written(2, self._world.problem)
        return await self._inner.write(timeout_s)

    async def stop(self) -> None:
        self.stopped = True
        await self._inner.stop()


def run(main: Callable[[World], Coroutine[Any, Any, None]], *, auto_create: bool = True) -> None:
    async def play() -> None:
        world = World(auto_create=auto_create)
        try:
            await main(world)
        finally:
            await world.emitter.stop()
        assert not other_tasks()
        assert all(batches.stopped for batches in world.made)

    run_virtual(play())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_events_wait_for_others_for_a_second() -> None:
    async def main(world: World) -> None:
        world.emitter.begin()
        world.put(3)
        await asyncio.sleep(LINGER_S * 0.9)
        assert not world.written
        await asyncio.sleep(LINGER_S * 0.2)
        assert world.written == 3

    run(main)


def test_many_events_are_written_before_that() -> None:
    async def main(world: World) -> None:
        world.emitter.begin(subscribed=True)
        await asyncio.sleep(0.01)
        world.put(CROWDED)
        await asyncio.sleep(0.01)
        assert world.written == CROWDED  # what is added is in an embedded broker's log
        assert not world.writes
        world.put(WRITE - CROWDED, CROWDED)
        await asyncio.sleep(0.01)
        assert world.written == WRITE
        assert len(world.writes) == 1

    run(main)


def test_many_events_have_it_connect() -> None:
    async def main(world: World) -> None:
        world.emitter.begin()
        world.put(CROWDED)
        await asyncio.sleep(0.01)
        assert world.written == CROWDED

    run(main)


def test_many_events_are_one_slice() -> None:
    async def main(world: World) -> None:
        world.emitter.begin(subscribed=True)
        await asyncio.sleep(0.01)
        world.put(CROWDED - 1)
        with patch.object(asyncio.get_running_loop(), "call_soon") as call_soon:
            world.put(100)
        assert call_soon.call_count == 1

    run(main)


def test_what_comes_all_the_time_is_encoded_in_small_slices_and_written_each_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slices: list[int] = []
    encode = Encoder.encode

    def counting(encoder: Encoder, values: list[Any]) -> Any:
        slices.append(len(values) // FIELDS)
        return encode(encoder, values)

    monkeypatch.setattr(Encoder, "encode", counting)

    async def main(world: World) -> None:
        world.emitter.begin(subscribed=True)
        for n in range(500):
            world.put(1, n)
            await asyncio.sleep(0.01)
        first, *others = slices
        assert first == LINGER_S / 0.01  # nobody knew that more would come
        assert max(others) <= SLICE_S / 0.01 + 1
        assert [round(at) for at in world.writes] == [1, 2, 3, 4, 5][: len(world.writes)]
        assert len(world.writes) >= 4
        await asyncio.sleep(LINGER_S * 1.1)
        assert world.written == 500
        slices.clear()
        await asyncio.sleep(10 * LINGER_S)
        assert not any(slices)
        assert len(slices) <= 1  # it rests as well

    run(main)


def test_it_looks_while_subscribed_and_rests_afterwards() -> None:
    async def main(world: World) -> None:
        world.emitter.begin(subscribed=True)
        await asyncio.sleep(10)
        world.put(2)
        await asyncio.sleep(LINGER_S * 1.1)
        assert world.written == 2
        world.put(2)
        await world.emitter.rest()
        assert world.written == 4
        assert len(world.writes) == 2
        world.put(1)  # a handler that was left behind
        await asyncio.sleep(10)
        assert world.written == 4
        world.emitter.begin()  # a send
        await asyncio.sleep(LINGER_S * 1.1)
        assert world.written == 5

    run(main)


def test_no_slice_comes_after_the_rest() -> None:
    async def main(world: World) -> None:
        world.emitter.begin(subscribed=True)
        world.put(2)
        await asyncio.sleep(LINGER_S * 1.02)  # the next slice is due
        world.put(CROWDED)  # and another one at once
        await world.emitter.rest()
        world.put(1)
        await asyncio.sleep(10)
        assert world.written == 2 + CROWDED

    run(main)


def test_events_go_on_being_encoded_during_a_write() -> None:
    async def main(world: World) -> None:
        world.hold = asyncio.Event()
        world.emitter.begin(subscribed=True)
        for n in range(10):
            world.put(CROWDED, n * CROWDED)
            await asyncio.sleep(0.01)
        assert not len(world.buffer)
        world.hold.set()
        await world.emitter.flush()
        assert not world.buffer.dropped
        assert world.written == 10 * CROWDED

    run(main)


def test_a_write_that_hangs_ends_in_drops_that_are_counted_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(world: World) -> None:
        world.hold = asyncio.Event()
        world.emitter.begin(subscribed=True)
        total = 4 * EVENTS_MAX
        for n in range(0, total, CROWDED):
            world.put(CROWDED, n)
            await asyncio.sleep(0)
        assert world.buffer.dropped > EVENTS_MAX
        await asyncio.sleep(QUIET_S * 1.5)
        told = warnings(caplog)
        assert len(told) == 1
        assert f"{world.buffer.dropped} telemetry events were dropped" in told[0]
        began = world.runtime.monotonic()
        await world.emitter.rest()
        assert world.runtime.monotonic() - began <= FLUSH_S
        await world.emitter.stop()
        # What was under way has been in the log of the embedded broker all the time; nobody can know.
        assert world.buffer.dropped == total

    run(main)


def test_a_missing_topic_is_one_warning_and_no_delay(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.emitter.begin(subscribed=True)
        for _ in range(600):
            world.put(1)
            await asyncio.sleep(1)
        assert len(warnings(caplog)) == 1
        assert "'telemetry' does not exist" in warnings(caplog)[0]
        began = world.runtime.monotonic()
        await world.emitter.flush()
        assert world.runtime.monotonic() == began
        world.cluster.create_topic(TOPIC)
        await asyncio.sleep(module.AGAIN_S_MAX + LINGER_S)
        assert world.written >= 600
        assert not world.buffer.dropped
        caplog.clear()
        world.cluster.delete_topic(TOPIC)
        world.put(3)
        await asyncio.sleep(2)
        assert len(warnings(caplog)) == 1

    with caplog.at_level(logging.INFO):
        run(main, auto_create=False)


def test_it_asks_for_a_missing_topic_less_and_less_often() -> None:
    async def main(world: World) -> None:
        asked: list[float] = []
        world.cluster.on_call = lambda name, _: (
            asked.append(world.runtime.monotonic()) if name == "send" else None
        )
        world.emitter.begin(subscribed=True)
        world.put(1)
        await asyncio.sleep(600)
        waits = [b - a for a, b in itertools.pairwise(asked)]
        assert waits[-1] >= module.AGAIN_S_MAX
        assert len(asked) < 20

    run(main, auto_create=False)


def test_a_broker_that_is_away_loses_no_event_that_has_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(world: World) -> None:
        world.cluster.outage()
        world.emitter.begin(subscribed=True)
        world.put(100)
        await asyncio.sleep(30)
        world.cluster.restore()
        await asyncio.sleep(module.AGAIN_S_MAX + LINGER_S)
        assert world.written == 100
        assert not world.buffer.dropped
        assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]

    with caplog.at_level(logging.INFO, "prosody.telemetry"):
        run(main)


def test_a_write_that_fails_is_counted_and_connects_anew() -> None:
    async def main(world: World) -> None:
        world.problem = BrokerError("gone", retriable=True)
        world.emitter.begin(subscribed=True)
        world.put(5)
        await asyncio.sleep(1.5)
        assert world.buffer.dropped == 2
        assert world.made[0].stopped
        world.problem = None
        world.put(5)
        await asyncio.sleep(5)
        assert len(world.made) == 2
        assert world.buffer.dropped == 2

    run(main)


def test_what_is_refused_for_good_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(world: World) -> None:
        world.problem = BrokerError("too large", retriable=False)
        world.emitter.begin(subscribed=True)
        world.put(5)
        await asyncio.sleep(1.5)
        assert warnings(caplog) == ["2 telemetry events were dropped: too large"]
        assert len(world.made) == 1
        world.put(5)
        await asyncio.sleep(1.5)
        assert world.buffer.dropped == 4

    run(main)


@pytest.mark.parametrize("where", ["encode", "write"])
def test_a_fault_of_ours_reaches_nobody(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        def fail(*_: object) -> Any:
            raise ZeroDivisionError

        world.emitter.begin(subscribed=True)
        await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(Encoder if where == "encode" else Batches, where, fail)
            world.put(CROWDED)
            await asyncio.sleep(LINGER_S * 1.1)
        assert world.buffer.dropped == CROWDED
        assert any(r.levelno == logging.CRITICAL for r in caplog.records)
        before = world.written
        world.put(3)
        await asyncio.sleep(5)
        assert world.written == before + 3

    run(main)


def test_what_is_left_at_the_end_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        world.emitter.begin()
        world.put(7)
        began = world.runtime.monotonic()
        await world.emitter.stop()
        assert world.runtime.monotonic() - began <= FLUSH_S
        assert world.buffer.dropped == 7
        assert "7 telemetry events were dropped: the client was shut down" in caplog.text

    run(main, auto_create=False)


def test_it_begins_anew_in_another_loop() -> None:
    world = World()

    async def send() -> None:
        world.emitter.begin()
        world.put(2)
        await asyncio.sleep(LINGER_S * 1.1)

    async def last() -> None:
        await send()
        await world.emitter.stop()

    run_virtual(send())
    assert world.written == 2
    world.runtime = FakeRuntime()
    run_virtual(last())
    assert world.written == 4


def test_it_has_none_of_the_context_variables_of_those_who_wake_it() -> None:
    variable = contextvars.ContextVar("variable", default="")

    async def main(world: World) -> None:
        seen: list[str] = []
        world.cluster.on_call = lambda *_: seen.append(variable.get())
        variable.set("a handler's")
        world.emitter.begin(subscribed=True)
        world.put(CROWDED)
        await asyncio.sleep(1.5)
        assert world.written == CROWDED
        assert set(seen) == {""}

    run(main)


def test_the_topic_that_makes_itself_keeps_the_last_events() -> None:
    async def main(world: World) -> None:
        world.emitter.begin(subscribed=True)
        for n in range(30):
            world.put(CROWDED, n * CROWDED)
            await asyncio.sleep(0.01)
        logs = world.cluster.logs(TOPIC)
        kept = [log.end - log.start for log in logs]
        assert world.written == 30 * CROWDED
        assert KEEP <= max(kept) <= KEEP + KEEP // 4

    run(main)
