"""Who a consumer of the broker seam talks to by itself.

``protocol.py``, which is the seam, has them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prosody.broker.values import Record, Start, TopicPartition


class RebalanceListener(Protocol):
    """Told about every change of assignment. Its methods do not raise."""

    def on_assigned(self, starts: Mapping[TopicPartition, Start]) -> None:
        """These partitions are now this member's; polling them starts after this returns."""
        ...

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """These partitions are given up when this returns; their offsets can be committed until then.

        Cancelled when the group cannot wait any longer (the eager protocol), or at ``stop``.
        """
        ...

    def on_lost(self, partitions: frozenset[TopicPartition]) -> None:
        """These partitions are gone already; nothing of them may be committed."""
        ...


class Receiver(Protocol):
    """Takes records of one partition."""

    def receive(self, records: Sequence[Record]) -> None:
        """Take them, in offset order. Does not raise."""
        ...


class Taker(Protocol):
    """Takes records while its poll waits, so that the poll need not end for them.

    Its methods do not raise.
    """

    def wants(self, partition: TopicPartition) -> Receiver | None:
        """Who takes records of a partition, if they would be polled now."""
        ...

    def take(self, brought: Sequence[tuple[Receiver, Sequence[Record]]]) -> None:
        """Give records that came together to those who take them, in offset order, and have handlers
        begin, here and now. In the turn of the event loop in which they were wanted."""
        ...
