"""Members over the real rebalance code, in a group that loses, stops and expels them at random.

An oracle sees what they handle and commit. It raises :class:`Fault` for a record handled while another
member held its partition, a position that jumped, a commit that went back, a record handled twice
without a crash or an expulsion, and a group that does not come to rest.

``python -m tests.broker.kafka.rounds_world SEED`` replays one, with its history; ``--graceful SEED`` the
one in which nobody crashes or falls silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from prosody.broker.kafka.assignors import make_assignor
from prosody.broker.kafka.commits import Commits
from prosody.broker.kafka.handover import CooperativeAssignment
from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
from prosody.errors import BrokerError
from tests.broker.kafka.lower_group import SESSION_S, LowerConsumer, LowerGroup
from tests.support import FakeRuntime, run_virtual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.broker.protocol import Start

MODULE = "tests.broker.kafka.rounds_world"
STEPS = 12
REST_LIMIT_S = 150.0
"""Virtual time in which the group must have handled everything and settled, once faults have stopped."""


class Fault(AssertionError):  # noqa: N818
    """The rebalance did what it must not do."""


class Node:
    """A process: the adapter's assignment, a listener that handles records one by one."""

    def __init__(self, world: World, name: str, topics: list[str]) -> None:
        self.world = world
        self.name = name
        self.chance = random.Random(f"{world.seed}-{name}")
        self.next: dict[TopicPartition, int] = {}
        self.consumer = LowerConsumer(world.group, topics)
        runtime = FakeRuntime(world.seed)
        runtime._chance = self.chance
        self.assignment = CooperativeAssignment(
            self.consumer, self, group_id="group", runtime=runtime, fetch_bytes=1 << 20,
            commit_grace_s=5.0, on_pollable=lambda: None,
        )  # fmt: skip
        self.commits = Commits(self.consumer, self.assignment, "group", runtime)
        self.consumer.assignor = make_assignor("cooperative", self.assignment)
        self.consumer.listener = self.assignment
        self.committing = asyncio.Lock()
        self.tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._commit_on())]

    # -- the listener -----------------------------------------------------------------------------

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        for tp, start in starts.items():
            if tp in self.next:
                self.world.fault(f"{self.name} assigned {tp} again without a revoke")
            self.next[tp] = start.offset
            self.world.note(f"{self.name} begins {tp.topic}/{tp.partition} at {start.offset}")

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.world.note(f"{self.name} drains {sorted(partitions)}")
        await asyncio.sleep(self.chance.choice([0.0, 0.5, 8.0]))  # handlers end
        while any(tp in self.next for tp in partitions):
            await self.consumer.frozen.wait()
            await self.assignment.settled()
            async with self.committing:
                try:
                    await self.commit(partitions)
                except BrokerError as error:
                    if error.retriable:
                        await asyncio.sleep(0.1)
                        continue
                for tp in partitions:
                    self.next.pop(tp, None)

    def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        self.world.note(f"{self.name} lost {sorted(partitions)}")
        if self.world.graceful:
            self.world.fault(f"{self.name} lost {sorted(partitions)}, with nobody out of order")
        for tp in partitions:
            del self.next[tp]
            self.world.crashed.add(tp)

    # -- the program ----------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.chance.choice([0.1, 0.4, 0.9]))
            await self.consumer.frozen.wait()
            for tp, lower in list(self.assignment.pollable.items()):
                if self.assignment.held[tp].position is not None:
                    continue  # nor does ``Polls``: it was sent elsewhere during a join
                state = self.consumer._states[lower]
                end = self.world.group.ends[tp]
                for offset in range(state._position, min(state._position + 5, end)):
                    self.world.handled(self, tp, offset)
                    state._position = self.next[tp] = offset + 1

    async def _commit_on(self) -> None:
        while True:
            await asyncio.sleep(self.chance.choice([0.3, 1.0]))
            await self.consumer.frozen.wait()
            await self.assignment.settled()
            async with self.committing:
                with contextlib.suppress(BrokerError):  # the next one is computed anew
                    await self.commit(frozenset(self.next))

    async def commit(self, partitions: frozenset[TopicPartition]) -> None:
        offsets = {tp: OffsetAndMetadata(self.next[tp]) for tp in partitions if tp in self.next}
        if offsets:
            await self.commits.commit(offsets)

    def is_member(self) -> bool:
        member_id = self.consumer._coordinator.member_id
        return self.world.group.members.get(member_id) is self.consumer

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.assignment.close()

    async def crash(self) -> None:
        self.world.note(f"{self.name} crashes holding {sorted(self.next)}")
        self.world.crashed.update(self.next)
        for task in self.tasks:
            task.cancel()
        self.next.clear()
        await self.consumer.vanish()
        await self.end()
        await asyncio.sleep(SESSION_S)
        self.world.group.expel(self.consumer)

    async def leave(self) -> None:
        """As ``unsubscribe`` does: drain, a last commit, leave."""
        self.world.note(f"{self.name} leaves")
        self.assignment.leaving()
        for tp in list(self.assignment.pollable):
            del self.assignment.pollable[tp]
        await asyncio.sleep(self.chance.choice([0.0, 3.0]))
        held = frozenset(self.next)
        await self.on_revoked(held)
        await self.consumer.leave()
        await self.end()

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, then SIGCONT."""
        self.world.note(f"{self.name} stands still for {seconds} s")
        self.consumer.frozen.clear()
        await asyncio.sleep(min(seconds, SESSION_S))
        if seconds > SESSION_S:
            self.world.crashed.update(self.next)  # others take over, from what is committed
            self.world.group.expel(self.consumer)
            await asyncio.sleep(seconds - SESSION_S)
        self.consumer.frozen.set()


class World:
    """The group, its nodes, the history and the oracle."""

    def __init__(self, seed: int, *, graceful: bool = False) -> None:
        self.seed = seed
        self.graceful = graceful
        self.chance = random.Random(seed)
        self.topics = {f"t{n}": self.chance.randint(1, 6) for n in range(self.chance.randint(1, 3))}
        self.group = LowerGroup(self.topics, self.chance)
        self.nodes: list[Node] = []
        self.background: set[asyncio.Task[None]] = set()
        self.count: dict[tuple[TopicPartition, int], int] = defaultdict(int)
        self.crashed: set[TopicPartition] = set()
        self.history: list[str] = []
        self.faults: list[str] = []
        self._names = 0
        commit = self.group.commit

        def watched(consumer: LowerConsumer, offsets: Any) -> None:
            before = dict(self.group.committed)
            commit(consumer, offsets)
            for tp, (offset, _) in offsets.items():
                if tp in before and offset < before[tp].offset:
                    self.fault(f"commit of {tp} goes back from {before[tp].offset} to {offset}")

        self.group.commit = watched  # type: ignore[method-assign]
        for topic in self.topics:
            self._grow(topic)

    def note(self, text: str) -> None:
        self.history.append(f"{asyncio.get_running_loop().time():9.3f} {text}")

    def fault(self, text: str) -> None:
        self.note(f"FAULT {text}")
        self.faults.append(text)

    def handled(self, node: Node, tp: TopicPartition, offset: int) -> None:
        expected = node.next.get(tp)
        if expected != offset:
            self.fault(f"{node.name} reads {tp} at {offset}, expected {expected}")
        for other in self.nodes:
            # Whoever stood still and was expelled goes on until its next heartbeat tells it so.
            both = node.is_member() and other.is_member()
            if other is not node and tp in other.next and both:
                self.fault(f"{node.name} handles {tp}:{offset} while {other.name} holds it")
        self.count[tp, offset] += 1
        if self.count[tp, offset] > 1 and tp not in self.crashed:
            self.fault(f"{node.name} handles {tp}:{offset} again")

    # -- steps ----------------------------------------------------------------------------------------

    def _grow(self, topic: str) -> None:
        for n in range(self.topics[topic]):
            self.group.ends[TopicPartition(topic, n)] = self.chance.randint(0, 400)

    def join(self) -> None:
        self._names += 1
        node = Node(self, f"node-{self._names}", sorted(self.topics))
        self.note(f"{node.name} joins")
        self.nodes.append(node)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.background.add(task)

    async def step(self) -> None:
        kinds = ["join", "join", "leave", "partitions", "wait", "many"]
        if not self.graceful:
            kinds += ["crash", "stop", "stop", "restart"]
        kind = self.chance.choice(kinds)
        node = self.chance.choice(self.nodes) if self.nodes else None
        if kind == "join" and len(self.nodes) < 8:
            self.join()
        elif kind == "many":
            for _ in range(self.chance.randint(2, 4)):
                self.join()
        elif kind == "partitions":
            topic = self.chance.choice(sorted(self.topics))
            self.topics[topic] += 1
            tp = TopicPartition(topic, self.topics[topic] - 1)
            self.group.ends[tp] = self.chance.randint(0, 200)
            self.note(f"partition added: {tp}")
            self.group.rebalance()
        elif node is None or kind == "wait":
            pass
        elif kind == "leave" and len(self.nodes) > 1:
            self.nodes.remove(node)
            self._spawn(node.leave())
        elif kind in ("crash", "restart"):
            self.nodes.remove(node)
            self._spawn(node.crash())
            if kind == "restart":
                self.join()
        elif kind == "stop" and node.consumer.frozen.is_set():
            self._spawn(node.freeze(self.chance.choice([2.0, 10.0, 40.0])))
        await asyncio.sleep(self.chance.choice([0.0, 0.3, 2.0, 12.0]))

    async def play(self, steps: int) -> None:
        if not self.nodes:
            self.join()
        for _ in range(steps):
            await self.step()
            if self.faults:
                break
        if not self.nodes:
            self.join()
        if not self.faults:
            await self._rest()
        for node in self.nodes:
            await node.consumer.vanish()
            await node.end()
        for task in self.background:
            task.cancel()
        if self.background:
            await asyncio.wait(self.background)
        for task in self.background:
            if not task.cancelled() and task.exception() is not None:
                self.fault(f"a step failed: {task.exception()!r}")
        if self.faults:
            how = "--graceful " * self.graceful
            raise Fault(
                f"seed {self.seed}: {self.faults[0]}\n{self.text()}\n"
                f"replay with: python -m {MODULE} {how}{self.seed}"
            )

    def text(self) -> str:
        """The history, a line for each thing that happened."""
        return "\n".join(self.history)

    async def _rest(self) -> None:
        """Faults have stopped: everything must get handled and committed, and rounds end."""
        await asyncio.sleep(REST_LIMIT_S - 30.0)
        rounds = self.group.rounds
        await asyncio.sleep(30.0)
        if self.group.rounds != rounds:
            self.fault("the group goes on rebalancing with nobody coming or going")
        for tp, end in self.group.ends.items():
            kept = self.group.committed.get(tp)
            if end and (kept is None or kept.offset != end):
                owners = [n.name for n in self.nodes if tp in n.next]
                self.fault(f"{tp} ends at {end}, committed {kept}, held by {owners}")
            missing = [n for n in range(end) if not self.count[TopicPartition(*tp), n]]
            if missing:
                self.fault(f"{tp} never handled: {missing[:5]}")
        loads = [len(node.next) for node in self.nodes]
        if max(loads) - min(loads) > 1:
            self.fault(f"out of balance: {loads}")


def play(seed: int, *, graceful: bool) -> World:
    """Do the run of a seed.

    :raises Fault: with the whole history, and how to replay it.
    """

    async def main() -> World:
        world = World(seed, graceful=graceful)
        await world.play(STEPS)
        return world

    return run_virtual(main())


if __name__ == "__main__":
    in_order = "--graceful" in sys.argv
    for number in (int(word) for word in sys.argv[1:] if word != "--graceful"):
        print(f"{play(number, graceful=in_order).text()}\nseed {number}: no fault")
