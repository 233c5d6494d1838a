"""Deduplication on Cassandra: one look-up and one record for each message, grouped and by themselves."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import prosody.stores.cassandra.kinds as kinds
from benchmarks.stores.report import Row

if TYPE_CHECKING:
    from prosody.stores.protocol import DedupStore, Stores

IN_FLIGHT = (64, 512, 2000)
"""Messages under way at once: a partition's default, eight of them, and many."""


async def pairs(store: DedupStore, count: int, together: int) -> int:
    """Look up and record ``count`` new identities, ``together`` at once; how many were wrong."""
    ids = [uuid.uuid4().bytes for _ in range(count)]
    wrong = 0

    async def worker(part: list[bytes]) -> None:
        nonlocal wrong
        for identity in part:
            wrong += await store.seen(identity)
            await store.record(identity)

    await asyncio.gather(*(worker(ids[n::together]) for n in range(together)))
    sample = ids[:: max(1, count // 500)]
    return wrong + sum(not seen for seen in await asyncio.gather(*map(store.seen, sample)))


async def measure(stores: Stores, count: int, rounds: int) -> list[Row]:
    """Rows for grouped and single operations, interleaved; the best of ``rounds`` each."""
    found: dict[tuple[int, bool], Row] = {}
    for _ in range(rounds):
        for together in IN_FLIGHT:
            for grouped in (True, False):
                kinds.Writes.most = kinds.Lookups.most = kinds.GROUP_KEYS if grouped else 1
                amount = count if grouped else count // 4
                began, cpu = time.perf_counter(), time.process_time()
                wrong = await pairs(stores.dedup, amount, together)
                row = Row(
                    f"seen + record, {together} at once, {'grouped' if grouped else 'one by one'}",
                    amount,
                    time.perf_counter() - began,
                    time.process_time() - cpu,
                    wrong,
                )
                best = found.get((together, grouped))
                if best is None or row.rate > best.rate:
                    found[together, grouped] = row
    kinds.Writes.most = kinds.Lookups.most = kinds.GROUP_KEYS
    return list(found.values())
