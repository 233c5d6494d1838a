"""The shapes of telemetry events, and what an event is on its way to the topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from prosody.stores.protocol import TimerKind
from prosody.telemetry.texts import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.broker.protocol import TopicPartition

Event: TypeAlias = "tuple[str, float, str, TopicPartition, int, str, str]"
"""The text up to the digits of ``eventTime``; when, on the monotonic clock; the layout, which is one of
those below; where; the offset, or when the timer is due in seconds; the key; and further fields as JSON
text, each with a comma before it.

An attempt at a message that ended well is two events in one, because nearly all are: the further fields
instead of the head, then when it began, and at the end when it ended, which is how to tell it.

Events wait as plain values one behind the other, not as tuples: thousands of these would have the garbage
collector run again and again, which costs more than all else of telemetry."""

FIELDS: Final = 7
"""Values of an event."""

MESSAGE: Final = "message"
SENT: Final = "sent"
TIMERS: Final = {
    TimerKind.APPLICATION: "application",
    TimerKind.DEFERRED_MESSAGE: "deferredMessage",
    TimerKind.DEFERRED_TIMER: "deferredTimer",
}
"""The layouts: the orders of fields. That of a timer is its ``timerType``."""

DEMANDS: Final = (',"demandType":"normal"', ',"demandType":"failure"')
"""By work class."""


def _head(name: str) -> str:
    return f'{{"type":"prosody.{name}","eventTime":"'


MESSAGE_DISPATCHED: Final = _head("message.dispatched")
MESSAGE_SUCCEEDED: Final = _head("message.succeeded")
MESSAGE_FAILED: Final = _head("message.failed")
MESSAGE_SENT: Final = _head("message.sent")
TIMER_DISPATCHED: Final = _head("timer.dispatched")
TIMER_SUCCEEDED: Final = _head("timer.succeeded")
TIMER_FAILED: Final = _head("timer.failed")
TIMER_SCHEDULED: Final = _head("timer.scheduled")
TIMER_CANCELLED: Final = _head("timer.cancelled")

ERROR_CHARS_MAX: Final = 4096


def failure(category: str, error: BaseException | None) -> str:
    """The fields that say why something failed.

    :param category: ``transient`` or ``permanent``.
    """
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001
        text = f"{type(error).__name__}(...)"  # an error that cannot be written is one all the same
    if len(text) > ERROR_CHARS_MAX:
        text = f"{text[:ERROR_CHARS_MAX]}..."
    return f',"errorCategory":"{category}","exception":{json_text(text)}'


def traced(trace: Mapping[str, str]) -> str:
    """The fields that name a span; nothing when ``trace``, W3C headers by name, has none."""
    parent = trace.get("traceparent")
    if parent is None:
        return ""
    state = json_text(trace.get("tracestate", ""))
    return f',"traceParent":{json_text(parent)},"traceState":{state}'
