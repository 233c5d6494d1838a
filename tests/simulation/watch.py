"""Eyes on the embedded cluster: what the group has committed, who holds what, who was thrown out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prosody.broker.memory import MemoryCluster
    from tests.simulation.history import Event, History

GROUP, FAILURES = "service", "failures"


class Watch:
    """Writes the history: what it is told, and before that whatever the cluster shows by then."""

    def __init__(
        self, cluster: MemoryCluster, history: History, see: Callable[[Event], None]
    ) -> None:
        self._cluster = cluster
        self._history = history
        self._see = see
        group: Any = cluster.group(GROUP)  # Any: one of its methods is replaced
        self._group = group
        self._members: dict[Any, None] = {}
        self._dead_letters_read = 0
        self.leaving: set[str] = set()
        """Members whose end of membership is their own doing."""
        self.closed = False
        """The run is over; what happens from now on is taking it down."""
        self._commit = self._group.commit
        self._group.commit = self._committing

    def write(self, event: Event) -> None:
        """Append an event, and before it what it may depend on."""
        if self.closed:
            return
        self.look()
        self._append(event)

    def look(self) -> None:
        """Note what the cluster shows that is not noted yet."""
        if self._group.members != self._members:
            gone = [m for m in self._members if m not in self._group.members]
            self._members = dict(self._group.members)
            for member in gone:
                if member.client_id not in self.leaving:
                    self._append(self.event("expelled", member.client_id))
        (log,) = self._cluster.logs(FAILURES)
        if log.end != self._dead_letters_read:
            for record in log.read(self._dead_letters_read, 10_000):
                headers = dict(record.headers)
                tp = TopicPartition(
                    (headers["source-topic"] or b"").decode(),
                    int(headers["source-partition"] or -1),
                )
                offset = int(headers["source-offset"] or -1)
                self._append(self.event("dead", tp=tp, offset=offset))
            self._dead_letters_read = log.end

    def event(self, what: str, member: str = "", **more: Any) -> Event:
        """An event of this moment."""
        from tests.simulation.history import Event

        return Event(asyncio.get_running_loop().time(), what, member, **more)

    def holds(self, member: str, tp: TopicPartition) -> bool:
        """Whether the broker says that the partition is the member's."""
        holder = self._group.holders.get(tp)
        return holder is not None and holder.client_id == member

    def committed(self, tp: TopicPartition) -> int:
        """The offset that the group has committed; 0 when none."""
        kept = self._group.committed.get(tp)
        return 0 if kept is None else int(kept.offset)

    def is_member(self, member: str) -> bool:
        return any(m.client_id == member for m in self._group.members)

    def _append(self, event: Event) -> None:
        self._history.append(event)
        self._see(event)

    def _committing(
        self, member: Any, offsets: Mapping[TopicPartition, OffsetAndMetadata], *more: Any
    ) -> None:
        holders = dict(self._group.holders)
        try:
            self._commit(member, offsets, *more)
        except Exception as error:
            self.write(self.event("refused", member.client_id, note=str(error)))
            raise
        for tp in sorted(offsets):
            kept = OffsetAndMetadata(*offsets[tp])
            self.write(
                self.event(
                    "commit",
                    member.client_id,
                    tp=TopicPartition(*tp),
                    offset=kept.offset,
                    held=holders.get(tp) is member,
                    note=kept.metadata,
                )
            )
