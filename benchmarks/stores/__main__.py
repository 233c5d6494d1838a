"""``python -m benchmarks.stores``: the stores in memory and, with ``--cassandra``, in Cassandra.

Exits with 1 when a store answered something that was not stored.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import uuid
from typing import TYPE_CHECKING

from benchmarks.stores import dedup, timers
from benchmarks.stores.report import table
from prosody.runtime import SystemRuntime
from prosody.stores.memory import MemoryStores, MemoryStoreState

if TYPE_CHECKING:
    from benchmarks.stores.report import Row


async def in_memory(arguments: argparse.Namespace) -> list[Row]:
    stores = MemoryStores(MemoryStoreState(), runtime=SystemRuntime(), dedup_ttl_s=60.0)
    rows = await timers.measure(stores, arguments.timers)
    print(table(f"Timers in memory, {arguments.timers:,}", rows), flush=True)
    growing = await timers.growing([1000, 100_000, arguments.pending])
    print(table("Timers in memory, beside others", growing), flush=True)
    return rows + growing


async def in_cassandra(arguments: argparse.Namespace) -> list[Row]:
    from prosody.stores.cassandra import CassandraSettings, CassandraStores

    # Whoever measures wants no lines in between.
    logging.getLogger("cassandra").setLevel(logging.ERROR)
    settings = CassandraSettings(
        nodes=(arguments.cassandra,), keyspace=f"bench_{uuid.uuid4().hex[:8]}"
    )
    stores = CassandraStores(settings, SystemRuntime())
    await stores.start()
    try:
        await dedup.pairs(stores.dedup, 2000, 500)  # a server that has just started is slow
        rows = await dedup.measure(stores, arguments.pairs, arguments.rounds)
        print(table("Deduplication in Cassandra", rows), flush=True)
        for grouped, single in zip(rows[::2], rows[1::2], strict=True):
            print(f"{grouped.name}: {grouped.rate / single.rate:.1f} x the rate of one by one")
        print()
        found = await timers.measure(stores, arguments.timers)
        print(table(f"Timers in Cassandra, {arguments.timers:,}", found), flush=True)
    finally:
        await stores.stop()
        drop(arguments.cassandra, settings.keyspace)
    return rows + found


def drop(address: str, keyspace: str) -> None:
    """Leave nothing behind on the server."""
    from cassandra import ProtocolVersion
    from cassandra.cluster import Cluster

    host, _, port = address.rpartition(":")
    cluster = Cluster([(host, int(port))], protocol_version=ProtocolVersion.V4)
    try:
        cluster.connect().execute(f'DROP KEYSPACE IF EXISTS "{keyspace}"', timeout=60.0)
    finally:
        cluster.shutdown()


async def measure(arguments: argparse.Namespace) -> list[Row]:
    rows = [] if arguments.no_memory else await in_memory(arguments)
    if arguments.cassandra:
        rows += await in_cassandra(arguments)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cassandra", metavar="HOST:PORT", help="measure this one, too")
    parser.add_argument("--no-memory", action="store_true", help="leave out the stores in memory")
    parser.add_argument("--timers", type=int, default=10_000, help="timers added and removed")
    parser.add_argument("--pending", type=int, default=1_000_000, help="timers that are pending")
    parser.add_argument("--pairs", type=int, default=40_000, help="messages deduplicated")
    parser.add_argument("--rounds", type=int, default=2, help="of deduplication; the best counts")
    rows = asyncio.run(measure(parser.parse_args()))
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
