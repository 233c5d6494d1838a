"""``python -m benchmarks.path.latency --kafka HOST:PORT``: from send to handler on an idle topic.

Bare aiokafka consumer and the client in turn, each waiting for one message at a time, so that nothing
queues: what is measured is wake-ups, not work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from benchmarks.path.places import PARTITIONS, kafka_place
from prosody.broker.protocol import ProducerSettings
from prosody.client import ProsodyClient
from prosody.config import Config
from prosody.runtime import SystemRuntime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.path.places import Place

DEADLINE_S = 60.0
PAUSE_S = 0.003


class Stopwatch:
    """One message under way at a time."""

    def __init__(self) -> None:
        self.sent_at = 0.0
        self.latencies: list[float] = []
        self.arrived = asyncio.Event()

    def arrive(self) -> None:
        self.latencies.append(time.perf_counter() - self.sent_at)
        self.arrived.set()

    async def on_message(self, context: Any, message: Any) -> None:
        self.arrive()


async def exchange(place: Place, watch: Stopwatch, count: int) -> None:
    """Send ``count`` messages, each when the one before has arrived."""
    producer = place.broker.producer(ProducerSettings("bench", None, "crc32"))
    await producer.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            for i in range(count + 20):
                if i == 20:
                    watch.latencies.clear()  # the first ones warm everything up
                watch.arrived.clear()
                watch.sent_at = time.perf_counter()
                await producer.send(place.topic, key=b"k%d" % (i % 16), value=b'{"seq":0}')
                await watch.arrived.wait()
                await asyncio.sleep(PAUSE_S)
    finally:
        await producer.stop()


async def bare(place: Place, bootstrap: str, count: int) -> list[float]:
    consumer = AIOKafkaConsumer(
        place.topic, bootstrap_servers=bootstrap, group_id=f"{place.topic}-bare",
        auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    watch = Stopwatch()
    await consumer.start()

    async def read() -> None:
        async for _ in consumer:
            watch.arrive()

    reading = asyncio.create_task(read())
    try:
        await exchange(place, watch, count)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await consumer.stop()
    return watch.latencies


async def client(place: Place, bootstrap: str, count: int) -> list[float]:
    watch = Stopwatch()
    options = {
        "bootstrap_servers": bootstrap,
        "group_id": f"{place.topic}-client",
        "source_system": "me",
        "subscribed_topics": place.topic,
        "mode": "best-effort",
    }
    config = Config.load(options, {})
    made = ProsodyClient.from_parts(config, place.broker, SystemRuntime())
    await made.subscribe(watch)
    async with asyncio.timeout(DEADLINE_S):
        while await made.assigned_partition_count() < PARTITIONS:  # noqa: ASYNC110  # no event says so
            await asyncio.sleep(0.01)
    try:
        await exchange(place, watch, count)
    finally:
        await made.shutdown()
    return watch.latencies


async def measure(bootstrap: str, count: int, rounds: int) -> list[dict[str, float]]:
    place = kafka_place(bootstrap)
    contestants: list[tuple[str, Callable[..., Awaitable[list[float]]]]] = [
        ("bare aiokafka consumer", bare),
        ("client, best-effort", client),
    ]
    medians: list[list[float]] = []
    results = []
    for number in range(rounds):
        medians.append([])
        for name, contestant in contestants:
            await place.fill([])
            latencies = sorted(await contestant(place, bootstrap, count))
            p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
            medians[-1].append(p50)
            results.append({"round": number, "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3})
            print(f"{name:24} p50 {p50 * 1e3:7.2f} ms   p99 {p99 * 1e3:7.2f} ms", flush=True)
    ratio = statistics.median(found[1] / found[0] for found in medians)
    print(f"ratio of the p50, median of {rounds} rounds: {ratio:.2f}")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path.latency", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", required=True)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.kafka, arguments.messages, arguments.rounds))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
