"""The producer without a broker: what happens when none answers, and what is refused at once."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiokafka import AIOKafkaProducer

from prosody.broker.kafka import KafkaBroker
from prosody.broker.kafka import producer as module
from prosody.broker.kafka.sends import Queue, Send
from prosody.errors import BrokerError
from prosody.runtime import SystemRuntime
from tests.broker.kafka.support import PRODUCER, until_gone


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
