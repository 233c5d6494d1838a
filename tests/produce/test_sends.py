"""Sending: the id cache, the shared start, timeouts, loops, cancellation, stopping."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.broker.protocol import ProducerSettings
from prosody.errors import (
    BrokerError,
    ProsodyError,
    RecordTooLargeError,
    SendError,
    SendTimeoutError,
)
from prosody.produce import Producer
from tests.produce.fakes import FakeBroker, make_producer
from tests.support import FakeRuntime, VirtualLoop, other_tasks, run_virtual, settle

if TYPE_CHECKING:
    from collections.abc import Coroutine


# The id cache


@pytest.mark.parametrize(
    ("second", "sends"),
    [
        (("t", "k", {"id": "1"}), 1),
        (("t", "k", {"id": "1", "other": 2}), 1),
        (("t", "k", {"id": "2"}), 2),
        (("t", "j", {"id": "1"}), 2),
        (("u", "k", {"id": "1"}), 2),
        (("tk", "", {"id": "1"}), 2),
        (("t", "k1", {"id": ""}), 2),
        (("t", "k", {"id": 1}), 2),
        (("t", "k", {}), 2),
        (("t", "k", "1"), 2),
    ],
)
async def test_a_repeated_id_is_skipped(second: Any, sends: int) -> None:
    broker = FakeBroker()
    producer = make_producer(broker, id_cache_size=10)
    await producer.send("t", "k", {"id": "1"})
    await producer.send(*second)
    assert len(broker.sent) == sends
    await producer.stop()


async def test_the_cache_has_a_size_forgets_the_oldest_and_can_be_off() -> None:
    broker = FakeBroker()
    producer = make_producer(broker, id_cache_size=2)
    for event_id in ("1", "2", "3", "1", "3"):
        await producer.send("t", "k", {"id": event_id})
    assert len(broker.sent) == 4
    await producer.stop()
    off = make_producer(broker, id_cache_size=0)
    for _ in range(2):
        await off.send("t", "k", {"id": "1"})
    assert len(broker.sent) == 6
    await off.stop()


async def test_only_what_was_acknowledged_is_remembered_and_dead_letters_never_are() -> None:
    broker = FakeBroker()
    broker.send_errors = [BrokerError("no", retriable=True)]
    producer = make_producer(broker, id_cache_size=10)
    with pytest.raises(SendError):
        await producer.send("t", "k", {"id": "1"})
    await producer.send("t", "k", {"id": "1"})
    for _ in range(2):
        await producer.send_record("t", key=b"k", value=b'{"id":"1"}', headers=())
    assert len(broker.sent) == 3
    await producer.stop()


# Starting


async def test_concurrent_sends_share_one_start() -> None:
    broker = FakeBroker()
    broker.start_takes_s = 1.0
    producer = make_producer(broker)
    await asyncio.gather(*(producer.send("t", "k", n) for n in range(5)))
    assert (broker.starts, len(broker.sent)) == (1, 5)
    assert sorted(record["value"] for record in broker.sent) == [b"%d" % n for n in range(5)]
    await producer.stop()


async def test_a_failed_start_fails_the_sends_that_waited_and_the_next_tries_again() -> None:
    broker = FakeBroker()
    broker.start_takes_s = 1.0
    broker.start_errors = [BrokerError("refused", retriable=False)]
    producer = make_producer(broker)
    results = await asyncio.gather(
        *(producer.send("t", "k", n) for n in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [SendError] * 3
    assert "topic 't' key 'k'" in str(results[0])
    assert "refused" in str(results[0])
    assert isinstance(results[0], SendError)
    assert results[0].retriable is False
    await producer.send("t", "k", 3)
    assert [p.state for p in broker.made] == ["stopped", "running"]
    await producer.stop()


async def test_the_timeout_bounds_the_start_and_leaves_the_rest_to_the_send() -> None:
    broker = FakeBroker()
    broker.start_takes_s = 4.0
    producer = make_producer(broker, send_timeout_s=3.0)
    with pytest.raises(SendTimeoutError, match=r"within send_timeout \(3.0 s\)"):
        await producer.send("t", "k", 1)
    assert asyncio.get_running_loop().time() == pytest.approx(3.0)
    await producer.send("t", "k", 2)  # the start went on, and is found done after one more second
    assert broker.starts == 1
    assert [record["timeout_s"] for record in broker.sent] == [pytest.approx(2.0)]
    await producer.stop()


async def test_without_a_timeout_the_broker_decides() -> None:
    broker = FakeBroker()
    broker.start_takes_s = 1000.0
    producer = make_producer(broker, send_timeout_s=None)
    await producer.send("t", "k", 1)
    assert [record["timeout_s"] for record in broker.sent] == [None]
    await producer.stop()


# Cancelling


async def test_a_cancelled_send_harms_no_other() -> None:
    broker = FakeBroker()
    broker.start_takes_s = 1.0
    producer = make_producer(broker)
    sends = [asyncio.create_task(producer.send("t", "k", n)) for n in range(3)]
    await settle()
    sends[0].cancel()  # it began the start
    await settle()
    assert sends[0].cancelled()
    await asyncio.gather(*sends[1:])
    assert (broker.starts, len(broker.sent)) == (1, 2)
    await producer.stop()


async def test_a_stop_while_connecting_is_no_cancellation_of_the_senders() -> None:
    broker = FakeBroker()
    broker.start_takes_s = 5.0
    producer = make_producer(broker)
    send = asyncio.create_task(producer.send("t", "k", 1))
    await settle()
    await producer.stop()
    with pytest.raises(SendError, match="shut down while it connected"):
        await send
    assert (broker.left_open, other_tasks()) == ([], set())


@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_in_any_turn_of_the_start_leaves_no_producer_open(turns: int) -> None:
    broker = FakeBroker()
    producer = make_producer(broker)
    send = asyncio.create_task(producer.send("t", "k", 1))
    for _ in range(turns):
        await asyncio.sleep(0)
    await producer.stop()
    await asyncio.wait([send])
    if not send.cancelled() and send.exception() is None:
        assert len(broker.sent) == 1
        await producer.stop()  # a send that came after the first stop has connected anew
    await settle()
    assert (broker.left_open, other_tasks()) == ([], set())


async def test_stop_is_idempotent_and_a_later_send_connects_anew() -> None:
    broker = FakeBroker()
    producer = make_producer(broker)
    await producer.stop()
    await producer.send("t", "k", 1)
    await producer.stop()
    await producer.stop()
    await producer.send("t", "k", 2)
    assert [p.state for p in broker.made] == ["stopped", "running"]
    await producer.stop()


# Loops


def test_a_closed_loop_takes_its_connection_with_it() -> None:
    broker = FakeBroker()
    producer = make_producer(broker)
    for number in range(2):
        run_virtual(producer.send("t", "k", number))
    assert broker.starts == 2


@pytest.mark.parametrize("connecting", [False, True])
def test_two_living_loops_cannot_share_it(connecting: bool) -> None:
    broker = FakeBroker()
    producer = make_producer(broker)

    def run(loop: VirtualLoop, main: Coroutine[Any, Any, None]) -> None:
        loop.run_until_complete(main)

    async def begin() -> None:
        broker.start_takes_s = 5.0 * connecting
        sends.append(asyncio.create_task(producer.send("t", "k", 1)))
        await settle()

    sends: list[asyncio.Task[None]] = []
    first, second = VirtualLoop(), VirtualLoop()
    try:
        run(first, begin())
        with pytest.raises(ProsodyError, match="belongs to another running event loop"):
            run(second, producer.send("t", "k", 2))
        first.run_until_complete(sends[0])
        first.run_until_complete(producer.stop())
        run(second, producer.send("t", "k", 3))
        run(second, producer.stop())
    finally:
        first.close()
        second.close()
    assert broker.left_open == []


# The real thing


async def test_over_the_embedded_broker() -> None:
    cluster = MemoryCluster(max_record_bytes=100)
    broker = MemoryBroker(cluster, runtime=FakeRuntime(), auto_create_topics=False)
    cluster.create_topic("t", 1)
    producer = Producer(
        broker, ProducerSettings("c", None, "crc32"),
        source_system="here", send_timeout_s=1.0, id_cache_size=0,
    )  # fmt: skip
    await producer.send("t", "k", {"a": 1})
    (record,) = cluster.logs("t")[0].read(0, 9)
    assert (record.key, record.value) == (b"k", b'{"a":1}')
    assert list(record.headers) == [("source-system", b"here")]
    with pytest.raises(SendError, match="does not exist") as missing:
        await producer.send("nowhere", "k", 1)
    assert isinstance(missing.value.__cause__, BrokerError)
    with pytest.raises(RecordTooLargeError, match=r"topic 't' key 'k' .*larger than") as large:
        await producer.send("t", "k", "x" * 200)
    assert large.value.retriable is False
    await producer.stop()
