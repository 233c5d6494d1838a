from prosody._core.protocols_events import Fetched, FetchedFrom

class FetchedRecord:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def __init__(self, place: FetchedFrom, fetched: Fetched) -> None: ...
