"""Where events wait to be written: bounded, and cheap to add to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prosody.telemetry.events import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.telemetry.events import Event

EVENTS_MAX: Final = 32_768
"""So many events wait at most, as in the reference."""
CROWDED: Final = 1024
"""So many are worth a look before its time."""
CROWDED_VALUES: Final = CROWDED * FIELDS
LONG_CHARS: Final = 512
"""A longer key, or text of an error, counts by its length."""
LONG_CHARS_MAX: Final = 16 * 1024 * 1024
"""So many characters wait at most in such texts."""

_KEY: Final = 5
_MORE: Final = 6
"""Which values of an event may be long."""


def _nobody() -> None:
    """There is no emitter yet."""


class Buffer:
    """Events in the order in which they came. The oldest go when there are too many.

    ``values`` is the same list for good, so that those who report may keep its ``extend``. They call
    ``crowded`` when it has ``CROWDED_VALUES`` or more, and take ``add`` for what may be long.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        """Of each event its values (``Event``), one event behind the other."""
        self.wake: Callable[[], None] = _nobody
        """Has the emitter look soon; may be called often."""
        self.dropped = 0
        """Events that were lost: here, or by a write that failed."""
        self._long_chars = 0

    def __len__(self) -> int:
        return len(self.values) // FIELDS

    def add(self, event: Event) -> None:
        """Add one event of any length."""
        size = len(event[_KEY]) + len(event[_MORE])
        if size > LONG_CHARS:
            if self._long_chars + size > LONG_CHARS_MAX:
                self.dropped += 1
                self.wake()
                return
            self._long_chars += size
        self.values.extend(event)
        if len(self.values) >= CROWDED_VALUES:
            self.crowded()

    def crowded(self) -> None:
        """There are many: have them written, and make room when there are too many."""
        surplus = len(self) - EVENTS_MAX
        if surplus >= 0:
            # Many at once, so that it costs each event nearly nothing.
            gone = surplus + EVENTS_MAX // 8
            self.take(gone)
            self.dropped += gone
        self.wake()

    def take(self, count: int) -> list[Any]:
        """The values of the oldest ``count`` events, or of as many as there are; they are out of here."""
        end = count * FIELDS
        taken = self.values[:end]
        del self.values[:end]
        if self._long_chars:
            sizes = map(
                len, map("".join, zip(taken[_KEY::FIELDS], taken[_MORE::FIELDS], strict=True))
            )
            self._long_chars -= sum(size for size in sizes if size > LONG_CHARS)
        return taken
