from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prosody._core.protocols_events import Framed

def key_partitions(
    keys: Sequence[bytes],
    count: int,
    partitioner: str,
    known: dict[bytes, int],
    find: Callable[[bytes], int],
) -> list[int]: ...
def keep_records(
    logs: Sequence[list[Any]],
    partitions: Sequence[int],
    keys: Sequence[bytes],
    values: Sequence[bytes],
    timestamp_ms: int,
) -> None: ...
def frame_records(
    batches: Mapping[int, Framed],
    partitions: Sequence[int],
    keys: Sequence[bytes],
    values: Sequence[bytes],
    start: int,
) -> int: ...
