"""Writes records, over aiokafka."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer

from prosody.broker.kafka import lifetimes
from prosody.broker.kafka.errors import WEDGED, broker_error, mapped, send_error
from prosody.broker.kafka.patience import keep_batches, pace_metadata, serve_the_others
from prosody.broker.kafka.pumps import NO_KEY, Pumps, fail, name_of
from prosody.broker.kafka.sends import Queue, Send
from prosody.broker.protocol import SentRecord
from prosody.errors import BrokerError, SendTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.kafka.security import KafkaSecurity
    from prosody.broker.protocol import ProducerSettings
    from prosody.runtime import Runtime

log = logging.getLogger(__name__)

START_LIMIT_S = 30.0
DELIVERY_LIMIT_S = 300.0
"""How long a send without a timeout tries: the same as librdkafka's ``message.timeout.ms``."""
FLUSH_LIMIT_S = 10.0
ABANDON_GRACE_S = 5.0
REPEATS = 3
"""How often a send is repeated by a rebuilt producer."""
REBUILD_WAIT_S = 0.2
REBUILD_WAIT_MOST_S = 5.0

LINGER_MS = 0
MAX_BATCH_BYTES = 256 * 1024
MAX_RECORD_BYTES = 1024 * 1024


class KafkaProducer(Pumps):
    """Implements :class:`~prosody.broker.protocol.BrokerProducer`.

    Each send enters the queue of its partition during the call, and one task per busy partition (the
    pump) hands the queue to aiokafka. So the order of the calls is the order in the log, whoever had to
    wait for metadata or for buffer space, and a caller that gives up takes nothing with it: it waits for
    a future of its own, never inside aiokafka.

    aiokafka numbers the records of a partition. When the broker finds a gap, its producer can never
    write there again: it is then replaced, and what is still awaited is sent again in its order.
    """

    def __init__(
        self,
        bootstrap_servers: tuple[str, ...],
        settings: ProducerSettings,
        *,
        runtime: Runtime,
        security: KafkaSecurity,
    ) -> None:
        super().__init__(settings, runtime)
        self._servers = bootstrap_servers
        self._security = security
        self._died = False
        """Whether the rebuild under way is because aiokafka's background task died."""
        self._closed = False

    # -- life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._producer is not None or self._closed:
            raise BrokerError("start: this producer was started before", retriable=False)
        self._producer = await self._connect()

    async def _connect(self) -> Any:
        producer = AIOKafkaProducer(
            bootstrap_servers=list(self._servers),
            client_id=self._settings.client_id,
            acks="all",
            enable_idempotence=True,
            compression_type=self._settings.compression,
            linger_ms=LINGER_MS,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_RECORD_BYTES,
            key_serializer=_key_or_none,
            **self._security.client_options(),
        )
        pace_metadata(producer.client, self._runtime)
        keep_batches(producer, DELIVERY_LIMIT_S)
        serve_the_others(producer)
        lifetimes.track_requests(producer)
        try:
            with mapped(f"cannot connect to Kafka at {', '.join(self._servers)}"):
                await lifetimes.start_client(producer, START_LIMIT_S)
        except BaseException:
            # Also when cancelled: a start that did not succeed leaves nothing running.
            await lifetimes.abandon_producer(producer, ABANDON_GRACE_S)
            raise
        return producer

    async def stop(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if not self._is_idle():
                self._flushed = asyncio.get_running_loop().create_future()
                # The limit is for a broker that does not answer; what is left is told so below.
                await asyncio.wait([self._flushed], timeout=FLUSH_LIMIT_S)
        finally:
            await self._close()

    async def _close(self) -> None:
        self._ended = True
        self._epoch += 1
        queues = [*self._unplaced.values(), *self._queues.values()]
        tasks = [queue.pump for queue in queues]
        for queue in queues:
            for send in (*queue.sent, *queue.waiting):
                text = f"{name_of(send)}: the producer was stopped before it was acknowledged"
                fail(send, BrokerError(f"{text}; it may still be delivered", retriable=False))
        await lifetimes.cancel_all([*tasks, self._rebuilding], ABANDON_GRACE_S)
        if self._producer is not None:
            await lifetimes.abandon_producer(self._producer, ABANDON_GRACE_S)

    # -- sending -------------------------------------------------------------------------------------

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
        timeout_s: float | None = None,
    ) -> SentRecord:
        if self._producer is None or self._closed:
            state = "stopped" if self._closed else "not started"
            raise BrokerError(f"send to {topic!r}: the producer is {state}", retriable=False)
        done: asyncio.Future[SentRecord] = asyncio.get_running_loop().create_future()
        send = Send(topic, key, value, headers, timestamp_ms, done)
        queue = self._place(send)
        limit_s = DELIVERY_LIMIT_S if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await done
        except TimeoutError as error:
            raise SendTimeoutError(
                f"{name_of(send)}: not acknowledged within {limit_s:g} s, {self._stage(send)}"
            ) from error
        finally:
            if not done.done() or done.cancelled():
                self._forget(send, queue)
            else:
                done.exception()  # seen, even when the timeout came first

    def _stage(self, send: Send) -> str:
        if send.partition < 0:
            return "the topic's partitions are not known: does it exist, does a broker answer?"
        if send.handed:
            return "no broker has answered; it may still be delivered"
        return "it was waiting behind others and was not sent"

    def _acknowledged(
        self, queue: Queue, send: Send, epoch: int, result: asyncio.Future[Any]
    ) -> None:
        if result.cancelled():
            return
        error = result.exception()
        if epoch != self._epoch:
            return
        if error is None:
            del queue.sent[send]
            if not send.done.done():
                metadata = result.result()
                send.done.set_result(
                    SentRecord(metadata.topic, metadata.partition, metadata.offset)
                )
        elif not self._ended and self._is_wedged(error):
            # It stays among the sent ones, which keeps its place in the order.
            send.repeats += 1
            if send.repeats > REPEATS:
                fail(send, broker_error(f"{name_of(send)}: tried {REPEATS + 1} times", error))
            self._rebuild()
        else:
            del queue.sent[send]
            fail(send, send_error(name_of(send), error))
        self._tidy(queue)

    def _is_wedged(self, error: BaseException) -> bool:
        if isinstance(error, WEDGED):
            return True
        if self._rebuilding is not None:
            return self._died
        return lifetimes.sender_is_dead(self._producer)

    # -- rebuilding ----------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        if self._rebuilding is not None or self._ended:
            return
        self._died = lifetimes.sender_is_dead(self._producer)
        # At once, before aiokafka's sender takes the next batch: what is behind must stay behind.
        lifetimes.freeze_producer(self._producer)
        self._rebuilding = asyncio.get_running_loop().create_task(self._replace())

    async def _replace(self) -> None:
        """Replace a producer that can never write again, and repeat what is awaited."""
        log.warning("the producer %r is wedged, it is replaced", self._settings.client_id)
        try:
            pumps = [queue.pump for queue in (*self._unplaced.values(), *self._queues.values())]
            await lifetimes.cancel_all(pumps, ABANDON_GRACE_S)
            abandoned = False
            wait_s = REBUILD_WAIT_S
            while True:
                try:
                    if not abandoned:
                        abandoned = True
                        # Requests under way may end well; their results still count.
                        await lifetimes.abandon_producer(self._producer, ABANDON_GRACE_S)
                    self._producer = await self._connect()
                    break
                except Exception as error:  # noqa: BLE001
                    # Whatever it is (a certificate may be missing while it is renewed), without a
                    # producer nothing is ever sent again. The senders wait, each for its own timeout.
                    log.warning("replacing the producer failed, trying again: %s", error)
                    await self._runtime.sleep(wait_s)
                    wait_s = min(2 * wait_s, REBUILD_WAIT_MOST_S)
        finally:
            self._rebuilding = None
        self._epoch += 1
        for queue in list(self._queues.values()):
            queue.repeat()
        for queue in (*self._unplaced.values(), *self._queues.values()):
            self._run(queue)
            self._tidy(queue)


def _key_or_none(key: Any) -> bytes | None:
    return None if key is NO_KEY else key
