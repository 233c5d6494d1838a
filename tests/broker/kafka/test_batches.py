"""How a write of many records tells what was lost, with aiokafka's producer stood in for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import errors as lower

from prosody.broker.kafka import KafkaSecurity
from prosody.broker.kafka.batches import KafkaBatches
from prosody.broker.protocol import ProducerSettings
from tests.support import FakeRuntime, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from prosody.broker.kafka.record_batch import RecordBatch

KEYS = [b"key-%d" % n for n in range(100)]


class Producer:
    """Acknowledges, refuses or leaves open what it is given, as ``ends`` says for a partition."""

    def __init__(self, ends: Callable[[int], BaseException | str | None]) -> None:
        self._ends = ends
        self.taken: list[tuple[int, int]] = []

    async def send_batch(
        self, batch: RecordBatch, topic: str, *, partition: int
    ) -> asyncio.Future[None]:
        self.taken.append((partition, batch.record_count()))
        end = self._ends(partition)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if isinstance(end, AssertionError):
            raise end
        if isinstance(end, BaseException):
            done.set_exception(end)
        elif end is None:
            done.set_result(None)
        return done


def play(
    ends: Callable[[int], Any], main: Callable[[KafkaBatches, Producer], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        settings = ProducerSettings("me", None, "crc32")
        batches: Any = KafkaBatches(
            ("none:1",), settings, runtime=FakeRuntime(), security=KafkaSecurity()
        )
        producer = batches._producer = Producer(ends)
        batches._topic, batches._count = "t", 4
        await main(batches, producer)

    run_virtual(run())


def of_partition(producer: Producer, partition: int) -> int:
    return sum(count for number, count in producer.taken if number == partition)


@pytest.mark.parametrize(
    ("error", "retriable"),
    [
        (lower.MessageSizeTooLargeError(), False),
        (lower.KafkaTimeoutError(), True),
        (AssertionError("Unrecognized partition"), True),
    ],
)
def test_what_one_partition_refuses_is_counted_and_the_others_are_written(
    error: BaseException, retriable: bool
) -> None:
    async def main(batches: KafkaBatches, producer: Producer) -> None:
        batches.add(KEYS, KEYS)
        lost, problem = await batches.write(10.0)
        assert lost == of_partition(producer, 2)
        assert 0 < lost < len(KEYS)
        assert problem is not None
        assert problem.retriable is retriable
        assert "'t' partition 2" in str(problem)
        assert sum(count for _, count in producer.taken) == len(KEYS)
        assert await batches.write(10.0) == (0, None)

    play(lambda partition: error if partition == 2 else None, main)


def test_what_does_not_fit_into_a_batch_goes_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prosody.broker.kafka.batches.BATCH_BYTES", 100)

    async def main(batches: KafkaBatches, producer: Producer) -> None:
        for _ in range(2):
            batches.add(KEYS, KEYS)
        assert await batches.write(10.0) == (0, None)
        # A record is of 16 or 17 bytes.
        assert {count for _, count in producer.taken[:-4]} >= {6}
        assert max(count for _, count in producer.taken) <= 7
        assert sum(count for _, count in producer.taken) == 2 * len(KEYS)

    play(lambda _: None, main)


def test_what_is_not_acknowledged_in_time_counts_as_lost() -> None:
    async def main(batches: KafkaBatches, producer: Producer) -> None:
        batches.add(KEYS, KEYS)
        began = asyncio.get_running_loop().time()
        lost, problem = await batches.write(10.0)
        assert asyncio.get_running_loop().time() - began == 10.0
        assert lost == of_partition(producer, 1)
        assert problem is not None
        assert problem.retriable

    play(lambda partition: "never" if partition == 1 else None, main)


def test_a_write_that_is_cancelled_leaves_nothing_behind() -> None:
    async def main(batches: KafkaBatches, producer: Producer) -> None:
        batches.add(KEYS, KEYS)
        writing = asyncio.ensure_future(batches.write(10.0))
        await asyncio.sleep(1)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert len(asyncio.all_tasks()) == 1

    play(lambda _: "never", main)
