"""The sends of a producer: what waits, what is under way, in the order of the calls."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.protocol import SentRecord


class Send:
    """One record on its way. ``done`` is set once; a cancelled ``done`` means nobody waits any more."""

    __slots__ = (
        "done", "handed", "headers", "key", "partition", "repeats", "timestamp_ms", "topic", "value",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp_ms: int | None,
        done: asyncio.Future[SentRecord],
    ) -> None:
        self.topic = topic
        self.key = key
        self.value = value
        self.headers = headers
        self.timestamp_ms = timestamp_ms
        self.done = done
        self.partition = -1
        self.repeats = 0
        self.handed = False
        """Whether aiokafka was given it: from then on it may be delivered, whoever gives up waiting."""


class Queue:
    """Sends of one partition, or of a topic whose partitions are not known yet, in the order of calls.

    ::

        waiting ──(handed to aiokafka)──▶ sent ──(acknowledged or refused)──▶ gone
           ▲                               │
           └────────(producer rebuilt)─────┘
    """

    __slots__ = ("pump", "sent", "topic", "waiting")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        # Ordered dicts, because a send given up in the middle must leave at once: while a broker is
        # down the senders time out one after the other, and the queue would grow without limit.
        self.waiting: OrderedDict[Send, None] = OrderedDict()
        self.sent: OrderedDict[Send, None] = OrderedDict()
        self.pump: asyncio.Task[None] | None = None

    def repeat(self) -> None:
        """Put what was under way, and is still awaited, before what waits."""
        again = OrderedDict.fromkeys(send for send in self.sent if not send.done.done())
        again.update(self.waiting)
        self.waiting = again
        self.sent = OrderedDict()

    def forget(self, send: Send) -> None:
        """Drop a send nobody waits for. Once handed to aiokafka it may still be delivered."""
        self.waiting.pop(send, None)

    def is_empty(self) -> bool:
        return not self.waiting and not self.sent
