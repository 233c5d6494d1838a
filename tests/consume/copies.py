"""Copies of messages through deduplication and a real partition, driven by a plan, watched by an oracle.

The oracle knows what handlers were called, how they ended, and when the store had written. It keeps the
memory tier once more, naively. It raises ``AssertionError`` for: a handler called for a message that was
finished and that the memory, a copy admitted before, or the store knows; a message passed over that
never was finished; an offset done before its record had ended, twice, or never.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import Start
from prosody.errors import StoreError
from prosody.middleware.deduplication import Deduplication
from prosody.model.outcome import SUCCESS, Kind, Outcome
from prosody.stores.answer import StoreAnswer
from prosody.stores.memory.dedup import MemoryDedupStore
from prosody.stores.memory.state import MemoryStoreState
from tests.consume.fakes import TP, Around, record
from tests.support import other_tasks, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from prosody.consume.partition import Partition
    from prosody.model.run import Run

ENDS = {
    "success": SUCCESS,
    "permanent": Outcome(Kind.PERMANENT, ValueError("permanent")),
    "transient": Outcome(Kind.TRANSIENT, ValueError("transient")),
    "deferred": Outcome(Kind.DEFERRED),
}
FINISHED = (Kind.SUCCESS, Kind.PERMANENT)
STORE_DEADLINE_S = 10.0
CANCEL_S, ABANDON_S = 4.0, 5.0


@dataclass(frozen=True)
class Plan:
    """What is done, step by step. The clock moves in ``tick`` and ``revoke``, and at the end."""

    cache_size: int = 2
    permits: int = 2
    max_uncommitted: int = 8
    in_lanes: bool = False
    """Runs wait for the store in their lanes, as deferred ones do, which are taken on there."""
    steps: tuple[tuple[Any, ...], ...] = ()

    @property
    def well(self) -> bool:
        """Whether the store does all that it is asked for, at once."""
        return not any(step[0] == "store" and step[2] != "well" for step in self.steps)


class Seen:
    """What the oracle notes of one run. Not the run itself: what is dropped must be free to go."""

    def __init__(self, run: Run, life: int, order: int) -> None:
        assert run.record is not None
        self.partition = run.partition
        self.offset = run.record.offset
        self.identity: bytes | None = None
        self.life = life
        self.admitted = order
        self.handled = False
        self.outcome: Outcome | None = None
        self.finished: int | None = None
        self.writing: asyncio.Future[None] | None = None
        """The record, where one was asked for."""
        self.written: int | None = None


class WatchedStore(MemoryDedupStore):
    """Says which record was asked for last."""

    last: StoreAnswer[None] | None = None

    def record(self, identity: bytes) -> StoreAnswer[None]:
        self.last = None
        self.last = super().record(identity)
        return self.last


class World:
    """One partition, assigned again and again, and one store that outlives the layers over it."""

    def __init__(self, plan: Plan, layer: type[Deduplication] = Deduplication) -> None:
        self.plan = plan
        self._make_layer = layer
        self.state = MemoryStoreState()
        self.state.on_call = lambda name: self._call(name, "before")
        self.state.on_done = lambda name: self._call(name, "after")
        self.modes = {"dedup.seen": "well", "dedup.record": "well"}
        self.held: list[tuple[str, asyncio.Future[None]]] = []
        self.log: list[tuple[str, str | None]] = []
        self.over = False
        """The plan has ended, well or not: from here on handlers listen."""
        self.order = 0
        self.life = 0
        self.seen: list[Seen] = []
        self._of: dict[int, Seen] = {}
        """By the address of a run, as long as it lives."""
        self.stage: list[tuple[Run, asyncio.Future[Outcome]]] = []
        self.waiting_known = 0
        """Runs under way that the memory knew when their turn came."""
        self.layers: list[Deduplication] = []
        """Those of earlier lives, too: handlers left behind still hold on to them."""
        self.memory: dict[bytes, None] = {}
        """The memory tier as it should be, the oldest first."""
        self.committed = 0
        self._begin_life()
        self._assign()

    # The store

    def _call(self, name: str, when: str) -> Awaitable[None] | None:
        mode = self.modes[name]
        if mode in ("fail", "fail after") and (when == "after") == (mode == "fail after"):
            raise StoreError("not done within 10 s", retriable=True)
        return self._hold(name) if mode == "hold" and when == "before" else None

    async def _hold(self, name: str) -> None:
        going_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held.append((name, going_on))
        try:
            async with asyncio.timeout(STORE_DEADLINE_S):
                await going_on
        except TimeoutError:
            raise StoreError("not done within 10 s", retriable=True) from None
        finally:
            self.held.remove((name, going_on))

    # The handler

    async def _handle(self, run: Run) -> Outcome:
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        assert run.partition.running, "handled though the partition is being given up"
        self._of[id(run)].handled = True
        self.stage.append((run, ended))
        run.handling = True
        try:
            while True:
                try:
                    return await asyncio.shield(ended)
                except asyncio.CancelledError:
                    if self.over:
                        raise
                    task = asyncio.current_task()
                    assert task is not None
                    task.uncancel()  # a handler that does not listen
        finally:
            run.handling = False
            self.stage.remove((run, ended))

    def _begin_life(self) -> None:
        """A process begins: nothing in memory."""
        self.life += 1
        self.memory.clear()
        self.around = Around(
            self._handle, permits=self.plan.permits, max_uncommitted=self.plan.max_uncommitted
        )
        self.around.lanes._torn_down = lambda: self.over
        self.store = WatchedStore(self.state, self.around.runtime, 1e9)
        self.layer = layer = self._make_layer(
            self.plan.cache_size, "1", "g", self.store, self.around.storms
        )
        scheduled = self.around.shared.stack.call

        def taken_as_new(run: Run) -> Awaitable[Outcome]:
            # From here on it may wait for a permit, and what happens meanwhile cannot be known.
            self._check_new(run)
            return scheduled(run)

        self.layers.append(layer)
        call, life, store = layer.wrap(taken_as_new), self.life, self.store

        def admitted(run: Run) -> None:
            self.order += 1
            seen = self._of[id(run)] = Seen(run, life, self.order)
            self.seen.append(seen)
            layer.admitted(run)
            if run.duplicate is not None:
                seen.identity = run.duplicate.identity

        async def watched(run: Run) -> Outcome:
            seen = self._of[id(run)]
            entry = run.duplicate
            store.last = None
            known = entry is not None and life == self.life and entry.identity in self.memory
            self.waiting_known += known
            outcome = await call(run)
            self.waiting_known -= known
            self.order += 1
            seen.outcome = outcome
            if entry is not None:
                self._ended(seen, entry.identity, store)
            return outcome

        object.__setattr__(self.around.shared, "admitted", admitted)
        object.__setattr__(self.around.shared.stack, "call", watched)

    # The oracle

    def _check_new(self, run: Run) -> None:
        """A message is about to be handled: nothing says that it was finished."""
        mine = self._of[id(run)]
        identity = mine.identity
        if identity is None:
            return
        same_life = mine.life == self.life
        assert not (same_life and identity in self.memory), "handled, though the memory knew it"
        asked = run.duplicate.asked
        answered = asked is not None and asked.done() and not asked.cancelled()
        if answered and asked.exception() is None:
            assert not asked.result(), "handled, though the store knew it"
        for other in self.seen:
            if other.finished is None or other.identity != identity:
                continue
            if other.life == mine.life:
                open_until = self.order if other.written is None else other.written
                assert mine.admitted > open_until, "handled, though it was admitted before the end"
            if self.plan.well and other.written is not None:
                assert mine.admitted < other.written, "handled, though it was recorded before"

    def _ended(self, seen: Seen, identity: bytes, store: WatchedStore) -> None:
        assert seen.outcome is not None
        kind = seen.outcome.kind
        if not seen.handled and kind is not Kind.ABANDONED:
            assert kind is Kind.SUCCESS
            known = [o for o in self.seen if o.identity == identity]
            assert any(o.finished is not None for o in known), "passed over, though never finished"
        if kind in FINISHED:
            if seen.life == self.life:
                self.memory.pop(identity, None)
                self.memory[identity] = None
                while len(self.memory) > self.plan.cache_size:
                    del self.memory[next(iter(self.memory))]
            if seen.handled:
                seen.finished = self.order
                seen.writing = store.last
                if seen.writing is None:
                    seen.written = self.order
                else:
                    seen.writing.add_done_callback(lambda _: self._note_written(seen))

    def _note_written(self, seen: Seen) -> None:
        self.order += 1
        seen.written = self.order

    def _is_done(self, seen: Seen, closed: bool) -> bool:
        """Whether the offset of a run may be, and must be, done."""
        if seen.outcome is None or seen.outcome.kind is Kind.ABANDONED:
            return False
        return seen.writing is None or seen.writing.done() or closed

    def check(self) -> None:
        """The loop is at rest: exactly what has ended is done."""
        for fault in self.around.faults:
            raise fault  # seen in a lane
        mine = [s for s in self.seen if s.partition is self.partition]
        closed = self.partition.closed
        left = sorted(s.offset for s in mine if not self._is_done(s, closed))
        assert self.partition.uncommitted == len(left), f"{self.partition.uncommitted}, not {left}"
        reached = self.partition.progress.to_commit()
        if reached is not None and left:
            assert reached.offset <= left[0], "done before its record had ended"
        assert len(self.layer.recent) == len(self.memory) <= self.plan.cache_size
        assert all(self.layer.recent.knows(identity) for identity in self.memory)
        handling = sum(self._of[id(run)].life == self.life for run, _ in self.stage)
        assert self.around.scheduler.in_use == handling, "a permit is held in a wait"
        assert not self.waiting_known, "the store is waited for, though the memory knew it"
        looking = [one for name, one in self.held if name == "dedup.seen" and not one.done()]
        assert len(looking) <= sum(len(x._entries) for x in self.layers), "looked up for nobody"

    # Steps

    def _assign(self) -> None:
        self.partition: Partition = self.around.partition(TP, self.order, Start(self.committed))
        if self.plan.in_lanes:
            self.partition.unanswered.hold = lambda _: False  # type: ignore[method-assign]
        self._received = self.committed
        self._deliver()

    def _deliver(self) -> None:
        new = [
            record(
                n,
                key.encode(),
                b'{"id":null}' if event_id is None else b'{"id":"%b"}' % event_id.encode(),
            )
            for n, (key, event_id) in enumerate(self.log)
            if n >= self._received
        ]
        self._received = len(self.log)
        self.partition.receive(new)

    def _commit(self) -> None:
        reached = self.partition.progress.to_commit()
        if reached is not None:
            assert reached.offset >= self.committed
            self.committed = reached.offset

    async def do(self, step: tuple[Any, ...]) -> None:
        """One step, and everything that follows without the clock."""
        match step:
            case ("send", key, event_id):
                self.log.append((key, event_id))
                self._deliver()
            case ("end", number, how):
                self._end(number, ENDS[how])
            case ("store", name, mode):
                self.modes[name] = mode
            case ("let", number):
                for _, going_on in self.held[number : number + 1]:
                    if not going_on.done():
                        going_on.set_result(None)
            case ("tick", seconds):
                await asyncio.sleep(seconds)
            case ("commit",):
                self._commit()
            case ("revoke", how):
                await self._revoke(how)
            case ("lose",):
                self.partition.lose()
                self._assign()
            case ("restart",):
                self.partition.lose()
                await settle()
                self._begin_life()
                self._assign()
            case _:
                raise AssertionError(step)
        await settle()
        self.check()

    async def _revoke(self, how: str) -> None:
        drain = asyncio.create_task(self.partition.drain(CANCEL_S, ABANDON_S))
        await settle()
        writing = any(s.writing is not None and not s.writing.done() for s in self.seen)
        assert drain.done() or writing or self.stage, "a drain waits for a look-up"
        for number in reversed(range(len(self.stage) if how != "stay" else 0)):
            self._end(number, ENDS[how])
        await drain
        self.check()
        self._commit()
        self._assign()

    def _end(self, number: int, outcome: Outcome) -> None:
        if self.stage:
            ended = self.stage[number % len(self.stage)][1]
            if not ended.done():
                ended.set_result(outcome)

    async def finish(self) -> None:
        """All goes well from here on: everything is handled or passed over, and nothing is left."""
        for name in self.modes:
            self.modes[name] = "well"
        for _ in range(10 * len(self.log) + 10):
            for _, going_on in self.held:
                if not going_on.done():
                    going_on.set_result(None)
            for number in range(len(self.stage)):
                self._end(number, SUCCESS)
            await settle()
            self.check()
        self._commit()
        assert self.committed == len(self.log), f"{self.committed} of {len(self.log)} committed"
        await self.partition.drain(CANCEL_S, ABANDON_S)
        self.around.lanes.close()
        await asyncio.sleep(STORE_DEADLINE_S)
        await settle()
        assert not other_tasks(), "tasks are left"
        assert self.around.scheduler.in_use == self.around.scheduler.waiting == 0
        assert not any(layer._entries for layer in self.layers), "entries are left"


async def play(plan: Plan, layer: type[Deduplication] = Deduplication) -> None:
    """Do a plan from its beginning to its end."""
    world = World(plan, layer)
    try:
        for step in plan.steps:
            await world.do(step)
        await world.finish()
    finally:
        world.over = True
