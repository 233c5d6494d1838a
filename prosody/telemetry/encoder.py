"""Events as records: JSON of the shape that all Prosody languages write, put together from ready parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prosody.telemetry.events import MESSAGE, MESSAGE_DISPATCHED, MESSAGE_SUCCEEDED, SENT
from prosody.telemetry.texts import Clock, json_text, second_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prosody.broker.protocol import TopicPartition

_KEYS_MAX: Final = 16_384
_KEY_CHARS_MAX: Final = 256
"""Longer keys are not remembered."""
_PLACES_MAX: Final = 4096


class Encoder:
    """Encodes for one client."""

    def __init__(self, topic: str, group_id: str | None, source_system: str, hostname: str) -> None:
        """
        :param topic: the topic of the events themselves; nothing about it is encoded.
        :param group_id: the ``source`` of messages and timers.
        :param source_system: the ``source`` of what was sent.
        """
        self._topic = topic
        host = f',"hostname":{json_text(hostname)}'
        self._consumer = f',"source":{json_text(group_id or "")}{host}'
        self._producer = f',"source":{json_text(source_system)}{host}'
        self._clock = Clock()
        self._keys: dict[str, tuple[str, bytes]] = {}
        """Keys as fields and as bytes; emptied when full, because what comes often is back at once."""
        self._places: dict[TopicPartition, str | None] = {}
        """Topic and partition as fields; None where nothing is to be reported."""

    def set_clock(self, monotonic: float, wall: float) -> None:
        """Two readings of the same moment, by which the events' times are told from now on."""
        self._clock.offset_s = wall - monotonic

    def encode(self, values: Iterable[Any]) -> tuple[list[bytes], list[bytes]]:
        """Keys and values of records, one for each event, in order; without those about the topic itself.

        :param values: of events, one behind the other.
        """
        clock = self._clock
        offset_ms, time, last_ms = clock.offset_s * 1000.0, "", -1
        began, began_ms = "", -1  # those that end together have begun together as a rule
        keys: list[bytes] = []
        texts: list[str] = []
        places, known_keys, consumer = self._places, self._keys, self._consumer
        last: Any = None
        last_key = last_layout = ""
        last_tp: TopicPartition | None = None
        key_bytes = b""
        rest: str | None = None
        value = iter(values)
        for head, at, layout, tp, number, key, more in zip(
            value, value, value, value, value, value, value, strict=True
        ):
            if type(more) is float:
                # An attempt that ended well; in nearly all entries, so spelt out.
                place = places.get(tp, "")
                if not place and (place := self._place(tp)) is None:
                    continue
                known = known_keys.get(key)
                if known is None:
                    known = self._key(key)
                field, key_bytes = known
                rest = f'","offset":{number}{place}{field}{consumer}{head}}}'
                ms = int(at * 1000.0 + offset_ms)
                if ms != began_ms:
                    began_ms = ms
                    began = clock.text(ms)
                keys += (key_bytes, key_bytes)
                texts.append(f"{MESSAGE_DISPATCHED}{began}{rest}")
                ms = int(more * 1000.0 + offset_ms)
                if ms != last_ms:
                    last_ms = ms
                    time = clock.text(ms)
                texts.append(f"{MESSAGE_SUCCEEDED}{time}{rest}")
                last = None
                continue
            # What else happens to a message comes together as a rule, and holds the same objects.
            if (
                number is not last
                or key is not last_key
                or tp is not last_tp
                or layout is not last_layout
            ):
                last, last_key, last_tp, last_layout = number, key, tp, layout
                key_bytes, rest = self._about(layout, tp, number, key)
            if rest is None:
                continue
            ms = int(at * 1000.0 + offset_ms)
            if ms != last_ms:
                last_ms = ms
                time = clock.text(ms)
            keys.append(key_bytes)
            texts.append(f"{head}{time}{rest}{more}}}")
        try:
            return keys, [text.encode() for text in texts]
        except UnicodeEncodeError:
            # Half of a pair of surrogates, in the text of an error: what is written must be readable.
            return keys, [text.encode("utf-8", "replace") for text in texts]

    def _about(
        self, layout: str, tp: TopicPartition, number: int, key: str
    ) -> tuple[bytes, str | None]:
        """The key as bytes, and the text from behind ``eventTime`` to the host's name; None when nothing is
        reported about it."""
        place = self._places.get(tp, "")
        if not place and (place := self._place(tp)) is None:
            return b"", None
        known = self._keys.get(key)
        if known is None:
            known = self._key(key)
        field, key_bytes = known
        if layout == MESSAGE:
            return key_bytes, f'","offset":{number}{place}{field}{self._consumer}'
        if layout == SENT:
            return key_bytes, f'"{place},"offset":{number}{field}{self._producer}'
        due = second_text(number)
        return key_bytes, (
            f'","scheduledTime":"{due}Z","timerType":"{layout}"{place}{field}{self._consumer}'
        )

    def _key(self, key: str) -> tuple[str, bytes]:
        found = f',"key":{json_text(key)}', key.encode("utf-8", "replace")
        if len(key) <= _KEY_CHARS_MAX:
            if len(self._keys) >= _KEYS_MAX:
                self._keys.clear()
            self._keys[key] = found
        return found

    def _place(self, tp: TopicPartition) -> str | None:
        place = None
        if tp[0] != self._topic:
            place = f',"topic":{json_text(tp[0])},"partition":{tp[1]}'
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        self._places[tp] = place
        return place
