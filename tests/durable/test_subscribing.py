"""``subscribe`` connects the store: what is wrong with it is told there, and the client stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prosody import StoreError
from tests.durable.support import Handler
from tools.services import free_port

if TYPE_CHECKING:
    from tests.durable.support import Place

pytestmark = pytest.mark.real

WRONG: dict[str, dict[str, Any]] = {
    "cassandra_nodes": {"cassandra_nodes": "localhost:{port}"},
    "cassandra_datacenter": {"cassandra_datacenter": "atlantis"},
}


@pytest.mark.parametrize("option", WRONG)
async def test_a_wrong_option_is_named_and_the_client_stays_usable(
    services: Place, option: str
) -> None:
    await services.create_topic()
    values = {name: value.format(port=free_port()) for name, value in WRONG[option].items()}
    client = services.client(**values)
    with pytest.raises(StoreError, match=option):
        await client.subscribe(Handler(services))
    assert await client.consumer_state() == "configured"
    assert await client.assigned_partition_count() == 0
    await client.send(services.topic, "k", {"n": 1})
    handler = Handler(services)
    await services.client().subscribe(handler)
    await handler.until_handled(1)
