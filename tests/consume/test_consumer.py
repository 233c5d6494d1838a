"""One subscription as a whole: it starts and stops cleanly, whatever goes wrong, and lets the loop end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody import ProsodyClient
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import TopicPartition
from prosody.config import Config
from prosody.consume.poller import Poller
from prosody.errors import BrokerError
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
