"""What all partitions of one subscription share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prosody.consume.counts import Counts
from prosody.consume.progress import METADATA_MAX

if TYPE_CHECKING:
    import asyncio
    import contextvars

    from prosody.consume.durable import Durables
    from prosody.consume.filters import Filters
    from prosody.consume.partition import Partition
    from prosody.middleware.stacks import Stack
    from prosody.model.run import Run
    from prosody.observe.storm import Storm
    from prosody.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Shared:
    """What all partitions of one subscription share."""

    runtime: Runtime
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context
    """The ``contextvars`` as they were at ``subscribe``; every handler run starts from a copy."""
    filters: Filters
    stack: Stack
    max_uncommitted: int
    want_records: Callable[[], None]
    """Called when a partition has nothing left to admit."""
    failed: Callable[[Partition, BaseException], None]
    """Called, once, when a fault of the library's own ends a partition."""
    undecodable: Storm
    """Limits the lines about records that cannot be decoded."""
    skipped: Storm
    """Limits the lines about records without a value that nobody wants."""
    durables: Durables | None = None
    """Makes what partitions keep in the stores; None when there are none."""
    admitted: Callable[[Run], None] | None = None
    """Told of each message that has an ``id``, perhaps of others too, before it is queued; None where
    nothing is deduplicated."""
    counts: Counts = field(default_factory=Counts)
    """Read by metrics."""
    metadata_max: int = METADATA_MAX
    """Characters that may note what is finished ahead; admission stops before they do not suffice."""
