"""Dead letters: what they carry, and that none is lost or written for nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.memory.log import MemoryRecord
from prosody.broker.protocol import SentRecord
from prosody.errors import RecordTooLargeError, SendError, SendTimeoutError
from prosody.middleware.dead_letter import DeadLetter, DeadLetterWriter
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from tests.middleware.fakes import DEFERRED, PERMANENT, TRANSIENT, Inner, in_lane, make_run, storms
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from prosody.broker.protocol import Headers
    from prosody.model.run import Run


class Sender:
    """Remembers what it is given; raises what it is told to, in turn."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.sent: list[tuple[str, bytes | None, bytes | None, Headers]] = []

    async def send_record(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers
    ) -> SentRecord:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((topic, key, value, headers))
        return SentRecord(topic, 0, len(self.sent) - 1)


def writer(sender: Sender) -> DeadLetterWriter:
    return DeadLetterWriter(
        sender, "failures", "service", "here", 1.0, 8.0, FakeRuntime(), storms()
    )


def record(headers: tuple[tuple[str, bytes | None], ...] = (), timestamp: int = 1_500) -> Any:
    return MemoryRecord("orders", 3, 42, timestamp, b"\xffkey", b"{value", headers)


async def test_it_carries_the_record_as_it_was_and_where_it_came_from() -> None:
    sender = Sender()
    run = make_run(record=record((("a", b"1"), ("source-system", b"there"), ("a", None))))
    assert await writer(sender).write(run, ValueError("why")) is True
    ((topic, key, value, headers),) = sender.sent
    assert (topic, key, value) == ("failures", b"\xffkey", b"{value")
    assert list(headers) == [
        ("a", b"1"),
        ("source-system", b"there"),
        ("a", None),
        ("source-kind", b"message"),
        ("source-topic", b"orders"),
        ("source-partition", b"3"),
        ("source-offset", b"42"),
        ("source-timestamp", b"1970-01-01T00:00:01.500Z"),
        ("source-group-id", b"service"),
        ("source-error", b"why"),
    ]


async def test_a_record_without_a_source_gets_ours() -> None:
    sender = Sender()
    await writer(sender).write(make_run(record=record()), ValueError("why"))
    assert sender.sent[0][3][0] == ("source-system", b"here")


class UglyError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError(), b"ValueError"),
        (ValueError("x" * 5000), b"x" * 1000 + b"..."),
        (ValueError("\ud800"), b"\\ud800"),
        (UglyError(), b"UglyError"),
    ],
    ids=["empty", "long", "surrogate", "ugly"],
)
async def test_error_texts(error: Exception, text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest's log handler raises for a message that cannot be written; those of programs do not.
    monkeypatch.setattr("prosody.middleware.dead_letter._log.disabled", True)
    sender = Sender()
    await writer(sender).write(make_run(record=record()), error)
    assert dict(sender.sent[0][3])["source-error"] == text


@pytest.mark.parametrize("timestamp", [-1, 0, 10**18])
async def test_any_timestamp_can_be_written(timestamp: int) -> None:
    sender = Sender()
    await writer(sender).write(make_run(record=record(timestamp=timestamp)), ValueError("why"))
    assert dict(sender.sent[0][3])["source-timestamp"] in (
        b"1970-01-01T00:00:00.000Z",
        b"9999-12-31T23:59:59.999Z",
    )


async def test_it_is_repeated_until_it_is_written() -> None:
    sender = Sender(*(SendTimeoutError("no answer") for _ in range(5)))
    assert await writer(sender).write(make_run(record=record()), ValueError("why")) is True
    assert sender.calls == 6
    assert sender.sent[0][2] == b"{value"
    assert asyncio.get_running_loop().time() > 0


class SlowSender(Sender):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[asyncio.Future[SentRecord]] = []

    async def send_record(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers
    ) -> SentRecord:
        self.calls += 1
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


async def late(sender: SlowSender) -> tuple[Run, asyncio.Task[Outcome]]:
    """A dead letter that is not acknowledged for as long as a program waits for a send."""
    run = make_run(record=record())
    lane = in_lane(DeadLetter(writer(sender)).wrap(Inner(PERMANENT)), run)
    await asyncio.sleep(100.0)
    assert sender.calls == 1
    return run, lane


async def test_what_may_still_be_delivered_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    sender = SlowSender()
    _, lane = await late(sender)
    lines = [line.getMessage() for line in caplog.records]
    assert [line.partition(";")[0] for line in lines] == [
        "dead letter to 'failures' not acknowledged within 1 s",
        "dead letter to 'failures' not acknowledged within 61 s",
    ]
    sender.answers[0].set_result(SentRecord("failures", 0, 7))
    await settle()
    assert lane.done(), "at once, and not at the end of a pause"
    assert (await lane).kind is Kind.PERMANENT
    assert "partition 0 offset 7" in caplog.text
    assert sender.calls == 1


async def test_what_was_given_up_in_the_end_is_written_again() -> None:
    sender = SlowSender()
    _, lane = await late(sender)
    sender.answers[0].set_exception(SendTimeoutError("not acknowledged within 300 s"))
    await asyncio.sleep(8.0)
    assert sender.calls == 2
    sender.answers[1].set_result(SentRecord("failures", 0, 7))
    assert (await lane).kind is Kind.PERMANENT


async def test_a_shutdown_waits_for_no_answer_that_is_late() -> None:
    sender = SlowSender()
    run, lane = await late(sender)
    run.interrupt()
    assert await lane is ABANDONED
    await settle()
    assert sender.answers[0].cancelled(), "nobody waits for it any more"


async def test_what_is_refused_for_another_reason_keeps_its_value() -> None:
    """Rights that are missing for a while, for example."""
    sender = Sender(*[SendError("not allowed", retriable=False)] * 3)
    assert await writer(sender).write(make_run(record=record()), ValueError("why")) is True
    ((_, _, value, headers),) = sender.sent
    assert value == b"{value"
    assert "source-value-dropped" not in dict(headers)


async def test_what_is_refused_for_the_size_of_a_neighbour_keeps_its_value() -> None:
    """A broker refuses a whole batch; alone, the record passes."""
    sender = Sender(
        RecordTooLargeError("too large"), SendError("busy"), RecordTooLargeError("again")
    )
    assert await writer(sender).write(make_run(record=record()), ValueError("why")) is True
    assert sender.sent[0][2] == b"{value"


async def test_what_is_too_large_is_written_without_its_value() -> None:
    sender = Sender(*[RecordTooLargeError("too large")] * 2, SendError("busy"))
    assert await writer(sender).write(make_run(record=record()), ValueError("why")) is True
    ((_, key, value, headers),) = sender.sent
    assert (key, value) == (b"\xffkey", None)
    assert dict(headers)["source-value-dropped"] == b"6"


async def test_a_shutdown_leaves_the_message_uncommitted() -> None:
    sender = Sender(*(SendError("busy") for _ in range(50)))
    run = make_run(record=record())
    lane = in_lane(DeadLetter(writer(sender)).wrap(Inner(PERMANENT)), run)
    await settle()
    run.interrupt()
    assert await lane is ABANDONED
    assert sender.sent == []


@pytest.mark.parametrize("outcome", [TRANSIENT, PERMANENT])
async def test_failures_are_written_and_end_the_message(outcome: Outcome) -> None:
    sender = Sender()
    answer = await DeadLetter(writer(sender)).wrap(Inner(outcome))(make_run(record=record()))
    assert (answer.kind, answer.error) == (Kind.PERMANENT, outcome.error)
    assert len(sender.sent) == 1


@pytest.mark.parametrize("outcome", [SUCCESS, ABANDONED, DEFERRED])
async def test_nothing_else_is_written(outcome: Outcome) -> None:
    sender = Sender()
    assert await DeadLetter(writer(sender)).wrap(Inner(outcome))(make_run()) is outcome
    assert sender.calls == 0


async def test_of_a_record_that_is_gone_it_tells_the_key_and_where_it_was() -> None:
    sender = Sender(SendTimeoutError("slow"))
    run = make_run(key="a key")
    assert await writer(sender).write_gone(run, 7, 1_500) is True
    ((topic, key, value, headers),) = sender.sent
    assert (topic, key, value) == ("failures", b"a key", None)
    assert headers == [
        ("source-system", b"here"),
        ("source-kind", b"message"),
        ("source-topic", b"orders"),
        ("source-partition", b"3"),
        ("source-offset", b"7"),
        ("source-timestamp", b"1970-01-01T00:00:01.500Z"),
        ("source-group-id", b"service"),
        ("source-error", b"record gone"),
    ]
