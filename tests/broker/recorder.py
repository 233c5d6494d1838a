"""A listener that records what it is told, and checks it against the rules of the seam."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prosody.broker.protocol import Start

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from prosody.broker.protocol import TopicPartition

DEADLINE_S = 40.0
"""No step of a test takes longer, not even a rebalance of a real broker on a busy machine."""


async def no_wait(_: frozenset[TopicPartition]) -> None:
    """The hook of a listener whose revokes take no time."""


class Ledger:
    """Who holds which partition, over all members of a group; finds any in two hands."""

    def __init__(self) -> None:
        self.owners: dict[TopicPartition, Recorder] = {}
        self.faults: list[str] = []

    def take(self, who: Recorder, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            owner = self.owners.setdefault(tp, who)
            if owner is not who:
                self.faults.append(f"{tp} assigned to {who.name} while {owner.name} holds it")

    def give(self, who: Recorder, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            if self.owners.pop(tp, None) is not who:
                self.faults.append(f"{tp} taken from {who.name}, which did not hold it")


class Recorder:
    """A listener that writes down what it is told, and tells who waits for it.

    It checks the order of the calls for each partition; what is wrong goes to the ledger.
    """

    def __init__(self, name: str = "listener", ledger: Ledger | None = None) -> None:
        self.name = name
        self.ledger = ledger or Ledger()
        self.events: list[tuple[str, frozenset[TopicPartition]]] = []
        self.starts: dict[TopicPartition, Start] = {}
        """Where each partition began when it was assigned last."""
        self.held: set[TopicPartition] = set()
        """Assigned, and not yet given up or lost."""
        self.revoking: set[TopicPartition] = set()
        """Those of ``held`` whose revoke has begun."""
        self.running = 0
        """Revokes under way."""
        self.assigned_hook: Callable[[frozenset[TopicPartition]], None] = lambda _: None
        self.revoked_hook: Callable[[frozenset[TopicPartition]], Awaitable[None]] = no_wait
        self.lost_hook: Callable[[frozenset[TopicPartition]], None] = lambda _: None
        self._assignments: dict[TopicPartition, object] = {}
        self._changed = asyncio.Event()

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        partitions = frozenset(starts)
        self._told("assigned", partitions)
        self._check("assigned again", partitions & self.held)
        self._check(
            "assigned with no Start", [tp for tp, s in starts.items() if type(s) is not Start]
        )
        self.ledger.take(self, partitions)
        self.starts.update(starts)
        self.held |= partitions
        self._assignments.update((tp, object()) for tp in partitions)
        self.assigned_hook(partitions)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._told("revoked", partitions)
        self._check("revoked and not held", partitions - self.held)
        self._check("revoked twice", partitions & self.revoking)
        self.revoking |= partitions
        revoked = {tp: self._assignments[tp] for tp in partitions}
        self.running += 1
        try:
            await self.revoked_hook(partitions)
        finally:
            self.running -= 1
            # What was lost meanwhile, and perhaps assigned again, is not this call's any more.
            gone = {tp for tp, mine in revoked.items() if self._assignments.get(tp) is mine}
            self.ledger.give(self, gone)
            self._forget(gone)

    def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        self._told("lost", partitions)
        self._check("lost and not held", partitions - self.held)
        # Gone already: another member may have been given them before this call.
        for tp in partitions:
            if self.ledger.owners.get(tp) is self:
                del self.ledger.owners[tp]
        self._forget(partitions)
        self.lost_hook(partitions)

    def _told(self, name: str, partitions: frozenset[TopicPartition]) -> None:
        self._check(
            f"{name} with no frozenset", [] if type(partitions) is frozenset else partitions
        )
        self._check(f"{name} nothing", [] if partitions else [partitions])
        self.events.append((name, partitions))
        self._changed.set()

    def _check(self, what: str, wrong: Iterable[object]) -> None:
        if wrong := list(wrong):
            self.ledger.faults.append(f"{self.name}: {what}: {wrong}")

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self.held.difference_update(partitions)
        self.revoking.difference_update(partitions)
        for tp in partitions:
            self._assignments.pop(tp, None)
        self._changed.set()

    def left(self) -> None:
        """The member stops: what it holds is free without a call."""
        self.ledger.give(self, list(self.held))
        self._forget(list(self.held))
        self.ledger = Ledger()

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def times(self, name: str, tp: TopicPartition) -> int:
        return sum(tp in partitions for event, partitions in self.events if event == name)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; looked at after each listener call begins or ends."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self.name} waited in vain; holds {sorted(self.held)}, was told {self.events}"
            ) from None

    async def until_holds(self, partitions: Collection[TopicPartition]) -> None:
        await self.until(lambda: self.held == set(partitions))
