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
    """Entries (``Event``) in the order in which they came. The oldest go when there are too many.

    ``values`` is the same list for good, so that those who report may keep its ``extend``. They call
    ``crowded`` when it has ``CROWDED_VALUES`` or more, and take ``add`` for what may be long.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        """The values of each entry, one entry behind the other."""
        self.before_look: Callable[[], None] = _nobody
        """Called before what there is is written because its time has come: adds what goes on."""
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
            self.drop(surplus + EVENTS_MAX // 8)
        self.wake()

    def drop(self, count: int) -> None:
        """Forget the oldest ``count`` entries."""
        taken = self.take(count)
        pairs = sum(type(more) is float for more in taken[_MORE::FIELDS])
        self.dropped += len(taken) // FIELDS + pairs

    def take(self, count: int) -> list[Any]:
        """The values of the oldest ``count`` entries, or of as many as there are; they are out of here."""
        end = count * FIELDS
        taken = self.values[:end]
        del self.values[:end]
        if self._long_chars:
            for key, more in zip(taken[_KEY::FIELDS], taken[_MORE::FIELDS], strict=True):
                size = len(key) + (0 if type(more) is float else len(more))
                if size > LONG_CHARS:
                    self._long_chars -= size
        return taken
