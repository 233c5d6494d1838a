"""Low-latency mode's last resort: a failed message goes to the failure topic, then its offset is done."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final, Protocol

from prosody.errors import RecordTooLargeError, SendError, SendTimeoutError
from prosody.middleware.retry import pause
from prosody.model.backoff import backoff_s
from prosody.model.fields import fields
from prosody.model.message import utc_from_ms
from prosody.model.outcome import ABANDONED, Kind, Outcome

if TYPE_CHECKING:
    from prosody.broker.protocol import Headers, SentRecord
    from prosody.middleware.base import Call
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.dead_letter")

_ERROR_CHARACTERS_MAX = 1000
"""An error text longer than this is cut, so that a header cannot make the record too large."""

_PATIENCE_S = 1.0
_SAID_AGAIN_S = 60.0
"""How long after a warning about a write that takes long the next one follows."""

RECORD_GONE: Final = "record gone"
"""Why a deferred message failed that the topic does not have any more."""


class RecordSender(Protocol):
    """Writes one record as it is: no id cache, no JSON, no limit but how long it may be delivered."""

    async def send_record(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers
    ) -> SentRecord: ...


class SendSpan(Protocol):
    """A span around all tries to write one dead letter."""

    def refused(self, error: BaseException) -> None: ...

    def end(self, sent: SentRecord | None) -> None: ...


class Spans(Protocol):
    """Makes them, where somebody wants spans."""

    def dead_letter(
        self, run: Run, topic: str, value: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> SendSpan | None:
        """May add its own trace to ``headers``."""
        ...


class DeadLetterWriter:
    """Writes failed messages to the failure topic, again and again until it is done.

    A dead letter has the original key, value bytes and headers (the original ``source-system`` stays
    the first of its name), followed by where it came from and why. What may still be delivered is waited
    for and not sent once more: after an outage the topic would have it as often as it was tried.
    """

    def __init__(
        self,
        sender: RecordSender,
        topic: str,
        group_id: str,
        source_system: str,
        base_s: float,
        max_delay_s: float,
        runtime: Runtime,
        storms: Storms,
        spans: Spans | None = None,
        *,
        patience_s: float | None = None,
    ) -> None:
        """:param patience_s: what takes longer is late: that is said, and no shutdown waits for it."""
        self._sender = sender
        self._topic = topic
        self._group_id = group_id
        self._source_system = source_system
        self._base_s = base_s
        self._max_delay_s = max_delay_s
        self._patience_s = _PATIENCE_S if patience_s is None else patience_s
        self._runtime = runtime
        self._storm = storms.of(_log)
        self._spans = spans
        self.written = 0
        """Dead letters that the failure topic has."""

    async def write(self, run: Run, error: BaseException | None) -> bool:
        """Write the dead letter of ``run``; False when a shutdown came first.

        A timer has no record: its dead letter is its key, and when it was due.
        """
        record = run.record
        if record is None:
            return await self._write_timer(run, error)
        original = list(record.headers)
        if not any(name == "source-system" for name, _ in original):
            original.append(("source-system", self._source_system.encode()))
        source = self._source(run, "message", record.offset, record.timestamp, _text(error))
        return await self._send(run, record.key, record.value, original + source, error)

    async def _write_timer(self, run: Run, error: BaseException | None) -> bool:
        assert run.timer is not None, "a run has a record or a timer"
        due_ms = run.timer.time * 1000
        value = json.dumps({"key": run.key, "time": _written(due_ms)}).encode()
        own = [("source-system", self._source_system.encode())]
        source = self._source(run, "timer", None, due_ms, _text(error))
        return await self._send(run, run.key.encode(), value, own + source, error)

    async def write_gone(self, run: Run, offset: int, timestamp_ms: int) -> bool:
        """Write that a deferred message of the key of ``run`` is lost; False when a shutdown came first.

        Nothing is left of it but its key and where it was.
        """
        own = [("source-system", self._source_system.encode())]
        error = LookupError(RECORD_GONE)
        source = self._source(run, "message", offset, timestamp_ms, RECORD_GONE)
        return await self._send(run, run.key.encode(), None, own + source, error)

    async def _send(
        self,
        run: Run,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
        error: BaseException | None,
    ) -> bool:
        """Write it, in a span where somebody wants one."""
        spans = self._spans
        span = None if spans is None else spans.dead_letter(run, self._topic, value, headers)
        sent = None
        try:
            sent = await self._until_written(run, key, value, headers, error, span)
        finally:
            if span is not None:
                span.end(sent)
        return sent is not None

    async def _until_written(
        self,
        run: Run,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
        error: BaseException | None,
        span: SendSpan | None,
    ) -> SentRecord | None:
        dropped = len(value or b"")
        failures = refusals = 0
        while True:
            writing = asyncio.ensure_future(
                self._sender.send_record(self._topic, key=key, value=value, headers=headers)
            )
            try:
                if not await self._has_ended(run, writing):
                    return None
                sent = writing.result()
            except SendError as failure:
                # The message must not get lost, so the write is repeated; without its value only if
                # it is that which the broker will never take.
                failures += 1
                if span is not None:
                    span.refused(failure)
                refusals = refusals + 1 if isinstance(failure, RecordTooLargeError) else 0
                # The second time in a row: a broker refuses whole batches, perhaps for a neighbour's size.
                if refusals == 2 and value is not None:
                    headers = [*headers, ("source-value-dropped", str(dropped).encode())]
                    value = None
                    _log.error(
                        "the failure topic %r refuses the dead letter of %s; writing it without its "
                        "value (%d bytes): %s",
                        self._topic,
                        run.where(),
                        dropped,
                        failure,
                        extra=fields(run),
                    )
                    continue
                delay_s = backoff_s(
                    failures, self._base_s, self._max_delay_s, self._runtime.random()
                )
                more = self._storm.allows(logging.WARNING, run)
                if more is not None:
                    _log.warning(
                        "dead letter not written to %r, trying again in %.3g s: %s: %s%s",
                        self._topic,
                        delay_s,
                        run.where(),
                        failure,
                        more,
                        extra=fields(run),
                    )
                if not await pause(run, delay_s, failure):
                    return None
            else:
                self.written += 1
                # The topic has them all, with their errors; the log need not in a storm.
                more = self._storm.allows(logging.ERROR, run)
                if more is not None:
                    _log.error(
                        "message failed, sent to %r partition %d offset %d: %s: %r%s",
                        self._topic,
                        sent.partition,
                        sent.offset,
                        run.where(),
                        error,
                        more,
                        exc_info=error,
                        extra=fields(run),
                    )
                return sent
            finally:
                writing.cancel()  # does nothing to what has ended

    async def _has_ended(self, run: Run, writing: asyncio.Future[SentRecord]) -> bool:
        """Wait until a write has succeeded or failed; False when a shutdown came first."""
        waited_s = self._patience_s
        await asyncio.wait([writing], timeout=waited_s)
        while not writing.done():
            late = SendTimeoutError(f"not acknowledged within {waited_s:g} s")
            more = self._storm.allows(logging.WARNING, run)
            if more is not None:
                _log.warning(
                    "dead letter to %r %s; it may still be delivered and is waited for: %s%s",
                    self._topic,
                    late,
                    run.where(),
                    more,
                    extra=fields(run),
                )
            if not await pause(run, _SAID_AGAIN_S, late, sooner=writing):
                return False
            waited_s += _SAID_AGAIN_S
        return True

    def _source(
        self, run: Run, kind: str, offset: int | None, timestamp_ms: int, text: str
    ) -> list[tuple[str, bytes | None]]:
        topic, partition = run.partition.topic_partition
        headers = [
            ("source-kind", kind),
            ("source-topic", topic),
            ("source-partition", str(partition)),
            ("source-timestamp", _written(max(timestamp_ms, 0))),
            ("source-group-id", self._group_id),
            ("source-error", text),
        ]
        if offset is not None:
            headers.insert(3, ("source-offset", str(offset)))
        return [(name, text.encode("utf-8", "backslashreplace")) for name, text in headers]


def _written(timestamp_ms: int) -> str:
    return utc_from_ms(timestamp_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(error: BaseException | None) -> str:
    try:
        text = str(error) or type(error).__name__
    except Exception:  # noqa: BLE001
        text = type(error).__name__  # an error that cannot be written is an error all the same
    if len(text) > _ERROR_CHARACTERS_MAX:
        text = f"{text[:_ERROR_CHARACTERS_MAX]}..."
    return text


class DeadLetter:
    """Sends what failed, permanently or after its retries, to the failure topic."""

    def __init__(self, writer: DeadLetterWriter) -> None:
        self._writer = writer

    def wrap(self, inner: Call) -> Call:
        async def or_dead_letter(run: Run) -> Outcome:
            return await self.ended(run, await inner(run))

        return or_dead_letter

    async def ended(self, run: Run, outcome: Outcome) -> Outcome:
        """The last attempt has ended."""
        kind = outcome.kind
        if kind is Kind.TRANSIENT or kind is Kind.PERMANENT:
            if not await self._writer.write(run, outcome.error):
                return ABANDONED
            return Outcome(Kind.PERMANENT, outcome.error)
        return outcome
