"""``python -m benchmarks.path.memory --kafka HOST:PORT``: resident memory over a million distinct keys.

A process of its own writes the messages, so that what is measured is the consumer alone: its memory
after every tenth of the work, with the whole backlog there from the start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.path.places import kafka_place
from benchmarks.path.work import value
from prosody.client import ProsodyClient
from prosody.config import Config
from prosody.runtime import SystemRuntime

CHUNK = 20_000
DEADLINE_S = 600.0


def resident_mb() -> float:
    """This process's resident memory in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def fill(bootstrap: str, count: int) -> str:
    place = kafka_place(bootstrap)
    await place.fill([])
    for start in range(0, count, CHUNK):
        chunk = range(start, min(start + CHUNK, count))
        await place.append([(b"key-%d" % i, value(i, 0)) for i in chunk])
    return place.topic


class Sampler:
    """Counts messages and notes the memory after every tenth."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.handled = 0
        self.samples: list[float] = []
        self.done = asyncio.Event()

    async def on_message(self, context: Any, message: Any) -> None:
        self.handled += 1
        if self.handled % (self.count // 10) == 0:
            gc.collect()
            self.samples.append(resident_mb())
            print(f"{self.handled:>10,} handled   {self.samples[-1]:8.1f} MiB", flush=True)
        if self.handled == self.count:
            self.done.set()


async def consume(bootstrap: str, topic: str, count: int, mode: str) -> list[float]:
    place = kafka_place(bootstrap)
    options = {
        "bootstrap_servers": bootstrap,
        "group_id": f"{topic}-memory",
        "source_system": "me",
        "subscribed_topics": topic,
        "mode": mode,
    }
    client = ProsodyClient.from_parts(Config.load(options, {}), place.broker, SystemRuntime())
    sampler = Sampler(count)
    print(f"before subscribe                {resident_mb():8.1f} MiB", flush=True)
    await client.subscribe(sampler)
    async with asyncio.timeout(DEADLINE_S):
        await sampler.done.wait()
    await client.shutdown()
    return sampler.samples


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.path.memory", description=__doc__)
    parser.add_argument("--kafka", metavar="HOST:PORT", required=True)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--mode", default="pipeline")
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        print(asyncio.run(fill(arguments.kafka, arguments.messages)))
        return 0
    filler = [sys.executable, "-m", "benchmarks.path.memory", "--fill"]
    filler += ["--kafka", arguments.kafka, "--messages", str(arguments.messages)]
    topic = subprocess.run(filler, check=True, capture_output=True, text=True).stdout.strip()
    samples = asyncio.run(consume(arguments.kafka, topic, arguments.messages, arguments.mode))
    print(f"growth from the first tenth to the last: {samples[-1] - samples[0]:+.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
