"""One run: a cluster, its members and the plan that is done to them, watched by the oracle."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from random import Random
from typing import TYPE_CHECKING, Any

from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError
from tests.simulation.faults import Faults
from tests.simulation.handlers import STUBBORN_S
from tests.simulation.history import History
from tests.simulation.loop import SimulationLoop
from tests.simulation.members import Member, Shop, configuration
from tests.simulation.oracle import Oracle
from tests.simulation.plan import KINDS, LIVENESS_S, Plan
from tests.simulation.watch import FAILURES, GROUP, Watch
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from prosody.config import Config

MEMBERS_MAX = 5
LEAVE_S = 60.0
"""Longer than any ``shutdown_timeout`` and final commit of a plan."""
VALUES: dict[str, tuple[bytes | None, tuple[tuple[str, bytes | None], ...]]] = {
    "message": (b'{"type": "order.made"}', ()),
    "undecodable": (b"\xff{", ()),
    "filtered": (b'{"type": "other"}', ()),
    "echo": (b"{}", (("source-system", GROUP.encode()),)),
    "tombstone": (None, ()),
}


class World:
    """See the module."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history = History()
        self.oracle = self._make_oracle()
        self._loop = asyncio.get_running_loop()
        self._cluster = MemoryCluster()
        self._topics = [f"t{n}" for n in range(len(plan.topics))]
        for topic, count in zip(self._topics, plan.topics, strict=True):
            self._cluster.create_topic(topic, count)
        self._cluster.create_topic(FAILURES, 1)
        self._broker = MemoryBroker(
            self._cluster, runtime=FakeRuntime(plan.seed), auto_create_topics=False
        )
        self.watch = Watch(self._cluster, self.history, self.oracle.see)
        self._faults = Faults(plan.seed, self.watch)
        self._cluster.on_call = self._faults.on_call
        self._shop = self._make_shop()
        self._chance = Random(f"world {plan.seed}")
        self._keys = [f"k{n}" for n in range(plan.keys)]
        self._weights = [1 / (n + 1) ** plan.zipf for n in range(plan.keys)]
        self._members: list[Member] = []
        self._ends: dict[str, asyncio.TimerHandle] = {}
        """What has begun and will end."""
        self._healed = False

    def _make_oracle(self) -> Any:
        return Oracle(self.plan)

    def _make_shop(self) -> Shop:
        return Shop(self.plan, self.watch)

    def _configuration(self, member: str) -> Config:
        return configuration(self.plan, member, self._topics)

    # -- the plan -----------------------------------------------------------------------------

    async def play(self) -> None:
        """Do the plan, let everything end well, and look at what is left."""
        for at_s, what, arguments in self.plan.steps:
            await self._until(at_s)
            getattr(self, f"_{what}")(*arguments)
        await self._until(self.plan.length_s)
        self._heal()
        await self._catch_up()
        await self._end()

    async def _until(self, at_s: float) -> None:
        if at_s > self._loop.time():
            await asyncio.sleep(at_s - self._loop.time())

    def note(self, what: str, member: str = "", note: str = "") -> None:
        self.watch.write(self.watch.event(what, member, note=note))

    def _pick(self, which: int) -> Member | None:
        up = [m for m in self._members if m.state == "up" and not self._is_stopped(m)]
        return up[which % len(up)] if up else None

    def _is_stopped(self, member: Member) -> bool:
        loop = self._loop
        assert isinstance(loop, SimulationLoop)
        return loop.is_frozen(member.name)

    def _send(self, topic: int, count: int) -> None:
        name = self._topics[topic % len(self._topics)]
        logs = self._cluster.logs(name)
        for key in self._chance.choices(self._keys, self._weights, k=count):
            kind = self._chance.choice(KINDS)
            number = zlib.crc32(key.encode()) % len(logs)
            value, headers = VALUES[kind]
            tp = TopicPartition(name, number)
            with self._cluster.lock:
                offset = logs[number].append(1, key.encode(), value, headers)
            seq = self.oracle.next_seq(tp, key)
            self._shop.seqs[tp, offset] = seq
            self.watch.write(
                self.watch.event("produced", tp=tp, offset=offset, key=key, seq=seq, note=kind)
            )

    def _join(self) -> None:
        if sum(m.state == "up" for m in self._members) < MEMBERS_MAX and not self._healed:
            name = f"m{len(self._members)}"
            seed = self.plan.seed * 1000 + len(self._members)
            self._members.append(
                Member(
                    name,
                    self._configuration(name),
                    self._broker,
                    self._shop,
                    seed,
                )
            )

    def _leave(self, which: int) -> None:
        if (member := self._pick(which)) is not None:
            member.leave()

    def _restart(self, which: int, pause_s: float) -> None:
        if (member := self._pick(which)) is not None:
            member.leave().add_done_callback(lambda _: self._loop.call_later(pause_s, self._join))

    def _crash(self, which: int, pause_s: float) -> None:
        if (member := self._pick(which)) is not None:
            self._crash_now(member, pause_s)

    def _crash_now(self, member: Member, pause_s: float) -> None:
        self.note("crash", member.name)
        self._freeze(member)
        member.state = "dead"
        self._loop.call_later(pause_s, self._join)

    def _stop(self, which: int, length_s: float) -> None:
        if (member := self._pick(which)) is not None:
            self._stop_now(member, length_s)

    def _stop_now(self, member: Member, length_s: float) -> None:
        self.note("stop", member.name)
        self._freeze(member)
        self._later(f"thaw {member.name}", length_s)

    def _freeze(self, member: Member) -> None:
        loop = self._loop
        assert isinstance(loop, SimulationLoop)
        loop.freeze(member.name)
        loop.call_later(self.plan.session_timeout_s, self._session_ends, member, loop.time())

    def _thaw(self, name: str) -> None:
        loop = self._loop
        assert isinstance(loop, SimulationLoop)
        self.note("cont", name)
        loop.thaw(name)

    def _session_ends(self, member: Member, since_s: float) -> None:
        if self._is_stopped(member) and self._stopped_since(member.name) == since_s:
            self._expel_now(member.name)

    def _stopped_since(self, name: str) -> float:
        return max(e.at_s for e in self.history if e.member == name and e.what in {"stop", "crash"})

    def _expel(self, which: int) -> None:
        if (member := self._pick(which)) is not None:
            self._expel_now(member.name)

    def _expel_now(self, name: str) -> None:
        if self.watch.is_member(name):
            with contextlib.suppress(BrokerError):  # it left in this very turn
                self._cluster.expel(GROUP, name)
            self.watch.look()

    def _add(self, topic: int) -> None:
        name = self._topics[topic % len(self._topics)]
        count = len(self._cluster.logs(name)) + 1
        self.note("added", note=f"{name} has {count} partitions")
        self._cluster.add_partitions(name, count)

    def _retain(self, topic: int) -> None:
        """Retention takes what is finished, whether that is committed or not.

        Past the committed offset it makes void what the commit notes, so that runs twice.
        """
        name = self._topics[topic % len(self._topics)]
        for number in range(len(self._cluster.logs(name))):
            tp = TopicPartition(name, number)
            before = self.oracle.unfinished_from(tp)
            if self.plan.graceful:
                before = min(before, self.watch.committed(tp))
            self._cluster.truncate(name, number, before)
            self.watch.write(self.watch.event("retention", tp=tp, offset=before))

    def _fail(
        self, calls: tuple[str, ...], share: float, retriable: float, length_s: float
    ) -> None:
        self.note("faults", note=f"{share:.0%} of {', '.join(calls)} for {length_s} s")
        self._faults.fail(calls, share, retriable, self._loop.time(), length_s)

    def _outage(self, length_s: float) -> None:
        self.note("outage", note=f"for {length_s} s")
        self._cluster.outage()
        self._later("restored", length_s)

    def _restored(self) -> None:
        self._cluster.restore()
        self.note("restored")

    def _unsettle(self, length_s: float) -> None:
        self.note("unsettled", note=f"for {length_s} s")
        self._cluster.unsettle(GROUP)
        self._later("settled", length_s)

    def _settled(self) -> None:
        self._cluster.settle(GROUP)
        self.note("settled")

    def _deaf(self, which: int, length_s: float) -> None:
        """The member hears nothing of its group and goes on; after a while it is thrown out."""
        if (member := self._pick(which)) is None:
            return
        name = member.name
        self.note("deaf", name, f"for {length_s} s")
        self._cluster.hold_news(name)
        expelling = self._loop.call_later(self.plan.session_timeout_s, self._expel_now, name)
        self._later(f"hears {name}", length_s)
        if length_s < self.plan.session_timeout_s:
            expelling.cancel()

    def _hears(self, name: str) -> None:
        self._cluster.release_news(name)
        self.note("hears", name)

    def _later(self, what: str, delay_s: float) -> None:
        """End something after a time, once, however often it began; ``_heal`` ends all of it."""
        if (timer := self._ends.pop(what, None)) is not None:
            timer.cancel()
        self._ends[what] = self._loop.call_later(delay_s, self._end_of, what)

    def _end_of(self, what: str) -> None:
        self._ends.pop(what).cancel()
        name, *arguments = what.split()
        getattr(self, f"_{name}")(*arguments)

    # -- the end ------------------------------------------------------------------------------

    def _heal(self) -> None:
        for what in list(self._ends):
            self._end_of(what)
        self._faults.end()
        self._shop.quick = True
        if not any(m.state == "up" for m in self._members):
            self._join()
        self._healed = True
        self.note("healed")

    async def _catch_up(self) -> None:
        until_s = self._loop.time() + LIVENESS_S
        while self._loop.time() < until_s:
            await asyncio.sleep(1.0)
            self.watch.look()
            if not self._behind() and not self.oracle.unfinished():
                return
        for text in (*self._behind(), *self.oracle.unfinished()):
            self.note("behind", note=text)

    def _behind(self) -> list[str]:
        return [
            f"{name}:{number} committed {committed} of {log.end}"
            for name in self._topics
            for number, log in enumerate(self._cluster.logs(name))
            if (committed := self.watch.committed(TopicPartition(name, number))) != log.end
            and log.start != log.end  # retention may take all that there is before it is read
        ]

    async def _end(self) -> None:
        for member in self._members:
            if member.state == "up":
                member.leave()
        leaves = [m.left for m in self._members if m.state == "leaving" and m.left is not None]
        if leaves:
            await asyncio.wait(leaves, timeout=LEAVE_S)
        loop = self._loop
        assert isinstance(loop, SimulationLoop)
        if loop.tasks_of_the_living():
            # Handlers left behind, because they do not care about being cancelled.
            await asyncio.sleep(STUBBORN_S + 5.0)
        for task in sorted(loop.tasks_of_the_living(), key=lambda task: task.get_name()):
            self.note("leak", loop.owner(task), note=f"task {task.get_name()} is left")
        for leave in leaves:
            if leave.done() and not leave.cancelled() and leave.exception() is not None:
                self.note("fault", note=f"unsubscribe raised {leave.exception()!r}")
        self.note("over")
        self.watch.closed = True
        loop.thaw_all()
