"""The fields of each event as the reference writes them, and events read back from a topic."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import ReaderSettings, TopicPartition
from tests.client.support import DEADLINE_S

if TYPE_CHECKING:
    from tests.client.support import Place

Fields = dict[str, Any]

_TAIL = ("source", "hostname")
MESSAGE = ("type", "eventTime", "offset", "topic", "partition", "key", *_TAIL)
TIMER = ("type", "eventTime", "scheduledTime", "timerType", "topic", "partition", "key", *_TAIL)
SENT = ("type", "eventTime", "topic", "partition", "offset", "key", *_TAIL)
FAILED = ("demandType", "errorCategory", "exception")
TRACE = ("traceParent", "traceState")
ORDERS: dict[str, tuple[str, ...]] = {
    "prosody.message.dispatched": (*MESSAGE, "demandType"),
    "prosody.message.succeeded": (*MESSAGE, "demandType"),
    "prosody.message.failed": (*MESSAGE, *FAILED),
    "prosody.message.sent": SENT,
    "prosody.timer.scheduled": TIMER,
    "prosody.timer.cancelled": TIMER,
    "prosody.timer.dispatched": (*TIMER, "demandType"),
    "prosody.timer.succeeded": (*TIMER, "demandType"),
    "prosody.timer.failed": (*TIMER, *FAILED),
}
"""Type -> its fields, in their order; those of a trace may follow."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_CHOICES = {
    "timerType": {"application", "deferredMessage", "deferredTimer"},
    "demandType": {"normal", "failure"},
    "errorCategory": {"transient", "permanent"},
}


def check_shape(event: Fields) -> None:
    """Fields, order, types and forms."""
    expected = ORDERS[event["type"]]
    assert tuple(event) in {expected, (*expected, *TRACE)}, event
    for name, value in event.items():
        assert type(value) is (int if name in {"offset", "partition"} else str), (name, event)
    assert _TIME.fullmatch(event["eventTime"]), event
    if "scheduledTime" in event:
        assert _SECOND.fullmatch(event["scheduledTime"]), event
    for name, choices in _CHOICES.items():
        assert event.get(name, next(iter(choices))) in choices, event


class Events:
    """Reads a telemetry topic of one partition."""

    def __init__(self, place: Place, topic: str) -> None:
        self._place = place
        self._tp = TopicPartition(topic, 0)
        self._reader = place.broker.reader(ReaderSettings("look", 10.0, 100))
        self.read: list[Fields] = []

    async def until(self, count: int) -> list[Fields]:
        """Wait for so many events; all that there are by then, checked."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.read) < count:
                if not await self._next():
                    await self._place.runtime.sleep(0.02)
        return await self.all()

    async def all(self) -> list[Fields]:
        """All events there are."""
        while await self._next():
            pass
        return self.read

    async def end(self) -> int:
        """How many records there are, whatever they are."""
        count = 0
        while await self._reader.read(self._tp, count) is not None:
            count += 1
        return count

    async def _next(self) -> bool:
        record = await self._reader.read(self._tp, len(self.read))
        if record is None:
            return False
        assert record.key is not None
        assert record.value is not None
        assert not record.headers
        event = json.loads(record.value)
        check_shape(event)
        assert record.key.decode() == event["key"]
        assert record.value == json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        self.read.append(event)
        return True

    async def stop(self) -> None:
        await self._reader.stop()


def brief(events: list[Fields], *names: str) -> list[tuple[Any, ...]]:
    """Type without its beginning, and some fields."""
    return [
        (event["type"].removeprefix("prosody."), *(event.get(name) for name in names))
        for event in events
    ]
