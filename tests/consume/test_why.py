"""Why a message is not done: every situation that a partition can be in, by its real parts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody import ProsodyClient
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import TopicPartition
from prosody.config import Config
from prosody.consume import doing as the_doing
from prosody.consume import inside as the_inside
from prosody.consume import why as the_module
from prosody.consume.picture import picture
from prosody.stores.answer import StoreAnswer
from prosody.stores.memory import MemoryStoreState
from tests.mutant import mutant
from tests.support import FakeRuntime, other_tasks, run_virtual, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.consume.inside import Inside
    from prosody.consume.partition import Partition

TP = TopicPartition("orders", 0)


class Scene:
    """A topic of one partition, and a client whose handlers of a key hang, fail or take their time."""

    def __init__(self, module: Any, **options: Any) -> None:
        self.module = module
        self.failing = False
        self.takes_s = 0.0
        self.stubborn = False
        self.hanging = asyncio.Event()
        self.hangs = True
        self.cluster = MemoryCluster()
        self.cluster.create_topic("orders", 1)
        runtime = FakeRuntime()
        broker = MemoryBroker(self.cluster, runtime=runtime, auto_create_topics=False)
        values = {
            "mock": True, "group_id": "g", "subscribed_topics": "orders", "mode": "pipeline",
            "telemetry_enabled": False, "shutdown_timeout": 1.0, "source_system": "s",
            "timeout": 1000.0, "stall_threshold": 2000.0, **options,
        }  # fmt: skip
        self.client = ProsodyClient.from_parts(Config.load(values, {}), broker, runtime)

    async def on_message(self, context: object, message: object) -> None:
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        if self.failing:
            raise ValueError("a bug of the handler")
        try:
            if self.hangs:
                await self.hanging.wait()
        except asyncio.CancelledError:
            if not self.stubborn:
                raise
            await asyncio.sleep(3.0)

    async def subscribe(self) -> None:
        await self.client.subscribe(self)
        await asyncio.sleep(0.2)

    async def put(self, *keys: bytes, value: bytes = b"{}") -> None:
        with self.cluster.lock:
            for key in keys:
                self.cluster.logs("orders")[0].append(0, key, value, ())
        await asyncio.sleep(0.2)
        await settle()

    @property
    def inside(self) -> Inside:
        consumer = self.client._consumer
        assert consumer is not None
        return consumer.inside

    @property
    def partition(self) -> Partition:
        (partition,) = self.inside.assignment.partitions()
        return partition

    @property
    def store(self) -> MemoryStoreState:
        return self.cluster.attached(MemoryStoreState)

    def of(self, offset: int, key: str | None = None, place: TopicPartition = TP) -> str:
        text: str = self.module.why_offset(self.inside, place, offset, key)
        return text

    def of_key(self, key: str, topic: str | None = None) -> str:
        text: str = self.module.why_key(self.inside, key, topic)
        return text


SCENARIOS: list[tuple[Callable[[Scene], Awaitable[None]], dict[str, Any]]] = []


def scenario(**options: Any) -> Any:
    def keep(function: Any) -> Any:
        SCENARIOS.append((function, options))
        return function

    return keep


@scenario()
async def running(scene: Scene) -> None:
    await scene.put(b"a")
    await asyncio.sleep(12.0)
    expected = (
        "topic 'orders' partition 0 offset 0 key 'a': its handler runs (attempt 1), for 12 s so far"
    )
    assert scene.of(0) == expected
    assert scene.of_key("a") == expected
    (run,) = picture(scene.inside).runs
    assert (run.offset, run.key, run.attempt, run.handling) == (0, "a", 1, True)


@scenario(timeout=5.0)
async def told_to_stop(scene: Scene) -> None:
    scene.stubborn = True
    await scene.put(b"a")
    await asyncio.sleep(5.5)
    assert "its handler runs (attempt 1, told to stop), for 5." in scene.of(0)
    scene.stubborn, scene.hangs = False, False
    await asyncio.sleep(3.0)


@scenario(max_concurrency=1)
async def waiting_for_a_permit(scene: Scene) -> None:
    await scene.put(b"a", b"b")
    assert "offset 0 key 'a': its handler runs" in scene.of(0)
    assert scene.of(1).endswith("offset 1 key 'b': it waits for a permit (1 in use)")
    assert scene.of_key("b") == scene.of(1)
    state = picture(scene.inside)
    assert (state.permits, state.permits_in_use, len(state.waiting)) == (1, 1, 1)
    assert (state.partitions[0].running, state.partitions[0].waiting) == (1, 1)


@scenario()
async def behind_another_of_its_key(scene: Scene) -> None:
    await scene.put(b"a", b"a")
    expected = (
        "offset 1: it waits behind another message of its key: "
        "topic 'orders' partition 0 offset 0 key 'a': its handler runs"
    )
    assert expected in scene.of(1)
    await scene.put(b"b", b"c", b"d", b"e", b"a")
    assert "its key (ask with &key=), one of: topic" in scene.of(6)
    assert scene.of(6).endswith("; 2 more")
    assert "behind another message of its key: topic 'orders' partition 0 offset 0 key 'a'" in (
        scene.of(6, "a")
    )
    assert scene.of(6, "z").endswith("behind another message of its key, which is not 'z'")
    assert "offset 0 key 'a': its handler runs" in scene.of_key("a")


@scenario(defer_enabled=False, retry_base=50.0, max_retry_delay=100.0)
async def in_backoff(scene: Scene) -> None:
    scene.failing = True
    await scene.put(b"a")
    text = scene.of(0)
    assert "key 'a': it is in backoff after attempt 1, until 2023-11-14T22:1" in text
    assert text.endswith("s): ValueError: a bug of the handler")
    assert text == scene.of_key("a")


@scenario(defer_base=60.0)
async def deferred(scene: Scene) -> None:
    scene.failing = True
    await scene.put(b"a", b"a")
    text = scene.of_key("a")
    assert "partition 0 key 'a': its messages are deferred until 2023-11-14T22:1" in text
    assert " (in " in text
    assert ", or it is deferred, as 1 keys are (ask with &key=)" in scene.of(0)
    assert "it is deferred: its messages are deferred until" in scene.of(1, "a")
    assert "deferred" not in scene.of(1, "b")
    (state,) = picture(scene.inside).partitions
    assert (state.deferred_messages, state.deferred_timers, state.timers_pending) == (1, 0, 0)
    assert str(state.deferred_since)[:10] == "2023-11-14"
    scene.store.outage("no node answers")
    assert scene.of_key("a").endswith("; what is kept does not work at present: no node answers")


@scenario(defer_failure_threshold=0.5, retry_base=50.0, max_retry_delay=100.0, max_uncommitted=64)
async def not_deferred_because_nearly_everything_fails(scene: Scene) -> None:
    scene.failing = True
    await scene.put(*(b"%d" % n for n in range(40)))
    assert "in backoff after attempt 1" in scene.of(39)
    assert "it is not deferred, because nearly everything fails" in scene.of(39)
    assert picture(scene.inside).deferral_closed is True


GREEDY = {"monopolization_threshold": 0.5, "monopolization_window": 100.0}


@scenario(defer_enabled=False, **GREEDY)
async def held_back_in_place(scene: Scene) -> None:
    scene.takes_s, scene.hangs = 60.0, False
    await scene.put(b"a", b"a")
    await asyncio.sleep(61.0)
    text = scene.of(1)
    assert "offset 1 key 'a': it is held back until 2023-11-14T22:1" in text
    assert "as its key takes too much handler time" in text
    assert picture(scene.inside).monopolization_refusals == 1


@scenario(**GREEDY)
async def held_back_and_deferred(scene: Scene) -> None:
    scene.takes_s, scene.hangs = 60.0, False
    await scene.put(b"a", b"a")
    await asyncio.sleep(61.0)
    text = scene.of_key("a")
    assert "its messages are deferred until" in text
    assert (
        "; its key is held back, as it takes too much handler time, until 2023-11-14T22:1" in text
    )


@scenario()
async def not_assigned(scene: Scene) -> None:
    text = scene.of(3, None, TopicPartition("orders", 7))
    assert text == (
        "topic 'orders' partition 7 offset 3: its partition is not assigned to this client; "
        "this client holds 1 partitions"
    )
    assert "not assigned to this client" in scene.of_key("a", "other")


@scenario(max_uncommitted=2)
async def paused_by_admission(scene: Scene) -> None:
    await scene.put(b"a", b"b", b"c", b"d")
    await asyncio.sleep(5.0)
    for text in (scene.of(2), scene.of_key("c")):
        assert "offset 2" in text
        assert "it is fetched, and its partition takes nothing in: 2 of its messages are" in text
        assert "max_uncommitted is 2; the oldest is offset 0, unfinished for 5." in text
        assert "its handler runs (attempt 1)" in text
    await scene.put(b"e")
    assert "it is not fetched, and its partition takes nothing in: 2 of its" in scene.of(4)
    assert "nothing is known of it, but topic 'orders' partition 0 takes nothing in" in (
        scene.of_key("e")
    )
    (state,) = picture(scene.inside).partitions
    assert (state.uncommitted, state.fetched) == (2, 2)
    assert state.oldest is not None
    assert (state.oldest.offset, state.oldest.age_s > 5.0) == (0, True)


@scenario()
async def nothing_known(scene: Scene) -> None:
    await scene.put(b"a")
    assert scene.of(9).endswith("is not in the log; the last that came is 0")
    assert scene.of_key("z").startswith(
        "key 'z': nothing is known of it in the 1 partitions held here"
    )


@scenario(commit_interval=20.0)
async def finished(scene: Scene) -> None:
    await scene.put(b"a", b"b")
    scene.hangs = False
    await scene.put(b"c")
    assert scene.of(2).endswith("offset 2: it is finished, and not committed")
    scene.hanging.set()
    await settle()
    assert scene.of(1).endswith("offset 1: it is finished, and not committed")
    await asyncio.sleep(30.0)
    assert scene.of(1).endswith("offset 1: it is finished, and committed")


@scenario()
async def connection_lost(scene: Scene) -> None:
    await scene.put(b"a")
    scene.cluster.outage()
    assert "it is not fetched: connection to Kafka lost: the broker cannot be" in scene.of(5)
    assert "here: connection to Kafka lost" in scene.of(5, None, TopicPartition("orders", 7))
    assert picture(scene.inside).broker_problem is not None
    scene.cluster.restore()


@scenario()
async def draining(scene: Scene) -> None:
    await scene.put(b"a", b"a")
    partition = scene.partition
    stopping = asyncio.ensure_future(scene.client.unsubscribe())
    await settle()
    assert "its handler runs" in scene.of(0)
    assert "offset 1: its partition starts nothing more" in scene.of(1)
    assert "its partition takes nothing in: its partition starts nothing more" in scene.of(2)
    assert picture(scene.inside).partitions[0].state == "draining"
    scene.hanging.set()
    await stopping
    assert partition.closed


@scenario()
async def gone_to_deduplication(scene: Scene) -> None:
    scene.hangs = False
    recording: StoreAnswer[None] = StoreAnswer.open()

    consumer = scene.client._consumer
    assert consumer is not None
    assert consumer._keeping is not None
    consumer._keeping.stores.dedup.record = lambda *_: recording  # type: ignore[method-assign]
    await scene.put(b"a", value=b'{"id": "1"}')
    assert scene.of(0).endswith("it is handled; that is just being written for deduplication")
    recording.set_result(None)
    await settle()


async def store_down_at_assignment(scene: Scene) -> None:
    scene.store.outage("no node answers")
    await scene.subscribe()
    await scene.put(b"a")
    expected = "it is fetched, and its partition takes nothing in: no node answers"
    assert scene.of(0).endswith(expected)
    assert scene.of_key("a").endswith(expected)
    assert picture(scene.inside).partitions[0].state == "waiting for its store"
    assert picture(scene.inside).store_problem == "no node answers"
    scene.store.restore()
    await asyncio.sleep(20.0)
    assert "its handler runs" in scene.of(0)


async def play(
    scenario: Callable[[Scene], Awaitable[None]], options: dict[str, Any], module: Any = the_module
) -> None:
    scene = Scene(module, **options)
    try:
        if scenario is not store_down_at_assignment:
            await scene.subscribe()
        await scenario(scene)
    finally:
        scene.cluster.restore()
        await scene.client.shutdown()
    assert not other_tasks()


SCENARIOS.append((store_down_at_assignment, {}))


@pytest.mark.parametrize(
    ("scenario", "options"), SCENARIOS, ids=lambda v: getattr(v, "__name__", "")
)
async def test(scenario: Callable[[Scene], Awaitable[None]], options: dict[str, Any]) -> None:
    await play(scenario, options)


def test_there_is_nothing_of_a_store_without_one() -> None:
    async def main() -> None:
        scene = Scene(the_module)
        scene.client._cluster = None
        await scene.subscribe()
        await scene.put(b"a")
        state = picture(scene.inside)
        assert state.store_problem is None
        assert state.partitions[0].deferred_messages is None
        assert state.partitions[0].timers_pending is None
        assert state.timers_pending is None
        assert "its handler runs" in scene.of_key("a")
        await scene.client.shutdown()

    run_virtual(main())


MUTANTS = {
    "an assignment is not looked at": ("if partition is None:", "if False:"),
    "what is running is not looked at": (
        "if run is not None:\n        return",
        "if False:\n        return",
    ),
    "what is written is not looked at": (
        "if any(run.record and",
        "if any(False and run.record and",
    ),
    "what has not come is not looked at": ("offset > partition.progress.last_received:", "False:"),
    "finished is not looked at": ("if _is_finished(partition, offset):", "if False:"),
    "finished ahead is not finished": (
        "any(start <= offset < end for start, end in ahead)",
        "False",
    ),
    "a drain is not looked at": ("if partition.running else _ENDS", "if True else _ENDS"),
    "a topic is not looked at": ("topic in (None, partition.topic_partition.topic)", "True"),
    "the head of any key is its": ("if run.key == key)", ")"),
    "what is deferred is not looked at": ("if deferred is not None:", "if False:"),
    "the inbox is not looked at": ('if (record.key or b"") == raw:', "if False:"),
    "any record is of the key": ('if (record.key or b"") == raw:', "if True:"),
    "the gate is not looked at": ("and gate.closed", "and False"),
    "monopolization is not looked at": ("if room_at is not None:", "if False:"),
    "the store is not looked at": ("return text if problem is None", "return text if True"),
    "the connection is not looked at": ("if inside.broker.problem is not None:", "if False:"),
    "admission is not looked at": (
        "if reason is not None:\n        where",
        "if False:\n        where",
    ),
    "what waits is fetched": ("if left and offset <= left[-1].offset", "if left"),
    "opening is not looked at": ("if not partition.opened:", "if False:"),
    "all is committed": ("offset < committed.offset", "True"),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(name: str) -> None:
    module = mutant("consume.why", *MUTANTS[name])
    assert shown_by(module), f"nothing shows that {name}"


def shown_by(module: Any) -> bool:
    def shows(scenario: Any, options: dict[str, Any]) -> bool:
        try:
            run_virtual(play(scenario, options, module))
        except (AssertionError, AttributeError, ValueError):
            return True
        return False

    return any(shows(*each) for each in SCENARIOS)


DOING = {
    "a permit looks like a step": ("if scheduler.awaited_by(run):", "if False:"),
    "a handler is not looked at": ("if run.handling:", "if False:"),
    "a backoff looks like a store's": ("if isinstance(pause.cause, StoreError):", "if True:"),
    "held back looks like a backoff": ("if isinstance(pause.cause, MonopolizationError):", "if False:"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DOING))
def test_mutant_of_doing_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = mutant("consume.doing", *DOING[name])
    assert the_module.doing is the_doing.doing
    monkeypatch.setattr(the_module, "doing", changed.doing)
    assert shown_by(the_module), f"nothing shows that {name}"


def test_mutant_of_inside_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    # The last of all runs instead of that of the offset. "Any run" would be the right one now and then:
    # runs are a set, whose order is that of addresses.
    last = " and run.record.offset == max(r.record.offset for r in partition.runs if r.record)"
    changed = mutant("consume.inside", " and run.record.offset == offset", last)
    assert the_module.run_of is the_inside.run_of
    monkeypatch.setattr(the_module, "run_of", changed.run_of)
    assert shown_by(the_module)
