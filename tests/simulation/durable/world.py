"""One run with timers, deferral and deduplication over the embedded stores."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import TopicPartition
from prosody.stores.hashing import message_identity
from prosody.stores.memory import MemoryStoreState
from tests.simulation.durable.handlers import DurableShop
from tests.simulation.durable.oracle import DurableOracle
from tests.simulation.durable.watch import StoreWatch
from tests.simulation.members import configuration
from tests.simulation.watch import GROUP
from tests.simulation.world import VALUES, World

if TYPE_CHECKING:
    from prosody.config import Config
    from tests.simulation.durable.plan import DurablePlan

VERSION = "1"
"""``idempotence_version``."""
KINDS = ("message",) * 20 + ("undecodable", "filtered", "echo", "tombstone")
TWICE_WITHIN_S = (0.0, 0.0, 1.0, 5.0, 15.0)
"""How much later a message is sent a second time."""


class DurableWorld(World):
    """See the module."""

    plan: DurablePlan
    oracle: DurableOracle

    def __init__(self, plan: DurablePlan) -> None:
        super().__init__(plan)
        self._state = self._cluster.attached(MemoryStoreState)
        self._stores = StoreWatch(plan, self._state, self.watch)
        self._sent = 0

    def _make_oracle(self) -> DurableOracle:
        return DurableOracle(self.plan)

    def _make_shop(self) -> DurableShop:
        return DurableShop(self.plan, self.watch)

    def _configuration(self, member: str) -> Config:
        plan = self.plan
        return configuration(
            plan,
            member,
            self._topics,
            defer_enabled=True,
            defer_base=plan.defer_base_s,
            defer_max_delay=plan.defer_max_s,
            defer_failure_threshold=plan.gate,
            defer_failure_window=10.0,
            defer_seek_timeout=5.0,
            idempotence_version=VERSION,
            monopolization_enabled=False,
        )

    # -- the plan -----------------------------------------------------------------------------

    def _send(self, topic: int, count: int) -> None:
        name = self._topics[topic % len(self._topics)]
        chance = self._chance
        for key in chance.choices(self._keys, self._weights, k=count):
            kind = chance.choice(KINDS)
            if kind != "message" or chance.random() >= self.plan.ids:
                self._append(name, key, kind, "")
                continue
            self._sent += 1
            event_id = f"id{self._sent}"
            self._append(name, key, kind, event_id)
            if chance.random() < self.plan.twice:
                delay_s = chance.choice(TWICE_WITHIN_S)
                if delay_s:
                    self._loop.call_later(delay_s, self._append, name, key, kind, event_id)
                else:
                    self._append(name, key, kind, event_id)

    def _append(self, topic: str, key: str, kind: str, event_id: str) -> None:
        logs = self._cluster.logs(topic)
        number = zlib.crc32(key.encode()) % len(logs)
        tp = TopicPartition(topic, number)
        value, headers = VALUES[kind]
        note = kind
        if event_id:
            value = json.dumps({"type": "order.made", "id": event_id}).encode()
            identity = message_identity(VERSION, GROUP, topic, number, key, event_id)
            note = f"{kind} {identity.hex()}"
        with self._cluster.lock:
            offset = logs[number].append(1, key.encode(), value, headers)
        seq = self.oracle.next_seq(tp, key)
        self._shop.seqs[tp, offset] = seq
        event = self.watch.event("produced", tp=tp, offset=offset, key=key, seq=seq, note=note)
        self.watch.write(event)

    def _store_fail(
        self, calls: tuple[str, ...], ways: tuple[str, ...], share: float, length_s: float
    ) -> None:
        text = f"{share:.0%} of {', '.join(calls)} fail {', '.join(ways)} for {length_s} s"
        self.note("faults", note=text)
        self._stores.fail(calls, ways, share, self._loop.time(), length_s)

    def _trap(self, what: str, call: str, when: str, length_s: float) -> None:
        """The next member to make this call is killed, or stands still, just before or after its effect."""
        self.note("trap", note=f"{what} {when} {call}")

        def strike(name: str) -> bool:
            member = next((m for m in self._members if m.name == name), None)
            if member is None or member.state != "up" or self._is_stopped(member):
                return False
            if what == "stop":
                self._stop_now(member, length_s)
            else:
                self._crash_now(member, length_s)
            return True

        self._stores.trap(call, when, strike)

    def _store_outage(self, length_s: float) -> None:
        self.note("store outage", note=f"for {length_s} s")
        self._state.outage()
        self._later("store_restored", length_s)

    def _store_restored(self) -> None:
        self._state.restore()
        self.note("store restored")

    # -- the end ------------------------------------------------------------------------------

    def _heal(self) -> None:
        self._stores.end()
        super()._heal()

    def _behind(self) -> list[str]:
        behind = super()._behind()
        if not self.oracle.foreign_writes:
            # What a member wrote that had lost the partition, the next owner finds when it is assigned.
            behind += [f"the store holds {what}" for what in self._stores.left(self._loop.time())]
        return behind

    async def _end(self) -> None:
        consumers: dict[str, Any] = {}
        for member in self._members:
            consumer = member._client._consumer
            if member.state == "up" and consumer is not None:
                consumers[member.name] = consumer
        for name, consumer in consumers.items():
            for text in _left_over(consumer):
                self.note("leak", name, text)
        await super()._end()


def _left_over(consumer: Any) -> list[str]:
    """What a consumer holds that has nothing to do."""
    scheduler = consumer._stack.scheduler
    found = []
    if scheduler.in_use or scheduler.waiting:
        found.append(f"{scheduler.in_use} permits are held, {scheduler.waiting} runs wait")
    found += [
        f"{partition.name} has {len(partition.runs)} runs, {partition.uncommitted} uncommitted, "
        f"{partition.waiting} waiting"
        for partition in consumer._assignment.partitions()
        if partition.runs or partition.uncommitted or partition.waiting
    ]
    return found
