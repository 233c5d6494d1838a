"""One episode: a group under load, a handful of disturbances, quiet again, and what came of it."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.processes.load import Load
from tests.processes.scene import Scene
from tests.soak.disturbances import Disturbances
from tests.soak.member import DEADLINE_S, EndingFleet, SoakFleet
from tests.soak.verdict import Report, report, unfired_timers
from tests.soak.work import SLOW_KEYS, SLOW_S, WAITING
from tools.look import uncommitted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.histories import Record
    from tools.services import CassandraServer, KafkaServer

MEMBERS = 3
SHORT_WAITS: dict[str, Any] = {
    "retry_base": 0.02,
    "max_retry_delay": 0.5,
    "defer_base": 0.3,
    "defer_max_delay": 2.0,
    "idempotence_cache_size": 8192,
}
"""So that much happens in an episode."""
_AT_ONCE = 0.3
"""How likely it is that the next disturbance does not wait for the end of this one."""
_LOOK_S = 0.2


async def play(
    seed: int,
    kafka: KafkaServer,
    cassandra: CassandraServer,
    folder: Path,
    say: Callable[[str], None],
) -> Report:
    """Play the episode of ``seed``.

    :param folder: where its members leave their files.
    :param say: told what happens.
    :raises AssertionError: it did not come to its end, and why.
    """
    chance = random.Random(seed)
    scene = Scene(folder, kafka.address)
    await scene.begin()
    client = {
        **SHORT_WAITS,
        "cassandra_nodes": cassandra.address,
        "cassandra_keyspace": "soak",
        "assignor": chance.choice(["cooperative", "cooperative", "range"]),
    }
    kind, failures = SoakFleet, None
    if seed % 2:
        kind, failures = EndingFleet, f"{scene.topic}-dead"
        await scene.create_topic(failures, 1)
        client |= {"mode": "low-latency", "failure_topic": failures, "max_retries": 1}
    plan = chance.choices(Disturbances.NAMES, k=chance.randint(4, 8))
    say(f"{client.get('mode', 'pipeline')}, {client['assignor']}: {', '.join(plan)}")
    fleet = scene.fleet(kind, client=client, slow_keys=dict.fromkeys(SLOW_KEYS, SLOW_S), seed=seed)
    assert isinstance(fleet, SoakFleet)
    try:
        load = Load(scene.broker, scene.topic, fleet, WAITING, seed=seed, send_limit_s=DEADLINE_S)
        async with fleet, load:
            disturbances = Disturbances(chance, fleet, kafka, cassandra)
            for _ in range(MEMBERS):
                disturbances.launch()
            await fleet.until(fleet.all_up, "the members have begun")
            load.begin()
            await fleet.until_more(100)
            await _disturb(disturbances, plan, chance)
            await fleet.until(fleet.all_up, "all members have begun")
            await fleet.until_more(300)
            await load.end()
            # One more of each key: when these are handled, the ones before are not just late.
            await load.send(sorted(WAITING))
            await load.until_handled()
            await fleet.until(lambda: not unfired_timers(fleet), "every timer has fired")
            await _until_committed(scene)
            await fleet.stop(*fleet.wanted())
            fleet.read()
            dead = [] if failures is None else await _dead_letters(kafka.address, failures)
            return report(fleet, load.sent, await scene.offsets(), dead, disturbances.zombies)
    finally:
        await scene.end()


async def _disturb(disturbances: Disturbances, plan: list[str], chance: random.Random) -> None:
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as group:
        for name in plan:
            happening = group.create_task(disturbances.happens(name), name=name)
            if chance.random() >= _AT_ONCE:
                await asyncio.wait([happening])
            await asyncio.sleep(chance.uniform(0.0, 4.0))


async def _until_committed(scene: Scene) -> None:
    """A run that has ended may still be tried again, or wait for its dead letter."""
    async with asyncio.timeout(DEADLINE_S):
        while uncommitted(await scene.offsets()):  # noqa: ASYNC110  # of the broker, which tells nobody
            await asyncio.sleep(_LOOK_S)


async def _dead_letters(address: str, topic: str) -> list[Record]:
    place = TopicPartition(topic, 0)
    found: list[Record] = []
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    async with asyncio.timeout(DEADLINE_S), consumer:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        while await consumer.position(place) < end:
            record = await consumer.getone()
            found.append((record.key.decode(), json.loads(record.value)["seq"]))
    return found
