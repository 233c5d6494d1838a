"""The first step of a coroutine, in pure Python: the twin of ``first_step_c.pyx``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prosody._core.constants import ENDED

if TYPE_CHECKING:
    from collections.abc import Coroutine


def first_step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """See ``protocols_calls.FirstStep``."""
    try:
        return coroutine.send(None)
    except StopIteration:
        return ENDED
