"""A record as it comes from aiokafka, without what nobody here reads of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prosody.broker.protocol import Headers


class KafkaRecord:
    """The shape of ``prosody.broker.protocol.Record``.

    aiokafka's own has eleven fields and is a dataclass; this one is made in half of the time, once for
    every message.
    """

    __slots__ = ("headers", "key", "offset", "partition", "timestamp", "topic", "value")

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    def __init__(self, partition: Any, fetched: Any) -> None:
        """
        :param partition: topic and partition, aiokafka's.
        :param fetched: a record of a batch, aiokafka's.
        """
        self.topic = partition.topic
        self.partition = partition.partition
        self.offset = fetched.offset
        self.timestamp = fetched.timestamp
        self.key = fetched.key
        self.value = fetched.value
        self.headers = tuple(fetched.headers)

    def __repr__(self) -> str:
        return f"KafkaRecord({self.topic!r}, {self.partition}, {self.offset}, key={self.key!r})"
