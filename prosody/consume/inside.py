"""What may be asked about a running consumer: the parts, for functions that look and touch nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prosody.broker.protocol import BrokerConsumer
    from prosody.consume.assignment import Assignment
    from prosody.consume.partition import Partition
    from prosody.middleware.stacks import Stack
    from prosody.model.run import Run
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Stores


@dataclass(frozen=True, slots=True)
class Inside:
    """Read by ``why`` and ``picture`` in the consumer's event loop; costs messages nothing."""

    runtime: Runtime
    assignment: Assignment
    broker: BrokerConsumer
    stack: Stack
    stores: Stores | None
    state: Callable[[], str]
    """What ``consumer_state()`` says."""
    not_ready: Callable[[], str | None]
    """Why the consumer handles no messages at present."""
    stalled: Callable[[], list[str]]
    """What stands still too long."""

    def problem_of(self, partition: Partition) -> str | None:
        """What does not work of its stores."""
        of_all = None if self.stores is None else self.stores.problem
        durable = partition.durable
        return of_all or (None if durable is None else durable.problem)


def run_of(partition: Partition, offset: int) -> Run | None:
    """The run of an offset: the first of its key, or one that stands for a deferred message."""
    for run in partition.runs:
        if run.record is not None and run.record.offset == offset:
            return run
    return None
