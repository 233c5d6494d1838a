"""Writes records, over aiokafka."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from prosody.broker.kafka import internals
from prosody.broker.kafka.errors import WEDGED, LowerError, broker_error, mapped
from prosody.broker.kafka.sends import Queue, Send
from prosody.broker.partitioners import partition_for
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

_NO_KEY = object()


class KafkaProducer:
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
        self._servers = bootstrap_servers
        self._settings = settings
        self._runtime = runtime
        self._security = security
        self._producer: Any = None
        self._epoch = 0
        """Raised with each rebuild: a result of an older producer counts no more."""
        self._unplaced: dict[str, Queue] = {}
        self._queues: dict[tuple[str, int], Queue] = {}
        self._rebuilding: asyncio.Task[None] | None = None
        self._died = False
        """Whether the rebuild under way is because aiokafka's background task died."""
        self._closed = False
        self._ended = False
        self._flushed: asyncio.Future[None] | None = None

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
            # aiokafka refuses a record with neither key nor value; Kafka does not.
            key_serializer=_key_or_none,
            **self._security.client_options(),
        )
        try:
            with mapped(f"cannot connect to Kafka at {', '.join(self._servers)}"):
                await internals.start_client(producer, START_LIMIT_S)
        except BaseException:
            # Also when cancelled: a start that did not succeed leaves nothing running.
            await internals.abandon_producer(producer, ABANDON_GRACE_S)
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
                text = f"{_name(send)}: the producer was stopped before it was acknowledged"
                _fail(send, BrokerError(f"{text}; it may still be delivered", retriable=False))
        await internals.cancel_all([*tasks, self._rebuilding], ABANDON_GRACE_S)
        if self._producer is not None:
            await internals.abandon_producer(self._producer, ABANDON_GRACE_S)

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
                f"{_name(send)}: not acknowledged within {limit_s:g} s, {self._stage(send)}"
            ) from error
        finally:
            if not done.done() or done.cancelled():
                self._forget(send, queue)
            else:
                done.exception()  # seen, even when the timeout came first

    def _stage(self, send: Send) -> str:
        if send.partition < 0:
            return "the topic's partitions are not known: does it exist, does a broker answer?"
        return "no broker took it; it may still be delivered"

    def _place(self, send: Send) -> Queue:
        """Queue a send behind the earlier ones of its partition."""
        topic = send.topic
        queue = self._unplaced.get(topic)
        # Behind those that wait for metadata too, or it would overtake them.
        count = None if queue is not None else self._partition_count(topic)
        if not count:
            if queue is None:
                queue = self._unplaced[topic] = Queue(topic)
        else:
            queue = self._queue_of(send, count)
        queue.waiting[send] = None
        self._run(queue)
        return queue

    def _partition_count(self, topic: str) -> int | None:
        partitions = self._producer.client.cluster.partitions_for_topic(topic)
        return len(partitions) if partitions else None

    def _queue_of(self, send: Send, count: int) -> Queue:
        partition = partition_for(self._settings.partitioner, send.key, count, self._runtime.random)
        send.partition = partition
        place = (send.topic, partition)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = Queue(send.topic)
        return queue

    def _run(self, queue: Queue) -> None:
        """Have the queue's pump work, unless it does, or a rebuild will start it."""
        if queue.pump is None and queue.waiting and self._rebuilding is None and not self._ended:
            unplaced = self._unplaced.get(queue.topic) is queue
            work = self._find(queue) if unplaced else self._hand(queue)
            queue.pump = asyncio.get_running_loop().create_task(work)
            queue.pump.add_done_callback(functools.partial(self._pump_ended, queue))

    async def _find(self, queue: Queue) -> None:
        """Learn the topic's partitions, and spread the queue over theirs."""
        topic = queue.topic
        try:
            with mapped(f"send to {topic!r}"):
                partitions = await self._producer.partitions_for(topic)
        except BrokerError as error:
            # Told to everybody who waits for it; the next send asks again.
            for send in list(queue.waiting):
                _fail(send, BrokerError(str(error), retriable=error.retriable))
            queue.waiting.clear()
        # From here to the end without waiting: nobody can slip in between.
        del self._unplaced[topic]
        for send in queue.waiting:
            placed = self._queue_of(send, len(partitions))
            placed.waiting[send] = None
            self._run(placed)
        queue.waiting.clear()

    async def _hand(self, queue: Queue) -> None:
        """Hand the queue to aiokafka, which makes this task wait while its buffer is full."""
        producer, epoch = self._producer, self._epoch
        while queue.waiting:
            send = next(iter(queue.waiting))
            try:
                result = await producer.send(
                    send.topic,
                    value=send.value,
                    key=_NO_KEY if send.key is None else send.key,
                    partition=send.partition,
                    timestamp_ms=send.timestamp_ms,
                    headers=list(send.headers),  # aiokafka takes no tuple
                )
            except KafkaTimeoutError:
                # Its buffer stayed full for long; the send's own timeout says when it is too long.
                continue
            except LowerError as error:
                if internals.sender_is_dead(producer):
                    self._rebuild()
                    return
                queue.waiting.pop(send, None)
                _fail(send, broker_error(_name(send), error))
                continue
            except (AssertionError, TypeError, ValueError) as error:
                # aiokafka checks with assertions: the topic lost partitions, or a header is no bytes.
                queue.waiting.pop(send, None)
                text = f"{_name(send)}: aiokafka refuses the record: {error!r}"
                _fail(send, BrokerError(text, retriable=False))
                continue
            # It may have been given up while the buffer was full; then it is delivered all the same.
            queue.waiting.pop(send, None)
            queue.sent[send] = None
            result.add_done_callback(functools.partial(self._acknowledged, queue, send, epoch))

    def _pump_ended(self, queue: Queue, task: asyncio.Task[None]) -> None:
        queue.pump = None
        if not task.cancelled() and (fault := task.exception()) is not None:
            # Ours or aiokafka's, and unknown: those who wait learn of it, later sends start afresh.
            log.error("sending to %s failed unexpectedly", queue.topic, exc_info=fault)
            for send in list(queue.waiting):
                _fail(send, broker_error(_name(send), fault))
            queue.waiting.clear()
            if self._unplaced.get(queue.topic) is queue:
                del self._unplaced[queue.topic]
        # Something may have been queued after the pump's last look.
        self._run(queue)
        self._tidy(queue)

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
                _fail(send, broker_error(f"{_name(send)}: tried {REPEATS + 1} times", error))
            self._rebuild()
        else:
            del queue.sent[send]
            _fail(send, broker_error(_name(send), error))
        self._tidy(queue)

    def _is_wedged(self, error: BaseException) -> bool:
        if isinstance(error, WEDGED):
            return True
        if self._rebuilding is not None:
            return self._died
        return internals.sender_is_dead(self._producer)

    # -- giving up, ending ---------------------------------------------------------------------------

    def _forget(self, send: Send, queue: Queue) -> None:
        queue.forget(send)
        if send.partition >= 0:
            # It was placed after it had waited for metadata.
            placed = self._queues.get((send.topic, send.partition))
            if placed is not None:
                placed.forget(send)
        self._tidy(queue)

    def _tidy(self, queue: Queue) -> None:
        """Tell a ``stop`` that waits when the last send is gone."""
        if self._flushed is not None and not self._flushed.done() and self._is_idle():
            self._flushed.set_result(None)

    def _is_idle(self) -> bool:
        queues = (*self._unplaced.values(), *self._queues.values())
        return all(queue.is_empty() for queue in queues)

    # -- rebuilding ----------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        if self._rebuilding is not None or self._ended:
            return
        self._died = internals.sender_is_dead(self._producer)
        # At once, before aiokafka's sender takes the next batch: what is behind must stay behind.
        internals.freeze_producer(self._producer)
        self._rebuilding = asyncio.get_running_loop().create_task(self._replace())

    async def _replace(self) -> None:
        """Replace a producer that can never write again, and repeat what is awaited."""
        log.warning("the producer %r is wedged, it is replaced", self._settings.client_id)
        try:
            pumps = [queue.pump for queue in (*self._unplaced.values(), *self._queues.values())]
            await internals.cancel_all(pumps, ABANDON_GRACE_S)
            # Requests under way may end well; their results still count.
            await internals.abandon_producer(self._producer, ABANDON_GRACE_S)
            wait_s = REBUILD_WAIT_S
            while True:
                try:
                    self._producer = await self._connect()
                    break
                except BrokerError as error:
                    # Until it comes back the senders wait, each for its own timeout.
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
    return None if key is _NO_KEY else key


def _name(send: Send) -> str:
    where = f"send to {send.topic!r}"
    return where if send.key is None else f"{where}, key {send.key[:64]!r}"


def _fail(send: Send, error: BrokerError) -> None:
    if not send.done.done():
        send.done.set_exception(error)
