"""Where a kept partition goes on when aiokafka has replaced, or is about to replace, its own state.

With a regular expression aiokafka makes a new subscription, without any state, as soon as other topics
match; it tells so only later, in the revoke callback.
"""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as LowerPartition
from aiokafka import errors as lower

from prosody.broker.kafka.handover import CooperativeAssignment
from prosody.broker.protocol import Start, TopicPartition
from tests.broker.kafka.stage import ONE, TWO, Listener, Stage, on_stage
from tests.support import FakeRuntime, run_virtual, settle


@on_stage
async def test_a_seek_after_the_state_was_replaced(stage: Stage) -> None:
    await stage.join(ONE, TWO)
    stage.polled_to(ONE, 41)
    stage.polled_to(TWO, 42)
    stage.subscription.assignment = None
    stage.assignment.seek(ONE, 12)
    await stage.join(ONE, TWO)
    assert (stage.position(ONE), stage.position(TWO)) == (12, 42)
    stage.polled_to(ONE, 50)
    await stage.join(ONE, TWO)
    assert stage.position(ONE) == 50


@on_stage
async def test_a_beginning_that_ends_after_the_state_was_replaced(stage: Stage) -> None:
    stage.failures = [lower.NodeNotReadyError()]
    await stage.join(ONE)
    stage.subscription.assignment = None
    await asyncio.sleep(2.0)
    assert stage.listener.names() == ["assigned"]
    await stage.join(ONE)
    assert stage.position(ONE) == 0


@on_stage
async def test_what_was_polled_during_a_join_is_not_polled_again(stage: Stage) -> None:
    await stage.join(ONE)
    stage.polled_to(ONE, 41)
    await stage.revoke()
    stage.polled_to(ONE, 55)
    await stage.assign(ONE)
    assert stage.position(ONE) == 55


@on_stage
async def test_a_join_that_is_repeated_keeps_what_was_noted(stage: Stage) -> None:
    await stage.join(ONE)
    stage.polled_to(ONE, 41)
    await stage.revoke()
    stage.assignment.seek(ONE, 12)
    await stage.revoke()
    await stage.assign(ONE)
    assert stage.position(ONE) == 12


@pytest.mark.parametrize("refused", [10, 500, None])
def test_a_seek_while_the_bounds_of_the_log_are_asked_for(refused: int | None) -> None:
    async def main() -> None:
        stage = Stage()
        await stage.join(ONE)
        stage.beginnings[ONE] = 50
        stage.assignment.out_of_range(ONE, refused)
        await asyncio.sleep(0)
        stage.assignment.seek(ONE, 70)
        await settle()
        assert stage.position(ONE) == 70
        assert stage.listener.names() == ["assigned"]
        assert set(stage.assignment.pollable) == {ONE}
        await stage.assignment.close()

    run_virtual(main())


def test_with_aiokafkas_own_state() -> None:
    """A topic appears that matches, and a partition is restarted before the join begins."""

    async def main() -> None:
        consumer: Any = AIOKafkaConsumer(group_id="g", auto_offset_reset="none")
        subscription = consumer._subscription
        coordinator = consumer._coordinator = SimpleNamespace(generation=1, member_id="m")
        consumer._fetcher = SimpleNamespace(
            _records={}, seek_to=subscription.seek, _max_partition_fetch_bytes=1
        )
        assignment = CooperativeAssignment(
            consumer, Listener(), group_id="g", runtime=FakeRuntime(), fetch_bytes=1 << 20,
            commit_grace_s=1.0, on_pollable=lambda: None,
        )  # fmt: skip

        async def find(wanted: Any, _: object) -> dict[TopicPartition, Start]:
            return {tp: Start(0, "", 1000) for tp in wanted}

        assignment._starts = SimpleNamespace(find=find)  # type: ignore[assignment]
        subscription.subscribe_pattern(re.compile("^t"), listener=assignment)
        subscription.subscribe_from_pattern({"t1"})
        theirs, ours = LowerPartition("t1", 0), TopicPartition("t1", 0)

        async def assign() -> Any:
            subscription.assign_from_subscribed([theirs])
            await assignment.on_partitions_assigned({theirs})
            await settle()
            return subscription.subscription.assignment.state_value(theirs)

        state = await assign()
        state.consumed_to(500)
        subscription.subscribe_from_pattern({"t1", "t2"})
        assignment.seek(ours, 100)
        await assignment.on_partitions_revoked(set())
        coordinator.generation = 2
        assert (await assign()).position == 100
        await assignment.close()
        consumer._closed = True

    run_virtual(main())
