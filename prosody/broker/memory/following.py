"""A consumer's way through its group: told what to do next, doing it, telling the listener."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prosody.broker.memory.group import Member, Step
from prosody.broker.memory.position import Position, Positions, begin
from prosody.broker.protocol import TopicPartition
from prosody.model.fields import fields_of, fields_of_all
from prosody.runtime import give_way

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from prosody.broker.memory.cluster import MemoryCluster
    from prosody.broker.memory.group import Group
    from prosody.broker.memory.log import MemoryRecord
    from prosody.broker.protocol import ConsumerSettings, RebalanceListener, Start

_log = logging.getLogger(__name__)


class Follower:
    """Takes the steps of one consumer, from its start to its end.

    One task asks the group for the next step. Each revoke runs in a task of its own, one for each
    partition, so that a slow one delays nothing else; the partition is released when its revoke
    returns, unless it was lost in the meantime: then ``held`` has another position of it, or none.
    """

    def __init__(
        self,
        cluster: MemoryCluster,
        group: Group,
        settings: ConsumerSettings,
        listener: RebalanceListener,
        *,
        make_member: Callable[[], Member],
        on_ready: Callable[[], None],
    ) -> None:
        self.held = Positions()
        self.member = make_member()
        self._cluster = cluster
        self._group = group
        self._settings = settings
        self._listener = listener
        self._make_member = make_member
        self._on_ready = on_ready
        self._changed = asyncio.Event()
        self._ended = False
        self._revokes: set[asyncio.Task[None]] = set()
        cluster.join(group, self.member)
        self._task = asyncio.create_task(self._follow(), name=f"memory group {settings.group_id}")

    def look(self) -> None:
        """Something has changed: look for the next step."""
        self._changed.set()

    def read(
        self,
        asked: frozenset[TopicPartition],
        max_records: int,
        warnings: list[tuple[TopicPartition, str]],
    ) -> dict[TopicPartition, Sequence[MemoryRecord]]:
        """See ``Positions.read``; nothing once this member is thrown out and about to be told so."""
        if not (self.member.alive or self.member.news_held):
            return {}
        return self.held.read(asked, max_records, warnings)

    def end(self) -> None:
        """Take no more steps, tell the listener nothing more, cancel revokes under way."""
        self._ended = True
        self.held.clear()
        for task in self._tasks():
            task.cancel()

    async def ended(self) -> None:
        """Wait until nothing runs any more, after ``end``."""
        if tasks := self._tasks():
            # A listener that refuses to be cancelled must not hold up the program's end for ever.
            await asyncio.wait(tasks, timeout=self._settings.rebalance_timeout_s)

    def _tasks(self) -> set[asyncio.Task[None]]:
        # A revoke that ends its own consumer goes on: it must not wait for itself.
        return {self._task, *self._revokes} - {asyncio.current_task()}

    # -- steps --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while not self._ended:
            self._changed.clear()
            wait_s = None
            with self._cluster.lock:
                step = self._next_step()
                if step is None and self._hears():
                    wait_s = self._group.wait_s(self.member)
                begins = self._take(step.partitions) if step and step.kind == "assign" else ()
            if step is not None:
                self._do(step, begins)
                await give_way()  # so that others run even if steps follow on each other for ever
                continue
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                # Somebody did not hand over in time: then he goes, and this member goes on.
                if self._hears():
                    self._cluster.expel_overdue(self._group)

    def _hears(self) -> bool:
        return not (self._cluster.down or self.member.news_held)

    def _next_step(self) -> Step | None:
        if not self._hears():
            return None
        if beyond := self.held.beyond():
            # Another log than the one that was read: given back, and taken anew in a later step.
            self._group.release(self.member, beyond)
            return Step("lost", beyond)
        return self._group.next_step(self.member, self.held)

    def _take(
        self, partitions: Collection[TopicPartition]
    ) -> list[tuple[TopicPartition, Start, str | None]]:
        begins = []
        for tp in sorted(partitions):
            log = self._cluster.log(tp)
            assert log is not None, f"{tp} assigned and not there"
            start, warning = begin(log, self._group.committed.get(tp))
            self.held[tp] = Position(log, start.offset)
            begins.append((tp, start, warning))
        return begins

    def _do(self, step: Step, begins: Collection[tuple[TopicPartition, Start, str | None]]) -> None:
        if step.kind == "assign":
            for tp, _, warning in begins:
                if warning is not None:
                    self.warn(tp, warning)
            starts = {tp: start for tp, start, _ in begins}
            self._tell("assign", step.partitions, lambda: self._listener.on_assigned(starts))
            for tp in step.partitions & self.held.keys():
                self.held[tp].ready = True
            self._on_ready()
        elif step.kind == "revoke":
            for tp in sorted(step.partitions):
                position = self.held[tp]
                position.ready = False
                task = asyncio.create_task(
                    self._revoke(self.member, tp, position), name=f"memory revoke {tp[0]}:{tp[1]}"
                )
                self._revokes.add(task)
                task.add_done_callback(self._revokes.discard)
        else:
            member = self.member
            for tp in step.partitions:
                self.held.pop(tp, None)
            if step.partitions:
                self._tell("lost", step.partitions, lambda: self._listener.on_lost(step.partitions))
            if not member.alive and not self._ended:
                self.member = self._make_member()
                self.member.leaving = member.leaving
                self._cluster.join(self._group, self.member)

    async def _revoke(self, member: Member, tp: TopicPartition, position: Position) -> None:
        partitions = frozenset((tp,))
        try:
            await self._listener.on_revoked(partitions)
        except Exception:  # noqa: BLE001
            # As in _tell: what is never handed over would stop a member that did nothing wrong.
            _log.exception(
                "rebalance listener failed: revoke of %s",
                sorted(partitions),
                extra=fields_of_all(partitions),
            )
        finally:
            # Also when cancelled. At the end of the consumer it holds nothing, so this does nothing.
            if self.held.get(tp) is position:
                del self.held[tp]
                with self._cluster.lock:
                    self._group.release(member, partitions)

    def _tell(
        self, what: str, partitions: Collection[TopicPartition], call: Callable[[], None]
    ) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001
            # Listeners do not raise. If one does, the group must still go on: a partition that is
            # never handed over would stop a member that did nothing wrong.
            _log.exception(
                "rebalance listener failed: %s of %s",
                what,
                sorted(partitions),
                extra=fields_of_all(partitions),
            )

    def warn(self, tp: TopicPartition, text: str) -> None:
        """Log what happened to the log of a held partition."""
        _log.warning(
            "group %r, %s:%d: %s", self._settings.group_id, tp[0], tp[1], text, extra=fields_of(tp)
        )
