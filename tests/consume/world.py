"""The whole consume path over the embedded broker, driven by a plan and watched by an oracle.

The oracle knows only what handlers saw and what the broker holds. It raises :class:`Fault` for: a record
out of order, two handlers of a key at once, too many handlers, traces of an earlier run in a lane,
a commit past something unfinished or going back, or one that calls something unfinished finished, a lost
record, and anything left over at the end. And for a record that runs once more after it had ended, unless
there was a reason: a member thrown out, or a last commit that the broker did not take. Partitions that
change hands in order are none.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prosody._core.offset_set import decode_finished
from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import ProducerSettings, TopicPartition
from prosody.config import Config
from prosody.consume.consumer import Consumer
from prosody.consume.progress import METADATA_MAX
from prosody.errors import BrokerError, PermanentError
from prosody.model.handler import HandlerMethods
from prosody.produce import Producer
from tests.support import FakeRuntime, other_tasks, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prosody import Context, Message
    from prosody.broker.protocol import OffsetAndMetadata, Start
    from prosody.consume.partition import Partition

TOPIC, FAILURES, GROUP = "orders", "failures", "service"
VALUES: dict[str, tuple[bytes | None, tuple[tuple[str, bytes | None], ...]]] = {
    "message": (b'{"type": "order.made"}', ()),
    "undecodable": (b"\xff{", ()),
    "filtered": (b'{"type": "other"}', ()),
    "echo": (b"{}", (("source-system", GROUP.encode()),)),
    "tombstone": (None, ()),
}
TIMEOUT_S = 20.0
SHUTDOWN_TIMEOUT_S = 10.0
CLOCK_S = 1e-6
"""Sums of floats are not exact."""
MAX_RETRIES = 2
MONOPOLIZATION_WINDOW_S = 10.0

mark: contextvars.ContextVar[object] = contextvars.ContextVar("mark")


class Fault(AssertionError):  # noqa: N818
    """The consume path did what it must not do."""


class UglyError(Exception):
    """An error that can say neither what it is nor what it says."""

    @property
    def is_permanent(self) -> bool:
        raise RuntimeError("no answer")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class OutsideError(BaseException):
    """Not even an ``Exception``."""


SUCCESSES = (
    "success", "garbage", "set mark", "mark and cancel", "cancel unseen", "cancel swallowed",
    "cancel late", "cancel much later", "cancel a waiting run",
)  # fmt: skip
ENDS = (
    *SUCCESSES, "permanent", "transient", "ugly", "base", "exit", "raise cancelled", "cancel self",
    "cancelled child", "mark and fail", "fail and cancel late", "fail and cancel much later",
)  # fmt: skip
"""How handlers end; what is not among the successes and not permanent is transient."""


@dataclass(frozen=True)
class Plan:
    """What is done, step by step. The clock moves only in a ``tick`` and at the end."""

    mode: str = "pipeline"
    partitions: int = 1
    max_concurrency: int = 2
    max_uncommitted: int = 2
    metadata_max: int = METADATA_MAX
    monopolization_threshold: float = 1.0
    steps: tuple[tuple[Any, ...], ...] = ()


@dataclass(eq=False)
class Attempt:
    """One call of the handler."""

    message: Message
    context: Context
    how: asyncio.Future[str]
    began_s: float
    verdict: str | None = None

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.message.topic, self.message.partition)


@dataclass
class Member:
    """A consumer and every partition object that it ever had."""

    name: str
    consumer: Consumer
    partitions: list[Partition] = field(default_factory=list)
    draining_since_s: dict[Partition, float] = field(default_factory=dict)
    lost: set[Partition] = field(default_factory=set)
    expelled: set[Partition] = field(default_factory=set)
    stopped: asyncio.Task[None] | None = None

    def running(self) -> list[Partition]:
        return [p for p in self.partitions if p.running]


class World:
    """Cluster, members and oracle of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cluster = MemoryCluster()
        self.cluster.create_topic(TOPIC, plan.partitions)
        self.cluster.create_topic(FAILURES, 1)
        self.runtime = FakeRuntime()
        self.broker = MemoryBroker(self.cluster, runtime=self.runtime, auto_create_topics=False)
        self.members: list[Member] = []
        self.everyone: list[Member] = []
        self.waiting: list[Attempt] = []
        self.inside: list[Attempt] = []
        self.ended: set[tuple[int, int]] = set()
        """(partition, offset) of what may be committed."""
        self.kinds: dict[tuple[int, int], tuple[str, str]] = {}
        self.finals: Counter[tuple[int, int]] = Counter()
        self.committed: dict[TopicPartition, int] = {}
        self.may_repeat = False
        """There was a reason for records to run once more after they had ended."""
        self.dead_letters_read = 0
        self.automatic = False
        self.faults: list[str] = []
        self.refusals = 0
        """Commits refused for good."""
        self.strays = False
        """Cancellations are under way that an earlier handler set off; they may strike a later one."""

    # -- members ------------------------------------------------------------------------------

    async def join(self) -> Member:
        config = Config.load(
            {
                "mock": True,
                "group_id": GROUP,
                "subscribed_topics": TOPIC,
                "mode": self.plan.mode,
                "failure_topic": FAILURES,
                "source_system": "tests",
                "telemetry_enabled": False,
                "allowed_events": ["order."],
                "max_concurrency": self.plan.max_concurrency,
                "max_uncommitted": self.plan.max_uncommitted,
                "max_retries": MAX_RETRIES,
                "monopolization_threshold": self.plan.monopolization_threshold,
                "monopolization_window": MONOPOLIZATION_WINDOW_S,
                "retry_base": 0.1,
                "max_retry_delay": 1.0,
                "timeout": TIMEOUT_S,
                "shutdown_timeout": SHUTDOWN_TIMEOUT_S,
                "commit_interval": 0.5,
                "poll_interval": 50.0,
                "stall_threshold": 600.0,
            },
            {},
        )
        producer = Producer(
            self.broker,
            ProducerSettings("p", None, "crc32"),
            source_system="tests",
            send_timeout_s=5.0,
            id_cache_size=0,
        )
        mark.set("subscribed")
        name = f"member-{len(self.everyone)}"
        consumer = Consumer(
            config, self.broker, None, producer, HandlerMethods(self), self.runtime, name
        )
        member = Member(name, consumer)
        assignment = consumer._assignment
        start: Callable[[TopicPartition, Start], Partition] = assignment._start

        def remember(tp: TopicPartition, begin: Start) -> Partition:
            partition = start(tp, begin)
            member.partitions.append(partition)
            self._watch_end(member, partition)
            return partition

        def failed(partition: Partition, error: BaseException) -> None:
            self.faults.append(f"internal fault in {partition.name}: {type(error).__name__}")
            assignment.restart(partition, error)

        assignment._start = remember  # type: ignore[method-assign]
        object.__setattr__(assignment._shared, "failed", failed)  # it is frozen
        object.__setattr__(assignment._shared, "metadata_max", self.plan.metadata_max)
        consumer._committer._metadata_max = self.plan.metadata_max
        self._watch_commits(consumer)
        self._watch_last_commits(consumer)
        await consumer.start()
        self.members.append(member)
        self.everyone.append(member)
        return member

    def leave(self, member: Member) -> None:
        self.members.remove(member)
        member.stopped = asyncio.create_task(member.consumer.stop())

    def _watch_end(self, member: Member, partition: Partition) -> None:
        drain, lose = partition.drain, partition.lose

        async def note_drain(cancel_after_s: float, abandon_after_s: float) -> None:
            member.draining_since_s.setdefault(partition, self.runtime.monotonic())
            await drain(cancel_after_s, abandon_after_s)

        def note_lost() -> None:
            member.lost.add(partition)
            self.may_repeat = True
            lose()

        partition.drain = note_drain  # type: ignore[method-assign]
        partition.lose = note_lost  # type: ignore[method-assign]

    def _watch_commits(self, consumer: Consumer) -> None:
        """Each names what is held then, as it is then: a rebalance may lie before it."""
        broker_consumer = consumer._broker_consumer
        commit = broker_consumer.commit

        async def check(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
            for tp, note in offsets.items():
                partition = consumer._assignment.get(tp)
                if partition is None:
                    self.faults.append(f"{tp} committed and not held")
                elif note.offset != partition.progress.offset:
                    self.faults.append(f"{tp} committed {note.offset}, computed too early")
            await commit(offsets)

        broker_consumer.commit = check  # type: ignore[method-assign]

    def _watch_last_commits(self, consumer: Consumer) -> None:
        """What the broker refused, or did not answer in time, was not committed for a reason."""
        committer = consumer._committer
        commit = committer.commit_finally

        async def note_commit(partitions: Iterable[Partition], timeout_s: float | None) -> None:
            began_s, refusals = self.runtime.monotonic(), self.refusals
            await commit(partitions, timeout_s)
            waited_s = self.runtime.monotonic() - began_s
            late = timeout_s is not None and waited_s >= timeout_s - CLOCK_S
            if (late or self.refusals > refusals) and committer._unsaved(partitions):
                self.may_repeat = True

        committer.commit_finally = note_commit  # type: ignore[method-assign]

    # -- the handler --------------------------------------------------------------------------

    async def on_message(self, context: Context, message: Message) -> None:
        loop = asyncio.get_running_loop()
        attempt = Attempt(message, context, loop.create_future(), loop.time())
        self._check_start(attempt)
        self.inside.append(attempt)
        try:
            if self.automatic:
                attempt.how.set_result("success")
            else:
                self.waiting.append(attempt)
            try:
                how = await attempt.how
            except asyncio.CancelledError:
                attempt.verdict = "cut short"
                self._check_cut(attempt)
                raise
            finally:
                if attempt in self.waiting:
                    self.waiting.remove(attempt)
            attempt.verdict = "success" if how in SUCCESSES else "transient"
            if how == "permanent":
                attempt.verdict = "permanent"
            self.strays = self.strays or how.endswith(("late", "later", "waiting run"))
            if how == "cancel a waiting run":
                self._cancel_waiting()
            return await _end(how)
        finally:
            self.inside.remove(attempt)
            self._judge(attempt)

    def _check_start(self, attempt: Attempt) -> None:
        message, tp = attempt.message, attempt.tp
        where = f"{tp.partition}:{message.offset} key {message.key}"
        kind, key = self.kinds[tp.partition, message.offset]
        if kind != "message":
            self.faults.append(f"{where} handled, it is {kind}")
        if key != message.key:
            self.faults.append(f"{where} has another key: {key}")
        self._read_dead_letters()
        if (tp.partition, message.offset) in self.ended and not self.may_repeat:
            self.faults.append(f"{where} runs once more")
        for (partition, offset), (_, other) in self.kinds.items():
            earlier = partition == tp.partition and offset < message.offset and other == key
            if earlier and (partition, offset) not in self.ended:
                self.faults.append(f"{where} began before the end of {offset}")
        for other_attempt in self.inside:
            same = other_attempt.tp == tp and other_attempt.message.key == message.key
            if same and not (self._may_overlap(attempt) or self._may_overlap(other_attempt)):
                self.faults.append(f"{where} began while {other_attempt.message.offset} ran")
        run = attempt.context._run
        in_use = sum(a.context._run.partition._shared is run.partition._shared for a in self.inside)
        if in_use >= self.plan.max_concurrency:
            self.faults.append(f"{where} began as handler {in_use + 1} of one consumer")
        task = asyncio.current_task()
        if task is None or task.cancelling():
            self.faults.append(f"{where} began in a cancelled lane")
        if mark.get(None) != "subscribed":
            self.faults.append(f"{where} sees the context variables of another run")

    def _may_overlap(self, attempt: Attempt) -> bool:
        """Whether the attempt was told to stop, or its partition taken without a word."""
        partition = attempt.context._run.partition
        return attempt.context.should_cancel() or any(
            partition in member.expelled for member in self.everyone
        )

    def _check_cut(self, attempt: Attempt) -> None:
        """A handler may be cancelled for three reasons, and not before their time."""
        now = self.runtime.monotonic()
        partition = attempt.context._run.partition
        for member in self.everyone:
            if partition in member.lost:
                return
            since = member.draining_since_s.get(partition)
            if since is not None and now - since >= 0.8 * SHUTDOWN_TIMEOUT_S - CLOCK_S:
                return
        if now - attempt.began_s < TIMEOUT_S - CLOCK_S and not self.strays:
            self.faults.append(f"{attempt.tp}:{attempt.message.offset} cancelled without a reason")

    def _cancel_waiting(self) -> None:
        """Somebody who kept the task of a run cancels it while the run waits between attempts."""
        for member in self.everyone:
            for partition in member.partitions:
                for run in partition.runs:
                    if run.interruptible is not None and run.task is not None:
                        asyncio.get_running_loop().call_soon(run.task.cancel)
                        return

    def _judge(self, attempt: Attempt) -> None:
        at = (attempt.tp.partition, attempt.message.offset)
        verdict, mode = attempt.verdict, self.plan.mode
        stopping = attempt.context._run.partition.cancelling
        final = verdict == "success"
        if mode == "best-effort":
            final = final or verdict == "permanent" or not stopping
        elif mode == "pipeline":
            final = final or verdict == "permanent"
        if final:
            self.ended.add(at)
            self.finals[at] += 1

    # -- steps --------------------------------------------------------------------------------

    async def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("send", partition, keys, kind):
                for key in keys:
                    self.send(partition % self.plan.partitions, key, kind)
                return  # without a turn, so that several make one poll
            case ("end", index, how) if self.waiting:
                attempt = self.waiting.pop(index % len(self.waiting))
                attempt.how.set_result(how)
                return  # without a turn, so that several end in one
            case ("tick", seconds):
                await asyncio.sleep(seconds)
            case ("join",) if len(self.members) < 2:
                await self.join()
            case ("leave", index) if self.members:
                self.leave(self.members[index % len(self.members)])
            case ("expel", index) if self.members:
                self.may_repeat = True  # what has finished since the last commit
                member = self.members[index % len(self.members)]
                # It may learn of it late, when its present listener call has returned.
                member.expelled.update(member.partitions)
                with contextlib.suppress(BrokerError):  # it is out already, and has not noticed
                    self.cluster.expel(GROUP, member.name)
            case ("outage", call, times):
                self._fail_calls(call, times)
            case ("unsettle",):
                self.cluster.unsettle(GROUP)
            case ("settle",):
                self.cluster.settle(GROUP)
        await settle()
        self.check()

    def send(self, partition: int, key: str, kind: str) -> None:
        value, headers = VALUES[kind]
        with self.cluster.lock:
            log = self.cluster.logs(TOPIC)[partition]
            offset = log.append(1, key.encode(), value, headers)
        self.kinds[partition, offset] = (kind, key)
        if kind != "message" and not (kind == "undecodable" and self.plan.mode == "low-latency"):
            self.ended.add((partition, offset))

    def _fail_calls(self, call: str, times: int) -> None:
        def on_call(name: str, _: str) -> None:
            nonlocal times
            if times > 0 and name == call:
                times -= 1
                retriable = times % 2 == 0
                if call == "commit" and not retriable:
                    self.refusals += 1
                raise BrokerError("an outage", retriable=retriable)

        self.cluster.on_call = on_call

    # -- checks -------------------------------------------------------------------------------

    def check(self) -> None:
        """What holds at every moment."""
        self._read_dead_letters()
        self._check_committed()
        for member in self.everyone:
            for partition_object in member.partitions:
                partition_object.queue.check_valid()
                partition_object.tracker.check_valid()
                self._check_ending(member, partition_object)
                if partition_object.uncommitted > self.plan.max_uncommitted:
                    self.faults.append(
                        f"{partition_object.name} admitted more than max_uncommitted"
                    )
            self._check_last_commit(member)
        lost = {partition for member in self.everyone for partition in member.lost}
        for attempt in self.inside:
            if attempt.context._run.partition in lost and not attempt.context._run.cancelled:
                self.faults.append(f"{attempt.tp}:{attempt.message.offset} is lost and not told so")
            late = self.runtime.monotonic() - attempt.began_s > TIMEOUT_S + CLOCK_S
            if late and not attempt.context.should_cancel():
                self.faults.append(f"{attempt.tp}:{attempt.message.offset} runs past its deadline")
        self.check_busy()
        self.raise_faults()

    def _check_committed(self) -> None:
        for tp, note in self.cluster.group(GROUP).committed.items():
            before = self.committed.get(tp, 0)
            if note.offset < before:
                self.faults.append(f"{tp} committed {note.offset} after {before}")
            self.committed[tp] = note.offset
            noted = decode_finished(note.metadata, note.offset)
            for partition, offset in self.kinds.keys() - self.ended:
                named = any(start <= offset < end for start, end in noted)
                if partition == tp.partition and named:
                    self.faults.append(f"{tp} committed {offset} as finished ahead, it is not")
            for partition, offset in self.kinds.keys() - self.ended:
                if partition == tp.partition and offset < note.offset:
                    self.faults.append(f"{tp} committed {note.offset}, {offset} is unfinished")

    def _check_ending(self, member: Member, partition: Partition) -> None:
        draining = partition in member.draining_since_s and not partition.closed
        if draining and not any(a.context._run.partition is partition for a in self.inside):
            self.faults.append(f"{partition.name} goes on draining, and nothing runs")

    def _check_last_commit(self, member: Member) -> None:
        """Who leaves in order has committed what it finished."""
        if member.stopped is None or not member.stopped.done() or self.may_repeat:
            return
        for partition in member.partitions:
            finished = partition.tracker.committable or 0
            if self.committed.get(partition.topic_partition, 0) < finished:
                self.faults.append(f"{partition.name} given up, {finished} not committed")

    def _read_dead_letters(self) -> None:
        log = self.cluster.logs(FAILURES)[0]
        for record in log.read(self.dead_letters_read, 10_000):
            headers = dict(record.headers)
            self.ended.add((int(headers["source-partition"]), int(headers["source-offset"])))
        self.dead_letters_read = log.end

    def check_busy(self) -> None:
        """In a quiet moment nothing is left undone that could be done: no wake-up was missed."""
        for member in self.members:
            scheduler = member.consumer._stack.scheduler
            scheduler.heap.check_valid()
            shared = member.consumer._assignment._shared
            handlers = sum(a.context._run.partition._shared is shared for a in self.inside)
            if not handlers == scheduler.in_use == scheduler.heap.dispatched:
                self.faults.append(
                    f"{scheduler.in_use} permits in use, {scheduler.heap.dispatched} charged, "
                    f"{handlers} handlers run"
                )
            if scheduler.has_more:
                self.faults.append("a run waits for a permit and one is free")
            for partition in member.running():
                if partition.queue.ready:
                    self.faults.append(f"{partition.name}: a key is ready and does not wait")
                if partition.waiting != sum(run.task is None for run in partition.runs):
                    self.faults.append(f"{partition.name}: {partition.waiting} do not wait")
                room = partition.uncommitted < self.plan.max_uncommitted and (
                    partition.inbox._admissible > 0
                    or partition.progress.admissible(self.plan.metadata_max) > 0
                )
                if room and not partition.wants_records and not partition.waiting:
                    self.faults.append(f"{partition.name}: room, and records that are not admitted")
                if self._is_left_unpolled(member, partition):
                    self.faults.append(f"{partition.name}: room, and records that are not polled")

    def _is_left_unpolled(self, member: Member, partition: Partition) -> bool:
        held: Any = member.consumer._broker_consumer
        position = held._follower.held.get(partition.topic_partition)
        waits = member.consumer._poller._failing_since is not None or partition in member.expelled
        if position is None or not position.ready or waits or not partition.wants_records:
            return False
        return bool(position.offset < position.log.end)

    def raise_faults(self) -> None:
        if self.faults:
            raise Fault("; ".join(self.faults))

    async def finish(self) -> None:
        """Let everything end well; then nothing may be lost, and nothing left over."""
        self.cluster.on_call = None
        self.cluster.settle(GROUP)
        self.automatic = True
        for attempt in self.waiting:
            if not attempt.how.done():
                attempt.how.set_result("success")
        if not self.members:
            await self.join()
        for _ in range(50):
            await asyncio.sleep(4.0)
            await settle()
            self.check()
            ends = {TopicPartition(TOPIC, n): x.end for n, x in enumerate(self.cluster.logs(TOPIC))}
            if all(self.committed.get(tp, 0) == end for tp, end in ends.items()):
                break
        self._check_nothing_lost()
        for member in list(self.members):
            self.leave(member)
        for member in self.everyone:
            assert member.stopped is not None
            await member.stopped
        await settle()
        self.check()
        self._check_leftovers()
        self.raise_faults()

    def _check_nothing_lost(self) -> None:
        for number, log in enumerate(self.cluster.logs(TOPIC)):
            committed = self.committed.get(TopicPartition(TOPIC, number), 0)
            if committed != log.end:
                self.faults.append(f"partition {number}: committed {committed} of {log.end}")
        countable = not self.may_repeat and self.plan.mode != "low-latency"
        for at, (kind, _) in self.kinds.items():
            if at not in self.ended:
                self.faults.append(f"{kind} {at} was lost")
            if countable and self.finals[at] != (kind == "message"):
                self.faults.append(f"{kind} {at} ended {self.finals[at]} times")

    def _check_leftovers(self) -> None:
        for member in self.everyone:
            scheduler = member.consumer._stack.scheduler
            heap = scheduler.heap
            if scheduler.in_use or heap.waiting or heap.dispatched:
                self.faults.append(f"{scheduler.in_use} permits in use, {heap!r}")
            if member.consumer._lanes._tasks:
                self.faults.append("lanes are left")
            monopolization = member.consumer._stack.monopolization
            if monopolization is not None:
                self._check_meter(monopolization.meter)
            timeout = member.consumer._stack.timeout
            if timeout._handling or timeout._cancelled or timeout._timer:
                self.faults.append("a deadline is still watched")
            for partition in member.partitions:
                queue = partition.queue
                if queue.queued or queue.in_flight or partition.runs or partition.waiting:
                    self.faults.append(
                        f"{partition.name} left: {queue!r}, {len(partition.runs)} runs"
                    )
        if tasks := other_tasks():
            self.faults.append(f"tasks left: {tasks}")

    def _check_meter(self, meter: Any) -> None:
        """No run is counted that does not run: long after the last one, no key has used anything."""
        meter.check_valid()
        later = self.runtime.monotonic() + 10 * MONOPOLIZATION_WINDOW_S
        numbers = range(1, 1 + sum(len(member.partitions) for member in self.everyone))
        for place in ((n, key) for n in numbers for key in {key for _, key in self.kinds.values()}):
            if meter.used(place, later):
                self.faults.append(f"{place} is counted as running")


async def _end(how: str) -> Any:  # noqa: C901  # a list, though it is written as a match
    """End a handler in one of the ways in which handlers end."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert task is not None
    match how:
        case "garbage":
            return {"not": "looked at"}
        case "set mark":
            mark.set(object())
        case "transient":
            raise ValueError("a transient failure")
        case "permanent":
            raise PermanentError("a permanent failure")
        case "ugly":
            raise UglyError
        case "base":
            raise OutsideError
        case "exit":
            raise SystemExit(3)
        case "raise cancelled":
            raise asyncio.CancelledError
        case "cancel self":
            task.cancel()
            await asyncio.sleep(0)
        case "cancel unseen":
            task.cancel()
        case "mark and fail":
            mark.set(object())
            raise ValueError("a transient failure")
        case "mark and cancel":
            mark.set(object())
            task.cancel()
        case "cancel swallowed":
            task.cancel()
            task.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                return None
        case "cancelled child":
            child = asyncio.create_task(asyncio.sleep(1))
            child.cancel()
            await child
        case "cancel late":
            loop.call_soon(task.cancel)
        case "cancel much later":
            loop.call_later(0.25, task.cancel)
        case "fail and cancel late":
            loop.call_soon(task.cancel)
            raise ValueError("a transient failure")
        case "fail and cancel much later":
            loop.call_later(0.05, task.cancel)
            raise ValueError("a transient failure")
    return None


async def play(plan: Plan) -> World:
    """Do a plan from its beginning to its end; raises :class:`Fault`."""
    world = World(plan)
    await world.join()
    await settle()
    for step in plan.steps:
        await world.do(step)
    await world.finish()
    return world
