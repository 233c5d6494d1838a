from collections.abc import Callable, Sequence
from typing import Any

from prosody._core.protocols_calls import Admitting

class Admission:
    def __init__(
        self,
        partition: Admitting,
        *,
        track: Callable[[int, float], None],
        done: Callable[[int], object],
        push: Callable[[str, Any], bool],
        ready: Callable[[float], None],
        decode: Callable[[bytes], Any],
        message: Callable[..., Any],
        run: Callable[..., Any],
        mark: tuple[str, bytes],
        allows: Callable[[Any], bool] | None,
        identify: Callable[[Any], None] | None,
    ) -> None: ...
    def admit(
        self, records: Sequence[Any], at: int, stop: int, room: int, before: int, now: float
    ) -> tuple[int, int]: ...
