"""A look at the group before joining it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as lower

from prosody.broker.kafka import foreign
from prosody.errors import BrokerError


def group(*found: str) -> Any:
    """A consumer whose coordinator describes the group so, or refuses."""

    async def known() -> None:
        return

    async def send(*_: object, **__: object) -> Any:
        if not found:
            raise lower.GroupAuthorizationFailedError
        return SimpleNamespace(groups=[(0, "g", *found)])

    coordinator = SimpleNamespace(ensure_coordinator_known=known, coordinator_id=1)
    return SimpleNamespace(_coordinator=coordinator, _client=SimpleNamespace(send=send))


@pytest.mark.parametrize(
    "found", [(), ("Empty", "", ""), ("Stable", "consumer", "ours"), ("Joining", "consumer", "")]
)
async def test_no_obstacle(found: tuple[str, ...]) -> None:
    await foreign.require_same_assignor(group(*found), "g", "ours")


async def test_another_assignor_is_named_with_the_option() -> None:
    with pytest.raises(BrokerError, match=r"'theirs'.*'ours'.*PROSODY_ASSIGNOR") as refused:
        await foreign.require_same_assignor(group("Stable", "consumer", "theirs"), "g", "ours")
    assert not refused.value.retriable


async def test_a_group_of_another_kind() -> None:
    with pytest.raises(BrokerError, match="type 'connect'"):
        await foreign.require_same_assignor(group("Stable", "connect", ""), "g", "ours")
