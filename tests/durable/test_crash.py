"""The process that set timers and deferred messages is killed; another one takes over."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.durable.member import FIRED, SET, TimerFleet
from tests.processes.conftest import scene  # noqa: F401  # a fixture
from tests.processes.histories import judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.scene import Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

KEYS = [f"key-{n}" for n in range(60)]
BAD = [f"bad-{n}" for n in range(10)]
BEFORE_KILL = 60
"""Timers that have fired when the process is killed: some more are due at that very moment."""


async def test_no_timer_and_no_deferred_message_is_lost(
    scene: Scene,  # noqa: F811
    cassandra_contact: str,
    durable_keyspace: str,
    report: Callable[[str, object], None],
) -> None:
    client = {
        "cassandra_nodes": cassandra_contact,
        "cassandra_keyspace": durable_keyspace,
        "session_timeout": 4.0,
        "defer_base": 0.5,
        "defer_max_delay": 2.0,
    }
    fleet = scene.fleet(TimerFleet, client=client, work_s_max=0.0)
    assert isinstance(fleet, TimerFleet)
    async with fleet, scene.load(fleet, {}) as load:
        first = await fleet.start("first")
        now = int(time.time())
        timers = [now + n for n in (2, 4, 5, 6, 7, 9, 12)]
        await load.send(KEYS, timers=timers)
        for _ in range(4):
            await load.send(BAD, fails_until=now + 7.0)
        count = len(KEYS) * len(timers)
        await fleet.until(lambda: len(fleet.timers(SET)) >= count, "all timers are set")
        await fleet.until(lambda: len(fleet.timers(FIRED)) >= BEFORE_KILL, "timers fire")
        await fleet.kill(first)
        second = await fleet.start("second")
        # Also while nobody was there messages came.
        await load.send(BAD)
        wanted = {(key, at) for key in KEYS for at in timers}

        def all_fired() -> bool:
            return wanted <= {(t.key, t.second) for t in fleet.timers(FIRED)}

        await fleet.until(all_fired, "every timer has fired")
        await load.until_handled()
        await fleet.stop(second)
        fleet.read()
        verdict = judge(fleet.runs(), load.sent, died=fleet.died())
    fired = Counter((t.key, t.second) for t in fleet.timers(FIRED))
    acknowledged = {(t.key, t.second) for t in fleet.timers(SET) if t.member == "first"}
    report("set by the one that was killed", len(acknowledged))
    report("fired there", sum(t.member == "first" for t in fleet.timers(FIRED)))
    report("fired twice", sum(count > 1 for count in fired.values()))
    assert acknowledged == wanted
    assert not wanted - set(fired)
    early = [t for t in fleet.timers(FIRED) if t.wall < t.second]
    assert not early
    assert not verdict.lost, verdict
    assert not verdict.disorder, verdict
    assert not verdict.overlaps, verdict
    # Only what had fired a moment before the kill may fire again: it was not removed yet.
    again = {place for place, count in fired.items() if count > 1}
    killed_at = max(t.wall for t in fleet.timers(FIRED) if t.member == "first")
    old = {
        (t.key, t.second)
        for t in fleet.timers(FIRED)
        if t.member == "first" and t.wall < killed_at - 1.0
    }
    assert not again & old
