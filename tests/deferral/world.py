"""One partition with deferral and its owners, one after the other: a play, and an oracle that watches.

The layers, the timers, the queues and the stores are the real ones. Only the partition is a simple one:
a queue for each key, and what is admitted is handled at once. The handler does what each event's script
says, a letter for each attempt. Time is virtual; faults of the store come before or after their effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections import deque
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from prosody.broker.protocol import TopicPartition
from prosody.consume.decode import decode_key, decode_message
from prosody.deferral.deferrals import RETRY_TIMER, Deferrals
from prosody.deferral.gate import Gate
from prosody.deferral.timer_calls import TimerCalls
from prosody.errors import StoreError
from prosody.middleware.base import compose
from prosody.middleware.defer import Defer
from prosody.middleware.fired import Fired
from prosody.middleware.redelivery import Redelivery
from prosody.middleware.reload import Reload
from prosody.middleware.retry import Retry
from prosody.middleware.shutdown import Shutdown
from prosody.model.message import Timer
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome, Refusal
from prosody.model.run import Run
from prosody.model.times import utc_from_seconds
from prosody.stores.memory import MemoryStores, MemoryStoreState
from prosody.stores.protocol import DeferredKind, Segment, TimerKind
from prosody.timers.partition_timers import PartitionTimers
from tests.deferral.fakes import options
from tests.middleware.deferring import record
from tests.middleware.fakes import storms
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from prosody.timers.due import DueTimer

M, T = DeferredKind.MESSAGE, DeferredKind.TIMER
SEGMENT = Segment("group", "orders", 3)
BASE_S, MOST_S = 1.0, 8.0
KEYS = "abc"

Id = tuple[DeferredKind, str, int]
"""Kind, key, and offset or time."""


@dataclass(frozen=True)
class Plan:
    """What happens, in order."""

    steps: tuple[tuple[Any, ...], ...]
    enabled: bool = True
    threshold: float = 0.9
    cache_size: int = 8
    seed: int = 0

    @property
    def faultless(self) -> bool:
        return not any(step[0] in {"fault", "outage", "crash", "strike"} for step in self.steps)


class Partition:
    """One owner's time with the partition."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.topic_partition = TopicPartition("orders", 3)
        self.loop = asyncio.get_running_loop()
        self.number = 0
        self.running = True
        self.cancelling = self.closed = False
        self.queues: dict[str, deque[Run]] = {}
        self.active: dict[str, Run] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.done: set[int] = set()
        self.committed: set[int] = set()
        self.lost_finals: set[Id] = set()
        """What has ended in a run that was abandoned."""
        store = world.stores
        self.timers = PartitionTimers(
            SEGMENT, store.timers, world.runtime, self._fire,
            limit=8, kinds=tuple(TimerKind), storms=storms(), told=set(),
        )  # fmt: skip
        replace = self.timers.replace

        async def noted(key: str, time: int, kind: TimerKind, trace: Any) -> list[int]:
            world.retry_timer_set(key, time, kind)
            return await replace(key, time, kind, trace)

        self.timers.replace = noted  # type: ignore[method-assign]
        self.deferrals = Deferrals(
            SEGMENT, store.deferred, self.timers, world.plan.cache_size, world.runtime, storms()
        )
        self.timer_calls = TimerCalls(self.timers, self.deferrals, world.runtime)

    def give_back(self, run: Run) -> None:
        """There are permits for all."""

    def _fire(self, timer: DueTimer) -> None:
        event = None
        if timer.kind is TimerKind.APPLICATION:
            event = Timer(timer.key, utc_from_seconds(timer.time))
        self.push(Run(cast("Any", self), None, timer.key, event, timer=timer))

    async def begin(self) -> None:
        while True:
            try:
                await self.timers.open(1)
                await self.deferrals.open()
            except StoreError:
                await asyncio.sleep(0.5)  # the partition waits until its store answers
            else:
                break
        self.timers.start()

    def admit(self, found: Any) -> None:
        if found.offset not in self.done:
            key = decode_key(found)
            event = decode_message(found, key, cast("Any", self.world.runtime))
            self.push(Run(cast("Any", self), found, key, event))

    def push(self, run: Run) -> None:
        self.queues.setdefault(run.key, deque()).append(run)
        self._next(run.key)

    def _next(self, key: str) -> None:
        queue = self.queues.get(key)
        if self.running and queue and key not in self.active:
            self.active[key] = run = queue.popleft()
            self._grow(run)

    def _grow(self, run: Run) -> None:
        task = self.loop.create_task(self._lane(run))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _lane(self, run: Run) -> None:
        run.task = asyncio.current_task()
        try:
            outcome = await self.world.call(run)
        except asyncio.CancelledError:
            if self.running:
                self._grow(run)  # struck between two attempts: it goes on in another lane
            raise
        except BaseException as error:
            self.world.fault = error
            raise
        run.finish()
        if outcome.kind is Kind.ABANDONED:
            self.lost_finals.update(self.world.ended_in.get(run, ()))
        elif run.timer is None:
            assert run.record is not None
            self.done.add(run.record.offset)
        self.free(run.key)

    def free(self, key: str) -> None:
        del self.active[key]
        self._next(key)

    async def drain(self) -> None:
        """Given up in order."""
        self.running = False
        self.timers.hold()
        for run in list(self.active.values()):
            run.interrupt()
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=120)
        assert not self.tasks, "a run does not end"
        await self._close()
        self.committed |= self.done
        self.lost_finals.update(
            event for event, over in self.deferrals.uncertain.events.items() if over
        )

    async def crash(self) -> None:
        """Gone from one moment to the next."""
        self.running = False
        self.closed = True
        self.deferrals.close()
        self.timers.stop()
        for task in list(self.tasks):
            task.cancel()
        await self._close()

    async def _close(self) -> None:
        self.closed = True
        self.deferrals.close()
        self.timers.stop()
        await self.timers.settled()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class World:
    """All of it; every assertion here is a rule."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        self.runtime = FakeRuntime(plan.seed)
        self.state = MemoryStoreState()
        self.state.on_call = self._on_call
        self.state.on_done = self._on_done
        self.stores = MemoryStores(self.state, runtime=self.runtime, dedup_ttl_s=1.0)
        self.faults: list[list[Any]] = []
        self.records: list[Any] = []
        self.scripts: dict[Id, str] = {}
        self.attempts: dict[Id, int] = {}
        self.in_flight: set[str] = set()
        self.final: dict[Id, int] = {}
        """How often each ended."""
        self.excused: set[Id] = set()
        self.wanted: set[Id] = set()
        """Timers that were set and not cancelled."""
        self.unsure: set[Id] = set()
        """Timers of which a call failed."""
        self.cancelled: set[Id] = set()
        self.ended_in: dict[Run, list[Id]] = {}
        self.healed = False
        self.fault: BaseException | None = None
        """An error out of a lane: a rule was broken there."""
        self.retries_set = self.setbacks = 0
        self.refused: set[str] = set()
        chosen = options(
            defer_enabled=plan.enabled, defer_failure_threshold=plan.threshold,
            defer_base=BASE_S, defer_max_delay=MOST_S,
        )  # fmt: skip
        clock = SimpleNamespace(latest=0.0)
        self.gate = Gate(chosen, self.runtime, storms())
        layers = [
            Retry(0.5, 4.0, self.runtime, storms()),
            Defer(chosen, self.gate, clock, self.runtime, storms()),
            Shutdown(),
        ]
        inner = compose(layers, self.handle)
        reload = Reload(None, self._decode, None, storms())
        redelivery = Redelivery(chosen, reload, self.runtime, storms())
        redelivery.call = inner
        self.call = compose([Fired(redelivery)], inner)
        self.partition: Partition

    def _decode(self, found: Any) -> Any:
        return decode_message(found, decode_key(found), cast("Any", self.runtime))

    # -- the store ------------------------------------------------------------------------------

    def _on_call(self, name: str) -> None:
        self._fail(name, "before")

    def _on_done(self, name: str) -> None:
        if name.startswith(("deferred.", "timers.")):
            self._check_timers()
        self._fail(name, "after")

    def _fail(self, name: str, when: str) -> None:
        for fault in self.faults:
            if fault[0] in name and fault[1] == when and fault[2] > 0:
                fault[2] -= 1
                raise StoreError(f"{name} failed", retriable=True)

    def rows(self, kind: DeferredKind, key: str) -> list[int]:
        queue = self.state.queues_of(SEGMENT, kind).get(key)
        return [] if queue is None else list(queue.positions)

    def _stored_timers(self, kind: TimerKind, key: str) -> list[int]:
        table = self.state.timer_table(SEGMENT)
        return [time for k, name, time in table.by_key if (k, name) == (kind, key)]

    def _check_timers(self) -> None:
        for kind, retry in RETRY_TIMER.items():
            for key in self.state.queues_of(SEGMENT, kind):
                assert self._stored_timers(retry, key), f"{key!r} has rows and no retry timer"

    def retry_timer_set(self, key: str, time: int, kind: TimerKind) -> None:
        if kind is TimerKind.APPLICATION:
            return
        self.retries_set += 1
        deferred = M if kind is TimerKind.DEFERRED_MESSAGE else T
        if self.plan.faultless and key not in self.refused:
            queue = self.state.queues_of(SEGMENT, deferred).get(key)
            failures = 1 if queue is None else queue.failures + 1
            bound = min(BASE_S * 2 ** (failures - 1), MOST_S)
            now = self.runtime.wall()
            assert math.ceil(now + bound / 2) <= time <= math.ceil(now + bound), "delay"

    # -- the handler ----------------------------------------------------------------------------

    def id_of(self, run: Run) -> Id:
        event: Any = run.event
        if isinstance(event, Timer):
            return T, run.key, int(event.time.timestamp())
        return M, run.key, event.offset

    async def handle(self, run: Run) -> Outcome:
        event = self.id_of(run)
        script = self.scripts[event]
        number = self.attempts.get(event, 0)
        letter = "s" if self.healed else script[min(number, len(script) - 1)]
        self.attempts[event] = number + 1
        self.refused.discard(run.key)
        if letter == "r":
            self.setbacks += 1
            self.refused.add(run.key)
            return Refusal(ValueError("greedy"), self.runtime.monotonic() + 3.0)
        self._begins(event, run)
        run.attempt += 1
        self.in_flight.add(run.key)
        run.handling = True
        try:
            await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.3, 1.5)))
            if letter in "akq":
                await self._call_timers(letter, run, event)
            if letter == "q":
                letter = "t"
        except StoreError as error:
            letter, why = "t", error
        else:
            why = None
        finally:
            run.handling = False
            self.in_flight.discard(run.key)
        if letter == "t":
            self.setbacks += 1
            return Outcome(Kind.TRANSIENT, why or ValueError("transient"))
        if self.partition is not run.partition or run.partition.closed:
            return ABANDONED
        self.final[event] = self.final.get(event, 0) + 1
        self.ended_in.setdefault(run, []).append(event)
        return Outcome(Kind.PERMANENT, ValueError("permanent")) if letter == "p" else SUCCESS

    def _begins(self, event: Id, run: Run) -> None:
        kind, key, position = event
        assert key not in self.in_flight, f"two of key {key!r} at once"
        assert event not in self.cancelled, f"{event} was cancelled"
        again = self.final.get(event, 0)
        assert not again or event in self.excused, f"{event} again after it ended"
        open_rows = [p for p in self.rows(kind, key) if not self.final.get((kind, key, p))]
        if run.redelivered:
            assert open_rows[:1] == [position] or again, f"{event} is not the head of {open_rows}"
        else:
            assert open_rows in ([], [position]), f"{event} runs before the deferred {open_rows}"
        if kind is M and not again:
            before = [
                r.offset for r in self.records if r.offset < position and decode_key(r) == key
            ]
            assert all(self.final.get((M, key, p)) for p in before), f"{event} overtakes"

    async def _call_timers(self, letter: str, run: Run, event: Id) -> None:
        calls = run.partition.timer_calls
        assert calls is not None
        if letter == "a":
            await self.set_timer(run.key, 2, "ts", run)
            return
        known = {e for e in self.wanted | self.unsure if e[1] == run.key and e != event}
        known = {e for e in known if not self.final.get(e)}
        self.unsure |= known
        self.wanted -= known
        await calls.clear_scheduled(run)
        self.unsure -= known
        self.cancelled |= known
        left = await calls.scheduled(run)
        assert not left, "a timer is left after clear_scheduled"

    async def set_timer(self, key: str, delay: int, script: str, run: Run | None = None) -> None:
        time = int(self.runtime.wall()) + delay
        while (T, key, time) in self.scripts:
            time += 1
        event = (T, key, time)
        self.scripts[event] = script
        self.unsure.add(event)
        calls = self.partition.timer_calls
        await calls.schedule(run or cast("Any", SimpleNamespace(key=key, event=None)), time)
        self.unsure.discard(event)
        self.wanted.add(event)

    # -- the play -------------------------------------------------------------------------------

    async def play(self) -> None:
        try:
            await self._play()
        finally:
            if not self.partition.closed:  # a rule was broken: nothing of it goes on
                await self.partition.crash()

    async def _play(self) -> None:
        await self._begin()
        for step in self.plan.steps:
            await self._step(*step)
            self._check_timers()
            self._check_lanes()
        await self._end()

    async def _begin(self, committed: frozenset[int] | set[int] = frozenset()) -> None:
        self.partition = Partition(self)
        self.partition.done |= committed
        self.partition.committed |= committed
        await self.partition.begin()
        for found in self.records:
            self.partition.admit(found)

    async def _step(self, name: str, *of: Any) -> None:
        partition = self.partition
        if name == "send":
            key, script = of
            found = record(len(self.records), key.encode(), b"{}")
            self.records.append(found)
            self.scripts[M, key, found.offset] = script
            partition.admit(found)
        elif name == "timer":
            key = of[0]
            if key not in partition.active:  # only handlers set timers, one of a key at a time
                partition.active[key] = cast("Any", "a handler, in effect")
                with contextlib.suppress(StoreError):  # it may be set: the oracle knows
                    await self.set_timer(*of)
                partition.free(key)
        elif name == "tick":
            await asyncio.sleep(of[0])
            partition.committed |= partition.done
        elif name == "fault":
            self.faults.append(list(of))
        elif name == "outage":
            self.state.outage()
            await asyncio.sleep(of[0])
            self.state.restore()
        elif name == "strike":
            run = partition.active.get(of[0])
            if run is not None and run.task is not None and not run.handling:
                run.task.cancel()
                await asyncio.sleep(0)
        else:
            await (partition.drain() if name == "handover" else partition.crash())
            self.in_flight.clear()
            self.excused |= partition.lost_finals
            if name == "crash":
                self.excused |= set(self._may_come_again(partition))
            await self._begin(partition.committed)

    def _may_come_again(self, partition: Partition) -> list[Id]:
        """What has ended, and what shows it was lost."""
        return [
            event
            for event in self.final
            if (event[0] is M and event[2] not in partition.committed)
            or event[2] in self.rows(event[0], event[1])
            or event[2] in self._stored_timers(TimerKind.APPLICATION, event[1])
        ]

    async def _end(self) -> None:
        self.faults.clear()
        self.state.restore()
        self.healed = True
        await asyncio.sleep(300)
        self._check_lanes()
        partition = self.partition
        expected = {(M, decode_key(r), r.offset) for r in self.records} | self.wanted
        missing = {event for event in expected if not self.final.get(event)}
        assert not missing, f"never ended: {missing}"
        twice = {e for e, times in self.final.items() if times > 1 and e not in self.excused}
        assert not twice, f"ended twice: {twice}"
        assert not partition.active, f"still active: {list(partition.active)}"
        assert partition.done >= {r.offset for r in self.records}, "an offset is not done"
        for kind, retry in RETRY_TIMER.items():
            for key in KEYS:
                assert not self.rows(kind, key), f"rows are left of {key!r}"
                assert not self._stored_timers(retry, key), f"a retry timer is left of {key!r}"
        held = partition.deferrals.keys
        # What a small cache forgot may leave a hash behind, which costs a look and holds nothing.
        assert held == {M: 0, T: 0} or self.plan.cache_size < 6, "a key is held for ever"
        assert not partition.deferrals.uncertain.events, "uncertain for ever"
        if self.plan.faultless:
            assert self.retries_set <= self.setbacks + self._cancelled_heads(), "timers for nothing"
        await partition.drain()

    def _check_lanes(self) -> None:
        if self.fault is not None:
            raise self.fault

    def _cancelled_heads(self) -> int:
        return len(self.cancelled)


async def play(plan: Plan) -> None:
    """Play a plan; an AssertionError tells which rule was broken."""
    await World(plan).play()


SCRIPTS = (
    "s",
    "s",
    "ts",
    "tts",
    "tttts",
    "tp",
    "p",
    "rs",
    "trs",
    "a",
    "ta",
    "k",
    "tk",
    "qs",
    "tqs",
    "t",
)
CALLS = (
    "deferred.defer", "deferred.append", "deferred.advance", "deferred.queue", "deferred.failed",
    "deferred.drop", "timers.replace", "timers.remove", "timers.times", "deferred", "timers",
)  # fmt: skip


def plan_of(seed: int) -> Plan:
    """A plan by chance."""
    chance = random.Random(seed)
    steps: list[tuple[Any, ...]] = []
    faults = seed % 3 > 0
    ends = seed % 2 > 0
    for _ in range(chance.randint(4, 30)):
        roll = chance.random()
        key = chance.choice(KEYS)
        if roll < 0.4:
            steps.append(("send", key, chance.choice(SCRIPTS)))
        elif roll < 0.5:
            steps.append(("timer", key, chance.choice((-3, 1, 4)), chance.choice(SCRIPTS)))
        elif roll < 0.8:
            steps.append(("tick", chance.choice((0.0, 0.1, 1.0, 2.5, 9.0))))
        elif roll < 0.9 and faults:
            fault = ("fault", chance.choice(CALLS), chance.choice(("before", "after")))
            steps.append((*fault, chance.randint(1, 4)))
            if chance.random() < 0.2:
                steps.append(("outage", chance.choice((1.0, 20.0))))
            if chance.random() < 0.3:
                steps.append(("strike", key))
        elif ends:
            steps.append((chance.choice(("crash", "handover", "handover")),))
    return Plan(
        steps=tuple(steps),
        enabled=chance.random() < 0.9,
        threshold=chance.choice((0.9, 0.9, 0.9, 0.0)),
        cache_size=chance.choice((1, 2, 8)),
        seed=seed,
    )
