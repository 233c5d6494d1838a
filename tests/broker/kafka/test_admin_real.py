"""Topics of a real Kafka: defaults, the broker's reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prosody.errors import BrokerError
from tests.broker.members import fresh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody.broker.kafka import KafkaBroker
    from prosody.broker.kafka.admin import KafkaAdmin

pytestmark = pytest.mark.real


@pytest.fixture
async def admin(kafka: KafkaBroker) -> AsyncIterator[KafkaAdmin]:
    admin = kafka.admin()
    yield admin
    await admin.stop()


async def test_the_brokers_defaults(admin: KafkaAdmin) -> None:
    name = fresh("topic")
    await admin.create_topic(name)
    assert name in await admin.topics()
    await admin.delete_topic(name)
    assert name not in await admin.topics()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"replication_factor": 9}, "eplication factor"),
        ({"config": {"cleanup.policy": "tidy"}}, "cleanup.policy"),
        ({"config": {"no.such.thing": "1"}}, "no.such.thing"),
    ],
)
async def test_the_brokers_reason_is_told(
    admin: KafkaAdmin, options: dict[str, object], reason: str
) -> None:
    name = fresh("topic")
    with pytest.raises(BrokerError, match=reason) as caught:
        await admin.create_topic(name, partitions=1, **options)  # type: ignore[arg-type]  # varies
    assert not caught.value.retriable
    assert name in str(caught.value)
    assert name not in await admin.topics()


async def test_a_stopped_one_refuses(admin: KafkaAdmin) -> None:
    await admin.stop()
    with pytest.raises(BrokerError, match="stopped"):
        await admin.topics()
