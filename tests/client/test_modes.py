"""What becomes of a message whose handler fails, in each mode; timeouts and cancellation."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping

import pytest

from prosody import (
    Context,
    ContextError,
    Message,
    PermanentError,
    TransientError,
    permanent,
)
from prosody.broker.protocol import ConsumerSettings, Record, Start, TopicPartition
from tests.client.support import DEADLINE_S, Place, Recorder, eventually, unique


async def nothing_left(place: Place) -> None:
    async def look() -> bool:
        return await place.lag() == 0

    await eventually(look, "everything should be committed")


class FailsFirst:
    """Fails the first ``times`` attempts of key ``bad`` with ``error``."""

    def __init__(self, error: BaseException, times: int) -> None:
        self.error = error
        self.left = times

    async def __call__(self, context: Context, message: Message) -> None:
        if message.key == "bad" and self.left:
            self.left -= 1
            raise self.error


@pytest.mark.parametrize("error", [ValueError("db down"), TransientError("db down")])
async def test_pipeline_retries_until_success_and_keeps_the_keys_order(
    place: Place, error: Exception
) -> None:
    await place.create_topic()
    await place.put_many([(b"bad", {"i": i}) for i in range(3)] + [(b"good", {"i": 9})])
    recorder = Recorder(FailsFirst(error, times=4))
    await place.client(mode="pipeline", retry_base=0.001, defer_base=0.1).subscribe(recorder)
    await recorder.until_handled(4)
    assert [m.payload["i"] for m in recorder.attempts if m.key == "bad"] == [0, 0, 0, 0, 0, 1, 2]
    await nothing_left(place)


@pytest.mark.parametrize("mode", ["pipeline", "best-effort"])
async def test_a_permanent_error_is_never_retried(place: Place, mode: str) -> None:
    await place.create_topic()
    await place.put_many([(b"bad", {"i": i}) for i in range(3)])
    recorder = Recorder(FailsFirst(PermanentError("malformed"), times=1))
    await place.client(mode=mode, retry_base=0.001).subscribe(recorder)
    await recorder.until_handled(2)
    await nothing_left(place)
    assert [m.payload["i"] for m in recorder.attempts] == [0, 1, 2]


async def test_best_effort_logs_once_and_goes_on(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await place.create_topic()
    await place.put_many([(b"bad", {"i": i}) for i in range(3)])
    recorder = Recorder(FailsFirst(ValueError("db down"), times=1))
    await place.client(mode="best-effort").subscribe(recorder)
    await recorder.until_handled(2)
    await nothing_left(place)
    assert [m.payload["i"] for m in recorder.attempts] == [0, 1, 2]
    (line,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "message lost" in line.getMessage()
    assert "'bad'" in line.getMessage()
    assert line.exc_info is not None


async def test_decorated_handlers_say_what_is_permanent(place: Place) -> None:
    await place.create_topic()
    await place.put_many([(b"k", {"i": 0}), (b"k", {"i": 1})])

    class Strict(Recorder):
        @permanent(LookupError)
        async def on_message(self, context: Context, message: Message) -> None:
            await super().on_message(context, message)
            if message.payload["i"] == 0:
                raise KeyError("missing")

    strict = Strict()
    await place.client(mode="pipeline", retry_base=0.001).subscribe(strict)
    await strict.until_handled(2)
    await nothing_left(place)
    assert [m.payload["i"] for m in strict.attempts] == [0, 1]


async def read_all(place: Place, topic: str, count: int) -> list[Record]:
    """The first ``count`` records of a one-partition topic, read by a group of its own."""
    consumer = place.broker.consumer(
        ConsumerSettings(unique("reader"), "reader", 10.0, 10.0, 2**20, "roundrobin", 60.0)
    )
    assigned = asyncio.Event()

    class Listener:
        def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
            assigned.set()

        async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None: ...
        def on_lost(self, partitions: frozenset[TopicPartition]) -> None: ...

    await consumer.start([topic], Listener())
    records: list[Record] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            await assigned.wait()
            while len(records) < count:
                polled = await consumer.poll(
                    [TopicPartition(topic, 0)], max_records=100, timeout_s=1.0
                )
                for some in polled.values():
                    records.extend(some)
    finally:
        await consumer.stop()
    return records


async def test_low_latency_sends_what_fails_to_the_failure_topic(place: Place) -> None:
    await place.create_topic()
    failed = await place.create_topic(unique("failed"), partitions=1)
    await place.put(
        {"id": "a", "i": 0}, key=b"bad", headers=(("source-system", b"shop"), ("x", b"1"))
    )
    await place.put(b"{oops", key=b"\xffbad")
    await place.put({"i": 2}, key=b"good")
    recorder = Recorder(FailsFirst(ValueError("db down"), times=1000))
    client = place.client(mode="low-latency", failure_topic=failed, max_retries=2, retry_base=0.001)
    await client.subscribe(recorder)
    await recorder.until_handled(1)
    records = await read_all(place, failed, 2)
    await nothing_left(place)
    assert len([m for m in recorder.attempts if m.key == "bad"]) == 3
    by_value = {bytes(r.value or b""): r for r in records}
    dead = by_value[json.dumps({"id": "a", "i": 0}).encode()]
    assert dead.key == b"bad"
    headers = dict(dead.headers)
    assert list(dead.headers)[:2] == [("source-system", b"shop"), ("x", b"1")]
    assert headers["source-kind"] == b"message"
    assert headers["source-topic"] == place.topic.encode()
    assert headers["source-offset"] is not None
    assert headers["source-group-id"] == place.group.encode()
    assert headers["source-error"] == b"db down"
    assert (headers["source-timestamp"] or b"").endswith(b"Z")
    undecodable = by_value[b"{oops"]
    assert undecodable.key == b"\xffbad"
    assert dict(undecodable.headers)["source-system"] == b"tests"


async def test_low_latency_sends_a_permanent_failure_at_once(place: Place) -> None:
    await place.create_topic()
    failed = await place.create_topic(unique("failed"), partitions=1)
    await place.put({"i": 0}, key=b"bad")
    recorder = Recorder(FailsFirst(PermanentError("malformed"), times=1000))
    await place.client(mode="low-latency", failure_topic=failed).subscribe(recorder)
    await read_all(place, failed, 1)
    await nothing_left(place)
    assert len(recorder.attempts) == 1


async def test_a_handler_past_its_deadline_is_told_and_cancelled(place: Place) -> None:
    await place.create_topic()
    await place.put({"i": 0})
    told: list[str] = []

    async def hang_once(context: Context, message: Message) -> None:
        if told:
            return
        assert not context.should_cancel()
        waiting = asyncio.create_task(context.on_cancel())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert context.should_cancel()
            await waiting
            told.append("cancelled")
            raise

    recorder = Recorder(hang_once)
    await place.client(mode="pipeline", timeout=0.2, retry_base=0.001).subscribe(recorder)
    await recorder.until_handled(1)
    await nothing_left(place)
    assert told == ["cancelled"]
    assert len(recorder.attempts) == 2


async def test_a_handler_that_finishes_past_its_deadline_has_succeeded(place: Place) -> None:
    await place.create_topic()
    await place.put({"i": 0})

    async def stubborn(context: Context, message: Message) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    recorder = Recorder(stubborn)
    await place.client(mode="pipeline", timeout=0.1).subscribe(recorder)
    await recorder.until_handled(1)
    await nothing_left(place)
    assert len(recorder.attempts) == 1


async def test_shutdown_lets_handlers_end_then_cancels_them(place: Place) -> None:
    await place.create_topic()
    await place.put({"i": 0}, key=b"polite")
    await place.put({"i": 1}, key=b"slow")
    cancelled: list[str] = []
    release = asyncio.Event()

    async def behave(context: Context, message: Message) -> None:
        if message.key == "polite":
            await release.wait()
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert context.should_cancel()
            cancelled.append(message.key)
            raise

    recorder = Recorder(behave)
    client = place.client(shutdown_timeout=1.0)
    await client.subscribe(recorder)
    await recorder_attempts(recorder, 2)
    stopping = asyncio.create_task(client.unsubscribe())
    await asyncio.sleep(0)
    release.set()
    await stopping
    assert cancelled == ["slow"]
    assert [m.key for m in recorder.handled] == ["polite"]
    assert await place.lag() == 1


async def recorder_attempts(recorder: Recorder, count: int) -> None:
    async def begun() -> bool:
        return len(recorder.attempts) >= count

    await eventually(begun, f"{count} attempts should begin")


async def test_a_shutdown_does_not_wait_for_a_backoff(place: Place) -> None:
    await place.create_topic()
    await place.put({"i": 0}, key=b"bad")
    recorder = Recorder(FailsFirst(ValueError("down"), times=1000))
    client = place.client(
        mode="pipeline",
        defer_enabled=False,
        retry_base=3600.0,
        max_retry_delay=7200.0,
        shutdown_timeout=3600.0,
    )
    await client.subscribe(recorder)
    await recorder_attempts(recorder, 1)
    async with asyncio.timeout(DEADLINE_S):
        await client.unsubscribe()
    assert await place.lag() == 1


async def test_a_context_is_over_when_its_event_is(place: Place) -> None:
    await place.create_topic()
    await place.put({"i": 0})
    contexts: list[Context] = []

    async def keep(context: Context, message: Message) -> None:
        contexts.append(context)

    recorder = Recorder(keep)
    await place.client().subscribe(recorder)
    await recorder.until_handled(1)
    await nothing_left(place)
    (context,) = contexts
    assert context.should_cancel()
    async with asyncio.timeout(DEADLINE_S):
        await context.on_cancel()
    with pytest.raises(ContextError, match="after its event has ended"):
        await context.scheduled()
