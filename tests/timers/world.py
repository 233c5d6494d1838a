"""A partition's timers in a hostile world, beside a naive record of what was asked for.

``play`` draws everything from one source of chance: what is set and cancelled, by whom and when, what the
store does to it, how long handlers take, when the owner crashes or hands over. The record knows nothing of
how timers work; ``Record.verdict`` says what must be true of it whatever happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prosody.errors import StoreError
from prosody.observe.storm import Storms
from prosody.stores.memory import MemoryStoreState
from prosody.stores.memory.timers import MemoryTimerStore
from prosody.stores.protocol import Place, Segment, StoredTimer, TimerKind
from tests.support import WALL_AT_START_S, FakeRuntime, other_tasks

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from prosody.timers.due import DueTimer
    from prosody.timers.partition_timers import PartitionTimers

START = int(WALL_AT_START_S)
SEGMENT = Segment("group", "orders", 0)
APP, MESSAGE, TIMER = TimerKind
DEADLINE_S = 10.0


class Runtime(FakeRuntime):
    """A wall clock that can be set."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.offset_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.offset_s


class Store:
    """A store over the state in memory that is particular about how it is used.

    It has an order of its own inside a second and kind, is slow after it has read as well as before, looks
    for no timer before ``passed``, and asserts that nobody asks two things about one key at a time.
    """

    def __init__(self, state: MemoryStoreState, faults: list[str] | None = None) -> None:
        self.state = state
        self.faults: list[str] = [] if faults is None else faults
        """What was wrong in how it was used."""
        self._inner = MemoryTimerStore(state)
        self._busy: set[str] = set()
        self.before = 0
        """Timers before this second are not looked for."""
        self.loads = 0

    @property
    def places(self) -> set[Place]:
        """What is stored."""
        return set(self.state.timer_table(SEGMENT).traces)

    @contextlib.contextmanager
    def about(self, key: str) -> Iterator[None]:
        if key in self._busy:
            self.faults.append(f"two calls about key {key!r} at the same time")
        self._busy.add(key)
        try:
            yield
        finally:
            self._busy.discard(key)

    async def open(self, segment: Segment, partitions: int) -> int | None:
        return await self._inner.open(segment, partitions)

    async def load(
        self, segment: Segment, after: Place | None, until: int, limit: int
    ) -> Sequence[StoredTimer]:
        self.loads += 1
        await self.state.begin("timers.load")
        traces = self.state.timer_table(segment).traces
        first = (-1, 0, "") if after is None else _rank(after)
        found = sorted(
            (p for p in traces if first < _rank(p) and self.before <= p.time <= until), key=_rank
        )
        page = [StoredTimer(*place, traces[place]) for place in found[:limit]]
        await self.state.end("timers.load")
        return page

    async def add(self, segment: Segment, timer: StoredTimer) -> None:
        with self.about(timer.key):
            self.before = min(self.before, timer.time)
            await self._inner.add(segment, timer)

    async def remove(self, segment: Segment, place: Place) -> None:
        with self.about(place.key):
            await self._inner.remove(segment, place)

    async def times(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        with self.about(key):
            times = await self._inner.times(segment, key, kind)
            await self.state.end("timers.times")
            return times

    async def replace(self, segment: Segment, timer: StoredTimer) -> list[int]:
        with self.about(timer.key):
            self.before = min(self.before, timer.time)
            return await self._inner.replace(segment, timer)

    async def clear(self, segment: Segment, key: str, kind: TimerKind) -> list[int]:
        with self.about(key):
            return await self._inner.clear(segment, key, kind)

    async def passed(self, segment: Segment, before: int) -> None:
        # What is added from here on is the store's business.
        behind = [place for place in self.places if place.time < before]
        if behind:
            self.faults.append(f"{before} is said to be passed, still stored: {behind}")
        self.before = max(self.before, before)
        await self._inner.passed(segment, before)


def _rank(place: Place) -> tuple[int, int, str]:
    """The order of the store's own: that of the keys turned round."""
    return (place.time, int(place.kind), place.key[::-1])


def make_timers(
    store: Any,
    runtime: FakeRuntime,
    fire: Callable[[DueTimer], None],
    limit: int = 4,
    kinds: Collection[TimerKind] = tuple(TimerKind),
) -> PartitionTimers:
    # Looked up when it is needed: a mutant may have taken its place.
    module: Any = importlib.import_module("prosody.timers.partition_timers")
    timers: PartitionTimers = module.PartitionTimers(
        SEGMENT, store, runtime, fire, limit=limit, kinds=kinds, storms=Storms(runtime), told=set()
    )
    return timers


@dataclass
class Asked:
    """A call, when it was made and how it ended."""

    name: str
    key: str
    kind: TimerKind
    time: int | None
    began: int
    ended: int | None = None
    """None as long as it may still have an effect; for ever when the owner died."""
    ok: bool = False

    def sets(self, place: Place) -> bool:
        return self.name in {"schedule", "replace"} and self._about(place, self.time)

    def cancels(self, place: Place) -> bool:
        if self.name == "unschedule":
            return self._about(place, self.time)
        if self.name == "replace":
            return self._about(place, place.time) and place.time != self.time
        return self.name == "clear" and self._about(place, place.time)

    def _about(self, place: Place, time: int | None) -> bool:
        return (self.key, self.kind, time) == (place.key, place.kind, place.time)


@dataclass
class Shot:
    """One time a timer fired."""

    began: int
    owner: int
    handled: bool = False
    """Its handler has come to its end."""
    ended: bool = False
    """So has the timer: it was removed."""


@dataclass
class Record:
    """What was asked, and what fired, in the order of ``now``."""

    asked: list[Asked] = field(default_factory=list)
    shots: dict[Place, list[Shot]] = field(default_factory=dict)
    now: int = 0
    deaths: list[int] = field(default_factory=list)
    """When an owner ended, by its number."""

    def tick(self) -> int:
        self.now += 1
        return self.now

    def begun(self, place: Place, owner: int) -> Shot:
        shot = Shot(self.tick(), owner)
        before = self.shots.setdefault(place, [])
        self._justified(place, before, shot)
        before.append(shot)
        return shot

    def _justified(self, place: Place, before: list[Shot], shot: Shot) -> None:
        """It was set, that is not used up by an earlier shot, and nobody has cancelled it since."""
        last = max((s.began for s in before if s.ended), default=0)
        for call in self.asked:
            if (
                call.sets(place)
                and (call.ended is None or call.ended > last)
                and not self._cancelled(place, call.began)
            ):
                return
        for unfinished in (s for s in before if not s.ended and s.owner < len(self.deaths)):
            if not self._cancelled(place, self.deaths[unfinished.owner]):
                return
        raise AssertionError(f"{place} fires without a reason: {shot}, before: {before}")

    def _cancelled(self, place: Place, since: int) -> bool:
        return any(
            call.ok and call.began > since and call.cancels(place)
            for call in self.asked
            if call.ended is not None
        )

    def verdict(self) -> None:
        """Once all time has passed: what was set and never cancelled has fired."""
        for number, call in enumerate(self.asked):
            if not call.ok or call.name not in {"schedule", "replace"}:
                continue
            assert call.time is not None
            place = Place(call.time, call.kind, call.key)
            if any(later.cancels(place) for later in self.asked[number + 1 :]):
                continue
            shots = self.shots.get(place, [])
            assert any(s.handled and s.began > call.began for s in shots), (
                f"{place} never fired after {call}: {shots}"
            )
        for place, shots in self.shots.items():
            for shot in shots:
                assert shot.ended or shot.owner < len(self.deaths), f"{place} never ended: {shot}"


class Owner:
    """Who has the partition: its timers, and a queue for each key as ``consume`` has it."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.holding = False
        """Nothing is to be handed out any more."""
        self.queues: dict[str, deque[DueTimer]] = {}
        self.workers: set[asyncio.Task[None]] = set()
        self.handed: dict[tuple[TimerKind, str], DueTimer] = {}
        self.timers = make_timers(world.store, world.runtime, self.fire, world.limit, world.kinds)

    def fire(self, timer: DueTimer) -> None:
        # Raised, a fault would be taken for one of the partition's, and survived.
        with self.world.noting():
            self._fire(timer)

    def _fire(self, timer: DueTimer) -> None:
        world = self.world
        assert not self.holding, "fires although it is held"
        assert world.runtime.wall() >= timer.time, f"{timer} is early"
        assert timer.kind in world.kinds
        place = (timer.kind, timer.key)
        before = self.handed.get(place)
        assert before is None or before.state.value not in {"handed", "firing"}, "two of a key"
        self.handed[place] = timer
        live = [t for t in self.handed.values() if t.state.value in {"handed", "firing"}]
        assert len([t for t in live if t.kind is timer.kind]) <= world.limit
        self.check()
        queue = self.queues.get(timer.key)
        if queue is None:
            queue = self.queues[timer.key] = deque()
            task = asyncio.create_task(self.work(timer.key, queue))
            self.workers.add(task)
            task.add_done_callback(self.workers.discard)
        queue.append(timer)

    async def work(self, key: str, queue: deque[DueTimer]) -> None:
        try:
            while queue:
                with self.world.noting():
                    await self.run(queue.popleft())
        finally:
            del self.queues[key]

    async def run(self, timer: DueTimer) -> None:
        world, rng = self.world, self.world.rng
        await asyncio.sleep(world.pause())
        if not timer.begin():
            return
        assert not self.holding, "begins although nothing is to fire any more"
        shot = world.record.begun(Place(timer.time, timer.kind, timer.key), self.number)
        await asyncio.sleep(world.pause())
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            time = rng.choice((timer.time, world.time()))
            with contextlib.suppress(StoreError):
                await world.call(self.timers, timer.key, timer.kind, time)
        await asyncio.sleep(world.pause())
        if self.holding and rng.random() < 0.5:
            timer.abort()
            return
        shot.handled = True
        if rng.random() < 0.2:
            world.ask(world.call(self.timers, timer.key, timer.kind, timer.time, "schedule"))
        if rng.random() < 0.1:
            # A lane that is cancelled while it waits; another one goes on.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(world.pause()):
                    await timer.end()
        shot.ended = await timer.end()

    def check(self) -> None:
        memory: Any = self.timers._memory
        for kind in memory.kinds.values():
            kind.agenda.check_valid()
            waiting = kind.agenda.waiting
            assert waiting <= self.world.share, f"{waiting} timers wait in memory"
        most = (self.world.share + self.world.limit) * len(memory.loaded)
        assert self.timers.pending <= most


class World:
    """One history."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.runtime = Runtime(rng.randrange(1000))
        self.state = MemoryStoreState()
        self.faults: list[str] = []
        """What must never be, and was."""
        self.store = Store(self.state, self.faults)
        self.record = Record()
        self.limit = rng.choice((1, 2, 5))
        self.kinds = rng.choice(((APP,), (APP, MESSAGE), (MESSAGE, TIMER, APP)))
        self.share = rng.choice((3, 5, 50))
        self.page = rng.choice((1, 2, 3))
        self.keys = ["", "ab", "ba", "aa"][: rng.choice((1, 2, 4))]
        self.grid = [
            START + rng.choice((-500, 0, 1, 2, 30, 200, 800, 4000, 40_000)) for _ in range(4)
        ]
        self.risk = rng.choice((0.0, 0.0, 0.02, 0.2))
        """How likely a call to the store fails."""
        self.slow = rng.choice((0.0, 0.1, 0.6))
        """How likely something takes time."""
        self.slow_loads = rng.choice((0.0, 0.5))
        """How likely it takes time until a page is read, and again until it has come."""
        self.moves = rng.choice((0.01, 0.03, 0.1))
        """How likely the next step is a crash; and a handover."""
        self.waits = rng.choice(
            ((0.0, 0.0, 0.05, 0.5, 3.0, 40.0, 1000.0), (0.0, 0.0, 0.1, 2.0, 50.0))
        )
        """How long it may take until the next step."""
        self.callers: set[asyncio.Task[None]] = set()
        self.generation = 0
        self.owners: list[Owner] = []
        self.state.on_call = self.state.on_done = self.hook

    def check(self) -> None:
        assert not self.faults, self.faults

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note a fault that nobody would see."""
        try:
            yield
        except AssertionError as fault:
            self.faults.append(str(fault))

    def pause(self) -> float:
        if self.rng.random() >= self.slow:
            return 0.0
        return self.rng.choice((0.001, 0.1, 0.1, 1.0, 5.0, 40.0))

    def time(self) -> int:
        if self.rng.random() < 0.6:
            return self.rng.choice(self.grid)
        return int(self.runtime.wall()) + self.rng.choice((-3, 0, 1, 2, 3, 5, 7, 20, 300, 900))

    def hook(self, name: str) -> Awaitable[None] | None:
        if name == "timers.load" and self.rng.random() < self.slow_loads:
            return asyncio.sleep(self.rng.choice((0.01, 0.5, 3.0)))
        if self.rng.random() >= self.risk + self.slow:
            return None
        return self._fault(self.generation)

    async def _fault(self, generation: int) -> None:
        rng = self.rng
        chance = rng.random() * (self.risk + self.slow)
        hangs = chance < self.risk and rng.random() < 0.3
        await asyncio.sleep(DEADLINE_S if hangs else rng.choice((0.0, 0.001, 0.1, 2.0)))
        if generation != self.generation:
            raise StoreError("its process is dead", retriable=True)
        if chance < self.risk:
            raise StoreError("a fault", retriable=True)

    def ask(self, call: Awaitable[None]) -> asyncio.Task[None]:
        """Have somebody make a call."""
        task = asyncio.create_task(self._quietly(call))
        self.callers.add(task)
        task.add_done_callback(self.callers.discard)
        return task

    async def _quietly(self, call: Awaitable[None]) -> None:
        with self.noting(), contextlib.suppress(StoreError):
            await call

    async def call(
        self,
        timers: PartitionTimers,
        key: str,
        kind: TimerKind,
        time: int,
        name: str | None = None,
    ) -> None:
        """Ask for something, and note it."""
        name = name or self.rng.choice(
            ("schedule", "schedule", "schedule", "unschedule", "clear", "replace", "times")
        )
        record = self.record
        asked = Asked(name, key, kind, time, record.tick())
        record.asked.append(asked)
        generation = self.generation
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "schedule": lambda: timers.schedule(key, time, kind, {}),
            "unschedule": lambda: timers.unschedule(key, time, kind),
            "clear": lambda: timers.clear(key, kind),
            "replace": lambda: timers.replace(key, time, kind, {}),
            "times": lambda: timers.times(key, kind),
        }
        answer = await calls[name]()
        if generation == self.generation:
            asked.ended, asked.ok = record.tick(), True
        assert answer is None or answer == sorted(set(answer))

    async def play(self, steps: int) -> None:
        """The history, from the first owner to the end of all time."""
        rng = self.rng
        foreign = {
            Place(START + n, k, "f") for n in (1, 90) for k in TimerKind if k not in self.kinds
        }
        for place in foreign:
            self.state.timer_table(SEGMENT).by_time.add(place)
            self.state.timer_table(SEGMENT).traces[place] = {}
        owner = await self.owner(0)
        for _ in range(steps):
            chance = rng.random()
            if chance < self.moves:
                owner = await self.crash(owner)
            elif chance < 2 * self.moves:
                owner = await self.hand_over(owner)
            elif chance < 2 * self.moves + 0.02:
                self.state.outage()
            elif chance < 2 * self.moves + 0.04:
                self.runtime.offset_s += rng.choice((-100.0, -0.3, 0.7, 300.0))
            else:
                if chance > 0.9:
                    self.state.restore()
                    for _ in range(rng.choice((0, 8))):  # more than there is room for
                        key, time = rng.choice(self.keys), int(self.runtime.wall())
                        time += rng.choice((0, 1, 2, 3, 5, 8, 13, 40, 41, 42, 300))
                        self.ask(self.call(owner.timers, key, self.kinds[0], time, "schedule"))
                call = self.call(
                    owner.timers, rng.choice(self.keys), rng.choice(self.kinds), self.time()
                )
                task = self.ask(call)
                if rng.random() < 0.1:
                    await asyncio.sleep(self.pause())
                    task.cancel()
            await asyncio.sleep(rng.choice(self.waits))
            owner.check()
            self.check()
        await self.finish(owner, foreign)

    async def finish(self, owner: Owner, foreign: set[Place]) -> None:
        self.risk = 0.0
        self.state.restore()
        self.slow_loads = 0.0
        # Handlers may set timers while the time passes, so it ends when nothing more happens.
        self.slow = 0.0
        for _ in range(200):
            if self.callers:
                await asyncio.wait(set(self.callers))
            if not (self.store.places - foreign or owner.queues or owner.timers.pending):
                break
            last = max([p.time for p in self.store.places - foreign], default=0)
            await asyncio.sleep(max(last - self.runtime.wall(), 0.0) + 200.0)
        self.check()
        self.record.verdict()
        assert self.store.places == foreign, f"left: {self.store.places ^ foreign}"
        assert not owner.timers.pending
        owner.timers.stop()
        for each in self.owners:
            await each.timers.settled()
        assert not other_tasks(), other_tasks()

    async def owner(self, number: int) -> Owner:
        owner = Owner(self, number)
        self.owners.append(owner)
        while True:
            try:
                await owner.timers.open(3)
            except StoreError:
                self.state.restore()
                await asyncio.sleep(1.0)
            else:
                break
        owner.timers.start()
        return owner

    async def crash(self, owner: Owner) -> Owner:
        """The process dies: nothing of it has an effect any more."""
        self.generation += 1
        self.store = Store(
            self.state, self.faults
        )  # what the next one uses; the old one's calls fail
        self.record.deaths.append(self.record.tick())
        owner.timers.stop()
        workers = set(owner.workers)
        for task in workers:
            task.cancel()
        if workers:
            await asyncio.wait(workers)
        return await self.owner(owner.number + 1)

    async def hand_over(self, owner: Owner) -> Owner:
        """The partition moves: handlers may end, then everything settles."""
        rng = self.rng
        owner.holding = True
        if rng.random() < 0.7:
            owner.timers.hold()
            await asyncio.sleep(rng.choice((0.0, 1.0, 60.0)))
        owner.timers.stop()
        owner.timers.stop()
        await owner.timers.settled()
        loads = self.store.loads
        self.record.deaths.append(self.record.tick())
        workers = set(owner.workers)
        if workers:  # those that are left find that their timers cannot be ended any more
            await asyncio.wait(workers)
        assert self.store.loads == loads, "loads although it is stopped"
        return await self.owner(owner.number + 1)


async def play(rng: random.Random, steps: int = 40) -> None:
    """Play one history, in a memory small enough to be full at times.

    :raises AssertionError: what must never be.
    """
    world = World(rng)
    with small_memory(world.share, page=world.page, kinds=len(world.kinds), look_s=600.0):
        await world.play(steps)


@contextlib.contextmanager
def small_memory(
    share: int, *, page: int, kinds: int, look_s: float, ahead_s: int = 600
) -> Iterator[None]:
    """Room for ``share`` timers of each kind, which is full now and then.

    :param look_s: how often the wall clock is looked at in any case; each look costs some of our time,
        and hours pass here.
    :param ahead_s: how far ahead timers are loaded.
    """
    memory, loader, firing = (
        importlib.import_module(f"prosody.timers.{name}") for name in ("memory", "loader", "firing")
    )
    small: list[tuple[Any, str, Any]] = [
        (memory, "LOADED_MAX", share * kinds),
        (memory, "AHEAD_S", ahead_s),
        (memory, "PAGE", page),
        (loader, "PAGE", page),
        (firing, "LONGEST_WAIT_S", look_s),
        (loader, "LONGEST_WAIT_S", look_s),
    ]
    with contextlib.ExitStack() as stack:
        for module, name, value in small:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield
