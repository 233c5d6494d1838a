"""Commits: one after the other, never across a rebalance, never of what is not held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prosody.broker.kafka import internals
from prosody.broker.kafka.errors import LowerError, broker_error, mapped
from prosody.broker.kafka.lifetimes import is_cancelled
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.broker.kafka.rebalance import Assignment
    from prosody.broker.protocol import OffsetAndMetadata, TopicPartition
    from prosody.runtime import Runtime

COMMIT_LIMIT_S = 10.0
RETRY_WAIT_S = 0.1


class Commits:
    """Sends the commits of one consumer, in the order of the calls."""

    def __init__(
        self, consumer: Any, assignment: Assignment, group_id: str, runtime: Runtime
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._doing = f"commit of group {group_id!r}"
        self._runtime = runtime
        self._order = asyncio.Lock()

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """See :meth:`prosody.broker.protocol.BrokerConsumer.commit`."""
        self._assignment.require(offsets, self._doing)
        done = self._assignment.commit_begins()
        committing = asyncio.ensure_future(self._commit(offsets))
        # A rebalance that cannot wait any longer cancels ``done``, and with it the commit.
        done.add_done_callback(lambda _: committing.cancel())
        try:
            await committing
        except asyncio.CancelledError:
            if done.cancelled() and not is_cancelled():
                # Not the caller was cancelled but the commit, by the rebalance.
                raise BrokerError(
                    f"{self._doing}: given up for a rebalance", retriable=True
                ) from None
            raise
        finally:
            if not done.done():
                done.set_result(None)

    async def _commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        with mapped(self._doing):
            # In the order of the calls, so that an older commit cannot overtake a newer one.
            async with asyncio.timeout(COMMIT_LIMIT_S), self._order:
                while True:
                    await internals.ensure_coordinator(self._consumer)
                    # Again, right before sending: a commit must never travel under another
                    # generation, where the partition may be another member's, and even less as
                    # that of no member, which the broker takes when the group is empty.
                    self._assignment.require(offsets, self._doing)
                    try:
                        await internals.commit_once(self._consumer, offsets)
                    except LowerError as error:
                        if not _repeat(error):
                            raise
                        # The coordinator moved or is loading; the deadline above bounds this.
                        await self._runtime.sleep(RETRY_WAIT_S)
                    else:
                        return


def _repeat(error: BaseException) -> bool:
    """Whether the same commit may be sent again under the same membership.

    Not during a rebalance: the partitions may change hands, the owner must decide anew.
    """
    broker = broker_error("", error)
    return broker.retriable and type(error).__name__ != "RebalanceInProgressError"
