"""``python -m benchmarks.metrics``: what metrics cost a message, and a reading of them.

The embedded broker, the pipeline with default options and a no-op handler. A round plays, in an order of
its own: the path as if nothing had been written to measure handlers, the path that nobody wants metrics of,
with ``/metrics`` switched on, and with a meter provider of the SDK and a reader. Of each the round with the
least CPU time counts, because other programs only ever add to it. What nobody wants costs less than the
whole path wanders by, so the layer that measures is played alone as well, and that is judged. Exits with 1
when a run lost, reordered or did not commit something, or a bar is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import prosody._core
from benchmarks.path.contestants import client
from benchmarks.path.places import memory_place
from benchmarks.path.work import Checked, records
from prosody import client as clients
from prosody.broker.protocol import TopicPartition
from prosody.client import ProsodyClient
from prosody.config import Config
from prosody.middleware import stacks, straight
from prosody.middleware.scheduler import Scheduler
from prosody.middleware.straight import Straight
from prosody.model.message import Message
from prosody.observe.buckets import Histogram
from prosody.observe.handling import Handling
from prosody.observe.metrics import Metrics
from prosody.observe.prometheus import text
from prosody.runtime import SystemRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prosody.model.outcome import Outcome
    from prosody.model.run import Run

WITHOUT, OFF, SCRAPED, SDK = "without the code", "nobody wants any", "/metrics", "SDK with a reader"
MEASURED = "measured"
OFF_US_MAX, ON_US_MAX = 0.3, 2.0
READ_PARTITIONS = 100


QUESTION = """\
            if scheduler.note is not None:
                scheduler.note(run, used_s, SUCCESS)
"""


def unasked() -> type[Straight]:
    """``Straight`` without the question whether somebody measures."""
    source = Path(straight.__file__).read_text(encoding="utf-8")
    assert source.count(QUESTION) == 1, "it is asked in another way now"
    module = ModuleType(straight.__name__)
    exec(compile(source.replace(QUESTION, ""), "unasked", "exec"), vars(module))
    found: type[Straight] = module.Straight
    return found


@contextlib.contextmanager
def scraped() -> Iterator[None]:
    make: Callable[..., Metrics] = lambda config, runtime: Metrics(  # noqa: E731
        runtime, config.core.group_id, scraped=True
    )
    with mock.patch.object(clients, "metrics_of", make):
        yield


@contextlib.contextmanager
def exported() -> Iterator[None]:
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    with mock.patch("opentelemetry.metrics._internal._METER_PROVIDER", provider):
        assert metrics.get_meter_provider() is provider
        yield


CONTESTANTS: dict[str, Callable[[], Any]] = {
    WITHOUT: lambda: mock.patch.object(stacks, "Straight", unasked()),
    OFF: contextlib.nullcontext,
    SCRAPED: scraped,
    SDK: exported,
}


LANE = SimpleNamespace(cancelling=lambda: 0)
"""The task of a run."""


async def path(count: int, work: Any) -> tuple[float, bool]:
    """CPU microseconds a message, and whether anything went wrong."""
    place = memory_place()
    await place.fill(work)
    gc.collect()
    gc.freeze()
    row = await client("pipeline")(place, count, "uniform 1000", 0.0)
    gc.unfreeze()
    return row.cpu_us, row.fault


class Alone:
    """The straight way with a scheduler and nothing else, for one run after the other."""

    def __init__(
        self, scheduler: Scheduler, note: Any = None, made: type[Straight] = Straight
    ) -> None:
        scheduler.note = note
        self._scheduler = scheduler

        async def nothing(*_: object) -> None: ...

        async def layers(_: Run) -> Outcome:
            raise AssertionError("all goes straight")

        invoke: Any = SimpleNamespace(methods={Message: nothing})
        self._call = made(layers, [], invoke, scheduler).begins()
        self._run: Any = SimpleNamespace(
            place=(0, "k"),
            work_class=0,
            permit=False,
            began=0.0,
            task=None,
            timer=None,
            duplicate=None,
            event=Message("orders", 0, 0, datetime.now(UTC), "k", {}),
            partition=SimpleNamespace(
                topic_partition=TopicPartition("orders", 0), running=True, deferrals=None
            ),
        )

    def us(self, count: int) -> float:
        """CPU microseconds for each run."""
        scheduler, run = self._scheduler, self._run
        gc.collect()
        began = time.process_time()
        for _ in range(count):
            run.task = None
            scheduler.enqueue(run, 0.0)
            scheduler.take()
            run.task = LANE
            self._call(run)
        return (time.process_time() - began) / count * 1e6


def alone(count: int, rounds: int) -> dict[str, float]:
    """The least of each: without the question, with it, and with somebody who notes the answer."""
    options = Config.load({"mock": True, "group_id": "g", "source_system": "me"}, {}).scheduler
    made = {name: Scheduler(1, options, SystemRuntime()) for name in (WITHOUT, OFF, MEASURED)}
    without = Alone(made[WITHOUT], made=unasked())
    note = Handling(Histogram(), "g")
    contestants = {WITHOUT: without, OFF: Alone(made[OFF]), MEASURED: Alone(made[MEASURED], note)}
    least = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, contestant in contestants.items():
            least[name] = min(least[name], contestant.us(count))
    return least


async def reading() -> tuple[float, float]:
    """Milliseconds of CPU time: in the event loop for the numbers, in a thread for the text of a scrape."""
    with scraped():
        place = memory_place()
        admin = place.broker.admin()
        await admin.create_topic("wide", partitions=READ_PARTITIONS)
        await admin.stop()
        values = {"mock": True, "group_id": "g", "subscribed_topics": "wide", "source_system": "me"}
        made = ProsodyClient.from_parts(Config.load(values, {}), place.broker, SystemRuntime())
        await made.subscribe(Checked(1, 0.0))
        while await made.assigned_partition_count() < READ_PARTITIONS:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
        calls = (made._metrics.read, lambda: text(made._metrics, ""))
        read_ms, page_ms = (min(_took_ms(call) for _ in range(20)) for call in calls)
        await made.shutdown()
        return read_ms, page_ms


def _took_ms(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1e3


async def measure(count: int, rounds: int) -> int:
    work = records("uniform", count, 1000)
    chance = random.Random(1)
    least: dict[str, float] = {}
    broken = False
    for _ in range(rounds):
        for name in chance.sample(list(CONTESTANTS), len(CONTESTANTS)):
            with CONTESTANTS[name]():
                found, fault = await path(count, work)
            least[name] = min(least.get(name, found), found)
            broken = broken or fault
    print(f"## Metrics, embedded broker ({prosody._core.IMPLEMENTATION})\n")
    print("| | CPU us/message | more than nobody |\n|---|---:|---:|")
    for name in CONTESTANTS:
        print(f"| {name} | {least[name]:.2f} | {least[name] - least[OFF]:+.2f} |")
    layer = alone(2000, 20 * rounds)
    off_us, on_us = layer[OFF] - layer[WITHOUT], layer[MEASURED] - layer[OFF]
    print(
        f"\nThe layer alone: {layer[WITHOUT]:.2f} us a message; that nobody wants any costs "
        f"{off_us:+.3f} us (bar {OFF_US_MAX}), to measure {on_us:+.2f} us"
    )
    slow = off_us > OFF_US_MAX or max(least[SCRAPED], least[SDK]) - least[OFF] > ON_US_MAX
    read_ms, page_ms = await reading()
    print(
        f"\n{READ_PARTITIONS} partitions: the numbers are read in {read_ms:.1f} ms, "
        f"and the text of /metrics is made in {page_ms:.1f} ms, in a thread"
    )
    if broken:
        print("BROKEN: a run lost, reordered or did not commit something")
    return 1 if broken or slow else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    return asyncio.run(measure(arguments.messages, arguments.rounds))


if __name__ == "__main__":
    sys.exit(main())
