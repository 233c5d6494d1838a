"""A partition with a stack of the test's making, and a broker consumer that does as it is told."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, cast

from prosody.broker.memory.log import MemoryRecord
from prosody.broker.protocol import OffsetAndMetadata, Start, TopicPartition
from prosody.config.options_qos import SchedulerOptions
from prosody.consume.filters import Filters
from prosody.consume.lanes import Lanes
from prosody.consume.partition import Partition
from prosody.consume.progress import METADATA_MAX
from prosody.consume.shared import Shared
from prosody.consume.steps import Steps
from prosody.errors import BrokerError, CommitMetadataTooLargeError
from prosody.middleware.scheduler import Scheduler
from prosody.middleware.stacks import Stack
from prosody.middleware.timeout import Timeout
from prosody.model.handler import HandlerMethods
from prosody.model.outcome import SUCCESS, Outcome
from prosody.observe.storm import Storms
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from prosody.broker.protocol import BrokerConsumer
    from prosody.model.run import Run

TP = TopicPartition("orders", 0)


def record(
    offset: int, key: bytes | None = b"k", value: bytes | None = b"{}", **fields: Any
) -> Any:
    return MemoryRecord(
        fields.get("topic", "orders"), fields.get("partition", 0), offset,
        fields.get("timestamp", 1_000), key, value, fields.get("headers", ()),
    )  # fmt: skip


def records(*offsets: int, key: bytes | None = b"k") -> list[Any]:
    return [record(offset, key) for offset in offsets]


class Stage:
    """The stack: every run waits on the stage until the test ends it."""

    def __init__(self) -> None:
        self.on_stage: list[tuple[Run, asyncio.Future[Outcome]]] = []
        self.seen: list[int] = []

    async def __call__(self, run: Run) -> Outcome:
        self.seen.append(run.record.offset)
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.on_stage.append((run, ended))
        run.handling = True
        try:
            return await ended
        finally:
            run.handling = False
            self.on_stage.remove((run, ended))

    def end(self, offset: int, outcome: Outcome | BaseException = SUCCESS) -> None:
        for run, ended in self.on_stage:
            if run.record.offset == offset:
                if isinstance(outcome, BaseException):
                    ended.set_exception(outcome)
                else:
                    ended.set_result(outcome)
                return
        raise AssertionError(f"{offset} is not on the stage: {self.offsets}")

    @property
    def offsets(self) -> list[int]:
        return [run.record.offset for run, _ in self.on_stage]


class Orders:
    """A handler that is only there for its name: the stack calls what the test says."""

    async def on_message(self, *_: object) -> None: ...


class Around:
    """What lies around partitions: notes what they ask for."""

    def __init__(
        self,
        call: Callable[[Run], Awaitable[Outcome]],
        *,
        max_uncommitted: int = 8,
        takes_undecodable: bool = False,
        takes_excise: bool = False,
        allowed: Sequence[str] | None = None,
        metadata_max: int = METADATA_MAX,
        permits: int = 10_000,
        idle_max: int = 1000,
    ) -> None:
        self.faults: list[BaseException] = []
        self.wants = 0
        self._partitions: list[Partition] = []
        self.torn_down = False
        self.runtime = FakeRuntime()
        self.storms = Storms(self.runtime)
        log = logging.getLogger("prosody.partition")
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        self.scheduler = Scheduler(permits, SchedulerOptions(), self.runtime)
        self.steps = Steps(HandlerMethods(Orders()), 45.0, self.runtime)
        self.shared = Shared(
            runtime=self.runtime,
            loop=loop,
            context=context,
            filters=Filters("service", allowed),
            stack=Stack(
                call=self.scheduler.wrap(call),
                scheduler=self.scheduler,
                timeout=Timeout(1.0, self.runtime, self.storms),
                takes_undecodable=takes_undecodable,
                takes_excise=takes_excise,
            ),
            max_uncommitted=max_uncommitted,
            want_records=self._want,
            failed=lambda _, error: self.faults.append(error),
            undecodable=self.storms.of(log),
            skipped=self.storms.of(log),
            metadata_max=metadata_max,
        )
        self.lanes = Lanes(
            self.shared.stack, self.steps, loop, context, idle_max, lambda: self.torn_down
        )

    def _want(self) -> None:
        self.wants += 1

    def partition(
        self, tp: TopicPartition = TP, epoch: int = 1, start: Start | None = None
    ) -> Partition:
        partition = Partition(tp, epoch, start or Start(0), self.shared, epoch)
        self._partitions.append(partition)
        close = partition._close

        def close_lanes_too() -> None:
            close()
            if all(one.closed for one in self._partitions):
                self.lanes.close()

        partition._close = close_lanes_too  # type: ignore[method-assign]
        return partition


async def handled(partition: Partition, *offsets: int) -> None:
    """Have a partition receive these offsets, one after the other."""
    for offset in offsets:
        partition.receive(records(offset))
        await settle()


async def an_idle_lane(stage: Stage, partition: Partition) -> asyncio.Task[Any]:
    """Have a first record handled; the lane that did it, which waits for more."""
    await handled(partition, 0)
    lane = stage.on_stage[0][0].task
    assert lane is not None
    stage.end(0)
    await settle()
    return lane


def lanes_of(partition: Partition) -> Lanes:
    """The lanes of the subscription that ``partition`` belongs to."""
    lanes: Lanes = partition._scheduler.wake.__self__  # type: ignore[attr-defined]
    return lanes


async def called_back(call: Callable[[], object]) -> object:
    """Call where no task runs, as what a socket received does."""
    done = asyncio.get_running_loop().create_future()

    def noted() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    asyncio.get_running_loop().call_soon(noted)
    return await done


class FakeConsumer:
    """A broker consumer: polls what is put in, commits into a dict, raises what it is told to."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []
        self.texts: list[dict[TopicPartition, str]] = []
        """The metadata of each of ``commits``."""
        self.text_max = METADATA_MAX
        self.tried: list[frozenset[TopicPartition]] = []
        self.refused: set[TopicPartition] = set()
        """A commit that names one of these is refused for good."""
        self.joined = asyncio.Event()
        self.joined.set()
        self.told: list[str] = []
        self.problem: str | None = None
        self.unreadable: dict[TopicPartition, str] = {}
        self.seeks: list[tuple[TopicPartition, int]] = []
        self.polls: list[frozenset[TopicPartition]] = []
        self.errors: list[Exception] = []
        self.hanging: asyncio.Event | None = None
        self.committing = self.committing_most = 0
        self.buffered: dict[TopicPartition, list[Any]] = {}
        self.wakes = 0
        self._woken = asyncio.Event()

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        self.committing += 1
        self.committing_most = max(self.committing_most, self.committing)
        try:
            if self.hanging is not None:
                await self.hanging.wait()
        finally:
            self.committing -= 1
        self.tried.append(frozenset(offsets))
        if self.errors:
            raise self.errors.pop(0)
        if not self.joined.is_set():
            raise BrokerError("between two assignments", retriable=True)
        if foreign := self.refused & offsets.keys():
            raise BrokerError(f"not assigned: {foreign}", retriable=False)
        if any(len(note.metadata) > self.text_max for note in offsets.values()):
            raise CommitMetadataTooLargeError("too large", retriable=False)
        self.commits.append({tp: note.offset for tp, note in offsets.items()})
        self.texts.append({tp: note.metadata for tp, note in offsets.items()})

    async def settled(self) -> None:
        await self.joined.wait()

    def leaving(self) -> None:
        self.told.append("leaving")

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.seeks.append((partition, offset))

    async def poll(
        self, partitions: Collection[TopicPartition], *, max_records: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[Any]]:
        self.polls.append(frozenset(partitions))
        if self.errors:
            raise self.errors.pop(0)
        found = {
            tp: self.buffered.pop(tp)[:max_records] for tp in partitions if tp in self.buffered
        }
        if not found:
            self._woken.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                pass
        return found

    def wake(self) -> None:
        self.wakes += 1
        self._woken.set()

    def as_broker(self) -> BrokerConsumer:
        return cast("BrokerConsumer", self)
