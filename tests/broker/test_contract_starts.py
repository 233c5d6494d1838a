"""Where reading begins, what is told of it, and what happens when the log moves under a position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.protocol import Broker, OffsetAndMetadata, Start, TopicPartition
from tests.broker.members import consuming, fill, fresh, make_topic, member, producing, tps

if TYPE_CHECKING:
    import pytest

    from tests.broker.levers import Levers


def warnings(caplog: pytest.LogCaptureFixture, *words: str) -> list[str]:
    """The warnings that have all these words."""
    found = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    return [text for text in found if all(word in text for word in words)]


async def commit(broker: Broker, topic: str, group: str, kept: OffsetAndMetadata) -> None:
    """Let the group have committed this for partition 0."""
    async with consuming(broker, topic, 0, group_id=group) as consumer:
        await consumer.commit({TopicPartition(topic, 0): kept})


async def filled(broker: Broker, count: int = 10) -> tuple[str, TopicPartition]:
    topic = await make_topic(broker, partitions=1)
    async with producing(broker) as producer:
        await fill(producer, topic, [b"%d" % n for n in range(count)])
    return topic, TopicPartition(topic, 0)


async def test_without_a_commit_it_is_the_beginning(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic, tp = await filled(broker)
    empty = await make_topic(broker, partitions=1)
    async with member(broker, fresh("group"), topic, empty) as who:
        await who.listener.until_holds([tp, TopicPartition(empty, 0)])
        assert who.listener.starts == {tp: Start(0, "", 10), (empty, 0): Start(0, "", 0)}
    assert not warnings(caplog, topic)


async def test_it_is_the_committed_offset_with_its_note(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic, tp = await filled(broker)
    group = fresh("group")
    for offset in (0, 7, 10):  # the beginning and the end belong to the log
        await commit(broker, topic, group, OffsetAndMetadata(offset, f"note {offset}"))
        async with member(broker, group, topic) as who:
            await who.listener.until_holds([tp])
            assert who.listener.starts == {tp: Start(offset, f"note {offset}", 10)}
            read = await who.until_read(10 - offset)
            assert [r.offset for r in read] == list(range(offset, 10))
    assert not warnings(caplog, topic)


async def test_a_commit_that_retention_has_passed_begins_at_the_beginning_without_its_note(
    broker: Broker, levers: Levers, caplog: pytest.LogCaptureFixture
) -> None:
    topic, tp = await filled(broker)
    group = fresh("group")
    await commit(broker, topic, group, OffsetAndMetadata(2, "note"))
    await levers.truncate(topic, 0, 6)
    async with member(broker, group, topic) as who:
        await who.listener.until_holds([tp])
        assert who.listener.starts == {tp: Start(6, "", 10)}
        assert [r.offset for r in await who.until_read(4)] == [6, 7, 8, 9]
    assert len(warnings(caplog, group, topic, "2 to 5", "gone")) == 1


async def test_a_commit_beyond_the_end_begins_at_the_beginning_without_its_note(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic, tp = await filled(broker)
    group = fresh("group")
    await commit(broker, topic, group, OffsetAndMetadata(50, "note"))
    async with member(broker, group, topic) as who:
        # A broker may try the offset first: the end it knows of may lag.
        await who.listener.until(lambda: who.listener.starts.get(tp) == Start(0, "", 10))
        assert [r.offset for r in await who.until_read(10)] == list(range(10))
    assert warnings(caplog, group, topic, "50", "cut off")


async def test_a_position_that_retention_has_passed_goes_on_at_the_beginning(
    broker: Broker, levers: Levers, caplog: pytest.LogCaptureFixture
) -> None:
    topic, tp = await filled(broker)
    group = fresh("group")
    async with member(broker, group, topic) as who:
        await who.listener.until_holds([tp])
        await who.until_read(10)
        await levers.truncate(topic, 0, 6)
        who.consumer.seek(tp, 2)
        assert [r.offset for r in (await who.until_read(14))[10:]] == [6, 7, 8, 9]
        assert who.listener.names() == ["assigned"]
        assert who.listener.starts == {tp: Start(0, "", 10)}
    assert len(warnings(caplog, group, topic, "2 to 5", "gone")) == 1


async def test_a_position_beyond_the_end_is_lost_and_assigned_again(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    topic, tp = await filled(broker)
    group = fresh("group")
    async with member(broker, group, topic) as who:
        await who.listener.until_holds([tp])
        await who.until_read(10)
        await who.consumer.commit({tp: OffsetAndMetadata(4, "note")})
        who.consumer.seek(tp, 50)
        await who.listener.until(lambda: who.listener.names() == ["assigned", "lost", "assigned"])
        assert who.listener.starts == {tp: Start(4, "note", 10)}
        assert [r.offset for r in (await who.until_read(16))[10:]] == list(range(4, 10))


async def test_a_topic_made_anew_is_lost_and_begins_at_its_beginning(broker: Broker) -> None:
    topic, tp = await filled(broker)
    admin = broker.admin()
    try:
        async with member(broker, fresh("group"), topic) as who, producing(broker) as producer:
            await who.listener.until_holds([tp])
            await who.until_read(10)
            await admin.delete_topic(topic)
            await who.listener.until(lambda: "lost" in who.listener.names())
            await make_topic(broker, partitions=1, name=topic)
            await who.listener.until(lambda: who.listener.names().count("assigned") == 2)
            assert who.listener.starts[tp] == Start(0, "", 0)
            await fill(producer, topic, [b"new"])
            assert (await who.until_read(11))[-1].value == b"new"
            assert who.listener.held == tps(topic, 0)
    finally:
        await admin.stop()
