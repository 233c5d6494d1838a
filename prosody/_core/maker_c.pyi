from collections.abc import Callable, Sequence

from prosody._core.protocols_calls import Given, Made

def maker(
    example: Made, names: Sequence[str], plain: Callable[Given, Made]
) -> Callable[Given, Made]: ...
