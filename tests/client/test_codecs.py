"""Topics in every compression are read out of the box, and written in the one that is chosen."""

from __future__ import annotations

import json

import pytest

from prosody.broker.kafka import KafkaBroker
from prosody.broker.protocol import ProducerSettings
from tests.client.support import DEADLINE_S, Place, Recorder

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]


@pytest.mark.parametrize("codec", CODECS)
async def test_topics_in_any_compression_are_read(place: Place, codec: str | None) -> None:
    await place.create_topic()
    producer = place.broker.producer(ProducerSettings("raw", codec, "crc32"))
    await producer.start()
    value = {"note": "again and again " * 50}
    for i in range(3):
        body = json.dumps({**value, "i": i}).encode()
        await producer.send(place.topic, key=b"k", value=body, timeout_s=DEADLINE_S)
    await producer.stop()
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(3)
    assert [m.payload["i"] for m in recorder.handled] == [0, 1, 2]
    assert recorder.handled[0].payload["note"] == value["note"]


@pytest.mark.real
@pytest.mark.parametrize("codec", CODECS)
async def test_the_chosen_compression_is_what_the_log_holds(
    kafka_bootstrap: str, codec: str | None
) -> None:
    from functools import partial

    from prosody.runtime import SystemRuntime
    from tools.look import KafkaLook

    place = Place(
        KafkaBroker((kafka_bootstrap,), runtime=SystemRuntime()),
        partial(KafkaLook, kafka_bootstrap),
        mock=False,
    )
    await place.create_topic(partitions=1)
    client = place.client(compression=codec or "none")
    await client.send(place.topic, "k", {"note": "again and again " * 50})
    assert await stored_codec(kafka_bootstrap, place.topic) == codec
    await place.close()


CODEC_NUMBERS = [None, "gzip", "snappy", "lz4", "zstd"]


async def stored_codec(bootstrap: str, topic: str) -> str | None:
    """The compression of the first batch of a one-partition topic, as the broker returns it."""
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.consumer import fetcher
    from aiokafka.record.memory_records import MemoryRecords

    fetched: list[bytes] = []

    def spy(raw: bytes) -> MemoryRecords:
        fetched.append(bytes(raw))
        return MemoryRecords(raw)

    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(fetcher, "MemoryRecords", spy)
            await consumer.getone()
    finally:
        await consumer.stop()
    # Record batch format 2: the attributes are the 16 bits behind the CRC, the codec their lowest 3.
    return CODEC_NUMBERS[int.from_bytes(fetched[0][21:23], "big") & 0b111]
