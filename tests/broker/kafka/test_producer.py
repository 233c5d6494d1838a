"""The producer without a broker: what happens when none answers, and what is refused at once."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import OutOfOrderSequenceNumber

from prosody.broker.kafka import KafkaBroker
from prosody.broker.kafka import producer as module
from prosody.broker.kafka.sends import Queue, Send
from prosody.errors import BrokerError, ConfigurationError, SendTimeoutError
from prosody.runtime import SystemRuntime
from tests.broker.kafka.support import PRODUCER, until_gone
from tests.support import FakeRuntime, run_virtual


@pytest.fixture
def nowhere() -> KafkaBroker:
    """A broker at an address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return KafkaBroker((f"127.0.0.1:{port}",), runtime=SystemRuntime())


async def test_no_broker(nowhere: KafkaBroker) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(BrokerError, match=r"cannot connect to Kafka at 127\.0\.0\.1:") as caught:
        await nowhere.producer(PRODUCER).start()
    assert caught.value.retriable
    await until_gone(before)


async def test_a_broker_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address answers, and then nothing more: the deadline ends it."""
    monkeypatch.setattr(module, "START_LIMIT_S", 0.05)
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    before = asyncio.all_tasks()
    producer = KafkaBroker((f"127.0.0.1:{port}",), runtime=SystemRuntime()).producer(PRODUCER)
    with pytest.raises(BrokerError, match="no answer in time"):
        await producer.start()
    await until_gone(before)
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    server.close()


async def test_sending_needs_a_start(nowhere: KafkaBroker) -> None:
    producer = nowhere.producer(PRODUCER)
    with pytest.raises(BrokerError, match="not started"):
        await producer.send("t", key=None, value=b"v")
    await producer.stop()
    with pytest.raises(BrokerError, match="stopped"):
        await producer.send("t", key=None, value=b"v")
    with pytest.raises(BrokerError, match="before"):
        await producer.start()


async def test_a_wedged_producer_stops_at_once(nowhere: KafkaBroker) -> None:
    """In the very call that notices it: what is queued behind a refused batch must not get ahead."""
    producer = nowhere.producer(PRODUCER)
    producer._producer = AIOKafkaProducer()
    sender = asyncio.create_task(asyncio.Event().wait())
    producer._producer._sender._sender_task = sender
    producer._rebuild()
    assert sender.cancelling() == 1
    await producer.stop()


async def test_what_is_repeated_comes_first_and_in_order() -> None:
    loop = asyncio.get_running_loop()
    sends = [Send("t", None, b"%d" % n, (), None, loop.create_future()) for n in range(5)]
    queue = Queue("t")
    queue.sent.update(dict.fromkeys(sends[:3]))
    queue.waiting.update(dict.fromkeys(sends[3:]))
    sends[1].done.cancel()
    queue.repeat()
    assert list(queue.waiting) == [sends[0], *sends[2:]]
    assert not queue.sent


class Lower:
    """aiokafka's producer, which refuses, takes and never answers, or acknowledges."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.client = SimpleNamespace(
            cluster=SimpleNamespace(partitions_for_topic=lambda topic: {0}), close=self._close
        )
        self._sender = SimpleNamespace(sender_task=asyncio.create_task(asyncio.Event().wait()))

    async def _close(self) -> None:
        pass

    async def send(self, topic: str, **_: object) -> asyncio.Future[Any]:
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.answer == "full":
            await asyncio.Event().wait()
        elif self.answer == "wedged":
            result.set_exception(OutOfOrderSequenceNumber())
        elif self.answer == "good":
            result.set_result(SimpleNamespace(topic=topic, partition=0, offset=7))
        return result


@pytest.mark.parametrize(
    "failure",
    [
        ConfigurationError(["ssl_cafile: no such file"]),
        BrokerError("no broker", retriable=True),
        ZeroDivisionError("in aiokafka"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_producer_is_replaced_whatever_fails_at_first(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        producer: Any = KafkaBroker(("nowhere:9",), runtime=FakeRuntime()).producer(PRODUCER)
        producer._producer = Lower("wedged")
        failures = [failure, failure]

        async def connect() -> Lower:
            if failures:
                raise failures.pop()
            return Lower("good")

        producer._connect = connect
        sent = await producer.send("t", key=b"k", value=b"v", timeout_s=60.0)
        assert sent.offset == 7
        assert not failures
        await producer.stop()

    run_virtual(run())
    told = [r for r in caplog.records if "replacing the producer failed" in r.message]
    assert len(told) == 2


def test_an_end_of_the_old_producer_that_fails_does_not_keep_the_new_one_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run() -> None:
        producer: Any = KafkaBroker(("nowhere:9",), runtime=FakeRuntime()).producer(PRODUCER)
        producer._producer = old = Lower("wedged")

        async def close() -> None:
            raise ZeroDivisionError("in aiokafka")

        async def connect() -> Lower:
            return Lower("good")

        old.client.close = close
        producer._connect = connect
        assert (await producer.send("t", key=b"k", value=b"v", timeout_s=60.0)).offset == 7
        await producer.stop()
        old._sender.sender_task.cancel()

    run_virtual(run())


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("silent", ["may still be delivered", "may still be delivered"]),
        ("full", ["may still be delivered", "was not sent"]),
    ],
)
def test_a_timeout_says_whether_it_may_still_be_delivered(answer: str, texts: list[str]) -> None:
    async def run() -> None:
        producer: Any = KafkaBroker(("nowhere:9",), runtime=FakeRuntime()).producer(PRODUCER)
        producer._producer = Lower(answer)
        sends = [producer.send("t", key=b"k", value=b"v", timeout_s=1.0) for _ in texts]
        ends = await asyncio.gather(*sends, return_exceptions=True)
        for end, text in zip(ends, texts, strict=True):
            assert isinstance(end, SendTimeoutError)
            assert text in str(end)
        await producer.stop()

    run_virtual(run())
