"""Objects with slots, made by their own class: the twin of ``maker_c.pyx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prosody._core.protocols_calls import Given, Made


def maker(
    example: Made,  # the compiled half copies it
    names: Sequence[str],
    plain: Callable[Given, Made],
) -> Callable[Given, Made]:
    """See ``protocols_calls.MakerOf``."""
    return plain
