"""What ``client.snapshot()`` answers: a consumer at one moment, in frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class OldestMessage:
    """The first unfinished message of a partition: it holds the committed offset back."""

    offset: int
    """As in Kafka."""
    key: str | None
    """Shortened to 200 characters. None when it is not known: a timer or a deferred message of its key is
    before it, or its partition starts nothing more."""
    attempt: int | None
    """Handler attempts begun; None when ``key`` is."""
    since: datetime
    """When it was taken in; UTC."""
    age_s: float
    """Seconds since then."""
    doing: str | None
    """What it does or waits for, in words; None when ``key`` is."""


@dataclass(frozen=True, slots=True)
class PartitionSnapshot:
    """One partition that is held."""

    topic: str
    """As in Kafka."""
    partition: int
    """As in Kafka."""
    epoch: int
    """Numbers the assignments of this subscription; it stands in log lines too."""
    state: str
    """``running``, ``waiting for its store``, ``draining``, ``cancelling`` or ``closed``."""
    offset: int
    """Everything below is finished: what would be committed now."""
    committed: int | None
    """What was committed last; at first where the assignment began. None when that is to be committed."""
    end: int
    """The offset of the next record to be written, as it was at the last fetch, or at the assignment."""
    lag: int | None
    """``end`` less ``committed``, in offsets; None when ``committed`` is."""
    last_received: int
    """The highest offset taken in; before any, the one before the start."""
    uncommitted: int
    """Messages taken in and not finished."""
    finished_ahead: int
    """Messages finished beyond ``offset``."""
    oldest: OldestMessage | None
    """None when nothing is unfinished."""
    running: int
    """Keys whose first event has had a permit: in the handler, or between two attempts."""
    waiting: int
    """Keys whose first event waits for its first permit, or for deduplication's store before that."""
    queued: int
    """Events that wait behind another one of their key."""
    fetched: int
    """Records fetched and not taken in."""
    blocked: str | None
    """Why no more is taken in, in words; None when more would be."""
    deferred_messages: int | None
    """Keys with deferred messages; None where nothing is deferred."""
    deferred_timers: int | None
    """Keys with deferred timers; None where nothing is deferred."""
    deferred_since: datetime | None
    """When the key that has been deferred for longest was, as far as this client knows; UTC."""
    timers_pending: int | None
    """Application timers in memory: set, not handled, and due soon. None without a store."""
    problem: str | None
    """What does not work of its stores, in words."""
    unreadable: str | None
    """Why the broker gives none of its records, in words."""


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """An event that has begun and not ended: in its handler, or between two attempts."""

    topic: str
    """As in Kafka."""
    partition: int
    """As in Kafka."""
    key: str
    """Shortened to 200 characters."""
    offset: int | None
    """None for a timer."""
    timer: datetime | None
    """The time of a timer, or of the retry timer of a deferred message; UTC. None for other messages."""
    attempt: int
    """Handler attempts begun."""
    handling: bool
    """Whether its handler runs now."""
    since: datetime
    """When the present attempt got its permit, or the last one; UTC."""
    doing: str
    """What it does or waits for, in words."""


@dataclass(frozen=True, slots=True)
class WaitingKey:
    """A key whose first event waits for a permit."""

    topic: str
    """As in Kafka."""
    partition: int
    """As in Kafka."""
    key: str
    """Shortened to 200 characters."""
    offset: int | None
    """Of its first event; None for a timer."""
    timer: datetime | None
    """The time of a timer, or of the retry timer of a deferred message; UTC. None for other messages."""
    attempt: int
    """Handler attempts begun before."""
    since: datetime
    """When it began to wait; UTC."""
    waited_s: float
    """Seconds since then."""


@dataclass(frozen=True, slots=True)
class BusyKey:
    """A key and the handler time it has used."""

    topic: str
    """As in Kafka."""
    partition: int
    """As in Kafka."""
    key: str
    """Shortened to 200 characters."""
    handler_s: float
    """Seconds in handlers; what lies 120 s back counts half, 240 s a quarter. The run under way counts."""
    handling: bool
    """Whether its handler runs now."""


@dataclass(frozen=True, slots=True)
class DeferredKey:
    """A key with deferred messages or timers."""

    topic: str
    """As in Kafka."""
    partition: int
    """As in Kafka."""
    key: str
    """Shortened to 200 characters."""
    kind: str
    """``message`` or ``timer``."""
    next_try: datetime | None
    """UTC, a time that has come included. None when it is not in memory: more than some minutes ahead."""
    failures: int | None
    """How often the first of them has failed; None when that is not in memory."""
    last_error: str | None
    """With what, shortened to 200 characters; None when it has not failed, or that is not in memory."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consumer at one moment. Lists have limits, and say how many they leave out."""

    at: datetime
    """The moment; UTC."""
    state: str
    """What ``consumer_state()`` says."""
    not_ready: str | None
    """Why no messages are handled at present, in words; None when they are, or would be."""
    stalled: tuple[str, ...] = ()
    """What stands still for ``stall_threshold`` or longer, a text each."""
    broker_problem: str | None = None
    """What keeps this client from its group, in words."""
    store_problem: str | None = None
    """What does not work of the stores, in words."""
    permits: int = 0
    """``max_concurrency``; 0 when not subscribed."""
    permits_in_use: int = 0
    """Permits held: by handlers, and by what is about to be in one."""
    deferral_closed: bool | None = None
    """Whether nothing is deferred because nearly everything fails; None where nothing is deferred."""
    monopolization_refusals: int | None = None
    """How often a key was held back; None where none ever is."""
    timers_pending: int | None = None
    """Application timers in memory, of all partitions; None without a store."""
    partitions: tuple[PartitionSnapshot, ...] = ()
    """All that are held, by topic and number."""
    keys_running: int = 0
    """Keys whose handler runs now."""
    runs: tuple[RunSnapshot, ...] = ()
    """What has begun, the longest since its permit first; at most 100."""
    runs_not_shown: int = 0
    """How many of them are left out."""
    waiting: tuple[WaitingKey, ...] = ()
    """What waits for a permit, the longest first; at most 20."""
    waiting_not_shown: int = 0
    """How many of them are left out."""
    busiest: tuple[BusyKey, ...] = ()
    """The keys that have used most handler time, the busiest first; at most 20. In all modes it is the
    scheduler's account, by which it decides whose turn it is."""
    deferred: tuple[DeferredKey, ...] = ()
    """Those that are known by name, the next to be tried first; at most 50."""
    deferred_not_shown: int = 0
    """Those left out, and those of which only a hash is in memory."""

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values, which is what ``/debug/state`` serves: times as ISO 8601 in UTC."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value
