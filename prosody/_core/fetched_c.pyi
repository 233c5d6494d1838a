from collections.abc import Callable

from prosody._core.protocols_fetched import Fetched, FetchedFrom, PartitionAnswer

class FetchedRecord:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def __init__(self, place: FetchedFrom, fetched: Fetched) -> None: ...

def read_answer(frame: bytes) -> list[PartitionAnswer] | None: ...
def read_records(
    frame: bytes,
    at: int,
    size: int,
    place: FetchedFrom,
    offset: int,
    most: int,
    crc: Callable[[memoryview], int],
) -> tuple[list[FetchedRecord], int] | None: ...
