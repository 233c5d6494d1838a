"""``python -m benchmarks.dedup``: messages/s with an ``id`` each, through the whole path, over each store.

The pipeline with a no-op handler and default options, but for the limits that arguments set, on the
embedded broker or a real Kafka; the records of what is handled go nowhere, to the embedded store or to a
real Cassandra. One message in a hundred is a copy of an earlier one. Rounds are interleaved; the table
shows medians. Exits with 1 when a run lost, reordered, repeated, did not commit or did not record
something.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import statistics
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.path.places import PARTITIONS, kafka_place, memory_place
from benchmarks.path.work import Checked, keys
from benchmarks.stores.__main__ import drop
from prosody.client import ProsodyClient
from prosody.config import Config
from prosody.consume import consumer
from prosody.middleware import stacks
from prosody.middleware.base import compose
from prosody.middleware.deduplication import Deduplication
from prosody.observe.storm import Storms
from prosody.runtime import SystemRuntime
from prosody.stores.hashing import message_identity
from prosody.stores.memory import MemoryStores, MemoryStoreState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from benchmarks.path.places import Place
    from prosody.middleware.base import Call, Layer
    from prosody.stores.protocol import DedupStore

GROUP = "bench-dedup"
DEADLINE_S = 300.0
COPIES = 100
"""One message in so many is a copy."""
SAMPLE = 1000
"""So many messages are looked up in the store after a run."""


@dataclass(frozen=True)
class Work:
    """What is sent: key and value of each record."""

    records: list[tuple[bytes, bytes]]
    distinct: int
    sample: list[tuple[str, str]]
    """Key and id of some of the messages."""


def work(count: int, *, ids: bool, distribution: str = "uniform") -> Work:
    """``count`` messages of 1,000 keys; one in a hundred is sent again, a few hundred later."""
    chance = random.Random(7)
    run = uuid.uuid4().hex
    seqs: dict[bytes, int] = {}
    records: list[tuple[bytes, bytes]] = []
    again: list[tuple[int, tuple[bytes, bytes]]] = []
    named: list[tuple[str, str]] = []
    distinct = 0
    for key in keys(distribution, count, 1000):
        if again and again[0][0] <= len(records):
            records.append(again.pop(0)[1])
            continue
        seq = seqs.get(key, 0)
        seqs[key] = seq + 1
        order: dict[str, Any] = {"i": distinct, "seq": seq, "type": "order.created", "amount": 12.5}
        if ids:
            order["id"] = f"{run}-{distinct}"
            named.append((key.decode(), order["id"]))
        record = key, json.dumps(order, separators=(",", ":")).encode()
        records.append(record)
        distinct += 1
        if ids and distinct % COPIES == 0:
            again.append((len(records) + chance.randint(1, 500), record))
            again.sort(key=lambda each: each[0])
    return Work(records, distinct, named[:: max(1, len(named) // SAMPLE)])


class Once(Checked):
    """Counts messages that are handled twice."""

    repeated = 0

    async def on_message(self, context: Any, message: Any) -> None:
        if message.payload["seq"] < self.next_seq.get(message.key, 0):
            self.repeated += 1
            return
        await super().on_message(context, message)


@dataclass(frozen=True)
class Row:
    """One measured run."""

    seconds: float
    cpu_seconds: float
    count: int
    order_faults: int
    repeated: int
    lost: int
    uncommitted: int
    unrecorded: int

    @property
    def broken(self) -> bool:
        return any((self.order_faults, self.repeated, self.lost, self.uncommitted, self.unrecorded))


@contextlib.contextmanager
def layer_in_place(made: Deduplication | None) -> Iterator[None]:
    """Clients that are subscribed here have this layer outermost, and tell it of admissions."""

    def with_layer(layers: Sequence[Layer], handler: Call) -> Call:
        others = [one for one in layers if not isinstance(one, Deduplication)]
        return compose([*([made] if made else []), *others], handler)

    shared: Any = consumer.Shared

    def told(**fields: Any) -> Any:
        return shared(**{**fields, "admitted": made.admitted if made else None})

    with (
        mock.patch.object(stacks, "compose", with_layer),
        mock.patch.object(consumer, "Shared", told),
    ):
        yield


async def measure(
    place: Place, what: Work, *, layer: bool, store: DedupStore | None, **options: Any
) -> Row:
    """One run of one subscription over a new topic."""
    await place.fill(what.records)
    handler = Once(what.distinct)
    group = f"{GROUP}-{uuid.uuid4().hex[:8]}"
    values: dict[str, Any] = {
        "mock": True, "group_id": group, "subscribed_topics": place.topic,
        "source_system": "me", "mode": "pipeline", **options,
    }  # fmt: skip
    config = Config.load(values, {})
    runtime = SystemRuntime()
    size, version = config.consumer.idempotence_cache_size, config.consumer.idempotence_version
    made = Deduplication(size, version, group, store, Storms(runtime)) if layer else None
    client = ProsodyClient.from_parts(config, place.broker, runtime)
    with layer_in_place(made):
        await client.subscribe(handler)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await handler.done.wait()
        seconds, cpu_seconds = handler.took()
    finally:
        await client.shutdown()
    missing = 0
    if made is not None and store is not None:
        for key, event_id in what.sample:
            found = await asyncio.gather(
                *(
                    store.seen(message_identity(version, group, place.topic, n, key, event_id))
                    for n in range(PARTITIONS)
                )
            )
            missing += sum(found) != 1
        missing += made.unrecorded + made.unread
    return Row(
        seconds,
        cpu_seconds,
        len(what.records),
        handler.order_faults,
        handler.repeated,
        what.distinct - handler.handled,
        await place.uncommitted(group),
        missing,
    )


@contextlib.asynccontextmanager
async def cassandra(address: str) -> AsyncIterator[DedupStore]:
    """Stores in a keyspace of their own, dropped afterwards."""
    from prosody.stores.cassandra import CassandraSettings, CassandraStores

    logging.getLogger("cassandra").setLevel(logging.ERROR)
    settings = CassandraSettings(nodes=(address,), keyspace=f"bench_{uuid.uuid4().hex[:8]}")
    stores = CassandraStores(settings, SystemRuntime())
    await stores.start()
    try:
        yield stores.dedup
    finally:
        await stores.stop()
        drop(address, settings.keyspace)


def in_memory() -> DedupStore:
    return MemoryStores(MemoryStoreState(), runtime=SystemRuntime(), dedup_ttl_s=3600.0).dedup


def table(title: str, found: dict[str, list[Row]]) -> str:
    """Medians of the rounds; what went wrong is added up."""
    lines = [
        f"## {title}",
        "",
        "| | messages/s | CPU us/message | order faults | handled twice | lost | uncommitted "
        "| unrecorded |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rows in found.items():
        rate = statistics.median(row.count / row.seconds for row in rows)
        cpu = statistics.median(row.cpu_seconds / row.count * 1e6 for row in rows)
        broken = "BROKEN " if any(row.broken for row in rows) else ""
        wrong = zip(
            *((r.order_faults, r.repeated, r.lost, r.uncommitted, r.unrecorded) for r in rows),
            strict=True,
        )
        lines.append(
            f"| {broken}{name} | {rate:,.0f} | {cpu:.1f} | "
            + " | ".join(str(sum(each)) for each in wrong)
            + " |"
        )
    return "\n".join(lines) + "\n"


async def compare(arguments: argparse.Namespace) -> dict[str, list[Row]]:
    place = kafka_place(arguments.kafka) if arguments.kafka else memory_place()
    count = arguments.messages
    found: dict[str, list[Row]] = {}
    async with contextlib.AsyncExitStack() as stack:
        runs: list[tuple[str, bool, bool, Callable[[], DedupStore | None]]] = [
            ("no id, without the layer", False, False, lambda: None),
            ("no id", False, True, lambda: None),
            ("an id each, memory tier only", True, True, lambda: None),
            ("an id each, embedded store", True, True, in_memory),
        ]
        if arguments.cassandra:
            store = await stack.enter_async_context(cassandra(arguments.cassandra))
            runs.append(("an id each, Cassandra", True, True, lambda: store))
            # A server that has just started is slow.
            await measure(place, work(20_000, ids=True), layer=True, store=store)
        for _ in range(arguments.rounds):
            for name, ids, layer, make in runs:
                if arguments.only and arguments.only not in name:
                    continue
                # Without a memory tier copies would be handled, so they are sent with ids only.
                row = await measure(
                    place,
                    work(count, ids=ids),
                    layer=layer,
                    store=make(),
                    max_uncommitted=arguments.max_uncommitted,
                    max_concurrency=arguments.max_concurrency,
                )
                found.setdefault(name, []).append(row)
    title = (
        f"Deduplication, {place.name} broker, pipeline, max_uncommitted {arguments.max_uncommitted}, "
        f"max_concurrency {arguments.max_concurrency}, {count:,} messages"
    )
    print(table(title, found), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedup", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a real Kafka (default: embedded)")
    parser.add_argument("--cassandra", metavar="HOST:PORT", help="measure over this one, too")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-uncommitted", type=int, default=64)
    parser.add_argument("--max-concurrency", type=int, default=32)
    parser.add_argument("--only", metavar="TEXT", help="only rows with this in their name")
    found = asyncio.run(compare(parser.parse_args()))
    return 1 if any(row.broken for rows in found.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
