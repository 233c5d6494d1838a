"""The assignors a consumer can be given, by name."""

from __future__ import annotations

from typing import Any

from aiokafka.coordinator.assignors.range import (
    RangePartitionAssignor,
)
from aiokafka.coordinator.assignors.roundrobin import (
    RoundRobinPartitionAssignor,
)
from aiokafka.coordinator.assignors.sticky.sticky_assignor import (
    StickyPartitionAssignor,
)

from prosody.errors import ConfigurationError

_BY_NAME: dict[str, Any] = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
}

ASSIGNORS = tuple(sorted(_BY_NAME))
"""The names ``make_assignor`` knows."""


def make_assignor(name: str) -> Any:
    """A new assignor class of that name.

    One per client, because aiokafka uses the classes themselves and the sticky one keeps its memory
    there: two clients of a process would claim each other's partitions.

    :raises ConfigurationError: when there is no such assignor.
    """
    base = _BY_NAME.get(name)
    if base is None:
        raise ConfigurationError(
            [f"assignor: {name!r} is not known; use one of {', '.join(ASSIGNORS)}"]
        )
    return type(base.__name__, (base,), {})
