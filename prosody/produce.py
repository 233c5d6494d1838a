"""Sending: JSON, the ``source-system`` header, the timeout and the id cache around a broker's producer."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import xxhash
from cachetools import LRUCache

from prosody.errors import (
    BrokerError,
    PayloadError,
    ProsodyError,
    RecordTooLargeError,
    SendError,
    SendTimeoutError,
)
from prosody.model.fields import cut
from prosody.model.run import shorten
from prosody.observe import spans
from prosody.observe.tracing import Tracing, trace_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from prosody.broker.protocol import (
        Broker,
        BrokerProducer,
        Headers,
        ProducerSettings,
        SentRecord,
    )
    from prosody.observe.metrics import Metrics

_log = logging.getLogger("prosody.produce")

# The standard library's encoder, because it refuses what is no JSON (bytes, sets, dates, NaN) where
# faster ones quietly find a form for it, and writes whole numbers of any size.
_encode_json = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=True
).encode


class Producer:
    """Sends for one client. Connects at the first send, in the event loop that makes it."""

    def __init__(
        self,
        broker: Broker,
        settings: ProducerSettings,
        *,
        source_system: str,
        send_timeout_s: float | None,
        id_cache_size: int,
        tracing: Tracing | None = None,
        report: Callable[[SentRecord, bytes | None, Headers], None] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """
        :param send_timeout_s: limit of a whole send in seconds; None leaves it to the broker.
        :param id_cache_size: how many (topic, key, id) triples are remembered; 0 remembers none.
        :param tracing: where spans go; the program's provider unless given.
        :param report: told of each record that was acknowledged, with its key and headers.
        :param metrics: measures sends while somebody wants that.
        """
        self._broker = broker
        self._settings = settings
        self._source_system = ("source-system", source_system.encode())
        self._send_timeout_s = send_timeout_s
        self._sent: LRUCache[bytes, None] | None = (
            LRUCache(maxsize=id_cache_size) if id_cache_size else None
        )
        self._tracing = tracing or Tracing()
        self._report = report
        self._metrics = metrics
        self._producer: BrokerProducer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Task[BrokerProducer] | None = None

    async def send(self, topic: str, key: str, payload: Any) -> None:
        """See :meth:`prosody.ProsodyClient.send`."""
        key_bytes, value = _encode(topic, key, payload)
        digest = self._digest(topic, key_bytes, payload)
        if digest is not None and self._sent is not None and digest in self._sent:
            _log.info(
                "send skipped, this id was sent before (send_cache_enabled=False turns that off): "
                "topic %r key %s id %s",
                topic,
                shorten(key),
                shorten(payload["id"]),
                extra={"topic": topic, "key": cut(key)},
            )
            return
        tracer = self._tracing.tracer()
        if tracer is None:
            headers = [*trace_headers(), self._source_system]
            await self.send_record(
                topic, key=key_bytes, value=value, headers=headers, timeout_s=self._send_timeout_s
            )
        else:
            with spans.Sending(tracer, self._tracing, topic, key, len(value)) as span:
                headers = [*trace_headers(span.context), self._source_system]
                span.sent = await self.send_record(
                    topic,
                    key=key_bytes,
                    value=value,
                    headers=headers,
                    timeout_s=self._send_timeout_s,
                )
        if digest is not None and self._sent is not None:
            self._sent[digest] = None

    def send_record(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timeout_s: float | None = None,
    ) -> Coroutine[Any, Any, SentRecord]:
        """Write one record as it is.

        :param timeout_s: limit of the whole send in seconds; None leaves it to the broker's producer, which
            does not give up what it may still deliver.
        :raises RecordTooLargeError: it is larger than the broker takes.
        :raises SendError: not acknowledged; ``BrokerError`` is its cause.
        """
        metrics = self._metrics
        writing = self._write(topic, key, value, headers, timeout_s)
        # No coroutine of its own: a send that nobody measures pays for a question.
        if metrics is None or not metrics.sends:
            return writing
        return metrics.sending(topic, writing)

    async def _write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        limit_s: float | None,
    ) -> SentRecord:
        try:
            producer = self._producer
            if producer is None or self._loop is not asyncio.get_running_loop():
                loop = asyncio.get_running_loop()
                began = loop.time()
                producer = await self._connected(loop, topic)
                if limit_s is not None:
                    limit_s = max(limit_s - (loop.time() - began), 0.0)
            sent = await producer.send(
                topic, key=key, value=value, headers=headers, timeout_s=limit_s
            )
        except RecordTooLargeError as error:
            raise RecordTooLargeError(
                f"record for topic {topic!r} key {_shorten_bytes(key)} was not taken: {error}"
            ) from error
        except BrokerError as error:
            raise SendError(
                f"record for topic {topic!r} key {_shorten_bytes(key)} was not taken: {error}",
                retriable=error.retriable,
            ) from error
        if self._report is not None:
            self._report(sent, key, headers)
        return sent

    async def stop(self) -> None:
        """Deliver what is buffered and close; a later send connects anew."""
        here = self._loop is asyncio.get_running_loop()
        starting, self._starting = self._starting, None
        producer, self._producer = self._producer, None
        if starting is not None and here:
            starting.cancel()
            await asyncio.wait((starting,))
            if producer is None and not starting.cancelled() and starting.exception() is None:
                producer = starting.result()  # connected in the very turn of this call
        if producer is not None and here:
            await producer.stop()

    async def _connected(self, loop: asyncio.AbstractEventLoop, topic: str) -> BrokerProducer:
        """The producer of this loop, connected; all sends that come meanwhile share the wait."""
        if self._loop is not loop:
            in_use = self._producer is not None or self._starting is not None
            if self._loop is not None and not self._loop.is_closed() and in_use:
                raise ProsodyError(
                    "this client's producer belongs to another running event loop: "
                    "use one client in each loop"
                )
            # A closed loop took its connections with it.
            self._loop, self._producer, self._starting = loop, None, None
        if self._starting is None:
            self._starting = loop.create_task(self._start(), name="prosody-producer-start")
            self._starting.add_done_callback(self._started)
        starting = self._starting
        try:
            async with asyncio.timeout(self._send_timeout_s):
                # Waited for, not awaited: one caller's timeout or cancellation must not end the
                # others' wait, and a client that closes meanwhile is no cancellation of the caller.
                await asyncio.wait((starting,))
        except TimeoutError as error:
            raise SendTimeoutError(
                f"not connected to the broker within send_timeout ({self._send_timeout_s} s); "
                f"record for topic {topic!r} was not sent"
            ) from error
        if starting.cancelled():
            raise SendError(
                f"the client was shut down while it connected; record for topic {topic!r} was not sent"
            )
        return starting.result()

    async def _start(self) -> BrokerProducer:
        producer = self._broker.producer(self._settings)
        try:
            await producer.start()
        except BaseException:
            # Failed or cancelled: what was half made must not linger.
            await producer.stop()
            raise
        return producer

    def _started(self, starting: asyncio.Task[BrokerProducer]) -> None:
        stopped = self._starting is not starting
        if not stopped:
            self._starting = None
        if starting.cancelled():
            return
        error = starting.exception()
        if stopped:
            return  # stop() came meanwhile, and sees to what was made
        if error is None:
            self._producer = starting.result()
        else:
            _log.warning("the producer cannot connect, the next send tries again: %s", error)

    def _digest(self, topic: str, key: bytes, payload: Any) -> bytes | None:
        """What the id cache knows a message by; None when it has no text ``id``."""
        if self._sent is None or type(payload) is not dict:
            return None
        event_id = payload.get("id")
        if type(event_id) is not str:
            return None
        hashed = xxhash.xxh3_128()
        for part in (topic.encode(), key, event_id.encode()):
            # Each part's length goes first, so that no two triples run together alike.
            hashed.update(len(part).to_bytes(4, "little"))
            hashed.update(part)
        return hashed.digest()


def _encode(topic: Any, key: Any, payload: Any) -> tuple[bytes, bytes]:
    """Key and value as bytes.

    :raises PayloadError: naming what cannot be sent and why.
    """
    for name, value in (("topic", topic), ("key", key)):
        if not isinstance(value, str):
            raise PayloadError(f"{name} must be a str, got {value!r}")
    if not topic:
        raise PayloadError("topic must not be empty")
    try:
        topic.encode()
        key_bytes = key.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(
            f"topic or key cannot be written as UTF-8 (topic {topic!r} key {shorten(key)}): {error}"
        ) from error
    try:
        return key_bytes, _encode_json(payload).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(
            f"payload cannot be written as JSON (topic {topic!r} key {shorten(key)}): {error}"
        ) from error


def _shorten_bytes(key: bytes | None) -> str:
    return "None" if key is None else shorten(key.decode("utf-8", "backslashreplace"))
