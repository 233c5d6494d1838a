"""The stores beside naive models, operation by operation, in any order; restarts in between."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prosody.runtime import SystemRuntime
from prosody.stores.hashing import key_hash
from prosody.stores.memory import MemoryStores, MemoryStoreState
from prosody.stores.memory.ordered import Ordered
from prosody.stores.protocol import (
    Deferred,
    DeferredKind,
    DeferredQueue,
    Place,
    Segment,
    StoredTimer,
    TimerKind,
)
from tests.stores.support import hashes, load_all
from tests.stores.tables import Tables, TableStores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prosody.stores.protocol import Stores

KEYS = ("a", "b", "\0", "long" * 1000)
_numbers = itertools.count()

Make = "Callable[[float], Stores]"


class TimerModel:
    def __init__(self) -> None:
        self.timers: dict[Place, dict[str, str]] = {}

    def of(self, key: str, kind: TimerKind) -> list[int]:
        return sorted(p.time for p in self.timers if (p.key, p.kind) == (key, kind))

    def remove_all(self, key: str, kind: TimerKind, times: list[int]) -> list[int]:
        for time in times:
            del self.timers[Place(time, kind, key)]
        return times


class DeferModel:
    def __init__(self) -> None:
        self.queues: dict[str, list[Any]] = {}
        """Entries by position, failures, error."""

    def join(self, key: str, entry: Deferred, failures: int, error: str) -> None:
        queue = self.queues.setdefault(key, [{}, 0, ""])
        if entry.position not in queue[0]:
            queue[0][entry.position] = entry
            if min(queue[0]) == entry.position:
                queue[1:] = [failures, error]

    def seen(self, key: str) -> DeferredQueue | None:
        if key not in self.queues:
            return None
        entries, failures, error = self.queues[key]
        return DeferredQueue(entries[min(entries)], failures, error)

    def advance(self, key: str, position: int) -> None:
        if key in self.queues:
            entries = self.queues[key][0]
            if position == min(entries):
                self.queues[key][1:] = [0, ""]
            entries.pop(position, None)
            if not entries:
                del self.queues[key]


keys = st.sampled_from(KEYS)
kinds = st.sampled_from(TimerKind)
times = st.sampled_from([0, 1, 2, 59, 60, 61, 3599, 3600, 3601, 7200, 90_000, 2**31, 2**32 - 1])
traces = st.sampled_from([{}, {"traceparent": "1"}, {"baggage": "2"}])
TIMER_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), times, kinds, keys, traces),
        st.tuples(st.just("add"), times, kinds, keys, traces),
        st.tuples(st.just("remove"), times, kinds, keys),
        st.tuples(st.just("replace"), times, kinds, keys, traces),
        st.tuples(st.just("clear"), kinds, keys),
        st.tuples(st.just("passed")),
        st.tuples(st.just("load"), st.integers(1, 5), times),
        st.tuples(st.just("restart"), st.sampled_from([3600.0, 60.0, 5000.0, 1.0])),
    ),
    max_size=30,
)


async def play_timers(make: Callable[[float], Stores], steps: list[tuple[Any, ...]]) -> None:
    segment = Segment(f"model-{next(_numbers)}", "timers", 0)
    stores, model = make(3600.0), TimerModel()
    await stores.start()
    await stores.timers.open(segment, 1)
    for step in steps:
        match step:
            case ("add", time, kind, key, trace):
                await stores.timers.add(segment, StoredTimer(time, kind, key, trace))
                model.timers[Place(time, kind, key)] = trace
            case ("remove", time, kind, key):
                await stores.timers.remove(segment, Place(time, kind, key))
                model.timers.pop(Place(time, kind, key), None)
            case ("replace", time, kind, key, trace):
                gone = await stores.timers.replace(segment, StoredTimer(time, kind, key, trace))
                others = [t for t in model.of(key, kind) if t != time]
                assert gone == model.remove_all(key, kind, others)
                model.timers[Place(time, kind, key)] = trace
            case ("clear", kind, key):
                gone = await stores.timers.clear(segment, key, kind)
                assert gone == model.remove_all(key, kind, model.of(key, kind))
            case ("passed",):
                await stores.timers.passed(segment, min((p.time for p in model.timers), default=9))
            case ("load", page, until):
                found = await load_all(stores, segment, until, page)
                wanted = {p: t for p, t in model.timers.items() if p.time <= until}
                assert {t.place: dict(t.trace) for t in found} == wanted
            case ("restart", slab_size):
                await stores.stop()
                stores = make(slab_size)
                await stores.start()
                await stores.timers.open(segment, 1)
    for key, kind in itertools.product(KEYS, TimerKind):
        assert await stores.timers.times(segment, key, kind) == model.of(key, kind)
    found = await load_all(stores, segment)
    assert {t.place: dict(t.trace) for t in found} == model.timers
    await stores.stop()


positions = st.integers(0, 6)
DEFER_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("defer"), keys, positions, st.sampled_from(["boom", "bang"])),
        st.tuples(st.just("append"), keys, positions),
        st.tuples(st.just("append"), keys, positions),
        st.tuples(st.just("failed"), keys, st.integers(1, 9)),
        st.tuples(st.just("advance"), keys, positions),
        st.tuples(st.just("advance head"), keys),
        st.tuples(st.just("drop"), keys),
        st.tuples(st.just("restart")),
    ),
    max_size=30,
)


async def play_deferred(make: Callable[[float], Stores], steps: list[tuple[Any, ...]]) -> None:
    segment = Segment(f"model-{next(_numbers)}", "deferred", 0)
    kind = DeferredKind.MESSAGE
    stores, model = make(3600.0), DeferModel()
    await stores.start()
    await stores.timers.open(segment, 1)
    for drawn in steps:
        step, store = drawn, stores.deferred
        if step[0] == "advance head":
            queue = model.seen(step[1])
            step = ("advance", step[1], queue.head.position if queue else 0)
        match step:
            case ("defer", key, position, error):
                await store.defer(segment, kind, key, Deferred(position, position, {}), error)
                model.join(key, Deferred(position, position, {}), 1, error)
            case ("append", key, position):
                await store.append(segment, kind, key, Deferred(position, position, {}))
                model.join(key, Deferred(position, position, {}), 0, "")
            case ("failed", key, failures):
                await store.failed(segment, kind, key, failures, f"{failures}")
                if key in model.queues:
                    model.queues[key][1:] = [failures, f"{failures}"]
            case ("advance", key, position):
                left = await store.advance(segment, kind, key, position)
                model.advance(key, position)
                assert left == model.seen(key)
            case ("drop", key):
                await store.drop(segment, kind, key)
                model.queues.pop(key, None)
            case ("restart",):
                await stores.stop()
                stores = make(3600.0)
                await stores.start()
                await stores.timers.open(segment, 1)
        for key in KEYS:
            assert await stores.deferred.queue(segment, kind, key) == model.seen(key)
    for key in KEYS:
        wanted = sorted(model.queues[key][0]) if key in model.queues else []
        assert await stores.deferred.positions(segment, kind, key) == wanted
    assert await hashes(stores, segment, kind) == {key_hash(key) for key in model.queues}
    await stores.stop()


def memory() -> Callable[[float], Stores]:
    state = MemoryStoreState()
    return lambda _: MemoryStores(state, runtime=SystemRuntime(), dedup_ttl_s=60.0)


def tables() -> Callable[[float], Stores]:
    content = Tables()
    return lambda size: TableStores(content, SystemRuntime(), slab_size_s=size)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.parametrize("kind", [memory, tables])
@settings(suppress_health_check=SHARED)
@given(steps=TIMER_STEPS)
def test_timers(
    runner: asyncio.Runner, kind: Callable[[], Callable[[float], Stores]], steps: list[Any]
) -> None:
    runner.run(play_timers(kind(), steps))


@pytest.mark.parametrize("kind", [memory, tables])
@settings(suppress_health_check=SHARED)
@given(steps=DEFER_STEPS)
def test_deferred(
    runner: asyncio.Runner, kind: Callable[[], Callable[[float], Stores]], steps: list[Any]
) -> None:
    runner.run(play_deferred(kind(), steps))


class Kept:
    """Stores that are connected once; a restart only lets them forget."""

    def __init__(self, stores: Any) -> None:
        self._stores = stores

    def __call__(self, slab_size_s: float) -> Any:
        self._stores.timers.forget()
        self._stores.deferred.forget()
        self._stores.timers._slab_size = int(slab_size_s)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stores, name)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@pytest.fixture
def kept(runner: asyncio.Runner, cassandra_contact: str, keyspace: str) -> Iterator[Kept]:
    from prosody.stores.cassandra import CassandraSettings, CassandraStores

    stores = CassandraStores(
        CassandraSettings(nodes=(cassandra_contact,), keyspace=keyspace), SystemRuntime()
    )
    runner.run(stores.start())
    yield Kept(stores)
    runner.run(stores.stop())


@pytest.mark.real
@settings(suppress_health_check=SHARED, max_examples=25)
@given(steps=TIMER_STEPS)
def test_timers_on_cassandra(runner: asyncio.Runner, kept: Kept, steps: list[Any]) -> None:
    runner.run(play_timers(kept, steps))


@pytest.mark.real
@settings(suppress_health_check=SHARED, max_examples=25)
@given(steps=DEFER_STEPS)
def test_deferred_on_cassandra(runner: asyncio.Runner, kept: Kept, steps: list[Any]) -> None:
    runner.run(play_deferred(kept, steps))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=200))
def test_the_ordered_set(steps: list[tuple[bool, int]]) -> None:
    import prosody.stores.memory.ordered as module

    before, module.CHUNK = module.CHUNK, 3
    try:
        ordered, model = Ordered[int](), set[int]()
        for add, value in steps:
            if add:
                assert ordered.add(value) is (value not in model)
                model.add(value)
            else:
                assert ordered.discard(value) is (value in model)
                model.discard(value)
            ordered.check_valid()
            assert list(ordered.beyond(value)) == sorted(v for v in model if v > value)
        assert (list(ordered), len(ordered)) == (sorted(model), len(model))
    finally:
        module.CHUNK = before
