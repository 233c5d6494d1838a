"""A group whose members use another assignor cannot be joined: said at the start, with the way out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from prosody.broker.kafka import internals
from prosody.broker.kafka.errors import LowerError
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from prosody.broker.kafka.internals import GroupDescription

log = logging.getLogger(__name__)


async def require_same_assignor(consumer: Any, group_id: str, assignor: str) -> None:
    """Look at the group before joining it.

    The broker refuses a join whose assignor the others do not have, but tells so later, when nobody waits
    for it any more. A group that is empty, or has no common assignor yet, is no obstacle.

    :raises BrokerError: when the present members have another assignor.
    """
    try:
        group = await internals.describe_group(consumer, group_id)
    except LowerError as error:
        # Only a look ahead, for which a user needs a permission of its own (to describe the group).
        # Without it the join itself finds out, and its error is logged by the poller.
        log.info("cannot look at group %r before joining it: %r", group_id, error)
        return
    if problem := _problem(group, assignor):
        raise BrokerError(f"cannot join group {group_id!r}: {problem}", retriable=False)


def _problem(group: GroupDescription, assignor: str) -> str | None:
    if group.protocol_type not in ("", "consumer"):
        return (
            f"it is no consumer group but one of type {group.protocol_type!r}; use another group id"
        )
    if group.protocol in ("", assignor):
        return None
    return (
        f"its members share out partitions with the assignor {group.protocol!r}, this client would "
        f"use {assignor!r}, and a group can have only one: set the option `assignor` "
        "(PROSODY_ASSIGNOR) to theirs, or stop them first, or use another group id"
    )
