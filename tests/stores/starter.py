"""Connects once and says how it went: a process among several that start at the same time."""

from __future__ import annotations

import asyncio
import sys
import uuid

from prosody.runtime import SystemRuntime
from prosody.stores.cassandra import CassandraSettings, CassandraStores


async def main(address: str, keyspace: str) -> None:
    stores = CassandraStores(
        CassandraSettings(nodes=(address,), keyspace=keyspace), SystemRuntime()
    )
    print("ready", flush=True)
    sys.stdin.readline()
    await stores.start()
    identity = uuid.uuid4().bytes
    await stores.dedup.record(identity)
    assert await stores.dedup.seen(identity)
    await stores.stop()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
