"""Sends each message at its time, whatever is handled.

By librdkafka, in a thread: with aiokafka's producer and a task for each message, sending took more than
half of a processor, and the half of a millisecond that it added was counted as the latency of whoever is
measured.
"""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Producer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.compare.records import Planned
    from benchmarks.path.places import Place

LEAD_S = 0.2
ANSWER_LIMIT_S = 60.0


@contextmanager
def no_collections() -> Iterator[None]:
    """A full garbage collection of this process would make everything late for 50 ms, and count as the
    latency of whoever is measured: the p99 of some seconds is made of one such pause."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Sender:
    """Of a live row."""

    def __init__(self, kafka: str, place: Place, planned: Sequence[Planned]) -> None:
        """:param kafka: its address, as ``host:port``."""
        self._topic = place.topic
        self._headers = list(place.headers)
        self._planned = planned
        self._refusal: KafkaError | None = None
        """Of the first message that was not taken."""
        self._settings: dict[str, str | int | float | bool] = {
            "bootstrap.servers": kafka, "partitioner": "consistent",
            # Nothing may wait for others: neither in the producer nor, for 40 ms at worst, in the kernel.
            "linger.ms": 0, "socket.nagle.disable": True,
            "message.timeout.ms": int(ANSWER_LIMIT_S * 1000), "delivery.report.only.error": True,
        }  # fmt: skip
        self.sent = 0
        self.over = False
        """Set from outside: nothing more is to be sent."""
        self.lateness_s = 0.0
        """The longest time by which this process was late itself."""

    async def run(self) -> None:
        """Until everything is sent and acknowledged, or it is over.

        :raises KafkaException: a message was refused, or not acknowledged in time.
        """
        with no_collections():
            try:
                await asyncio.to_thread(self._run)
            finally:
                self.over = True  # a thread cannot be cancelled

    def _run(self) -> None:
        producer = Producer(self._settings)
        producer.list_topics(self._topic, ANSWER_LIMIT_S)  # connected, and the leaders known
        began_at = time.monotonic() + LEAD_S
        for each in self._planned:
            key, value = each.record(began_at)
            due_at = began_at + each.after_s
            while (left_s := due_at - time.monotonic()) > 0.0:
                time.sleep(left_s)
            if self.over:
                break
            self.lateness_s = max(self.lateness_s, -left_s)
            producer.produce(
                self._topic, value, key, headers=self._headers, on_delivery=self._refused
            )
            self.sent += 1
            producer.poll(0)
        unanswered = producer.flush(ANSWER_LIMIT_S)
        if self._refusal is not None:
            raise KafkaException(self._refusal)
        if unanswered:
            raise KafkaException(
                KafkaError(KafkaError._MSG_TIMED_OUT, f"{unanswered} not acknowledged")
            )

    def _refused(self, error: KafkaError | None, _: object) -> None:
        self._refusal = self._refusal or error
