from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prosody._core.protocols_messages import Admitting, Given, Made

def maker(
    example: Made, names: Sequence[str], plain: Callable[Given, Made]
) -> Callable[Given, Made]: ...

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

def first_step(coroutine: Coroutine[Any, Any, Any]) -> Any: ...
