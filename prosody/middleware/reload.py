"""Gets a deferred message back: its record, and what tells that it is still the same."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from prosody.model.fields import fields
from prosody.model.run import shorten

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.broker.protocol import Record, TopicPartition
    from prosody.model.message import ExciseMessage, Message
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.stores.protocol import Deferred

_log = logging.getLogger("prosody.deferral")

T = TypeVar("T")


class Loader(Protocol):
    """Reads a record from the broker again."""

    async def load(self, topic_partition: TopicPartition, offset: int) -> Record | None:
        """The record; None when it is gone for good.

        :raises BrokerError: it could not be read now.
        """
        ...

    def forget(self, topic_partition: TopicPartition, offset: int) -> None:
        """It is not needed any more."""
        ...


class GoneWriter(Protocol):
    """Tells the failure topic of a deferred message whose record is gone."""

    async def write_gone(self, run: Run, offset: int, timestamp_ms: int) -> bool:
        """False when a shutdown came first."""
        ...


class GivenUpError(Exception):
    """The partition is given up: nothing more is begun."""


class Reload:
    """Loads the records of deferred messages. What is gone is never passed over in silence."""

    def __init__(
        self,
        loader: Loader | None,
        decode: Callable[[Record], Message | ExciseMessage | None],
        gone: GoneWriter | None,
        storms: Storms,
    ) -> None:
        """
        :param loader: None where the store keeps the records themselves.
        :param decode: the event in a record; None when no handler wants it. Raises ``ValueError`` for
            one that cannot be decoded.
        :param gone: writes to the failure topic; None when there is none.
        """
        self._loader = loader
        self._decode = decode
        self._gone = gone
        self._storm = storms.of(_log)
        self.lost = 0
        """Deferred messages whose record was gone."""

    async def load(self, run: Run, head: Deferred) -> tuple[Record, Message | ExciseMessage] | None:
        """The record and the event in it; None when there is none to run, which has been told then.

        :raises BrokerError: it could not be read now.
        :raises GivenUpError: a shutdown came first.
        """
        record = await self._read(run, head)
        event = await self._event(run, head, record)
        return None if record is None or event is None else (record, event)

    def forget(self, run: Run, offset: int) -> None:
        """A message is done with."""
        if self._loader is not None:
            self._loader.forget(run.partition.topic_partition, offset)

    async def _read(self, run: Run, head: Deferred) -> Record | None:
        if head.content is not None or self._loader is None:
            record: Record | None = head.content
            return record
        load = partial(self._loader.load, run.partition.topic_partition, head.position)
        return await until_given_up(run, load)

    async def _event(
        self, run: Run, head: Deferred, record: Record | None
    ) -> Message | ExciseMessage | None:
        """The event in a loaded record; None when there is none to run, which has been told then."""
        if record is None:
            await self._tell_gone(run, head, "there is no record at its offset any more")
            return None
        try:
            event = self._decode(record)
        except ValueError as error:
            # It was decoded when it was deferred, so it cannot be the same.
            await self._tell_gone(run, head, f"the record at its offset cannot be decoded: {error}")
            return None
        if record.timestamp != head.timestamp_ms:
            await self._tell_gone(run, head, "the record at its offset has another timestamp")
            return None
        if event is None:
            _log.info(
                "deferred record dropped, no handler for it: %s",
                which(run, head),
                extra=about(run, head.position),
            )
        elif event.key != run.key:
            await self._tell_gone(run, head, "the record at its offset has another key")
            return None
        return event

    async def _tell_gone(self, run: Run, head: Deferred, reason: str) -> None:
        self.lost += 1
        # Each is a message lost: the log is the only place that has them all without a failure topic.
        more = (
            ""
            if self._gone is None
            else self._storm.allows(logging.ERROR, about(run, head.position))
        )
        if more is not None:
            _log.error(
                "deferred message lost, record gone: %s: %s%s",
                which(run, head),
                reason,
                more,
                extra=about(run, head.position),
            )
        if self._gone is not None and not await self._gone.write_gone(
            run, head.position, head.timestamp_ms
        ):
            raise GivenUpError


def about(run: Run, offset: int) -> dict[str, object]:
    """What a line about a deferred message is about; the run may not stand for it yet."""
    return {**fields(run), "offset": offset}


def which(run: Run, head: Deferred) -> str:
    """What is deferred, for logs; the run may not stand for it yet."""
    topic, partition = run.partition.topic_partition
    return f"topic {topic!r} partition {partition} position {head.position} key {shorten(run.key)}"


async def until_given_up(run: Run, operation: Callable[[], Awaitable[T]]) -> T:
    """Wait for something that is only read, unless a shutdown comes first.

    :raises GivenUpError: it came first.
    """
    if not run.partition.running:
        raise GivenUpError
    over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    reading = asyncio.ensure_future(operation())

    def done(_: asyncio.Future[T]) -> None:
        if not reading.cancelled():
            reading.exception()  # looked at, also when nobody waits for it any more
        if not over.done():
            over.set_result(True)

    reading.add_done_callback(done)
    run.interruptible = over
    try:
        await over
        if not reading.done():
            raise GivenUpError
        return reading.result()
    finally:
        run.interruptible = None
        reading.cancel()
