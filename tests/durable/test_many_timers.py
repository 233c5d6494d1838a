"""A thousand timers on three hundred keys, with cancelled and moved ones, on real services."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from prosody.model.times import utc_from_seconds
from tests.durable.support import Handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody import Context, Message
    from tests.durable.support import Place

pytestmark = pytest.mark.real

SEED = 7
KEYS = [f"key-{n}" for n in range(300)]
LIVE = 1000
LEAD_S = 10
"""From the first message to the first timer."""
SPREAD_S = 6
LATE_S_MAX = 5.0
"""On a machine that has other things to do; how late they really were is printed."""

Step = tuple[str, int]


class Plan:
    """What each key does with its timers, and which are left in the end: a set for each key."""

    def __init__(self, first: int) -> None:
        self._random = random.Random(SEED)
        self.first = first
        self._seconds = range(first, first + SPREAD_S)
        self.steps: dict[str, list[Step]] = {key: [] for key in KEYS}
        self.live: dict[str, set[int]] = {key: set() for key in KEYS}
        self.removed = 0
        for key in KEYS[::3]:
            self._play(key)
        while self.count < LIVE:
            self._set(self._random.choice(KEYS))

    @property
    def count(self) -> int:
        return sum(map(len, self.live.values()))

    def _play(self, key: str) -> None:
        """Set some, take some away, move what is left: each third of the keys ends otherwise."""
        for _ in range(3):
            self._set(key)
        live = self.live[key]
        way = self._random.choice(("cancel", "clear", "move"))
        before = len(live)
        if way == "cancel":
            second = self._random.choice(sorted(live))
            live.remove(second)
            self.steps[key].append((way, second))
        else:
            live.clear()
            second = self._random.choice(self._seconds)
            if way == "move":
                live.add(second)
            self.steps[key].append((way, second))
        self.removed += before - len(live)

    def _set(self, key: str) -> None:
        second = self._random.choice(self._seconds)
        self.live[key].add(second)
        self.steps[key].append(("set", second))


async def follow(context: Context, message: Message) -> None:
    """Do what a message says."""
    calls: dict[str, Any] = {
        "set": context.schedule,
        "cancel": context.unschedule,
        "move": context.clear_and_schedule,
    }
    for what, second in message.payload:
        if what == "clear":
            await context.clear_scheduled()
        else:
            await calls[what](utc_from_seconds(second))


async def test_each_live_timer_fires_once_and_none_early(
    services: Place, report: Callable[[str, object], None]
) -> None:
    await services.create_topic()
    handler = Handler(services, follow)
    client = services.client(max_concurrency=128)
    await client.subscribe(handler)
    plan = Plan(services.seconds() + LEAD_S)
    await services.put_many([(key.encode(), steps) for key, steps in plan.steps.items()])
    await handler.until_handled(len(KEYS))
    assert services.runtime.wall() < plan.first, "too slow: timers came due while they were set"
    await handler.until_fired(LIVE)
    # One more of each key: whatever should not fire has had its time.
    last = services.seconds() + 2
    await services.put_many([(key.encode(), [("set", last)]) for key in KEYS])
    await handler.until_fired(LIVE + len(KEYS))
    await client.unsubscribe()
    fired = Counter((run.key, run.value) for run in handler.of("timer", ok=None))
    expected = Counter({(key, second) for key, live in plan.live.items() for second in live})
    expected.update((key, last) for key in KEYS)
    assert fired == expected
    late = sorted(run.late_s for run in handler.of("timer") if run.value != last)
    report("timers live, cancelled or moved", (len(late), plan.removed))
    report("late p50, p99, max (s)", [round(late[int(len(late) * q)], 3) for q in (0.5, 0.99)])
    report("latest (s)", round(late[-1], 3))
    assert late[0] >= 0
    assert late[-1] < LATE_S_MAX
    assert not handler.overlaps
