"""A client's life: states, failed subscribes, shutdown, fork, wrong handlers and options."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import prosody
from prosody import (
    AdminClient,
    ClientClosedError,
    ConfigurationError,
    ConsumerStateError,
    EventHandler,
    HandlerTypeError,
    ProsodyClient,
    TopicsNotFoundError,
)
from prosody.broker.memory import MemoryCluster
from tests.client.support import Place, Recorder, eventually, unique


async def test_states(place: Place) -> None:
    await place.create_topic()
    client = place.client()
    assert await client.consumer_state() == "configured"
    assert await client.assigned_partition_count() == 0
    assert await client.is_stalled() is False
    await client.subscribe(Recorder())
    assert await client.consumer_state() == "running"
    with pytest.raises(ConsumerStateError, match="already subscribed"):
        await client.subscribe(Recorder())
    await client.unsubscribe()
    assert await client.consumer_state() == "configured"
    await client.unsubscribe()
    await client.subscribe(Recorder())
    await client.shutdown()
    await client.shutdown()
    assert await client.consumer_state() == "shut_down"
    with pytest.raises(ClientClosedError):
        await client.subscribe(Recorder())
    with pytest.raises(ClientClosedError):
        await client.send(place.topic, "k", 1)


async def test_missing_topics_are_all_named_and_the_client_stays_usable(place: Place) -> None:
    present, absent, other = place.topic, unique("absent"), unique("absent")
    await place.create_topic(present)
    client = place.client(subscribed_topics=[present, absent, other])
    with pytest.raises(TopicsNotFoundError) as refused:
        await client.subscribe(Recorder())
    assert refused.value.topics == tuple(sorted([absent, other]))
    assert await client.consumer_state() == "configured"
    await place.create_topic(absent)
    await place.create_topic(other)
    recorder = Recorder()
    await client.subscribe(recorder)
    await place.put({"i": 1}, topic=other)
    await recorder.until_handled(1)


async def test_missing_failure_topic_is_named(place: Place) -> None:
    await place.create_topic()
    # Not in mock mode, where the first dead letter makes the topic.
    client = place.client(mode="low-latency", failure_topic=unique("absent"), mock=False)
    with pytest.raises(TopicsNotFoundError, match="failure_topic"):
        await client.subscribe(Recorder())
    assert await client.consumer_state() == "configured"


async def test_regular_expressions_find_topics(place: Place) -> None:
    prefix = unique("region")
    await place.create_topic(f"{prefix}.eu")
    await place.create_topic(f"{prefix}.us")
    await place.create_topic(f"x-{prefix}.eu")
    recorder = Recorder()
    await place.client(subscribed_topics=f"^{prefix}\\.").subscribe(recorder)
    for topic in (f"x-{prefix}.eu", f"{prefix}.eu", f"{prefix}.us"):
        await place.put({"i": 1}, topic=topic)
    await recorder.until_handled(2)
    assert {m.topic for m in recorder.handled} == {f"{prefix}.eu", f"{prefix}.us"}


async def test_cancelling_unsubscribe_does_not_stop_the_shutdown(place: Place) -> None:
    await place.create_topic()
    await place.put({"i": 0})
    release = asyncio.Event()

    async def wait(context: Any, message: Any) -> None:
        await release.wait()

    recorder = Recorder(wait)
    client = place.client()
    await client.subscribe(recorder)
    await running(recorder)
    stopping = asyncio.create_task(client.unsubscribe())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    release.set()
    await client.unsubscribe()
    assert await client.consumer_state() == "configured"
    assert await place.lag() == 0


async def running(recorder: Recorder) -> None:
    async def look() -> bool:
        return bool(recorder.attempts)

    await eventually(look, "the handler should run")


async def test_subscribing_needs_consumer_options(place: Place) -> None:
    client = place.client(group_id=None, subscribed_topics=None, source_system="only-sends")
    assert await client.consumer_state() == "unconfigured"
    with pytest.raises(ConfigurationError) as refused:
        await client.subscribe(Recorder())
    assert "group_id" in str(refused.value)
    assert "subscribed_topics" in str(refused.value)


HANDLERS: dict[str, tuple[Any, str]] = {
    "no method": (object(), "has no on_message"),
    "class": (Recorder, "subscribe\\(Recorder\\(\\)\\)"),
    "not callable": (type("H", (), {"on_message": 3})(), "must be an async method"),
    "timer not callable": (
        type("H", (), {"on_message": print, "on_timer": "soon"})(),
        "on_timer must be an async method",
    ),
}


@pytest.mark.parametrize("kind", HANDLERS)
async def test_what_is_no_handler_is_refused_at_subscribe(kind: str) -> None:
    handler, text = HANDLERS[kind]
    async with ProsodyClient(mock=True, group_id="g", subscribed_topics="t") as client:
        with pytest.raises(HandlerTypeError, match=text):
            await client.subscribe(handler)
        assert await client.consumer_state() == "configured"


async def test_a_handler_method_that_is_not_async_is_an_error_that_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    MemoryCluster.reset_shared()

    class Plain:
        def on_message(self, context: Any, message: Any) -> str:
            called.set()
            return "done"

    called = asyncio.Event()
    options = {"group_id": "g", "subscribed_topics": "t", "source_system": "s"}
    async with ProsodyClient(mock=True, mode="best-effort", **options) as client:
        await client.subscribe(Plain())
        await client.send("t", "k", 1)
        async with asyncio.timeout(10):
            await called.wait()
        await client.unsubscribe()
    assert "Plain.on_message must be an async method" in caplog.text


async def test_create_and_context_manager_and_repr() -> None:
    client = await ProsodyClient.create(mock=True, group_id="g", subscribed_topics=["a", "b"])
    async with client as same:
        assert same is client
        assert "subscribed_topics=['a', 'b']" in repr(client)
    assert await client.consumer_state() == "shut_down"


async def test_mock_clients_of_a_process_share_a_cluster() -> None:
    MemoryCluster.reset_shared()
    recorder = Recorder()
    async with (
        ProsodyClient(mock=True, group_id="g", subscribed_topics="fresh") as consumer,
        ProsodyClient(mock=True, source_system="elsewhere") as producer,
    ):
        await consumer.subscribe(recorder)
        await producer.send("fresh", "k", {"i": 1})
        await recorder.until_handled(1)


def test_a_client_carried_over_fork_says_so() -> None:
    client = ProsodyClient(mock=True, group_id="g", subscribed_topics="t")
    admin = AdminClient(mock=True)
    child = os.fork()
    if child == 0:
        # Only exit codes come back from here; nothing may escape into the test runner.
        code = 1
        try:
            told = 0
            for call in (
                lambda: client.send("t", "k", 1),
                lambda: client.subscribe(Recorder()),
                client.unsubscribe,
                client.consumer_state,
                lambda: admin.create_topic("t"),
            ):
                try:
                    asyncio.run(call())  # type: ignore[no-untyped-call]
                except RuntimeError as error:
                    told += "after fork" in str(error)
            code = 0 if told == 5 else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_all_wrong_options_are_reported_together() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ProsodyClient(mode="Pipeline", max_retries=-1, retry_bse=1, mock=True, group_id="g")
    text = str(refused.value)
    assert len(refused.value.problems) == 3
    for needle in ("mode", "PROSODY_MODE", "'Pipeline'", "max_retries", "retry_base"):
        assert needle in text


async def test_admin_client_makes_and_deletes_topics() -> None:
    MemoryCluster.reset_shared()
    admin = AdminClient(mock=True)
    await admin.create_topic("made", partition_count=2, retention="7d", cleanup_policy="delete")
    with pytest.raises(prosody.BrokerError, match="exists"):
        await admin.create_topic("made")
    with pytest.raises(ConfigurationError) as refused:
        await admin.create_topic("", partition_count=0, retention="soon")
    assert len(refused.value.problems) == 3
    await admin.delete_topic("made")
    with pytest.raises(prosody.BrokerError):
        await admin.delete_topic("made")


async def test_variables_fill_in_for_a_new_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    MemoryCluster.reset_shared()
    monkeypatch.setenv("PROSODY_TOPIC_PARTITIONS", "3")
    monkeypatch.setenv("PROSODY_TOPIC_CLEANUP_POLICY", "none")
    admin = AdminClient(mock=True)
    await admin.create_topic("from-variable")
    await admin.create_topic("from-parameter", partition_count=2)
    assert len(MemoryCluster.shared().logs("from-variable")) == 3
    assert len(MemoryCluster.shared().logs("from-parameter")) == 2
    monkeypatch.setenv("PROSODY_TOPIC_RETENTION", "week")
    with pytest.raises(ConfigurationError, match="PROSODY_TOPIC_RETENTION='week'"):
        await admin.create_topic("neither")


def test_event_handler_needs_only_on_message() -> None:
    class OnlyMessages(EventHandler):
        async def on_message(self, context: Any, message: Any) -> None: ...

    OnlyMessages()
    with pytest.raises(TypeError):
        EventHandler()  # type: ignore[abstract]
