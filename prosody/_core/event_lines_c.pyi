from collections.abc import Sequence
from typing import Any

from prosody._core.protocols_events import EventParts

def event_lines(
    parts: EventParts, values: Sequence[Any], offset_ms: float
) -> tuple[list[bytes], list[bytes]]: ...
