"""A broker whose consumers write down what they are told and what they commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from prosody.broker.protocol import (
        Broker,
        BrokerConsumer,
        ConsumerSettings,
        OffsetAndMetadata,
        RebalanceListener,
        Start,
        TopicPartition,
    )
    from tests.processes.history import Writer


class WatchedBroker:
    """The broker given, for one topic; only its consumers are different."""

    def __init__(self, broker: Broker, writer: Writer, *, forgetful: bool = False) -> None:
        """``forgetful``: the notes of commits are dropped, so what finished ahead is not known."""
        self._broker = broker
        self._writer = writer
        self._forgetful = forgetful

    def consumer(self, settings: ConsumerSettings) -> Any:
        return _Consumer(self._broker.consumer(settings), self._writer, self._forgetful)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


class _Consumer:
    def __init__(self, consumer: BrokerConsumer, writer: Writer, forgetful: bool) -> None:
        self._consumer = consumer
        self._writer = writer
        self._forgetful = forgetful

    async def start(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        await self._consumer.start(topics, _Listener(listener, self._writer, self._forgetful))

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        facts = {tp.partition: [at.offset, at.metadata] for tp, at in offsets.items()}
        self._writer.write("commit", offsets=facts)
        try:
            await self._consumer.commit(offsets)
        except BaseException:
            # Written down only; whatever it was is the caller's business.
            self._writer.write("refused", offsets=facts)
            raise
        self._writer.write("committed", offsets=facts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class _Listener:
    def __init__(self, listener: RebalanceListener, writer: Writer, forgetful: bool) -> None:
        self._listener = listener
        self._writer = writer
        self._forgetful = forgetful

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        facts = {tp.partition: [start.offset, start.metadata] for tp, start in starts.items()}
        self._writer.write("assigned", offsets=facts)
        if self._forgetful:
            starts = {tp: start._replace(metadata="") for tp, start in starts.items()}
        self._listener.on_assigned(starts)

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        self._writer.write("revoking", offsets=_plain(partitions))
        await self._listener.on_revoked(partitions)
        self._writer.write("revoked", offsets=_plain(partitions))

    def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        self._writer.write("lost", offsets=_plain(partitions))
        self._listener.on_lost(partitions)


def _plain(partitions: Collection[TopicPartition]) -> dict[int, list[Any]]:
    return {tp.partition: [-1, ""] for tp in partitions}
