"""One subscription as a whole: it starts and stops cleanly, whatever goes wrong, and lets the loop end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from prosody import ProsodyClient
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import TopicPartition
from prosody.config import Config
from prosody.consume.consumer import Consumer
from prosody.consume.poller import Poller
from prosody.errors import BrokerError
from prosody.model.handler import HandlerMethods
from tests.support import FakeRuntime, VirtualLoop, other_tasks, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody import Context, Message

TP = TopicPartition("orders", 0)


class Scene:
    """A cluster with one topic of one partition, a client, and a handler that does as the test says."""

    def __init__(
        self, behave: Callable[[Context, Message], Awaitable[None]], **options: Any
    ) -> None:
        self.behave = behave
        self.handled: list[int] = []
        self.cluster = MemoryCluster()
        self.cluster.create_topic("orders", 1)
        broker = MemoryBroker(self.cluster, runtime=FakeRuntime(), auto_create_topics=False)
        values = {
            "mock": True, "group_id": "g", "subscribed_topics": "orders", "mode": "pipeline",
            "telemetry_enabled": False, "shutdown_timeout": 10.0, "source_system": "s",
            **options,
        }  # fmt: skip
        self.client = ProsodyClient.from_parts(Config.load(values, {}), broker, FakeRuntime())

    async def on_message(self, context: Context, message: Message) -> None:
        await self.behave(context, message)
        self.handled.append(message.offset)

    def put(self, count: int, key: bytes = b"k") -> None:
        with self.cluster.lock:
            for _ in range(count):
                self.cluster.logs("orders")[0].append(0, key, b"{}", ())

    @property
    def committed(self) -> int | None:
        note = self.cluster.group("g").committed.get(TP)
        return None if note is None else note.offset


async def quick(*_: object) -> None:
    pass


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


async def test_unsubscribe_commits_what_finished_and_leaves_nothing_running() -> None:
    scene = Scene(quick)
    await scene.client.subscribe(scene)
    scene.put(3)
    await settle()
    await scene.client.unsubscribe()
    assert (scene.handled, scene.committed, other_tasks()) == ([0, 1, 2], 3, set())
    await scene.client.subscribe(scene)
    scene.put(1)
    await settle()
    await scene.client.unsubscribe()
    assert (scene.handled, scene.committed) == ([0, 1, 2, 3], 4)


async def test_a_cancelled_unsubscribe_goes_on_and_is_waited_for() -> None:
    scene = Scene(hang)
    await scene.client.subscribe(scene)
    scene.put(1)
    await settle()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await scene.client.unsubscribe()
    await scene.client.unsubscribe()
    assert asyncio.get_running_loop().time() == pytest.approx(8.0)
    assert await scene.client.consumer_state() == "configured"
    assert other_tasks() == set()


@pytest.mark.parametrize("where", ["commit", "close"])
async def test_a_stop_that_fails_still_leaves_nothing_running(where: str) -> None:
    scene = Scene(quick)
    await scene.client.subscribe(scene)
    scene.put(1)
    await settle()
    consumer = scene.client._consumer
    assert consumer is not None

    async def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    if where == "commit":
        consumer._committer.commit_finally = fails  # type: ignore[method-assign]
    else:
        consumer._assignment.close = fails  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await scene.client.unsubscribe()
    for partition in consumer._assignment.partitions():
        await partition.drain(0.0, 0.0)
    await settle()
    assert other_tasks() == set()
    assert await scene.client.consumer_state() == "configured"
    await scene.client.subscribe(scene)
    await scene.client.unsubscribe()


async def test_a_failed_start_leaves_nothing_running() -> None:
    scene = Scene(quick)

    def refuse(name: str, _: str) -> None:
        if name == "start":
            raise BrokerError("refused", retriable=False)

    scene.cluster.on_call = refuse
    with pytest.raises(BrokerError):
        await scene.client.subscribe(scene)
    assert other_tasks() == set()
    scene.cluster.on_call = None
    await scene.client.subscribe(scene)
    await scene.client.unsubscribe()


async def test_a_fault_of_ours_in_a_loop_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, failures = Poller.run, 2

    async def fails_twice(self: Poller) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError("a bug")
        await run(self)

    monkeypatch.setattr(Poller, "run", fails_twice)
    scene = Scene(quick)
    await scene.client.subscribe(scene)
    scene.put(1)
    await asyncio.sleep(3.0)
    assert scene.handled == [0]
    assert caplog.text.count("internal fault in the poller") == 2
    await scene.client.unsubscribe()


async def test_a_fault_in_one_partition_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(quick)
    scene.cluster.add_partitions("orders", 3)
    await scene.client.subscribe(scene)
    await settle()
    consumer = scene.client._consumer
    assert consumer is not None
    failures = 1

    def fails_once(*_: object) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError("a bug")

    first = consumer._assignment.partitions()[0]
    monkeypatch.setattr(first, "_admit", fails_once)
    with scene.cluster.lock:
        for log in scene.cluster.logs("orders"):
            log.append(0, b"k", b"{}", ())
    await asyncio.sleep(0.5)
    assert scene.handled == [0, 0]
    await asyncio.sleep(5.0)
    assert scene.handled == [0, 0, 0]
    await scene.client.unsubscribe()


@pytest.mark.parametrize("told_before", [False, True], ids=["running", "timed out before"])
@pytest.mark.parametrize("swallows", [False, True], ids=["cancelled", "swallows it"])
def test_the_loop_can_end_without_an_unsubscribe(swallows: bool, told_before: bool) -> None:
    """``asyncio.run`` cancels all tasks and waits for them: no retry may hold it up."""
    attempts: list[int] = []

    async def stubborn(_: Context, message: Message) -> None:
        attempts.append(message.offset)
        for _ in range(1 + told_before):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallows:
                    raise

    async def main() -> None:
        scene = Scene(stubborn, timeout=5.0, retry_base=0.01)
        await scene.client.subscribe(scene)
        scene.put(2)
        await asyncio.sleep(1.0 + 4.5 * (told_before and swallows))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
        loop: Any = runner.get_loop()
    assert attempts == [0]
    assert loop.time() < 10.0


def test_the_loop_can_end_in_the_turn_of_an_unsubscribe() -> None:
    attempts: list[int] = []

    async def handler(_: Context, message: Message) -> None:
        attempts.append(message.offset)
        await asyncio.Event().wait()

    async def main(turns: int) -> None:
        scene = Scene(handler, timeout=5.0, retry_base=0.01)
        await scene.client.subscribe(scene)
        scene.put(1)
        await settle()
        stopping = asyncio.ensure_future(scene.client.unsubscribe())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not stopping.done()

    for turns in range(6):
        attempts.clear()
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main(turns))
            loop: Any = runner.get_loop()
        assert attempts == [0]
        assert loop.time() < 20.0


async def test_stalled_shows_a_handler_and_a_poller_that_stand_still() -> None:
    scene = Scene(hang, stall_threshold=30.0, timeout=500.0, mode="best-effort")
    await scene.client.subscribe(scene)
    await asyncio.sleep(60.0)
    assert await scene.client.is_stalled() is False
    scene.put(1)
    await asyncio.sleep(29.0)
    assert await scene.client.is_stalled() is False
    await asyncio.sleep(2.0)
    assert await scene.client.is_stalled() is True
    await scene.client.unsubscribe()
    assert await scene.client.is_stalled() is False


def consumer_of(scene: Scene) -> Consumer:
    consumer = scene.client._consumer
    assert consumer is not None
    return consumer


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == logger]


async def test_not_ready_says_why() -> None:
    scene = Scene(quick)
    client = scene.client
    new = Consumer(
        client._config,
        client._broker,
        None,
        client._producer,
        HandlerMethods(scene),
        client._runtime,
        "client",
    )
    assert new.not_ready() == "not running"
    await client.subscribe(scene)
    consumer = consumer_of(scene)
    await settle()
    assert consumer.not_ready() is None
    scene.cluster.outage()
    reason = consumer.not_ready()
    assert reason is not None
    assert reason.startswith("connection to Kafka lost: ")
    assert await client.consumer_state() == "running"
    scene.cluster.restore()
    assert consumer.not_ready() is None
    stopping = asyncio.ensure_future(client.unsubscribe())
    await asyncio.sleep(0)
    assert consumer.not_ready() == "shutting down"
    await stopping
    assert consumer.not_ready() == "shutting down"


async def test_not_ready_before_anything_is_assigned() -> None:
    scene = Scene(quick)
    await scene.client.subscribe(scene)
    await settle()
    idle = ProsodyClient.from_parts(
        scene.client._config, scene.client._broker, scene.client._runtime
    )
    await idle.subscribe(scene)
    await asyncio.sleep(30.0)
    consumers = [scene.client._consumer, idle._consumer]
    reasons = [c.not_ready() for c in consumers if c is not None]
    assert sorted(map(str, reasons)) == ["None", "no partitions assigned"]
    await scene.client.unsubscribe()
    await idle.unsubscribe()


async def test_an_outage_is_one_line_and_consumption_goes_on_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene(quick, stall_threshold=30.0)
    await scene.client.subscribe(scene)
    await settle()
    scene.cluster.outage()
    await asyncio.sleep(100.0)
    assert await scene.client.consumer_state() == "running"
    assert await scene.client.is_stalled() is False
    scene.cluster.restore()
    scene.put(2)
    await asyncio.sleep(5.0)
    assert scene.handled == [0, 1]
    lost, back = lines(caplog, "prosody.watch")
    assert "connection to Kafka lost: " in lost
    assert "connection to Kafka is back after 100" in back
    await scene.client.unsubscribe()


async def test_a_handler_that_blocks_is_named(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(quick)
    runtime = scene.client._runtime
    clock, blocked_s = runtime.monotonic, 0.0
    runtime.monotonic = lambda: clock() + blocked_s  # type: ignore[method-assign]

    async def blocks(_: Context, message: Message) -> None:
        nonlocal blocked_s
        blocked_s += 4.0 if message.offset == 1 else 0.0

    scene.behave = blocks
    await scene.client.subscribe(scene)
    scene.put(3)
    await asyncio.sleep(60.0)
    (line,) = lines(caplog, "prosody.watch")
    assert "handler Scene.on_message blocked the event loop for 4.0 s" in line
    assert "offset 1 key 'k'" in line
    await scene.client.unsubscribe()


async def test_a_handler_that_never_ends_is_told_and_stops_no_other_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    over = asyncio.Event()

    async def one_never_ends(_: Context, message: Message) -> None:
        while message.key == "bad" and not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    scene = Scene(one_never_ends, stall_threshold=30.0, timeout=20.0, max_uncommitted=8)
    await scene.client.subscribe(scene)
    scene.put(2, b"bad")
    for _ in range(6):
        scene.put(1, b"good")
        await asyncio.sleep(10.0)
    assert scene.handled == [2, 3, 4, 5, 6, 7]
    assert await scene.client.is_stalled() is True
    timed_out, stubborn = lines(caplog, "prosody.timeout")
    assert "timed out after 20 s" in timed_out
    assert "still runs 2 s after it was cancelled" in stubborn
    (stalled,) = lines(caplog, "prosody.watch")
    assert "stalled: topic 'orders' partition 0 offset 0 key 'bad'" in stalled
    assert "its handler runs (attempt 1, told to stop)" in stalled
    over.set()
    await asyncio.sleep(5.0)
    assert sorted(scene.handled) == list(range(8))
    assert await scene.client.is_stalled() is False
    assert "moves again" in lines(caplog, "prosody.watch")[-1]
    await scene.client.unsubscribe()
    assert scene.committed == 8


async def leaks_a_cancelled_child(*_: object) -> None:
    child = asyncio.ensure_future(asyncio.Event().wait())
    child.cancel()
    await child


def raises(error: BaseException) -> Callable[..., Awaitable[None]]:
    async def fails(*_: object) -> None:
        raise error

    return fails


@pytest.mark.parametrize(
    "behave",
    [
        raises(SystemExit(1)),
        raises(GeneratorExit()),
        raises(BaseException("outside")),
        raises(asyncio.CancelledError()),
        lambda *_: 42,
        leaks_a_cancelled_child,
    ],
    ids=[
        "SystemExit",
        "GeneratorExit",
        "BaseException",
        "CancelledError",
        "garbage",
        "child",
    ],
)
@pytest.mark.parametrize("mode", ["pipeline", "best-effort"])
async def test_whatever_a_handler_does_other_keys_go_on_and_no_offset_is_stuck(
    behave: Callable[..., Awaitable[None]], mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = 0

    async def bad_at_first(context: Context, message: Message) -> None:
        nonlocal attempts
        if message.key == "bad":
            attempts += 1
            if attempts <= 3:
                await behave(context, message)

    scene = Scene(bad_at_first, mode=mode, retry_base=0.01, timeout=20.0, shutdown_timeout=5.0)
    await scene.client.subscribe(scene)
    scene.put(1, b"bad")
    scene.put(3, b"good")
    await asyncio.sleep(3.0)
    assert {1, 2, 3} <= set(scene.handled)
    await asyncio.sleep(60.0)
    await scene.client.unsubscribe()
    assert scene.committed == 4
    assert (0 in scene.handled) == (mode == "pipeline")
    assert "internal fault" not in caplog.text
