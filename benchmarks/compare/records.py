"""What is sent: records with their key in the body too, so that a handler needs the body alone."""

from __future__ import annotations

import json
from dataclasses import dataclass

from benchmarks.path.work import records as orders

FAILING_SHARE = 0.02
COPIES = 100
"""One message in so many comes twice, where messages have an ``id``."""
COPY_LATER = 300
"""A copy comes so many messages after the first one."""
HOT = "hot"


@dataclass(frozen=True)
class Work:
    """Which records. Equal ones share a topic for a whole run."""

    count: int
    """Different messages."""
    keys: str = "uniform"
    """As in `benchmarks.path.work.keys`: uniform, zipf, one or all."""
    distinct: int = 1000
    ids: bool = False
    fails: bool = False
    """Messages of two keys in a hundred fail, until all others are handled."""


@dataclass(frozen=True)
class Made:
    """Records, and what a consumer has to find."""

    records: list[tuple[bytes, bytes]]
    expected: int
    distinct_keys: int
    failing: int
    """So many of the messages fail at first."""


def make(work: Work) -> Made:
    """The same for the same work."""
    found: list[tuple[bytes, bytes]] = []
    failing_keys = int(work.distinct * FAILING_SHARE) if work.fails else 0
    again: list[tuple[int, tuple[bytes, bytes]]] = []
    failing = 0
    keys: set[bytes] = set()
    for key, value in orders(work.keys, work.count, work.distinct):
        while again and again[0][0] <= len(found):
            found.append(again.pop(0)[1])
        extra = {"key": key.decode()}
        order = extra | json.loads(value)
        if work.ids:
            order["id"] = f"id-{order['i']}"
        if failing_keys and int(key.partition(b"-")[2]) < failing_keys:
            order["fails"] = 1
            failing += 1
        record = key, _bytes(order)
        keys.add(key)
        found.append(record)
        if work.ids and order["i"] % COPIES == 0:
            again.append((len(found) + COPY_LATER, record))
    found += [record for _, record in again]
    return Made(found, work.count, len(keys), failing)


def _bytes(order: dict[str, object]) -> bytes:
    return json.dumps(order, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Planned:
    """A message that is sent at its time."""

    after_s: float
    key: str
    i: int
    seq: int
    hot: bool = False

    def record(self, began_at: float) -> tuple[bytes, bytes]:
        """``at`` is when it is meant to be sent, whenever it is sent: a late one has waited already."""
        order: dict[str, object] = {"key": self.key, "i": self.i, "seq": self.seq}
        order |= {"at": round(began_at + self.after_s, 6), "type": "order.created"}
        if self.hot:
            order["hot"] = 1
        return self.key.encode(), _bytes(order)


def plan(
    rate: float, seconds: float, *, distinct: int = 1000, hot_rate: float = 0.0, warm: int = 0
) -> list[Planned]:
    """Evenly spaced messages of ``distinct`` keys in turn, and ``hot_rate`` a second of one more key.

    ``warm`` messages are numbered before them, see `warm_up`.
    """
    moments = [(n / rate, f"key-{n % distinct}") for n in range(int(rate * seconds))]
    moments += [(n / hot_rate, HOT) for n in range(int(hot_rate * seconds))]
    seqs: dict[str, int] = {}
    found = []
    for i, (after_s, key) in enumerate(sorted(moments), start=warm):
        seq = seqs.get(key, 0)
        seqs[key] = seq + 1
        found.append(Planned(after_s, key, i, seq, key == HOT))
    return found


def warm_up(count: int) -> list[tuple[bytes, bytes]]:
    """Records that are there before a consumer starts; nobody takes their time."""
    found = []
    for i in range(count):
        key = f"warm-{i}"
        found.append(
            (key.encode(), _bytes({"key": key, "i": i, "seq": 0, "type": "order.created"}))
        )
    return found
