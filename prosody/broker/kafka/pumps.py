"""The sends of a producer on their way into aiokafka: a queue and a task for each busy partition."""

from __future__ import annotations

import asyncio
import functools
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError

from prosody.broker.kafka import lifetimes
from prosody.broker.kafka.errors import LowerError, broker_error, send_error
from prosody.broker.kafka.sends import Queue, Send
from prosody.broker.partitioners import partition_for
from prosody.errors import BrokerError, ProsodyError

if TYPE_CHECKING:
    from collections.abc import Collection

    from prosody.broker.protocol import ProducerSettings
    from prosody.runtime import Runtime

log = logging.getLogger(__name__)

NO_KEY = object()
"""Stands for no key: aiokafka refuses a record with neither key nor value, Kafka does not."""


class Pumps(ABC):
    """Places each send in the queue of its partition, and hands the queues to aiokafka.

    ::

        send ──(partitions known)──▶ queue of its partition ──(pump)──▶ aiokafka
          └───(not yet)──▶ queue of its topic ──(found)──▲
    """

    def __init__(self, settings: ProducerSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime
        self._producer: Any = None
        """aiokafka's; replaced by a rebuild."""
        self._epoch = 0
        """Raised with each rebuild: a result of an older producer counts no more."""
        self._unplaced: dict[str, Queue] = {}
        self._queues: dict[tuple[str, int], Queue] = {}
        self._rebuilding: asyncio.Task[None] | None = None
        self._ended = False
        self._flushed: asyncio.Future[None] | None = None
        """What a ``stop`` waits for."""

    @abstractmethod
    def _rebuild(self) -> None:
        """Replace aiokafka's producer. Does not wait."""

    @abstractmethod
    def _acknowledged(
        self, queue: Queue, send: Send, epoch: int, result: asyncio.Future[Any]
    ) -> None:
        """aiokafka has a result."""

    # -- steps ---------------------------------------------------------------------------------------

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
        partitions: Collection[int] = ()
        while queue.waiting:
            try:
                partitions = await self._producer.partitions_for(topic)
            except LowerError as error:
                if await self._nobody_answers(error):
                    # Not the topic is missing: each send waits for a broker, for its own timeout.
                    continue
                # Told to everybody who waits for it; the next send asks again.
                for send in list(queue.waiting):
                    fail(send, broker_error(f"send to {topic!r}", error))
                queue.waiting.clear()
            else:
                break
        # From here to the end without waiting: nobody can slip in between.
        del self._unplaced[topic]
        for send in queue.waiting:
            placed = self._queue_of(send, len(partitions))
            placed.waiting[send] = None
            self._run(placed)
        queue.waiting.clear()

    async def _nobody_answers(self, error: BaseException) -> bool:
        """Whether a topic was not found because no broker could be asked for it."""
        if not isinstance(error, UnknownTopicOrPartitionError):
            return False
        return not await self._producer.client.force_metadata_update()

    async def _hand(self, queue: Queue) -> None:
        """Hand the queue to aiokafka, which makes this task wait while its buffer is full."""
        producer, epoch = self._producer, self._epoch
        while queue.waiting:
            send = next(iter(queue.waiting))
            send.handed = True
            try:
                result = await producer.send(
                    send.topic,
                    value=send.value,
                    key=NO_KEY if send.key is None else send.key,
                    partition=send.partition,
                    timestamp_ms=send.timestamp_ms,
                    headers=list(send.headers),  # aiokafka takes no tuple
                )
            except KafkaTimeoutError:
                # Its buffer stayed full for long; the send's own timeout says when it is too long.
                continue
            except LowerError as error:
                if lifetimes.sender_is_dead(producer):
                    self._rebuild()
                    return
                queue.waiting.pop(send, None)
                fail(send, send_error(name_of(send), error))
                continue
            except (AssertionError, TypeError, ValueError) as error:
                # aiokafka checks with assertions: the topic lost partitions, or a header is no bytes.
                queue.waiting.pop(send, None)
                text = f"{name_of(send)}: aiokafka refuses the record: {error!r}"
                fail(send, BrokerError(text, retriable=False))
                continue
            # It may have been given up while the buffer was full; then it is delivered all the same.
            queue.waiting.pop(send, None)
            queue.sent[send] = None
            result.add_done_callback(functools.partial(self._acknowledged, queue, send, epoch))

    def _pump_ended(self, queue: Queue, task: asyncio.Task[None]) -> None:
        queue.pump = None
        if not task.cancelled() and (fault := task.exception()) is not None:
            # Ours or aiokafka's, and unknown: those who wait learn of it, later sends start afresh.
            log.error(
                "sending to %s failed unexpectedly",
                queue.topic,
                exc_info=fault,
                extra={"topic": queue.topic},
            )
            for send in list(queue.waiting):
                fail(send, broker_error(name_of(send), fault))
            queue.waiting.clear()
            if self._unplaced.get(queue.topic) is queue:
                del self._unplaced[queue.topic]
        # Something may have been queued after the pump's last look.
        self._run(queue)
        self._tidy(queue)

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


def name_of(send: Send) -> str:
    where = f"send to {send.topic!r}"
    return where if send.key is None else f"{where}, key {send.key[:64]!r}"


def fail(send: Send, error: ProsodyError) -> None:
    if not send.done.done():
        send.done.set_exception(error)
