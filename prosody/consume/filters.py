"""Which messages are not for this consumer: its own echoes, and types it did not ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prosody.consume.decode import SOURCE_KIND, SOURCE_SYSTEM, first_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prosody.broker.protocol import Record


class Filters:
    """Answers whether a record is kept. What is filtered is committed like what was handled."""

    def __init__(self, group_id: str, allowed_events: Sequence[str] | None) -> None:
        self._group_id = group_id.encode()
        self.own_mark = SOURCE_SYSTEM, self._group_id
        """A header that every record of a loop has; one that has it may be of no loop all the same."""
        self._prefixes = None if allowed_events is None else tuple(allowed_events)
        self.chooses = self._prefixes is not None
        """Whether ``allows`` may say no."""

    def is_loop(self, record: Record) -> bool:
        """Whether this group's own system sent the record.

        A dead letter (it has a ``source-kind`` header) is let through, so that a service can consume
        its own failure topic.
        """
        headers = record.headers
        return (
            bool(headers)
            and first_header(headers, SOURCE_SYSTEM) == self._group_id
            and first_header(headers, SOURCE_KIND) is None
        )

    def allows(self, payload: Any) -> bool:
        """Whether the event type, the payload's text field ``type``, has an allowed prefix.

        Payloads without such a field always pass.
        """
        prefixes = self._prefixes
        if prefixes is None or type(payload) is not dict:
            return True
        event_type = payload.get("type")
        return type(event_type) is not str or event_type.startswith(prefixes)
