"""The cooperative way of rebalancing over aiokafka's eager protocol: what stays never stops.

aiokafka lets go of everything before each join, and forgets positions and pauses. Here nothing is let go
of: a member tells the others in its join what it holds (:meth:`CooperativeAssignment.claim`), the leader
leaves it there (``cooperative.py``) and names what should move. Those partitions are drained and committed
while they are still assigned, then the member joins again without claiming them, and in that second round
another member gets them. ::

    join 1:  A claims 0 1 2 3, B claims nothing   ──▶  A: 0 1 2 3, release 2 3     B: nothing
             A drains 2 and 3, commits, forgets them; 0 and 1 go on all the time
    join 2:  A claims 0 1                         ──▶  A: 0 1                      B: 2 3

Safe, because

* a claim holds only under the member id that the partitions were given to: after a reset of the id
  all are lost, and nothing is claimed (the group may have given them away);
* no commit is under way during a join, and after it what is committed is computed anew;
* what is assigned and was not held is begun at the committed offset, whoever had it before.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from prosody.broker.kafka import internals
from prosody.broker.kafka.claims import Claim
from prosody.broker.kafka.errors import mapped
from prosody.broker.kafka.rebalance import Assignment
from prosody.errors import BrokerError
from prosody.model.fields import fields_of_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from prosody.broker.kafka.holding import Holding
    from prosody.broker.protocol import TopicPartition

log = logging.getLogger(__name__)

REJOIN_PAUSE_S = 0.25
"""How long a drained partition waits for others that drain too, so that one join serves them all."""
LEAVE_PAUSE_S = 1.0
"""A member that leaves sooner gives up everything at once, by leaving, without a join before it."""
TOPIC_LOOKS = 3
TOPIC_LOOK_S = 1.0
"""A topic that is missing so often, with such pauses, is deleted."""


class CooperativeAssignment(Assignment):
    """Implements :class:`~prosody.broker.kafka.claims.Voice`."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._process = str(self._runtime.uuid4())
        self._sequence = 0
        self._leaving = False
        self._to_release: frozenset[TopicPartition] = frozenset()
        self._rejoining = False
        self._doubted: set[str] = set()
        """Topics that are looked for, as they were missing in the metadata."""

    def leaving(self) -> None:
        """Claim as one that leaves: what has drained before the slowest partition goes ahead of it."""
        if not self._leaving:
            self._leaving = True
            self._spawn(self._offer_soon(), "leave")

    # -- said by the assignor -------------------------------------------------------------------------

    def claim(self) -> Claim:
        """What this member holds, as it joins."""
        self._lose_if_reset()
        self._sequence += 1
        generation = -1 if self._membership is None else self._membership.generation
        return Claim(
            process=self._process,
            sequence=self._sequence,
            generation=generation if self.held else -1,
            leaving=self._leaving,
            partitions=frozenset(self.held),
        )

    def asked_to_release(self, partitions: frozenset[TopicPartition]) -> None:
        """What the leader wants to go elsewhere; told right before ``on_partitions_assigned``."""
        self._to_release = partitions

    # -- called by aiokafka ----------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: object) -> None:
        """Before a join; aiokafka logs and forgets what is raised here, so nothing is."""
        if self._closed:
            return
        self._lose_if_reset()
        await self._join_begins()

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """After a join. Does not wait, as no heartbeat is sent before it returns."""
        if self._closed:
            return
        # The id may have been reset, and given anew, while the join was repeated.
        self._lose_if_reset()
        self._note_positions()
        given = self._join_ends(assigned)
        self._lose([tp for tp in self.held if tp not in given])
        release, self._to_release = self._to_release, frozenset()
        fresh = {tp: lower for tp, lower in given.items() if tp not in self.held}
        for tp, holding in self.held.items():
            self._keep(tp, holding, given[tp])
        for tp in release:
            if (kept := self.held.get(tp)) is not None and not kept.releasing:
                kept.releasing = True
                self.pollable.pop(tp, None)
                internals.pause(self._consumer, kept.lower)
                self._spawn(self._hand_over(tp, kept), f"hand over {tp.topic}/{tp.partition}")
        # Given up since the join began: the leader has read an old claim, and is told again.
        outdated = fresh.keys() & release
        if outdated:
            self._rejoin()
        if not self._leaving:
            self._take({tp: lower for tp, lower in fresh.items() if tp not in outdated})
        self._on_pollable()

    def topics_changed(self, _: object = None) -> None:
        """There is new metadata. A topic that is missing there may be deleted: then its partitions go."""
        for topic in {tp.topic for tp in self.held} - self._doubted:
            if not internals.knows_topic(self._consumer, topic):
                self._doubted.add(topic)
                self._spawn(self._look_for(topic), f"look for {topic}")

    # -- steps -------------------------------------------------------------------------------------------

    async def _look_for(self, topic: str) -> None:
        """Give up the partitions of a topic when no broker knows it, asked again and again.

        One answer is not enough: a broker that has just come back may not know all topics yet.
        """
        missed = 0
        while missed < TOPIC_LOOKS:
            await self._runtime.sleep(TOPIC_LOOK_S)
            try:
                with mapped("topics"):
                    names = await internals.topic_names(self._consumer)
            except BrokerError:
                continue  # nobody has said anything
            if topic in names:
                self._doubted.discard(topic)
                return
            missed += 1
        self._doubted.discard(topic)
        gone = [tp for tp in self.held if tp.topic == topic]
        if gone:
            log.warning(
                "topic %r is gone, its partitions are given up", topic, extra=fields_of_all(gone)
            )
            self._lose(gone)
            self._rejoin()

    def _lose_if_reset(self) -> None:
        if self.held and not self._same_member():
            self._lose(tuple(self.held))

    def _note_positions(self) -> None:
        """What aiokafka has just forgotten; where it did not have the position, ours is newer."""
        for tp in self.pollable:
            holding = self.held[tp]
            if holding.position is None:
                holding.position = internals.position(self._lower, holding.lower)

    def _keep(self, tp: TopicPartition, holding: Holding, lower: Any) -> None:
        """A partition that stays: it goes on where it was."""
        holding.lower = lower
        if tp in self.pollable:
            self.pollable[tp] = lower
        if holding.releasing:
            internals.pause(self._consumer, lower)
        elif holding.position is not None:
            self._put(holding, holding.position)

    async def _hand_over(self, tp: TopicPartition, holding: Holding) -> None:
        """Drain and commit a partition that is to move, then claim it no more."""
        if holding.told:
            await self._listener.on_revoked(frozenset({tp}))
        if self.held.get(tp) is holding:
            del self.held[tp]
            self._rejoin()

    async def _offer_soon(self) -> None:
        """Have the group look at the claims, in which the leader finds that everything is to move."""
        await self._runtime.sleep(LEAVE_PAUSE_S)
        await self.settled()
        if self.held:
            internals.request_rejoin(self._consumer)

    def _rejoin(self) -> None:
        """Have the group look at the claims again, once for all that drain at about the same time."""
        if not self._rejoining:
            self._rejoining = True
            self._spawn(self._rejoin_soon(), "join again")

    async def _rejoin_soon(self) -> None:
        try:
            if any(holding.releasing for holding in self.held.values()):
                await self._runtime.sleep(REJOIN_PAUSE_S)
            # A join under way may have read the new claim already; if not, the next is due after it.
            await self.settled()
        finally:
            self._rejoining = False
        if not self._closed and self._given_up():
            internals.request_rejoin(self._consumer)

    def _given_up(self) -> Iterable[Any]:
        """What aiokafka still has assigned and this member does not hold."""
        assigned = internals.assigned(self._consumer)
        held = {holding.lower for holding in self.held.values()}
        return assigned - held
