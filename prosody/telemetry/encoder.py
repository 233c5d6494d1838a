"""Events as records: JSON of the shape that all Prosody languages write, put together from ready parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prosody._core import event_lines
from prosody.telemetry.events import MESSAGE, MESSAGE_DISPATCHED, MESSAGE_SUCCEEDED, SENT
from prosody.telemetry.texts import Clock, json_text, second_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.protocol import TopicPartition

_KEYS_MAX: Final = 16_384
_KEY_CHARS_MAX: Final = 256
"""Longer keys are not remembered."""
_PLACES_MAX: Final = 4096


class Encoder:
    """Encodes for one client, with the lines' common part in the core; the ``EventParts`` of that."""

    dispatched: Final = MESSAGE_DISPATCHED
    succeeded: Final = MESSAGE_SUCCEEDED

    def __init__(self, topic: str, group_id: str | None, source_system: str, hostname: str) -> None:
        """
        :param topic: the topic of the events themselves; nothing about it is encoded.
        :param group_id: the ``source`` of messages and timers.
        :param source_system: the ``source`` of what was sent.
        """
        self._topic = topic
        host = f',"hostname":{json_text(hostname)}'
        self.consumer = f',"source":{json_text(group_id or "")}{host}'
        self._producer = f',"source":{json_text(source_system)}{host}'
        self._clock = Clock()
        self.time = self._clock.text
        self.keys: dict[str, tuple[str, bytes]] = {}
        """Keys as fields and as bytes; emptied when full, because what comes often is back at once."""
        self.places: dict[TopicPartition, str | None] = {}
        """Topic and partition as fields; None where nothing is to be reported."""

    def set_clock(self, monotonic: float, wall: float) -> None:
        """Two readings of the same moment, by which the events' times are told from now on."""
        self._clock.offset_s = wall - monotonic

    def encode(self, values: Sequence[Any]) -> tuple[list[bytes], list[bytes]]:
        """Keys and values of records, one for each event, in order; without those about the topic itself.

        :param values: of events, one behind the other.
        """
        return event_lines(self, values, self._clock.offset_s * 1000.0)

    def about(
        self, layout: str, tp: TopicPartition, number: int, key: str
    ) -> tuple[bytes, str | None]:
        """The key as bytes, and the text from behind ``eventTime`` to the host's name; None when nothing is
        reported about it."""
        place = self.places.get(tp, "")
        if not place and (place := self.place(tp)) is None:
            return b"", None
        known = self.keys.get(key)
        if known is None:
            known = self.key(key)
        field, key_bytes = known
        if layout == MESSAGE:
            return key_bytes, f'","offset":{number}{place}{field}{self.consumer}'
        if layout == SENT:
            return key_bytes, f'"{place},"offset":{number}{field}{self._producer}'
        due = second_text(number)
        return key_bytes, (
            f'","scheduledTime":"{due}Z","timerType":"{layout}"{place}{field}{self.consumer}'
        )

    def key(self, key: str) -> tuple[str, bytes]:
        """A key as a field and as bytes; remembered unless it is long."""
        found = f',"key":{json_text(key)}', key.encode("utf-8", "replace")
        if len(key) <= _KEY_CHARS_MAX:
            if len(self.keys) >= _KEYS_MAX:
                self.keys.clear()
            self.keys[key] = found
        return found

    def place(self, tp: TopicPartition) -> str | None:
        """Topic and partition as fields, remembered; None where nothing is to be reported."""
        place = None
        if tp[0] != self._topic:
            place = f',"topic":{json_text(tp[0])},"partition":{tp[1]}'
        if len(self.places) >= _PLACES_MAX:
            self.places.clear()
        self.places[tp] = place
        return place
