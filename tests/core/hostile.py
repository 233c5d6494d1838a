"""A key whose comparison can fail, as user code in the middle of a dict look-up can."""

from __future__ import annotations


class Hostile:
    """All hash alike, so that they are compared; a comparison with one that ``fails`` raises."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        if self.fails or (isinstance(other, Hostile) and other.fails):
            raise RuntimeError("no comparison")
        return self is other
