"""Records that hurt: huge, odd, cut out of the middle, aborted, stamped by the broker."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from prosody import Context, Message
from prosody.broker.kafka import producer as kafka_producer
from tests.client.support import Place, Recorder, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1024 * 1024
LINE_MAX = 500
"""Characters of a log line about a record, whatever is in the record."""
REAL = pytest.mark.real
ON_KAFKA = pytest.mark.parametrize("place", ["kafka"], indirect=True)


async def fails(context: Context, message: Message) -> None:
    raise ValueError("no")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the library has said, one text for each line of its log."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("prosody")]


# -- size ----------------------------------------------------------------------------------------


async def test_values_of_ten_megabytes_are_handled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 11 * MIB
    if place.mock:
        place.cluster.max_record_bytes = limit
    # What this library itself writes is smaller; others write what their broker takes.
    monkeypatch.setattr(kafka_producer, "MAX_RECORD_BYTES", limit)
    await place.create_topic(partitions=1, config={"max.message.bytes": str(limit)})
    big = json.dumps({"big": "x" * (10 * MIB)}).encode()
    for value in (big, b'{"i": 1}', big, b'{"i": 2}'):
        await place.put(value)
    recorder = Recorder()
    await place.client(fetch_bytes=MIB).subscribe(recorder)
    await recorder.until_handled(4)
    assert [len(m.payload.get("big", "")) for m in recorder.handled] == [10 * MIB, 0] * 2
    await place.nothing_left()


async def test_a_long_key_is_handled_and_shortened_in_every_log_line(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "prosody")
    await place.create_topic(partitions=1)
    key = "ключ" * 12_500  # 100,000 bytes
    for value in ({"i": 0}, b"{oops", None):
        await place.put(value, key=key.encode())
    await place.put({"i": 1}, key=b"\xff" * 100_000)
    await place.put({"i": 2}, key=b"end")

    recorder = Recorder(fails)
    await place.client().subscribe(recorder)
    await place.nothing_left()
    assert [m.key for m in recorder.attempts] in ([key, "end"], ["end", key])
    said = lines(caplog)
    assert any("message lost" in line and "50000 characters" in line for line in said)
    assert sum("cannot be decoded" in line for line in said) == 2
    assert max(map(len, said)) <= LINE_MAX


async def test_ten_thousand_headers_are_no_obstacle(place: Place) -> None:
    await place.create_topic(partitions=1)
    many = tuple((f"header-{i}", b"%d" % i) for i in range(10_000))
    mine = ("source-system", place.group.encode())
    same = (("again", b"1"), ("again", None), ("again", b""), ("", b""))
    await place.put({"i": 0}, headers=many)
    await place.put({"i": 1}, headers=(*many, mine))
    await place.put({"i": 2}, headers=same)
    await place.put({"i": 3}, headers=(mine, *same, ("source-system", b"other")))
    await place.put({"i": 4})
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await place.nothing_left()
    # 1 and 3 are the group's own: the first header of the name counts, wherever it stands.
    assert [m.payload["i"] for m in recorder.handled] == [0, 2, 4]


# -- JSON ----------------------------------------------------------------------------------------

NO_MESSAGE: dict[str, bytes] = {
    "lists too deep": b"[" * 100_000 + b"]" * 100_000,
    "objects too deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "never closed": b"[" * 500_000,
    "huge whole number": b"1" * 100_000,
    "huge float": b"1e999",
    "huge exponent": b"1e" + b"9" * 1000,
    "Infinity": b"[-Infinity]",
    "NaN inside": b'{"a": NaN}',
    "half a surrogate": b'"\\ud800"',
    "surrogate bytes": b'"\xed\xa0\x80"',
    "byte order mark": b"\xef\xbb\xbf1",
    "two values": b"1 2",
    "blanks": b"  \n",
    "zero bytes": b"\0" * 1000,
}

A_MESSAGE: dict[str, tuple[bytes, Any]] = {
    "whole number of 4,300 digits": (b"9" * 4300, int("9" * 4300)),
    "tiny float": (b"1e-400", 0.0),
    "long float": (b"0." + b"1" * 100_000, 1 / 9),
    "zero character": (b'"\\u0000"', "\0"),
    "same name twice": (b'{"a": 1, "a": 2}', {"a": 2}),
    "empty names": (b'{"": {"": ""}}', {"": {"": ""}}),
    "type is no text": (b'{"type": [[]]}', {"type": [[]]}),
    "id is no text": (b'{"id": {"id": 1}}', {"id": {"id": 1}}),
    "wide": (b"[" + b"0," * 200_000 + b"0]", [0] * 200_001),
    "deep": (b"[" * 500 + b"]" * 500, json.loads("[" * 500 + "]" * 500)),
    "null": (b"null", None),
}


@pytest.mark.parametrize("mode", ["pipeline", "best-effort"])
async def test_no_value_stops_what_comes_behind_it(
    place: Place, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    await place.create_topic(partitions=1)
    for value in (*NO_MESSAGE.values(), *(raw for raw, _ in A_MESSAGE.values())):
        await place.put(value)
    await place.put({"type": "end"})
    recorder = Recorder()
    client = place.client(mode=mode, allowed_events=["end"])
    await client.subscribe(recorder)
    await place.nothing_left()
    wanted = [value for _, value in A_MESSAGE.values()]
    assert [m.payload for m in recorder.handled] == [*wanted, {"type": "end"}]
    said = lines(caplog)
    assert [line for line in said if "internal fault" in line] == []
    assert sum("cannot be decoded" in line for line in said) == len(NO_MESSAGE)
    assert max(map(len, said)) <= LINE_MAX


# -- logs with holes -----------------------------------------------------------------------------


@REAL
@ON_KAFKA
async def test_the_brokers_timestamp_is_the_messages(place: Place) -> None:
    await place.create_topic(partitions=1, config={"message.timestamp.type": "LogAppendTime"})
    raw = AIOKafkaProducer(bootstrap_servers=bootstrap(place))
    await raw.start()
    try:
        sent = await raw.send_and_wait(place.topic, b"1", key=b"k", timestamp_ms=1_000)
    finally:
        await raw.stop()
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(1)
    assert sent.timestamp_type == 1
    stamped = datetime.fromtimestamp(0, UTC).replace(microsecond=0)
    assert recorder.handled[0].timestamp > stamped.replace(year=2020)
    assert round(recorder.handled[0].timestamp.timestamp() * 1000) == sent.timestamp


async def test_records_deleted_under_a_group_are_skipped(place: Place) -> None:
    await place.create_topic(partitions=1)
    await place.put_many([(b"k", {"i": i}) for i in range(30)])
    await delete_before(place, 12)
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(18)
    await place.nothing_left()
    assert [m.payload["i"] for m in recorder.handled] == list(range(12, 30))


async def delete_before(place: Place, offset: int) -> None:
    if place.mock:
        place.cluster.truncate(place.topic, 0, offset)
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap(place))
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(place.topic, 0): RecordsToDelete(offset)})
    finally:
        await admin.close()


@REAL
@ON_KAFKA
async def test_a_compacted_topic_is_read_over_its_gaps(place: Place) -> None:
    config = {
        "cleanup.policy": "compact",
        "segment.bytes": str(MIB),  # the smallest the broker takes; only full ones are compacted
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "1",
        "min.compaction.lag.ms": "0",
    }
    await place.create_topic(partitions=1, config=config)
    pad = "x" * 20_000
    await place.put_many([(b"k%d" % (i % 3), {"i": i, "pad": pad}) for i in range(80)])
    await eventually(lambda: has_gaps(place, 80), "the topic should be compacted")
    recorder = Recorder()
    await place.client(max_uncommitted=2).subscribe(recorder)
    await place.nothing_left()
    assert 3 <= len(recorder.handled) < 80
    for key, payloads in recorder.by_key().items():
        numbers = [p["i"] for p in payloads]
        assert numbers == sorted(numbers), key
    assert {p[-1]["i"] for p in recorder.by_key().values()} == {77, 78, 79}


async def has_gaps(place: Place, sent: int) -> bool:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap(place))
    await consumer.start()
    try:
        partition = TopicPartition(place.topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        count = 0
        while True:
            record = await consumer.getone()
            count += 1
            if record.offset == sent - 1:
                return count < sent
    finally:
        await consumer.stop()


# -- transactions --------------------------------------------------------------------------------


@pytest.fixture
async def transactional(place: Place) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap(place), transactional_id=f"tx-{place.topic}"
    )
    await producer.start()
    yield producer
    await producer.stop()


async def write(producer: AIOKafkaProducer, topic: str, *numbers: int, commit: bool) -> None:
    await producer.begin_transaction()
    for i in numbers:
        await producer.send_and_wait(topic, b'{"i": %d}' % i, key=b"k")
    await (producer.commit_transaction() if commit else producer.abort_transaction())


@REAL
@ON_KAFKA
async def test_aborted_records_are_never_seen_and_nothing_runs_again(
    place: Place, transactional: AIOKafkaProducer
) -> None:
    """The log: 0 1 C | 2 3 A | 4 C | 5 A, where C and A take an offset each."""
    await place.create_topic(partitions=1)
    for numbers, commit in (((0, 1), True), ((2, 3), False), ((4,), True), ((5,), False)):
        await write(transactional, place.topic, *numbers, commit=commit)
    recorder = Recorder()
    client = place.client()
    await client.subscribe(recorder)
    await recorder.until_handled(3)
    assert [m.payload["i"] for m in recorder.handled] == [0, 1, 4]
    assert [m.offset for m in recorder.handled] == [0, 1, 6]
    await client.unsubscribe()
    # Nobody tells a consumer of markers and aborted records, so what it can commit ends with the last
    # record it was given. Kafka counts what lies behind as lag; it is gone with the next record.
    assert await place.lag() == 3

    again = Recorder()
    second = place.client()
    await second.subscribe(again)
    await write(transactional, place.topic, 6, commit=True)
    await again.until_handled(1)
    await second.unsubscribe()
    assert [m.payload["i"] for m in again.handled] == [6]
    assert await place.lag() == 1  # the marker


@REAL
@ON_KAFKA
async def test_an_open_transaction_holds_back_only_its_partition(
    place: Place, transactional: AIOKafkaProducer
) -> None:
    await place.create_topic(partitions=2)
    await transactional.begin_transaction()
    await transactional.send_and_wait(place.topic, b'{"i": 0}', key=b"k", partition=0)
    raw = AIOKafkaProducer(bootstrap_servers=bootstrap(place))
    await raw.start()
    for partition in (0, 1):
        await raw.send_and_wait(place.topic, b'{"i": 1}', key=b"k", partition=partition)
    await raw.stop()
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(1)
    await place.put({"i": 2}, key=b"wherever it goes")
    assert recorder.handled[0].partition == 1
    await transactional.commit_transaction()
    await recorder.until(
        lambda r: {(m.partition, m.payload["i"]) for m in r.handled} >= {(0, 0), (0, 1)}
    )
    first = [m.payload["i"] for m in recorder.handled if m.partition == 0][:2]
    assert first == [0, 1]


def bootstrap(place: Place) -> list[str]:
    servers: tuple[str, ...] = place.broker._servers  # type: ignore[attr-defined]
    return list(servers)
