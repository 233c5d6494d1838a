"""``python -m benchmarks.qos --kafka HOST:PORT``: what failures and one noisy key cost the others.

Three figures, each a ratio within this run, with its bar:

* 50 % of the keys fail all the time: the share of handler time that first attempts get.
* 2 % of the keys fail: throughput of the healthy ones, against the same run without failures.
* One key sends 100 times the load of each other, 4 permits: their p99 wait, against a run without it.

Exits with 1 when a bar is missed, or a run lost or reordered something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benchmarks.path.places import Place, kafka_place, memory_place
from benchmarks.qos.work import Shares, noisy_neighbour, p99
from prosody.broker.protocol import ProducerSettings
from prosody.client import ProsodyClient
from prosody.config import Config
from prosody.runtime import SystemRuntime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody import Context, Message

PERMITS = 8
KEYS = 40
RUNTIME = SystemRuntime()


async def fresh_topic(place: Place, name: str) -> str:
    admin = place.broker.admin()
    try:
        await admin.create_topic(name, partitions=4)
    finally:
        await admin.stop()
    return name


async def fill(place: Place, topic: str, records: Iterable[tuple[str, Any]]) -> None:
    producer = place.broker.producer(ProducerSettings("load", None, "crc32"))
    await producer.start()
    sends = [
        asyncio.ensure_future(
            producer.send(topic, key=key.encode(), value=json.dumps(value).encode())
        )
        for key, value in records
    ]
    await asyncio.gather(*sends)
    await producer.stop()


def client(place: Place, topic: str, **options: Any) -> ProsodyClient:
    values = {
        "mock": True,
        "group_id": f"{topic}-group",
        "subscribed_topics": topic,
        "source_system": "bench",
        "mode": "pipeline",
        "telemetry_enabled": False,
        "defer_enabled": False,
        "shutdown_timeout": 2.0,
        **options,
    }
    return ProsodyClient.from_parts(Config.load(values, {}), place.broker, RUNTIME)


async def normal_share(place: Place, run: str, seconds: float) -> float:
    handler_s = 0.005
    topic = await fresh_topic(place, f"{run}-shares")
    normal = int(PERMITS * (seconds + 3) / handler_s)
    failing = [(f"failing {n}", {"fails": True}) for n in range(KEYS)]
    await fill(
        place, topic, failing + [(f"normal {n % KEYS}", {"fails": False}) for n in range(normal)]
    )
    shares = Shares(handler_s)
    made = client(
        place,
        topic,
        retry_base=0.001,
        max_retry_delay=0.001,
        max_concurrency=PERMITS,
        max_uncommitted=normal + KEYS,
    )
    await made.subscribe(shares)
    await asyncio.sleep(2.0)
    shares.reset()
    await asyncio.sleep(seconds)
    taken = shares.snapshot()
    await made.shutdown()
    return taken.normal_share


class Healthy:
    """A no-op handler; some keys fail. Notes when the healthy ones are through, and faults of order."""

    def __init__(self, healthy: int) -> None:
        self._left = healthy
        self._last: defaultdict[str, int] = defaultdict(lambda: -1)
        self.faults = 0
        self.done = asyncio.Event()
        self.began = self.ended = 0.0

    async def on_message(self, context: Context, message: Message) -> None:
        self.began = self.began or RUNTIME.monotonic()
        if message.key.startswith("failing"):
            raise ConnectionError("a dependency of this key is down")
        number = message.payload["n"]
        self.faults += number <= self._last[message.key]
        self._last[message.key] = number
        self._left -= 1
        if not self._left:
            self.ended = RUNTIME.monotonic()
            self.done.set()


async def healthy_rate(place: Place, run: str, count: int, failing: int) -> tuple[float, int]:
    """Messages a second of the healthy keys of 1,000, and faults of order."""
    topic = await fresh_topic(place, f"{run}-healthy-{failing}")
    names = [f"{'failing' if key < failing else 'healthy'} {key}" for key in range(1_000)]
    records = [(names[n % 1_000], {"n": n}) for n in range(count)]
    await fill(place, topic, records)
    healthy = sum(key.startswith("healthy") for key, _ in records)
    handler = Healthy(healthy)
    made = client(place, topic, max_uncommitted=8192)
    await made.subscribe(handler)
    async with asyncio.timeout(300):
        await handler.done.wait()
    await made.shutdown()
    return healthy / (handler.ended - handler.began), handler.faults


async def measure(arguments: argparse.Namespace) -> int:
    place = kafka_place(arguments.kafka) if arguments.kafka else memory_place()
    run = f"qos-{RUNTIME.uuid4().hex[:8]}"
    print(f"## {place.name}: quality of service\n", flush=True)
    print("| | measured | bar | |\n|---|---:|---:|---|", flush=True)
    failed = False

    def row(text: str, measured: str, bar: str, ok: bool) -> None:
        nonlocal failed
        failed = failed or not ok
        print(f"| {text} | {measured} | {bar} | {'' if ok else 'MISSED'} |", flush=True)

    share = await normal_share(place, run, arguments.seconds)
    row(
        f"half of the keys fail: first attempts' share of handler time, {arguments.seconds:g} s",
        f"{share:.3f}",
        "0.70 ± 0.02",
        abs(share - 0.7) <= 0.02,
    )
    ratios, faults = [], 0
    for number in range(arguments.rounds):
        whole, some = [
            await healthy_rate(place, f"{run}-{number}", arguments.messages, failing)
            for failing in (0, 20)
        ]
        ratios.append(some[0] / whole[0])
        faults += whole[1] + some[1]
    ratio = statistics.median(ratios)
    row(
        "2 % of 1,000 keys fail, `max_uncommitted=8192`: healthy keys' throughput",
        f"{ratio:.2f} x",
        ">= 0.6 x",
        ratio >= 0.6,
    )
    row("faults of order in these runs", f"{faults}", "0", not faults)
    waits = {}
    for noise in (0, 100):
        topic = await fresh_topic(place, f"{run}-noise-{noise}")
        waits[noise] = await noisy_neighbour(
            place.broker,
            RUNTIME,
            lambda topic=topic: client(place, topic, max_concurrency=4, max_uncommitted=50_000),
            topic,
            noise=noise,
            seconds=arguments.seconds / 3,
        )
    quiet, noisy = (p99(waits[noise]) for noise in (0, 100))
    row(
        "one key with 100 x the load, 4 permits: p99 wait of the others",
        f"{noisy * 1000:.1f} ms ({quiet * 1000:.1f} ms without it)",
        "<= 1.5 x + 20 ms",
        noisy <= 1.5 * quiet + 0.020,
    )
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qos", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a real Kafka (default: embedded)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the run with failing keys")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
