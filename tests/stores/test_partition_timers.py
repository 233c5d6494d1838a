"""A partition's timers over each store, on the real clock: what fires, when, and after a handover."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prosody.observe.storm import Storms
from prosody.runtime import SystemRuntime
from prosody.stores.protocol import TimerKind
from prosody.timers.partition_timers import PartitionTimers
from tests.stores.support import APP, load_all

if TYPE_CHECKING:
    from prosody.stores.protocol import Segment
    from prosody.timers.due import DueTimer
    from tests.stores.support import Place

TIMERS = 300
KEYS = 100


async def test_each_live_timer_fires_once_and_in_time(place: Place, segment: Segment) -> None:
    """300 timers on 100 keys, some cancelled, some moved; a handover in the middle."""
    runtime = SystemRuntime()
    fired: list[tuple[str, int, float]] = []
    tasks: set[asyncio.Task[None]] = set()

    async def handle(timer: DueTimer) -> None:
        if timer.begin():
            fired.append((timer.key, timer.time, runtime.wall() - timer.time))
            assert await timer.end()

    def fire(timer: DueTimer) -> None:
        task = asyncio.create_task(handle(timer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def owner() -> PartitionTimers:
        stores = await place.stores()
        timers = PartitionTimers(
            segment, stores.timers, runtime, fire,
            limit=64, kinds=tuple(TimerKind), storms=Storms(runtime), told=set(),
        )  # fmt: skip
        await timers.open(3)
        timers.start()
        return timers

    first = await owner()
    now = int(runtime.wall())
    wanted = {(f"k{n % KEYS}", now + 4 + n // KEYS) for n in range(TIMERS)}
    await asyncio.gather(*(first.schedule(key, time, APP, {}) for key, time in wanted))
    cancelled = {(key, time) for key, time in wanted if key[1:] < "2" and time == now + 5}
    moved = sorted({key for key, _ in wanted if key.startswith("k9")})
    await asyncio.gather(*(first.unschedule(key, time, APP) for key, time in cancelled))
    await asyncio.gather(*(first.replace(key, now + 7, APP, {}) for key in moved))
    wanted -= cancelled
    wanted = {(key, time) for key, time in wanted if key not in moved}
    wanted |= {(key, now + 7) for key in moved}

    await asyncio.sleep(now + 5.5 - runtime.wall())
    first.hold()
    if tasks:
        await asyncio.wait(set(tasks))
    first.stop()
    await first.settled()
    second = await owner()
    await asyncio.sleep(now + 7.5 - runtime.wall())
    for _ in range(200):  # a busy machine may take longer
        if len(fired) >= len(wanted) and not tasks:
            break
        await asyncio.sleep(0.1)
    second.stop()
    await second.settled()

    assert sorted((key, time) for key, time, _ in fired) == sorted(wanted)
    assert min(late for _, _, late in fired) >= 0.0
    assert max(late for _, _, late in fired) <= 10.0  # a second on an idle machine
    assert await load_all(await place.stores(), segment, page=100) == []
