"""What is counted on rare paths, exactly; on a clock that jumps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody import Context, Message, PermanentError, StoreError
from prosody.observe import metric_table as table
from prosody.stores.memory import MemoryStoreState
from tests.client.support import Place, Recorder, run_simulated

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody import ProsodyClient
    from prosody.observe.metric_table import Metric


def value(client: ProsodyClient, metric: Metric, *last: str) -> float | None:
    """The sum over the series whose values end with these; None without any."""
    found = client._metrics.read().get(metric.name, {})
    values = [
        number for series, number in found.items() if series[len(series) - len(last) :] == last
    ]
    return sum(values) if values else None


def fails(times: int, error: Callable[[], BaseException]) -> Any:
    """Fails so often, then does well."""
    left = times

    async def behave(_: Context, __: Message) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error()

    return behave


def test_retries_and_dead_letters() -> None:
    async def main(place: Place) -> None:
        failed = await place.create_topic(f"{place.topic}-failed", partitions=1)
        await place.create_topic(partitions=1)
        client = place.client(mode="low-latency", failure_topic=failed, max_retries=2)
        recorder = Recorder(fails(3, ValueError))
        await client.subscribe(recorder)
        await place.put({"n": 1})
        await place.put(b"no json")
        await place.put({"n": 2})
        await recorder.until_handled(1)
        await place.nothing_left()
        assert value(client, table.RETRIES) == 2
        assert value(client, table.DEAD_LETTERS) == 2
        assert value(client, table.UNDECODABLE) == 1
        assert value(client, table.SKIPPED) == 0  # the undecodable one becomes a dead letter
        assert value(client, table.CONSUMED) == 3
        await client.unsubscribe()
        assert value(client, table.DEAD_LETTERS) == 2
        assert value(client, table.PERMITS_LIMIT) is None

    run_simulated(main)


def test_permanent_failures_timeouts_and_duplicates() -> None:
    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        client = place.client(mode="pipeline", timeout=1.0, defer_enabled=False)
        slow = True

        async def behave(_: Context, message: Message) -> None:
            nonlocal slow
            if message.payload.get("permanent"):
                raise PermanentError("on purpose")
            if slow:
                slow = False
                await asyncio.sleep(3600.0)

        recorder = Recorder(behave)
        await client.subscribe(recorder)
        await place.put({"permanent": True})
        for _ in range(3):
            await place.put({"id": "one"})
        await place.put(None)
        await place.put({"n": 2})
        await recorder.until(lambda r: len(r.handled) == 2)
        await place.nothing_left()
        assert value(client, table.TIMEOUTS) == 1
        assert value(client, table.RETRIES) == 1
        assert value(client, table.DEDUP_HITS) == 2
        assert value(client, table.SKIPPED) == 1  # the one without a value
        assert value(client, table.DEAD_LETTERS) is None
        assert value(client, table.CLASS_SHARE, "failure") == pytest.approx(0.0, abs=0.01)
        assert value(client, table.CLASS_SHARE, "normal") == pytest.approx(1.0, abs=0.01)

    run_simulated(main)


def test_deferral() -> None:
    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        client = place.client(mode="pipeline", defer_base=20.0)
        recorder = Recorder(fails(1, ValueError))
        await client.subscribe(recorder)
        await place.put({"n": 1})
        await place.put({"n": 2})
        await place.nothing_left()
        assert value(client, table.DEFERRED) == 2
        assert value(client, table.DEFERRED_KEYS, "message") == 1
        assert value(client, table.DEFERRED_KEYS, "timer") == 0
        assert value(client, table.TIMERS_PENDING) == 1
        since = value(client, table.DEFERRED_AGE)
        assert since is not None
        await asyncio.sleep(3.0)
        (age_s,) = client._metrics.numbers_of(table.DEFERRED_AGE).values()
        assert age_s == pytest.approx(asyncio.get_running_loop().time() - since)
        assert age_s >= 3.0
        await recorder.until_handled(2)
        await asyncio.sleep(5.0)
        assert value(client, table.REDELIVERED) == 2
        assert value(client, table.DEFERRED_KEYS, "message") == 0
        assert value(client, table.DEFERRED_AGE) is None

    run_simulated(main)


def test_failures_of_stores() -> None:
    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        state = place.cluster.attached(MemoryStoreState)
        broken: list[str] = ["timers.open"]

        def refuse(name: str) -> None:
            if name in broken:
                broken.remove(name)
                raise StoreError("on purpose", retriable=True)

        state.on_call = refuse
        client = place.client(mode="pipeline", defer_base=1.0)
        recorder = Recorder(fails(1, ValueError))
        await client.subscribe(recorder)
        await asyncio.sleep(30.0)
        assert value(client, table.STORE_ERRORS, "timers") == 1
        broken += ["deferred.defer", "deferred.append", "dedup.seen", "dedup.record"]
        await place.put({"n": 1, "id": "one"})
        await recorder.until_handled(1)
        await place.nothing_left()
        found = {name for name in ("deferred.defer", "deferred.append") if name not in broken}
        assert found
        assert value(client, table.STORE_ERRORS, "deferred") == len(found)
        assert value(client, table.STORE_ERRORS, "dedup") == 2
        assert value(client, table.STORE_UP) == 1
        state.outage()
        assert value(client, table.STORE_UP) == 0
        state.restore()

    run_simulated(main)


def test_refusals_and_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        client = place.client(
            mode="pipeline", monopolization_threshold=0.1, monopolization_window=10.0, timeout=60.0
        )

        async def take_long(_: Context, __: Message) -> None:
            await asyncio.sleep(5.0)

        recorder = Recorder(take_long)
        await client.subscribe(recorder)
        await place.put({"n": 1})
        await place.put({"n": 2})
        await recorder.until_handled(2)
        await place.nothing_left()
        refusals = value(client, table.REFUSALS)
        assert refusals is not None
        assert refusals >= 1
        assert value(client, table.FAULTS) == 0
        assert client._consumer is not None
        (partition,) = client._consumer._assignment.partitions()
        partition.fault(AssertionError("a bug"))
        await asyncio.sleep(5.0)
        assert value(client, table.FAULTS) == 1
        assert value(client, table.REBALANCES, "assigned") == 1
        client._consumer._assignment.on_lost(frozenset([partition.topic_partition]))
        assert value(client, table.REBALANCES, "lost") == 1
        assert value(client, table.LAG) is None

    run_simulated(main)
