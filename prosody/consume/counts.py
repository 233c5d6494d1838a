"""What is counted of one subscription where nobody else keeps it; plain numbers, read by metrics."""

from __future__ import annotations

from collections import defaultdict


class TopicCounts:
    """Of the records of a topic, over all assignments of its partitions."""

    __slots__ = ("consumed", "skipped", "undecodable")

    def __init__(self) -> None:
        self.consumed = 0
        """Queued for the handler, or to become dead letters."""
        self.skipped = 0
        """Finished at their admission."""
        self.undecodable = 0


class Counts:
    """Of one subscription."""

    def __init__(self) -> None:
        self.topics: defaultdict[str, TopicCounts] = defaultdict(TopicCounts)
        self.assigned = 0
        self.revoked = 0
        self.lost = 0
        """Partitions that came or went so."""
        self.restarts = 0
        """Partitions that started again after a fault of ours."""
        self.store_errors: defaultdict[str, int] = defaultdict(int)
        """Operations that failed, by store."""
