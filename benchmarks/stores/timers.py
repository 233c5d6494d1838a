"""Timers: added, replaced, loaded and removed; and what that costs beside a million others."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

from benchmarks.stores.report import Row
from prosody.runtime import SystemRuntime
from prosody.stores.memory import MemoryStores, MemoryStoreState
from prosody.stores.protocol import Place, Segment, StoredTimer, TimerKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prosody.stores.protocol import Stores, TimerStore

KIND = TimerKind.APPLICATION
YEAR_S = 365 * 86_400
PAGE = 500
TOGETHER = 256
"""Calls under way at once."""


async def each(calls: Sequence[Callable[[], Awaitable[object]]], name: str) -> Row:
    """Run all calls, ``TOGETHER`` at once."""

    async def worker(part: Sequence[Callable[[], Awaitable[object]]]) -> None:
        for call in part:
            await call()

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker(calls[n::TOGETHER]) for n in range(TOGETHER)))
    return Row(name, len(calls), time.perf_counter() - began, time.process_time() - cpu, 0)


async def load(store: TimerStore, segment: Segment, until: int) -> list[StoredTimer]:
    found: list[StoredTimer] = []
    while True:
        after: Place | None = found[-1].place if found else None
        page = await store.load(segment, after, until, PAGE)
        found += page
        if len(page) < PAGE:
            return found


async def measure(stores: Stores, count: int) -> list[Row]:
    """One timer for each of ``count`` keys within the next two hours: the life of each of them."""
    store, now = stores.timers, int(time.time())
    segment = Segment(f"bench-{uuid.uuid4().hex[:8]}", "orders", 0)
    await store.open(segment, 1)
    timers = [StoredTimer(now + n % 7200, KIND, f"key-{n}", {}) for n in range(count)]
    moved = [timer._replace(time=timer.time + 1) for timer in timers]
    rows = [
        await each([lambda t=t: store.add(segment, t) for t in timers], "add"),  # type: ignore[misc]
        await each(
            [lambda t=t: store.replace(segment, t) for t in moved], "replace one by another"
        ),  # type: ignore[misc]
    ]
    began, cpu = time.perf_counter(), time.process_time()
    loaded = await load(store, segment, now + 2 * YEAR_S)
    wrong = len({t.place for t in loaded} ^ {t.place for t in moved})
    rows.append(Row("load", count, time.perf_counter() - began, time.process_time() - cpu, wrong))
    rows.append(await each([lambda t=t: store.remove(segment, t.place) for t in moved], "remove"))  # type: ignore[misc]
    left = len(await load(store, segment, now + 2 * YEAR_S))
    return [*rows[:-1], rows[-1]._replace(wrong=left)]


async def growing(sizes: Sequence[int], sample: int = 2000) -> list[Row]:
    """In memory, beside ``sizes`` timers a year ahead: the cost of an operation."""
    stores = MemoryStores(MemoryStoreState(), runtime=SystemRuntime(), dedup_ttl_s=60.0)
    store, now = stores.timers, int(time.time())
    segment = Segment("bench", "orders", 0)
    rows: list[Row] = []
    there = 0
    for size in sizes:
        for n in range(there, size):
            # Scattered over a year, not in order of time.
            due = now + n * 7919 % YEAR_S
            await store.add(segment, StoredTimer(due, KIND, f"pending-{n}", {}))
        there = size
        some = [
            StoredTimer(now + n * 104_729 % YEAR_S, KIND, f"new-{n}", {}) for n in range(sample)
        ]
        label = f"beside {size:,}"
        rows.append(await each([lambda t=t: store.add(segment, t) for t in some], f"add {label}"))  # type: ignore[misc]
        rows.append(
            await each(
                [lambda t=t: store.load(segment, t.place, t.time + 60, 1) for t in some],  # type: ignore[misc]
                f"load the next one {label}",
            )
        )
        rows.append(
            await each(
                [lambda t=t: store.times(segment, t.key, KIND) for t in some],  # type: ignore[misc]
                f"times of a key {label}",
            )
        )
        rows.append(
            await each(
                [lambda t=t: store.remove(segment, t.place) for t in some], f"remove {label}"
            )  # type: ignore[misc]
        )
    return rows
