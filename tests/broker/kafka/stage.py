"""The adapter's assignment, driven by hand as aiokafka drives it, and a listener that takes notes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition as LowerPartition
from aiokafka.structs import OffsetAndMetadata

from prosody.broker.kafka.eager import EagerAssignment
from prosody.broker.kafka.handover import CooperativeAssignment
from prosody.broker.protocol import TopicPartition
from tests.support import FakeRuntime, run_virtual, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from prosody.broker.protocol import Start

ONE, TWO, THREE = (TopicPartition("t", n) for n in (1, 2, 3))


class Listener:
    """Notes every call; a revoke lasts until the test says so, when ``slow``."""

    def __init__(self) -> None:
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self.starts: dict[TopicPartition, Start] = {}
        self.revoke: Callable[[frozenset[TopicPartition]], Any] | None = None

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        self.events.append(("assigned", frozenset(starts)))
        self.starts.update(starts)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self.events.append(("revoked", partitions))
        if self.revoke is not None:
            await self.revoke(partitions)

    def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        self.events.append(("lost", partitions))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Stage:
    """A consumer of aiokafka reduced to what the assignment uses of it."""

    def __init__(
        self, *, cooperative: bool = True, commit_grace_s: float = 5.0, seed: int = 1
    ) -> None:
        self.coordinator = SimpleNamespace(
            generation=1,
            member_id="me",
            fetch_committed_offsets=self._committed,
            request_rejoin=self._rejoin,
        )
        self.fetcher = SimpleNamespace(_max_partition_fetch_bytes=0, _records={})
        self.subscription = SimpleNamespace(assignment=None)
        self.states: dict[Any, SimpleNamespace] = {}
        self.unknown: set[str] = set()
        """Topics that the consumer's metadata does not have."""
        self.listed: list[set[str] | Exception] = []
        """What brokers list from now on; the last one goes on."""
        self.consumer: Any = SimpleNamespace(
            _client=SimpleNamespace(
                cluster=SimpleNamespace(
                    partitions_for_topic=lambda topic: None if topic in self.unknown else {0}
                ),
                fetch_all_metadata=self._list,
            ),
            _coordinator=self.coordinator,
            _fetcher=self.fetcher,
            _subscription=SimpleNamespace(
                subscription=self.subscription, assigned_partitions=lambda: set(self.states)
            ),
            seek=self._seek,
            pause=self._pause,
            beginning_offsets=self._beginnings,
            end_offsets=self._ends,
        )
        self.listener = Listener()
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.beginnings: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        self.failures: list[Exception] = []
        self.rejoins = 0
        self.looks = 0
        self.runtime = FakeRuntime(seed)
        common: dict[str, Any] = {
            "group_id": "service", "runtime": self.runtime, "fetch_bytes": 1 << 20,
            "commit_grace_s": commit_grace_s, "on_pollable": self._look,
        }  # fmt: skip
        self.assignment: Any
        if cooperative:
            self.assignment = CooperativeAssignment(self.consumer, self.listener, **common)
        else:
            self.assignment = EagerAssignment(
                self.consumer, self.listener, revoke_limit_s=20.0, **common
            )

    # -- what aiokafka would do ---------------------------------------------------------------------

    async def revoke(self) -> None:
        await self.assignment.on_partitions_revoked(set(self.states))

    async def assign(self, *partitions: TopicPartition, release: Collection[Any] = ()) -> None:
        """The end of a join that was answered with ``partitions``."""
        self.states = {
            LowerPartition(*tp): SimpleNamespace(_position=None, paused=False) for tp in partitions
        }
        self.subscription.assignment = SimpleNamespace(state_value=dict(self.states).get)
        if isinstance(self.assignment, CooperativeAssignment):
            self.assignment.asked_to_release(frozenset(release))
        await self.assignment.on_partitions_assigned(set(self.states))
        await settle()

    async def join(self, *partitions: TopicPartition, release: Collection[Any] = ()) -> None:
        """A whole round."""
        await self.revoke()
        self.claim = self.assignment.claim() if hasattr(self.assignment, "claim") else None
        self.coordinator.generation += 1
        await self.assign(*partitions, release=release)

    def reset(self, member_id: str = "") -> None:
        """The group has thrown the member out."""
        self.coordinator.member_id, self.coordinator.generation = member_id, -1

    def position(self, tp: TopicPartition) -> int | None:
        found: int | None = self.states[LowerPartition(*tp)]._position
        return found

    def polled_to(self, tp: TopicPartition, offset: int) -> None:
        self.states[LowerPartition(*tp)]._position = offset

    # -- what the assignment calls -----------------------------------------------------------------

    def _seek(self, lower: Any, offset: int) -> None:
        self.states[lower]._position = offset

    def _pause(self, lower: Any) -> None:
        self.states[lower].paused = True

    def _rejoin(self) -> None:
        self.rejoins += 1

    def _look(self) -> None:
        self.looks += 1

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)

    async def _list(self) -> Any:
        await asyncio.sleep(0)
        names = self.listed.pop(0) if len(self.listed) > 1 else self.listed[0]
        if isinstance(names, Exception):
            raise names
        return SimpleNamespace(topics=lambda exclude_internal_topics: names)

    async def _committed(self, partitions: Any) -> dict[Any, OffsetAndMetadata]:
        await self._answer()
        return {tp: self.committed[tp] for tp in partitions if tp in self.committed}

    async def _beginnings(self, partitions: Any) -> dict[Any, int]:
        await self._answer()
        return {tp: self.beginnings.get(tp, 0) for tp in partitions}

    async def _ends(self, partitions: Any) -> dict[Any, int]:
        await self._answer()
        return {tp: self.ends.get(tp, 100) for tp in partitions}


def on_stage(test: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    """Run a test with a stage of its own on a virtual loop, and leave no task behind."""

    async def main() -> None:
        stage = Stage()
        await test(stage)
        await stage.assignment.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run() -> None:
        run_virtual(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
