"""The eager way of rebalancing, with one of aiokafka's own assignors: every join gives up everything."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from prosody.broker.kafka.rebalance import Assignment
from prosody.model.fields import fields_of_all

if TYPE_CHECKING:
    from collections.abc import Collection

log = logging.getLogger(__name__)


class EagerAssignment(Assignment):
    """Drains and commits everything in ``on_partitions_revoked``, for which the whole group waits."""

    def __init__(self, *args: Any, revoke_limit_s: float, **named: Any) -> None:
        """``revoke_limit_s``: how long a revoke may take; the group throws out who takes longer."""
        super().__init__(*args, **named)
        self._revoke_limit_s = revoke_limit_s

    async def on_partitions_revoked(self, revoked: object) -> None:
        """Before a join. aiokafka logs and forgets what is raised here, so nothing is."""
        if self._closed:
            return
        self.pollable = {}
        if not self._same_member():
            self._lose(tuple(self.held))
        else:
            for holding in self.held.values():
                holding.releasing = True
            told = frozenset(tp for tp, holding in self.held.items() if holding.told)
            if told:
                await self._revoke(told)
        self.held = {}
        await self._join_begins()

    async def _revoke(self, partitions: frozenset[Any]) -> None:
        try:
            async with asyncio.timeout(self._revoke_limit_s):
                await self._listener.on_revoked(partitions)
        except TimeoutError:
            # Going on: the group would throw this member out if it did not join now.
            log.error(  # noqa: TRY400
                "gave up waiting for partitions to drain, after %g s",
                self._revoke_limit_s,
                extra=fields_of_all(partitions),
            )
        except Exception:
            # A listener does not raise, so this is a fault of ours. Going on keeps the group alive:
            # the partitions change hands whether or not the listener coped.
            log.exception(
                "rebalance listener failed in on_revoked for %s",
                sorted(partitions),
                extra=fields_of_all(partitions),
            )

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """After a join."""
        if self._closed:
            return
        # A join that failed half way may have been repeated under another member id.
        self._take(self._join_ends(assigned))
