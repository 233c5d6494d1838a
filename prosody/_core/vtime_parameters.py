"""What a virtual-time heap is made with and called with, checked."""

from __future__ import annotations

from math import inf
from typing import NamedTuple


class Parameters(NamedTuple):
    """Shares of both classes, then the parameters as ``protocols_qos.VirtualTimeHeap`` has them."""

    normal_weight: float
    failure_weight: float
    max_wait: float
    wait_weight: float
    cache_size: int
    half_life: float


def checked_parameters(
    *,
    failure_weight: float,
    max_wait: float,
    wait_weight: float,
    cache_size: int,
    half_life: float,
) -> Parameters:
    """The parameters as floats.

    A ``wait_weight`` of at most ``half_life / ln 2`` is legal, though a key that was busy may then
    starve: whoever reads the configuration warns. So is a ``half_life`` of infinity: no decay.

    :raises TypeError: one has the wrong type.
    :raises ValueError: one is out of range.
    """
    share = _number("failure_weight", failure_weight)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"VirtualTimeHeap: failure_weight must lie in 0..1, not {share!r}")
    full_wait = _number("max_wait", max_wait)
    if not 0.0 < full_wait < inf:
        raise ValueError(
            f"VirtualTimeHeap: max_wait must be finite seconds above 0, not {full_wait!r}"
        )
    boost = _number("wait_weight", wait_weight)
    if not 0.0 <= boost < inf:
        raise ValueError(
            f"VirtualTimeHeap: wait_weight must be finite seconds of at least 0, not {boost!r}"
        )
    if type(cache_size) is not int:
        raise TypeError(
            f"VirtualTimeHeap: cache_size must be an int, not {type(cache_size).__name__}"
        )
    if not 1 <= cache_size < 2**63:
        raise ValueError(f"VirtualTimeHeap: cache_size must lie in 1..2**63 - 1, not {cache_size}")
    decay = _number("half_life", half_life)
    if not decay > 0.0:
        raise ValueError(f"VirtualTimeHeap: half_life must be seconds above 0, not {decay!r}")
    return Parameters(1.0 - share, share, full_wait, boost, cache_size, decay)


def _number(name: str, value: float) -> float:
    if type(value) not in {float, int}:
        raise TypeError(f"VirtualTimeHeap: {name} must be a float, not {type(value).__name__}")
    return as_float(value)


def as_float(value: float) -> float:
    """``value`` as a float; an int too large for one becomes the infinity that it rounds to."""
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def seconds(what: str, value: float) -> float:
    """``value`` as a float.

    :raises TypeError: it is no float or int.
    :raises ValueError: it is not finite.
    """
    if type(value) is not float:
        if type(value) is not int:
            raise TypeError(f"{what} must be a float, not {type(value).__name__}")
        value = as_float(value)
    if not -inf < value < inf:
        raise ValueError(f"{what} must be finite, not {value!r}")
    return value


def run_seconds(what: str, value: float) -> float:
    """The same of a length of time.

    :raises ValueError: it is negative.
    """
    value = seconds(what, value)
    if value < 0.0:
        raise ValueError(f"{what} must not be negative, not {value!r}")
    return value


def class_number(method: str, work_class: int) -> int:
    """``work_class`` as an index.

    :raises ValueError: it is no work class.
    """
    if work_class == 0:
        return 0
    if work_class == 1:
        return 1
    raise ValueError(f"{method}: work_class must be 0 (normal) or 1 (failure), not {work_class!r}")
