"""Everything private of aiokafka 0.14 that the adapter touches, in one place.

A test fails when a new aiokafka renames any of it. Each function says why the public way is not enough.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.client import ConnectionGroup
from aiokafka.protocol.admin import DescribeGroupsRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from prosody.broker.protocol import OffsetAndMetadata, TopicPartition


class Membership(NamedTuple):
    """Who a consumer is in its group; changes with every rebalance, and is reset when it is lost."""

    generation: int
    member_id: str


class GroupDescription(NamedTuple):
    """What a coordinator says of a group; empty texts where it has none."""

    state: str
    protocol_type: str
    protocol: str


def membership(consumer: Any) -> Membership:
    """aiokafka tells nobody that a membership was lost; its coordinator only resets these two."""
    coordinator = consumer._coordinator
    return Membership(coordinator.generation, coordinator.member_id)


def is_reassigning(consumer: Any) -> bool:
    """Whether a rebalance is under way: ``getmany`` would then wait, however small its timeout."""
    return bool(consumer._subscription.reassignment_in_progress)


def raise_coordination_error(consumer: Any) -> None:
    """Raise what the coordinator wants told; during a rebalance ``getmany`` cannot be asked for it."""
    consumer._coordinator.check_errors()


def waiter(consumer: Any) -> asyncio.Future[None]:
    """A future set when records arrive.

    ``getmany`` with a timeout has no wake, and cancelling it leaks a count in ``fetch_context``, after
    which aiokafka believes for ever that someone is polling. Whoever holds this future may set it, and
    waits for it in ``wait_as_poller``.
    """
    future: asyncio.Future[None] = consumer._fetcher._create_fetch_waiter()
    return future


def tell_waiters(fetcher: Any) -> None:
    """Set the futures of ``waiter``: records have arrived. The fetching routine would, turns later."""
    for future in fetcher._fetch_waiters:
        fetcher._notify(future)


async def wait_as_poller(consumer: Any, future: asyncio.Future[None]) -> None:
    """Wait for ``future`` while counting as a poll for ``max_poll_interval_ms``."""
    subscription = consumer._subscription
    subscription._fetch_count += 1
    try:
        await future
    finally:
        # ``fetch_context`` does this too, but not when the block is left by an exception.
        subscription._fetch_count -= 1
        if subscription._fetch_count == 0:
            with subscription.fetch_context():
                pass  # its leaving notes the time of the last poll


def assignment_state(consumer: Any) -> Any:
    """aiokafka's state of the present assignment: the positions, which the next join makes anew."""
    return consumer._subscription.subscription.assignment


def assigned(consumer: Any) -> frozenset[Any]:
    """What aiokafka has assigned right now, held by us or not."""
    return frozenset(consumer._subscription.assigned_partitions())


def position(state: Any, partition: Any) -> int | None:
    """The next offset that would be polled; the public ``position`` waits until there is one."""
    found = None if state is None else state.state_value(partition)
    offset: int | None = None if found is None else found._position
    return offset


def known_end(consumer: Any, partition: Any) -> int | None:
    """The high watermark in the last answer to a fetch; the public ``highwater`` raises where there is
    no assignment."""
    subscription = consumer._subscription.subscription
    state = None if subscription is None else subscription.assignment
    found = None if state is None else state.state_value(partition)
    end: int | None = None if found is None else found.highwater
    return end


def place(consumer: Any, partition: Any, offset: int) -> bool:
    """Have ``offset`` polled next; what is buffered from there on already is kept.

    False when aiokafka has no state of the partition to set it in.
    """
    fetcher = consumer._fetcher
    state = assignment_state(consumer)
    if state is None or state.state_value(partition) is None:
        return False
    buffered = fetcher._records.get(partition)
    if position(state, partition) != offset or hasattr(buffered, "check_raise"):
        consumer.seek(partition, offset)
    return True


def pause(consumer: Any, partition: Any) -> None:
    """Fetch no more of a partition; what is buffered of it is dropped."""
    if partition in assigned(consumer):
        consumer.pause(partition)


def request_rejoin(consumer: Any) -> None:
    """Have the group rebalance; there is no public way."""
    consumer._coordinator.request_rejoin()


def refused_positions(error: Any) -> dict[Any, int | None]:
    """The partitions of an ``OffsetOutOfRangeError`` or ``NoOffsetForPartitionError``, and the offsets."""
    (refused,) = error.args
    return refused if isinstance(refused, dict) else {refused: None}


ANSWER_LIMIT_S = 5.0
"""A fetch is answered within its ``fetch_max_wait_ms``: no answer for so long means trouble."""


def problem(consumer: Any, group_id: str, now: float) -> str | None:
    """What keeps a consumer from its cluster, judged by the state of its connections.

    ``now`` is of the monotonic clock, which is the one that aiokafka stamps its connections by.
    """
    connections = consumer._client._conns
    open_ones = [(key, c) for key, c in connections.items() if c.connected()]
    if not open_ones:
        return "no broker can be reached"
    if consumer._coordinator.coordinator_id is None:
        return f"the coordinator of group {group_id!r} cannot be reached"
    for (node_id, group), connection in open_ones:
        # On the coordinator's own connection a join may wait for a long time, as it should.
        if group == ConnectionGroup.DEFAULT and connection._requests:
            silent_s = now - connection._last_action
            if silent_s > ANSWER_LIMIT_S:
                return f"broker {node_id} has not answered for {silent_s:.0f} s"
    return None


def let_others_first(consumer: Any, partition: TopicPartition) -> None:
    """Look into the buffers of the other partitions before that one's next time.

    ``getmany`` always begins with the oldest buffer, so a full partition would be read to the end of
    its buffer, 1 MiB, before the next one had a record.
    """
    buffers = consumer._fetcher._records
    if partition in buffers:
        buffers.move_to_end(partition)


def limit_partition_fetch(consumer: Any, size: int) -> None:
    """Bytes per partition and fetch; an option at construction, when the partitions are unknown."""
    consumer._fetcher._max_partition_fetch_bytes = size


async def ensure_coordinator(consumer: Any) -> None:
    """Wait until the group's coordinator is known."""
    await consumer._coordinator.ensure_coordinator_known()


async def commit_once(consumer: Any, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
    """Send one commit under the membership of this very moment.

    The request is stamped before the first wait, so what the caller checked just before the call still
    holds. The public ``commit`` stamps it later, repeats it by itself, possibly in another generation,
    and refuses in the revoke callback after a change of the topics that match a pattern.
    """
    await consumer._coordinator._do_commit_offsets(None, offsets)


async def committed(consumer: Any, partitions: Collection[TopicPartition]) -> Any:
    """Offset and metadata of each; the public ``committed`` drops the metadata and asks one by one."""
    return await consumer._coordinator.fetch_committed_offsets(list(partitions))


async def describe_group(consumer: Any, group_id: str) -> GroupDescription:
    """State and protocol of the group, as its coordinator sees them."""
    coordinator = consumer._coordinator
    await coordinator.ensure_coordinator_known()
    response = await consumer._client.send(
        coordinator.coordinator_id,
        DescribeGroupsRequest(groups=[group_id]),
        group=ConnectionGroup.COORDINATION,
    )
    found = response.groups[0]
    return GroupDescription(found[2], found[3], found[4])


def knows_topic(consumer: Any, topic: str) -> bool:
    """Whether a topic is in the metadata that the consumer goes by."""
    return consumer._client.cluster.partitions_for_topic(topic) is not None


def on_metadata(consumer: Any, listener: Callable[[object], None]) -> None:
    """Have ``listener`` called after each update of the metadata."""
    consumer._client.cluster.add_listener(listener)


async def partition_count(consumer: Any, topic: str) -> int:
    """How many partitions a topic has, asked only when it is not known; 0 when there is none.

    The public ``partitions_for_topic`` begins to follow a topic that is unknown, and the broker may
    make it then.
    """
    found = consumer._client.cluster.partitions_for_topic(topic)
    if found is None:
        found = (await consumer._client.fetch_all_metadata()).partitions_for_topic(topic)
    return len(found or ())


async def topic_names(consumer: Any) -> frozenset[str]:
    """All topics, internal ones too; the public ``topics`` leaves those out."""
    cluster = await consumer._client.fetch_all_metadata()
    return frozenset(cluster.topics(exclude_internal_topics=False))
