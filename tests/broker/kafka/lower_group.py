"""A group as a Kafka coordinator keeps it, and members as aiokafka behaves, without a network.

The classic protocol: a join by anyone makes the group wait until all members have joined, or the rebalance
timeout throws out those that did not; the leader assigns; all get the new generation. Members notice a
rebalance, or that they were thrown out, by their heartbeat. What the adapter touches of aiokafka is here
under aiokafka's names; the adapter, the assignor and the commits on top are the real ones.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition as LowerPartition
from aiokafka import errors as lower
from aiokafka.structs import OffsetAndMetadata

if TYPE_CHECKING:
    import random

HEARTBEAT_S = 1.0
SESSION_S = 6.0
REBALANCE_S = 30.0
RETRY_S = 0.1
FAILURES = 0.05
"""How often a request fails, and how often its answer does not come."""
FAILING = (
    lower.NodeNotReadyError, lower.RequestTimedOutError, lower.NotCoordinatorForGroupError,
    lower.KafkaConnectionError, lower.GroupLoadInProgressError,
)  # fmt: skip


class LowerGroup:
    """The coordinator's side: members, rounds, committed offsets, and the logs' ends."""

    def __init__(self, topics: dict[str, int], chance: random.Random) -> None:
        self.topics = topics
        self.chance = chance
        self.generation = 0
        self.members: dict[str, LowerConsumer] = {}
        self.committed: dict[tuple[str, int], OffsetAndMetadata] = {}
        self.ends: dict[tuple[str, int], int] = {}
        self.beginnings: dict[tuple[str, int], int] = {}
        self.rounds = 0
        self.failed = 0
        self._ids = 0
        self._joined: dict[str, tuple[bytes, asyncio.Future[Any]]] = {}
        self._round: asyncio.Task[None] | None = None
        self._all_here = asyncio.Event()

    # -- requests ---------------------------------------------------------------------------------

    async def join(self, consumer: LowerConsumer, metadata: Any) -> tuple[int, str, Any]:
        """JoinGroup and SyncGroup in one: generation, member id and assignment."""
        member_id = consumer._coordinator.member_id
        if member_id and member_id not in self.members:
            raise lower.UnknownMemberIdError
        if not member_id:
            self._ids += 1
            member_id = f"member-{self._ids:03}"
            self.members[member_id] = consumer
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._joined[member_id] = (metadata, answer)
        if self._round is None:
            self._round = asyncio.create_task(self._run_round())
        self._look()
        generation, assignment = await answer
        return generation, member_id, assignment

    def heartbeat(self, consumer: LowerConsumer) -> str:
        member_id, generation = consumer._coordinator.member_id, consumer._coordinator.generation
        if member_id not in self.members:
            return "unknown member"
        if self._round is not None:
            return "rebalance"
        return "ok" if generation == self.generation else "illegal generation"

    def commit(self, consumer: LowerConsumer, offsets: Any) -> None:
        coordinator = consumer._coordinator
        if coordinator.member_id not in self.members:
            raise lower.UnknownMemberIdError
        if coordinator.generation != self.generation:
            raise lower.IllegalGenerationError
        self.committed.update(offsets)

    def expel(self, consumer: LowerConsumer) -> None:
        """The session of a member has expired, or it has left; it may not know its id yet."""
        ids = [member_id for member_id, member in self.members.items() if member is consumer]
        if not ids:
            return
        for member_id in ids:
            del self.members[member_id]
            joined = self._joined.pop(member_id, None)
            if joined is not None and not joined[1].done():
                joined[1].set_exception(lower.UnknownMemberIdError())
        if self._round is None and self.members:
            self._round = asyncio.create_task(self._run_round())
        self._look()

    def rebalance(self) -> None:
        """What the leader does when topics have changed."""
        if self._round is None and self.members:
            self._round = asyncio.create_task(self._run_round())

    def _look(self) -> None:
        if self._joined.keys() >= self.members.keys():
            self._all_here.set()

    async def _run_round(self) -> None:
        self._all_here.clear()
        self._look()
        try:
            async with asyncio.timeout(REBALANCE_S):
                await self._all_here.wait()
        except TimeoutError:
            for member_id in self.members.keys() - self._joined.keys():
                del self.members[member_id]
        self._round = None
        joined, self._joined = self._joined, {}
        if not joined:
            return
        self.generation += 1
        self.rounds += 1
        leader = self.members[self.chance.choice(sorted(joined))]
        cluster = SimpleNamespace(
            partitions_for_topic=lambda topic: set(range(self.topics.get(topic, 0))) or None
        )
        shares = leader.assignor.assign(
            cluster, {m: metadata for m, (metadata, _) in joined.items()}
        )
        for member_id, (_, answer) in joined.items():
            if not answer.done():
                answer.set_result((self.generation, shares[member_id]))


class _State:
    def __init__(self) -> None:
        self._position: int | None = None
        self.paused = False


class LowerConsumer:
    """A member's side: what the adapter uses of an ``AIOKafkaConsumer``, and its coordination routine."""

    def __init__(self, group: LowerGroup, topics: list[str]) -> None:
        self.group = group
        self.topics = topics
        self.assignor: Any = None
        self.listener: Any = None
        self.frozen = asyncio.Event()
        self.frozen.set()
        self.alive = True
        self._closed = False
        self._rejoin = asyncio.Event()
        self._rejoin.set()
        self._fetcher = SimpleNamespace(_records={}, _max_partition_fetch_bytes=0)
        self._coordinator = SimpleNamespace(
            generation=-1,
            member_id="",
            coordinator_id=1,
            request_rejoin=self._rejoin.set,
            ensure_coordinator_known=self._request,
            fetch_committed_offsets=self._committed,
            _do_commit_offsets=self._commit,
        )
        self._subscription = SimpleNamespace(
            subscription=SimpleNamespace(assignment=None),
            assigned_partitions=lambda: set(self._states),
        )
        self._states: dict[Any, _State] = {}
        self.reassigning = True
        self._tasks = [asyncio.create_task(self._coordinate()), asyncio.create_task(self._beat())]

    # -- public names of aiokafka -------------------------------------------------------------------

    def seek(self, partition: Any, offset: int) -> None:
        self._states[partition]._position = offset

    def pause(self, partition: Any) -> None:
        self._states[partition].paused = True

    async def beginning_offsets(self, partitions: Any) -> dict[Any, int]:
        await self._request()
        return {tp: self.group.beginnings.get(tp, 0) for tp in partitions}

    async def end_offsets(self, partitions: Any) -> dict[Any, int]:
        await self._request()
        return {tp: self.group.ends.get(tp, 0) for tp in partitions}

    # -- the network ----------------------------------------------------------------------------------

    async def _network(self) -> None:
        """A request takes its time, and a process that is stopped makes none."""
        await asyncio.sleep(self.group.chance.choice([0.0, 0.001, 0.02]))
        await self.frozen.wait()

    async def _request(self) -> None:
        """A request of the adapter, which may fail; so may the way of its answer."""
        await self._network()
        if self.group.chance.random() < FAILURES:
            self.group.failed += 1
            failure: type[Exception] = self.group.chance.choice(FAILING)
            raise failure

    async def _committed(self, partitions: Any) -> dict[Any, OffsetAndMetadata]:
        await self._request()
        return {tp: self.group.committed[tp] for tp in partitions if tp in self.group.committed}

    async def _commit(self, _: Any, offsets: Any) -> None:
        sent = (self._coordinator.member_id, self._coordinator.generation)
        await self._request()
        coordinator = SimpleNamespace(member_id=sent[0], generation=sent[1])
        try:
            self.group.commit(SimpleNamespace(_coordinator=coordinator), offsets)  # type: ignore[arg-type]
        except (lower.UnknownMemberIdError, lower.IllegalGenerationError):
            self.reset()
            raise
        await self._request()

    # -- the background tasks of aiokafka ------------------------------------------------------------

    def reset(self) -> None:
        self._coordinator.generation, self._coordinator.member_id = -1, ""
        self._rejoin.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self.frozen.wait()
            if not self._coordinator.member_id or self._coordinator.generation < 0:
                continue
            match self.group.heartbeat(self):
                case "rebalance":
                    self._rejoin.set()
                case "unknown member":
                    self.reset()
                case "illegal generation" if not self.reassigning:
                    self.reset()

    async def _coordinate(self) -> None:
        prepared = False
        while True:
            await self._rejoin.wait()
            if not prepared:
                self.reassigning = True
                await self.listener.on_partitions_revoked(set(self._states))
                prepared = True
            metadata = self.assignor.metadata(self.topics)
            await self._network()
            try:
                generation, member_id, share = await self.group.join(self, metadata)
            except lower.UnknownMemberIdError:
                self.reset()
                await asyncio.sleep(RETRY_S)
                continue
            await self.frozen.wait()
            self._coordinator.member_id = member_id
            self._coordinator.generation = generation
            self._rejoin.clear()
            await self._network()
            if self.group.chance.random() < 0.05 or self.group.heartbeat(self) == "unknown member":
                self._rejoin.set()  # the answer to the sync was lost
                continue
            prepared = False
            self._states = {LowerPartition(*tp): _State() for tp in _partitions(share)}
            self._subscription.subscription.assignment = SimpleNamespace(
                state_value=dict(self._states).get
            )
            self.assignor.on_assignment(share)
            self.reassigning = False
            await self.listener.on_partitions_assigned(set(self._states))

    # -- faults -------------------------------------------------------------------------------------------

    async def vanish(self) -> None:
        """SIGKILL."""
        self.alive = False
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def leave(self) -> None:
        await self.vanish()
        self.group.expel(self)


def _partitions(share: Any) -> list[tuple[str, int]]:
    return [(tp.topic, tp.partition) for tp in share.partitions()]
