"""The poller: asks for what has room, hands over what comes, survives what fails."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

import pytest

from prosody.broker.protocol import TopicPartition
from prosody.consume.poller import Poller
from prosody.errors import BrokerError
from tests.consume.fakes import FakeConsumer
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from prosody.consume.assignment import Assignment

A, B = TopicPartition("orders", 0), TopicPartition("orders", 1)


class Taker:
    """A partition, as the poller sees it."""

    def __init__(self, tp: TopicPartition) -> None:
        self.topic_partition = tp
        self.wants_records = True
        self.received: list[object] = []

    def receive(self, records: Sequence[object]) -> None:
        self.received.extend(records)


class Held:
    """The assignment, as the poller sees it."""

    def __init__(self, *takers: Taker) -> None:
        self.takers = {t.topic_partition: t for t in takers}

    def partitions(self) -> tuple[Taker, ...]:
        return tuple(self.takers.values())

    def get(self, tp: TopicPartition) -> Taker | None:
        return self.takers.get(tp)


class Scene:
    def __init__(self) -> None:
        self.a, self.b = Taker(A), Taker(B)
        self.held = Held(self.a, self.b)
        self.consumer = FakeConsumer()
        self.poller = Poller(
            self.consumer.as_broker(), cast("Assignment", self.held), 0.5, FakeRuntime()
        )

    def take(self, tp: TopicPartition, *values: int) -> None:
        """Records of a partition come while the poll waits."""
        receiver = self.poller.wants(tp)
        assert receiver is not None
        self.poller.take([(receiver, cast("Any", values))])


@contextlib.asynccontextmanager
async def polling() -> AsyncIterator[Scene]:
    """A poller whose poll waits."""
    scene = Scene()
    task = asyncio.create_task(scene.poller.run())
    try:
        await settle()
        yield scene
    finally:
        task.cancel()
        await settle()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with polling() as scene:
        yield scene


async def test_only_partitions_with_room_are_asked_for(scene: Scene) -> None:
    await settle()
    assert scene.consumer.polls == [{A, B}]
    scene.b.wants_records = False
    await asyncio.sleep(0.6)
    assert scene.consumer.polls[-1] == {A}
    scene.a.wants_records = False
    await asyncio.sleep(0.6)
    assert scene.consumer.polls[-1] == frozenset()  # it goes on, to show that the member is alive


async def test_records_are_handed_to_their_partition(scene: Scene) -> None:
    scene.consumer.buffered = {A: [1, 2], B: [3]}
    await asyncio.sleep(0.6)
    assert (scene.a.received, scene.b.received) == ([1, 2], [3])


async def test_records_of_a_partition_given_up_meanwhile_are_dropped(scene: Scene) -> None:
    await settle()
    scene.consumer.buffered = {A: [1], B: [2]}
    await asyncio.sleep(0.4)
    scene.consumer.wake()
    del scene.held.takers[A]
    await settle()
    assert scene.b.received == [2]


async def test_room_ends_the_wait_at_once(scene: Scene) -> None:
    await settle()
    scene.poller.want_records()
    await settle()
    assert len(scene.consumer.polls) == 2
    assert asyncio.get_running_loop().time() == 0.0


async def test_room_that_appears_between_polls_is_seen_without_a_wake() -> None:
    scene = Scene()
    scene.poller.want_records()
    assert scene.consumer.wakes == 0


async def test_an_outage_is_waited_out(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    scene.consumer.errors = [BrokerError(f"down {n}", retriable=True) for n in range(3)]
    scene.consumer.buffered = {A: [1]}
    await asyncio.sleep(1.9)  # one poll waits, three fail
    assert scene.a.received == []
    await asyncio.sleep(0.2)
    assert scene.a.received == [1]
    assert told(caplog) == [
        ("WARNING", "polling fails, trying on: down 0"),
        ("INFO", "polling succeeds again, after 1.5 s"),
    ]
    scene.consumer.errors = [BrokerError("down again", retriable=True)]
    await asyncio.sleep(2.0)
    assert [level for level, _ in told(caplog)] == ["WARNING", "INFO"] * 2


async def test_a_refused_poll_says_why_once_for_each_reason(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scene.consumer.errors = [
        BrokerError(text, retriable=text == "away")
        for text in ("denied", "denied", "away", "away", "denied", "gone", "gone")
    ]
    await asyncio.sleep(10.0)
    assert told(caplog) == [
        ("ERROR", "polling is refused, trying on: denied"),
        ("WARNING", "polling fails, trying on: away"),
        ("ERROR", "polling is refused, trying on: gone"),
        ("INFO", "polling succeeds again, after 4 s"),
    ]


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(r.levelname, r.getMessage()) for r in caplog.records]


async def test_last_poll_stands_still_in_an_outage(scene: Scene) -> None:
    await asyncio.sleep(1.1)
    assert scene.poller.last_poll == pytest.approx(1.0)
    scene.consumer.errors = [BrokerError("down", retriable=True)] * 100
    await asyncio.sleep(10.0)
    assert scene.poller.last_poll == pytest.approx(1.5)


# -- what is taken while a poll waits ----------------------------------------------------------------


async def test_a_poller_takes_for_its_consumer() -> None:
    scene = Scene()
    assert scene.consumer.as_broker().taker is scene.poller


async def test_what_is_taken_reaches_its_partition() -> None:
    async with polling() as scene:
        scene.take(A, 1, 2)
        scene.take(B, 3)
        scene.take(A, 4)
        assert (scene.a.received, scene.b.received) == ([1, 2, 4], [3])
        await settle()
        assert len(scene.consumer.polls) == 1


async def test_lanes_are_held_until_all_is_taken() -> None:
    async with polling() as scene:
        log: list[Any] = []
        scene.poller.hold = lambda: log.append("hold")
        scene.poller.begin = lambda: log.append("begin")
        for each in (scene.a, scene.b):
            each.receive = log.extend  # type: ignore[method-assign]
        scene.poller.take([(scene.a, [1]), (scene.b, [2])])  # type: ignore[list-item]
        assert log == ["hold", 1, 2, "begin"]


async def test_lanes_begin_whatever_happens() -> None:
    async with polling() as scene:
        log: list[str] = []
        scene.poller.begin = lambda: log.append("begin")
        scene.a.receive = None  # type: ignore[assignment]
        with pytest.raises(TypeError):
            scene.take(A, 1)
        assert log == ["begin"]
        scene.poller.want_records()
        assert scene.consumer.wakes == 1, "the poll is still under way"


class Hungry(Taker):
    """Has room again as soon as it has received something."""

    def __init__(self, tp: TopicPartition, poller: Poller) -> None:
        super().__init__(tp)
        self._poller = poller

    def receive(self, records: Sequence[object]) -> None:
        super().receive(records)
        self._poller.want_records()


async def test_room_for_more_of_what_is_taken_wakes_no_poll() -> None:
    """The poll goes on for that partition anyway; for others it is woken, before and after."""
    async with polling() as scene:
        hungry = scene.held.takers[A] = Hungry(A, scene.poller)
        for _ in range(3):
            scene.take(A, 1)
        await settle()
        assert hungry.received == [1, 1, 1]
        assert scene.consumer.wakes == 0
        assert len(scene.consumer.polls) == 1
        scene.poller.want_records()
        await settle()
        assert scene.consumer.wakes == 1
        assert len(scene.consumer.polls) == 2


async def test_taking_counts_as_a_turn_of_polling() -> None:
    async with polling() as scene:
        await asyncio.sleep(0.2)
        assert scene.poller.last_poll == 0.0
        scene.take(A, 1)
        assert scene.poller.last_poll == pytest.approx(0.2)


async def test_what_is_to_be_looked_at_is_before_records_of_a_poll_are_handed_on() -> None:
    """Also where all that comes is taken while polls wait: none of them waits for long."""
    async with polling() as scene:
        turns: list[list[object]] = []
        scene.poller.each_turn = lambda: turns.append(list(scene.a.received))
        for value in range(11):
            scene.take(A, value)
            await asyncio.sleep(0.1)
        assert len(turns) == 2, "not once for each poll"
        scene.consumer.buffered = {A: [11]}
        await asyncio.sleep(0.6)
        assert turns[-1] == list(range(11))
        assert scene.a.received == list(range(12))


async def test_what_has_room_is_wanted() -> None:
    async with polling() as scene:
        assert scene.poller.wants(A)
        scene.a.wants_records = False
        assert not scene.poller.wants(A)
        assert scene.poller.wants(B)
        del scene.held.takers[B]
        assert not scene.poller.wants(B)


async def test_what_is_taken_ends_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with polling() as scene:
        scene.consumer.errors = [BrokerError("down", retriable=True)]
        await asyncio.sleep(1.1)  # the second poll fails, at 0.5, and the third one waits
        assert told(caplog) == [("WARNING", "polling fails, trying on: down")]
        for _ in range(2):
            scene.take(A, 1)
        assert told(caplog)[1:] == [("INFO", "polling succeeds again, after 0.6 s")]


async def test_what_is_taken_beside_a_partition_that_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with polling() as scene:
        scene.consumer.unreadable = {B: "damaged"}
        scene.consumer.errors = [BrokerError("damaged", retriable=False)]
        await asyncio.sleep(1.1)
        assert scene.poller.wants(A)
        scene.take(A, 1)
        assert told(caplog) == [("ERROR", "polling is refused, trying on: damaged")]
        scene.consumer.unreadable = {}
        scene.take(A, 2)
        assert told(caplog)[1:] == [("INFO", "polling succeeds again, after 0.6 s")]
        assert scene.a.received == [1, 2]
