"""Fair shares, seen from outside: of handler time between first attempts and retries, and between keys."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from benchmarks.qos.work import Shares, noisy_neighbour, p99
from tests.client.support import Place, Recorder, run_simulated

if TYPE_CHECKING:
    from prosody import Context, Message

PERMITS = 8
KEYS = 40


async def shares_of(place: Place, seconds: float, handler_s: float) -> Shares:
    """Half of the keys fail all the time, and both classes are backlogged: who gets the handler time?"""
    shares = Shares(handler_s)
    await place.create_topic(partitions=4)
    normal = int(PERMITS * (seconds + 3.0) / handler_s)
    records = [(b"failing %d" % n, {"fails": True}) for n in range(KEYS)]
    records += [(b"normal %d" % (n % KEYS), {"fails": False}) for n in range(normal)]
    await place.put_many(records)
    client = place.client(
        mode="pipeline",
        defer_enabled=False,
        monopolization_enabled=False,
        retry_base=0.001,
        max_retry_delay=0.001,
        max_concurrency=PERMITS,
        max_uncommitted=len(records),
        shutdown_timeout=1.0,
    )
    await client.subscribe(shares)
    await asyncio.sleep(1.0)
    shares.reset()
    await asyncio.sleep(seconds)
    taken = shares.snapshot()
    await client.unsubscribe()
    return taken


def test_a_minute_of_failures_leaves_first_attempts_their_share() -> None:
    async def main(place: Place) -> None:
        taken = await shares_of(place, 60.0, 0.02)
        assert taken.normal_share == pytest.approx(0.7, abs=0.02)
        assert taken.used_s == pytest.approx(60.0 * PERMITS, rel=0.02), "no permit is idle"

    run_simulated(main)


@pytest.mark.real
async def test_failures_leave_first_attempts_their_share_on_kafka(kafka_place: Place) -> None:
    taken = await shares_of(kafka_place, 10.0, 0.01)
    # On a machine that does other things as well, fetching stalls for moments in which no first attempt
    # waits; benchmarks/qos measures the share to 0.02, over a minute.
    assert taken.normal_share == pytest.approx(0.7, abs=0.05)


def test_a_noisy_key_costs_others_next_to_nothing() -> None:
    """One key offers 100 times the load of each other, which together use 15 % of the permits."""

    async def main(place: Place) -> None:
        waits = {}
        for noise in (0, 100):
            await place.create_topic(f"noise-{noise}", partitions=4)
            waits[noise] = await noisy_neighbour(
                place.broker,
                place.runtime,
                lambda topic=f"noise-{noise}": place.client(
                    mode="pipeline",
                    group_id=topic,
                    subscribed_topics=topic,
                    max_concurrency=4,
                    max_uncommitted=20_000,
                ),
                f"noise-{noise}",
                noise=noise,
                seconds=10.0,
            )
        assert p99(waits[100]) <= 1.5 * p99(waits[0]) + 0.020

    run_simulated(main)


def test_a_key_that_monopolises_is_held_back_and_everything_is_handled_in_order() -> None:
    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        began: dict[str, list[float]] = defaultdict(list)

        async def takes_a_while(context: Context, message: Message) -> None:
            began[message.key].append(place.runtime.monotonic())
            await asyncio.sleep(4.0 if message.key == "greedy" else 0.1)

        recorder = Recorder(takes_a_while)
        await place.put_many(
            [(b"greedy", n) for n in range(20)] + [(b"modest %d" % n, n) for n in range(20)]
        )
        client = place.client(
            mode="pipeline",
            monopolization_threshold=0.5,
            monopolization_window=20.0,
            max_concurrency=2,
        )
        await client.subscribe(recorder)
        while len(recorder.handled) < 40:  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(1.0)
        assert recorder.by_key()["greedy"] == list(range(20))
        # 80 s of work at half of the time, where without the rule it takes 80 s.
        lasted_s = began["greedy"][-1] - began["greedy"][0]
        assert 120.0 < lasted_s < 180.0
        assert max(began[f"modest {n}"][0] for n in range(20)) < 5.0
        await place.nothing_left()

    run_simulated(main)


def test_hours_of_failures_end_within_the_longest_wait() -> None:
    hours_s = 5 * 3_600.0

    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)

        async def down_for_hours(context: Context, message: Message) -> None:
            if message.key == "failing" and place.runtime.monotonic() < hours_s:
                raise ConnectionError("the dependency of this key is down")

        recorder = Recorder(down_for_hours)
        await place.put_many([(b"failing", 0), (b"healthy", 1), (b"failing", 2), (b"healthy", 3)])
        await place.client(mode="pipeline", max_retry_delay=300.0, defer_enabled=False).subscribe(
            recorder
        )
        await asyncio.sleep(1.0)
        assert recorder.by_key() == {"healthy": [1, 3]}
        await asyncio.sleep(hours_s - 2.0)
        # Waits are 150 s on average, once they have grown.
        assert 80 < len(recorder.attempts) < 250
        await asyncio.sleep(302.0)
        assert recorder.by_key()["failing"] == [0, 2]
        await place.nothing_left()

    run_simulated(main)
