"""Commits: in the order of their calls, never under another membership, repeated where that is right."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import errors as lower

from prosody.broker.kafka.commits import Commits
from prosody.broker.protocol import OffsetAndMetadata
from prosody.errors import BrokerError
from tests.broker.kafka.stage import ONE, Stage, on_stage
from tests.support import settle


class Sent:
    """The coordinator's side: what it was sent; it refuses as the test says, and may be slow."""

    def __init__(self, stage: Stage) -> None:
        self.offsets: list[int] = []
        self.refusals: list[Exception] = []
        self.known = asyncio.Event()
        self.known.set()
        self.delays_s: list[float] = []
        stage.coordinator.ensure_coordinator_known = self.known.wait
        stage.coordinator._do_commit_offsets = self._commit
        self.commits = Commits(stage.consumer, stage.assignment, "service", stage.runtime)

    async def _commit(self, _: object, offsets: Any) -> None:
        if self.delays_s:
            await asyncio.sleep(self.delays_s.pop(0))
        if self.refusals:
            raise self.refusals.pop(0)
        self.offsets.append(offsets[ONE].offset)

    def commit(self, offset: int) -> asyncio.Task[None]:
        return asyncio.create_task(self.commits.commit({ONE: OffsetAndMetadata(offset)}))


@on_stage
async def test_an_older_commit_does_not_overtake_a_newer_one(stage: Stage) -> None:
    await stage.join(ONE)
    sent = Sent(stage)
    sent.delays_s = [5.0, 0.0]
    await asyncio.gather(sent.commit(1), sent.commit(2))
    assert sent.offsets == [1, 2]


@on_stage
async def test_a_commit_is_not_sent_when_the_membership_went_while_it_waited(stage: Stage) -> None:
    await stage.join(ONE)
    sent = Sent(stage)
    sent.known.clear()
    commit = sent.commit(1)
    await settle()
    stage.reset()
    sent.known.set()
    with pytest.raises(BrokerError, match="thrown this member out"):
        await commit
    assert sent.offsets == []


@on_stage
async def test_a_commit_refused_for_a_rebalance_is_for_its_caller_to_decide(stage: Stage) -> None:
    await stage.join(ONE)
    sent = Sent(stage)
    sent.refusals = [lower.RebalanceInProgressError()]
    with pytest.raises(BrokerError) as refused:
        await sent.commit(1)
    assert refused.value.retriable
    assert sent.offsets == []


@on_stage
async def test_a_commit_refused_by_a_coordinator_that_moved_is_repeated(stage: Stage) -> None:
    await stage.join(ONE)
    sent = Sent(stage)
    sent.refusals = [lower.NotCoordinatorForGroupError(), lower.GroupLoadInProgressError()]
    await sent.commit(1)
    assert sent.offsets == [1]


@on_stage
async def test_a_commit_refused_for_good_is_not(stage: Stage) -> None:
    await stage.join(ONE)
    sent = Sent(stage)
    sent.refusals = [lower.IllegalGenerationError()]
    with pytest.raises(BrokerError) as refused:
        await sent.commit(1)
    assert not refused.value.retriable


@on_stage
async def test_a_join_that_cannot_wait_ends_a_commit(stage: Stage) -> None:
    await stage.join(ONE)
    sent = Sent(stage)
    sent.delays_s = [9.0]
    commit = sent.commit(1)
    await settle()
    await stage.revoke()
    with pytest.raises(BrokerError, match="given up for a rebalance") as refused:
        await commit
    assert refused.value.retriable
    await stage.assign(ONE)
