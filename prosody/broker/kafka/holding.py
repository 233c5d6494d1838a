"""One partition for as long as a member holds it without a break."""

from __future__ import annotations

from typing import Any


class Holding:
    """What the adapter knows of a held partition."""

    __slots__ = ("lower", "position", "releasing", "seeks", "told")

    def __init__(self, lower: Any) -> None:
        self.lower = lower
        """aiokafka's own partition: its ``getmany`` insists on its class."""
        self.told = False
        """Whether the listener has been told that it is assigned."""
        self.releasing = False
        """Whether it is being given up."""
        self.position: int | None = None
        """The next offset to be polled, while aiokafka does not have it: the join just ended has made it
        forget, or it had no state of the partition to set it in. None: it is there."""
        self.seeks = 0
        """Raised with each seek, so that what was on its way before gives way to it."""
