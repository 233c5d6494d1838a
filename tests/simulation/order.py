"""The same order every time: hashes that do not depend on where in memory an object lies.

Sets of the library's own objects are looked through in the order of their hashes, and chance has no
other way into a run than its seed.
"""

from __future__ import annotations

import contextlib
import zlib
from typing import TYPE_CHECKING, Any

from prosody.broker.memory.consumer import MemoryConsumer
from prosody.broker.memory.log import PartitionLog
from prosody.consume.partition import Partition
from prosody.model.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _of_run(run: Run) -> int:
    if run.timer is not None:  # its record is that of what it stands for at the moment
        return zlib.crc32(f"{run.timer.kind} {run.timer.time} {run.key}".encode())
    assert run.record is not None
    return 8 * run.record.offset + run.record.partition


HASHES: dict[type, Callable[[Any], int]] = {
    Run: _of_run,
    Partition: lambda partition: int(partition.epoch),
    PartitionLog: lambda log: zlib.crc32(f"{log.topic} {log.partition}".encode()),
    MemoryConsumer: lambda consumer: zlib.crc32(consumer._settings.client_id.encode()),
}


@contextlib.contextmanager
def stable_hashes() -> Iterator[None]:
    """Give those objects hashes of what they are; they stay equal to nothing but themselves."""
    for kind, hashed in HASHES.items():
        assert "__hash__" not in vars(kind), f"{kind.__name__} has a hash of its own"
        setattr(kind, "__hash__", hashed)  # noqa: B010  # a type checker forbids the plain form
    try:
        yield
    finally:
        for kind in HASHES:
            delattr(kind, "__hash__")
