"""Who takes part: packages with their versions, the settings they run with, what they promise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

OURS = "prosody-asyncio"
EVENTS = "prosody-events"
DECODERS = ("msgspec==0.22.0", "cramjam==2.14.0")
"""Of JSON and of compressed records: what this project uses, so that decoding costs all the same."""


@dataclass(frozen=True)
class Rival:
    """One package."""

    name: str
    script: str
    """In the folder ``scripts``."""
    requirements: tuple[str, ...] = ()
    """None: this checkout, by this interpreter."""


RIVALS = {
    rival.name: rival
    for rival in (
        Rival(OURS, "consume_prosody.py"),
        Rival(EVENTS, "consume_prosody.py", ("prosody-events==0.6.1",)),
        Rival("FastStream", "consume_faststream.py", (
            "faststream[kafka]==0.7.8", "aiokafka==0.14.0", *DECODERS,
        )),
        Rival("quixstreams", "consume_quixstreams.py", ("quixstreams==3.28.1",)),
        Rival("aiokafka", "consume_aiokafka.py", ("aiokafka==0.14.0", *DECODERS)),
        Rival("confluent-kafka", "consume_confluent.py", (
            "confluent-kafka==2.16.1", *DECODERS,
        )),
    )
}  # fmt: skip
SETTLE_S = 2.0
"""prosody-events does not commit on leaving what it handled since its last commit, a second ago at most."""


@dataclass(frozen=True)
class Entrant:
    """A rival with settings. What it promises is what its run is judged by."""

    rival: str
    setting: str
    options: dict[str, Any] = field(default_factory=dict)
    """What the script hands to the package."""
    ordered: bool = True
    """The messages of a key one after the other."""
    once_done: bool = True
    """What fails is handled again."""
    variables: dict[str, str] = field(default_factory=dict)
    """Of the environment."""

    @property
    def name(self) -> str:
        return f"{self.rival}, {self.setting}"

    @property
    def ours(self) -> bool:
        return self.rival == OURS

    @property
    def settle_s(self) -> float:
        """Between the last message and leaving the group; not measured."""
        return SETTLE_S if self.rival == EVENTS else 0.0


def prosody(rival: str, setting: str = "defaults", **options: Any) -> Entrant:
    return Entrant(rival, setting, options)


def pure(entrant: Entrant) -> Entrant:
    """The same with the pure Python half of the core."""
    return Entrant(
        entrant.rival,
        f"{entrant.setting}, pure Python half",
        entrant.options,
        variables={"PROSODY_PURE_PYTHON": "1"},
    )


def unordered(limit: int) -> Entrant:
    """aiokafka with a task for each message."""
    return Entrant(
        "aiokafka", f"unordered tasks, {limit:,} at a time", {"limit": limit},
        ordered=False, once_done=False,
    )  # fmt: skip


def fast(**subscriber: Any) -> dict[str, Any]:
    """FastStream without pydantic and with the decoder that the bare loops use.

    A backlog of handlers that do not wait keeps its event loop from everything else, heartbeats too: after
    ten seconds, its session timeout, the group drops it, its commits fail and its stop hangs. So it gets
    the session timeout that librdkafka and ours have.
    """
    return {
        "broker": {"apply_types": False},
        "decoder": "msgspec",
        "subscriber": {"session_timeout_ms": 45_000, **subscriber},
    }


def workers(limit: int) -> Entrant:
    """FastStream with so many workers; they take messages of one key at the same time."""
    return Entrant(
        "FastStream", f"max_workers {limit:,}, no order", fast(max_workers=limit),
        ordered=False, once_done=False,
    )  # fmt: skip


MOST_UNCOMMITTED = 8192
"""Of each partition: what prosody-events is fastest with. It commits once a second, and takes nothing in
when so many are handled and not committed: with 256 it reaches a sixth. Ours is fastest with a few hundred:
more are only memory, which the processor's caches do not hold."""

DEFAULTS = prosody(OURS)
DEFAULTS_PURE = pure(DEFAULTS)
BEST = prosody(OURS, "best", max_uncommitted=256, max_concurrency=256)
BEST_PURE = pure(BEST)
BEST_ASKING = prosody(OURS, "best", max_uncommitted=4096, max_concurrency=256)
"""Where the store is asked about each message: what waits for its answers fills requests."""
EVENTS_DEFAULTS = prosody(EVENTS)
EVENTS_BEST = prosody(EVENTS, "best", max_uncommitted=MOST_UNCOMMITTED, max_concurrency=256)
FASTSTREAM = Entrant("FastStream", "defaults", once_done=False)
FASTSTREAM_BEST = Entrant("FastStream", "best", fast(), once_done=False)
FASTSTREAM_PARTITIONS = Entrant(
    "FastStream", "a worker for each partition", fast(max_workers=4, ack_policy="nack_on_error")
)
QUIX = Entrant("quixstreams", "defaults", once_done=False)
QUIX_BEST = Entrant(
    "quixstreams", "best", {"application": {"commit_interval": 5.0}}, once_done=False
)
BARE = Entrant("aiokafka", "one after the other", once_done=False)
BARE_BEST = Entrant(
    "aiokafka", "one after the other, best",
    {"auto_commit": False, "consumer": {"max_partition_fetch_bytes": 8 * 2**20}}, once_done=False,
)  # fmt: skip
TASKS = unordered(256)
CONFLUENT = Entrant("confluent-kafka", "one after the other", once_done=False)
CONFLUENT_BEST = Entrant(
    "confluent-kafka", "one after the other, best", {"batch": 1000}, once_done=False
)

HEARTBEAT_S = 1.0
"""Ours is one second; whoever lets itself be told gets the same in the row about rebalances."""


def _alike(entrant: Entrant, options: dict[str, Any]) -> Entrant:
    return replace(
        entrant, setting=f"{entrant.setting}, heartbeat {HEARTBEAT_S:g} s", options=options
    )


TWO_AT_A_TIME: dict[str, Any] = {"peer_bind_address": "127.0.0.1:0"}
"""prosody-events listens for its peers on one port, which two members on one machine cannot both have."""
_AIOKAFKA: dict[str, Any] = {"heartbeat_interval_ms": int(HEARTBEAT_S * 1000)}
_LIBRDKAFKA: dict[str, Any] = {"heartbeat.interval.ms": int(HEARTBEAT_S * 1000)}
REBALANCED = (
    DEFAULTS,
    replace(EVENTS_DEFAULTS, options=TWO_AT_A_TIME),
    _alike(FASTSTREAM, {"subscriber": _AIOKAFKA}),
    _alike(QUIX, {"application": {"consumer_extra_config": _LIBRDKAFKA}}),
    _alike(BARE, {"consumer": _AIOKAFKA}),
    _alike(CONFLUENT, {"consumer": _LIBRDKAFKA}),
)
