"""A handler that makes timer calls, phase by phase, and checks what becomes of them."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.path.work import value
from benchmarks.storing import GROUP
from prosody.timers.due import DueTimer

if TYPE_CHECKING:
    from benchmarks.storing import Bench

DEADLINE_S = 300.0
DAY_S = 86_400
YEAR_S = 365 * DAY_S
PHASES = (
    "nothing",
    "schedule",
    "schedule, a new slab each",
    "scheduled",
    "clear_and_schedule",
    "unschedule",
    "fire",
)
"""In this sequence; ``unschedule`` removes the only one that is left."""


class Row(NamedTuple):
    """One phase."""

    name: str
    operations: int
    seconds: float
    cpu_us: float
    """For each operation, what a message costs without a call apart."""
    note: str
    wrong: dict[str, int]

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


class Phases:
    """A handler that makes the call of the phase, and counts what is not as it must be."""

    def __init__(self, keys: int) -> None:
        self._keys = keys
        self._base = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=YEAR_S / 2)
        self.phase = PHASES[0]
        self.done = asyncio.Event()
        self.left = 0
        self.began = self.began_cpu = 0.0
        self.due = datetime.now(UTC)
        self.wrong: Counter[str] = Counter()
        self.fired: Counter[str] = Counter()
        self.late: list[float] = []
        self.others = 0

    def enter(self, phase: str) -> None:
        self.phase, self.left, self.began = phase, self._keys, 0.0
        self.done.clear()
        self.wrong = Counter()

    def _far(self, key: str, more: int = 0) -> datetime:
        """A time for each key, spread over one day half a year ahead."""
        return self._base + timedelta(seconds=int(key[4:]) * 7919 % DAY_S + more)

    def _alone(self, key: str) -> datetime:
        """An hour for each key, so that a store that keeps timers by the hour has to begin one."""
        return self._base + timedelta(days=2, hours=int(key[4:]))

    async def on_message(self, context: Any, message: Any) -> None:
        if not self.began:
            self.began, self.began_cpu = time.perf_counter(), time.process_time()
        key = message.key
        match self.phase:
            case "schedule":
                await context.schedule(self._far(key))
            case "schedule, a new slab each":
                await context.schedule(self._alone(key))
            case "scheduled":
                expected = [self._far(key), self._alone(key)]
                self.wrong["not there"] += await context.scheduled() != expected
            case "clear_and_schedule":
                await context.clear_and_schedule(self._far(key, 2))
            case "unschedule":
                await context.unschedule(self._far(key, 2))
            case "fire":
                await context.schedule(self.due)
        self._one_done()

    async def on_timer(self, context: Any, timer: Any) -> None:
        if not timer.key.startswith("key-"):
            self.others += 1  # one of the crowd, whose time came while this took so long
            return
        late_s = time.time() - timer.time.timestamp()
        self.late.append(late_s)
        self.wrong["early"] += late_s < 0
        self.fired[timer.key] += 1
        self.wrong["again"] += self.fired[timer.key] > 1
        self._one_done()

    def _one_done(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()


async def phases(bench: Bench, keys: int, lead_s: float, **options: Any) -> list[Row]:
    """All phases over ``keys`` keys.

    :param lead_s: how long before their second the timers that fire are set; all must be set by then.
    """
    handler = Phases(keys)
    records = [(b"key-%d" % n, value(n, 0)) for n in range(keys)]
    rows: list[Row] = []
    base_us = 0.0
    async with bench.subscribed(handler, **options):
        for phase in PHASES:
            handler.enter(phase)
            if phase == "fire":
                second = math.ceil(time.time() + lead_s)
                handler.due = datetime.fromtimestamp(second, UTC)
            before = Counter(bench.stores.calls), bench.requests["sent"]
            await bench.place.append(records)
            await _wait(handler)
            seconds = time.perf_counter() - handler.began
            cpu_us = (time.process_time() - handler.began_cpu) / keys * 1e6
            calls = (bench.stores.calls - before[0]).total() / keys
            requests = (bench.requests["sent"] - before[1]) / keys
            if phase == "nothing":
                base_us = cpu_us
                continue
            note = f"{calls:.1f} store calls" + (f", {requests:.2f} requests" if requests else "")
            name = "schedule, all for one second" if phase == "fire" else phase
            rows.append(Row(name, keys, seconds, cpu_us - base_us, note, dict(handler.wrong)))
        rows.append(await _firing(handler, second, keys))
        bench.held = held_in_memory()
    bench.others_fired += handler.others
    rows[-1].wrong["uncommitted"] = await bench.place.uncommitted(GROUP)
    return rows


def held_in_memory() -> int:
    """Timers that the managers of this process hold, found without asking the client for them."""
    return sum(isinstance(found, DueTimer) for found in gc.get_objects())


async def _firing(handler: Phases, second: int, keys: int) -> Row:
    """Wait until all timers of ``second`` have fired."""
    handler.enter("firing")
    set_late = int(time.time() >= second)
    await asyncio.sleep(second - time.time() - 0.05)
    began_cpu = time.process_time()
    await _wait(handler)
    seconds = time.time() - second
    # A moment for a second firing, which must not come.
    await asyncio.sleep(0.5)
    late = sorted(handler.late)
    note = f"late: p50 {late[len(late) // 2]:.2f} s, max {late[-1]:.2f} s" if late else ""
    cpu_us = (time.process_time() - began_cpu) / keys * 1e6
    wrong = dict(handler.wrong) | {"never": keys - len(handler.fired), "set too late": set_late}
    return Row("fire", keys, seconds, cpu_us, note, wrong)


async def _wait(handler: Phases) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            await handler.done.wait()
    except TimeoutError:
        handler.wrong["never done"] += handler.left
