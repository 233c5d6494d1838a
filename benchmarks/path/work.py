"""The work: records, key distributions, and a handler that checks the very run that is timed."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

PAYLOAD_NOTE = "x" * 30


def keys(distribution: str, count: int, distinct: int, seed: int = 1) -> list[bytes]:
    """``count`` keys: ``uniform`` or ``zipf`` (exponent 1.0) over ``distinct`` ones, ``one``, ``all``."""
    rng = random.Random(seed)
    if distribution == "one":
        return [b"key-0"] * count
    if distribution == "all":
        return [b"key-%d" % i for i in range(count)]
    if distribution == "uniform":
        return [b"key-%d" % rng.randrange(distinct) for _ in range(count)]
    if distribution == "zipf":
        sums = list(itertools.accumulate(1.0 / rank for rank in range(1, distinct + 1)))
        return [b"key-%d" % bisect.bisect(sums, rng.random() * sums[-1]) for _ in range(count)]
    raise ValueError(f"no key distribution {distribution!r}: uniform, zipf, one or all")


def value(i: int, seq: int) -> bytes:
    """A 100-byte order: ``seq`` counts the messages of its key."""
    return json.dumps(
        {"i": i, "seq": seq, "type": "order.created", "amount": 12.5, "note": PAYLOAD_NOTE},
        separators=(",", ":"),
    ).encode()


def records(distribution: str, count: int, distinct: int) -> list[tuple[bytes, bytes]]:
    """Key and value of each record, in sending order."""
    seen: dict[bytes, int] = {}
    found = []
    for i, key in enumerate(keys(distribution, count, distinct)):
        seq = seen.get(key, 0)
        seen[key] = seq + 1
        found.append((key, value(i, seq)))
    return found


@dataclass
class Checked:
    """A handler that counts order faults and repeats, and says when everything has arrived."""

    expected: int
    delay_s: float = 0.0
    handled: int = 0
    order_faults: int = 0
    next_seq: dict[str, int] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    began: tuple[float, float] = (0.0, 0.0)
    """Wall and CPU seconds when the first message came: joining the group is measured elsewhere."""

    async def on_message(self, context: Any, message: Any) -> None:
        if not self.handled and self.began[0] == 0.0:
            self.began = time.perf_counter(), time.process_time()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        self.note(message.key, message.payload["seq"])

    def took(self) -> tuple[float, float]:
        """Wall and CPU seconds since the first message."""
        return time.perf_counter() - self.began[0], time.process_time() - self.began[1]

    def note(self, key: str, seq: int) -> None:
        if seq != self.next_seq.get(key, 0):
            self.order_faults += 1
        self.next_seq[key] = seq + 1
        self.handled += 1
        if self.handled == self.expected:
            self.done.set()


@dataclass(frozen=True)
class Row:
    """One measured run."""

    name: str
    messages: int
    keys: str
    seconds: float
    cpu_seconds: float
    order_faults: int | None
    lost: int
    uncommitted: int | None

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.messages * 1e6

    @property
    def fault(self) -> bool:
        return bool(self.order_faults) or self.lost != 0 or bool(self.uncommitted)
