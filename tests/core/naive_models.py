"""The key queue and the offset tracker as one would explain them: no care for speed or memory."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from tests.core.naive_offset_set import Runs, gamma, longest_text

if TYPE_CHECKING:
    from collections.abc import Hashable


class NaiveKeyQueue:
    """A list of (key, entry) in order of pushing, a list of ready keys, and who is in flight."""

    def __init__(self) -> None:
        self.entries: list[tuple[Hashable, Any]] = []
        self.ready_keys: list[Hashable] = []
        self.flying: dict[Hashable, None] = {}

    def __repr__(self) -> str:
        return (
            f"KeyQueue(queued={self.queued}, in_flight={self.in_flight}, "
            f"ready={self.ready}, keys={self.keys})"
        )

    @property
    def queued(self) -> int:
        return len(self.entries)

    @property
    def in_flight(self) -> int:
        return len(self.flying)

    @property
    def ready(self) -> int:
        return len(self.ready_keys)

    @property
    def keys(self) -> int:
        return len({key for key, _ in self.entries} | set(self.flying))

    def _first(self, key: Hashable) -> int | None:
        for index, (other, _) in enumerate(self.entries):
            if other is key or other == key:
                return index
        return None

    def push(self, key: Hashable, entry: Any) -> bool:
        if entry is None:
            raise ValueError("push: entry must not be None, which pop answers for 'nothing ready'")
        self.flying.get(key)  # refuses what cannot be hashed
        ready = key not in self.flying and self._first(key) is None
        self.entries.append((key, entry))
        if ready:
            self.ready_keys.append(key)
        return ready

    def pop(self) -> Any:
        if not self.ready_keys:
            return None
        key = self.ready_keys.pop(0)
        index = self._first(key)
        assert index is not None
        self.flying[key] = None
        return self.entries.pop(index)[1]

    def done(self, key: Hashable) -> bool:
        self.flying.get(key)  # refuses what cannot be hashed
        if key not in self.flying:
            raise KeyError(f"done: nothing of key {key!r} is in flight")
        del self.flying[key]
        if self._first(key) is None:
            return False
        self.ready_keys.append(key)
        return True

    def clear(self) -> list[Any]:
        dropped = [entry for _, entry in self.entries]
        self.entries = []
        self.ready_keys = []
        return dropped

    def check_valid(self) -> None:
        pass


class NaiveOffsetTracker:
    """Everything ever admitted and everything ever finished; nothing else is remembered."""

    def __init__(self) -> None:
        self.admitted: dict[int, float] = {}
        self.unfinished: list[int] = []
        self.finished: list[int] = []
        self.needed = self.counted = self.count_at = 0

    def __repr__(self) -> str:
        return (
            f"OffsetTracker(committable={self.committable}, outstanding={self.outstanding}, "
            f"finished_ahead={self.finished_ahead}, last_admitted={self.last_admitted})"
        )

    @property
    def committable(self) -> int | None:
        if not self.admitted:
            return None
        return min(self.unfinished) if self.unfinished else max(self.admitted) + 1

    @property
    def outstanding(self) -> int:
        return len(self.unfinished)

    @property
    def finished_ahead(self) -> int:
        committable = self.committable
        return sum(committable is not None and offset > committable for offset in self.finished)

    @property
    def last_admitted(self) -> int | None:
        return max(self.admitted, default=None)

    def admit(self, offset: int, now: float) -> None:
        if type(offset) is not int:
            raise TypeError(f"admit: offset must be an int, not {type(offset).__name__}")
        if type(now) not in (int, float):
            raise TypeError(f"admit: now must be a float, not {type(now).__name__}")
        try:
            seconds = float(now)
        except OverflowError:
            seconds = float("inf") if now > 0 else float("-inf")
        if not isfinite(seconds):
            raise ValueError(f"admit: now must be finite, not {seconds}")
        if not 0 <= offset < 2**63:
            raise ValueError(
                f"admit: offset must lie between 0 and 9223372036854775807, not {shown(offset)}"
            )
        last = self.last_admitted
        if last is not None and offset <= last:
            raise ValueError(f"admit: offset {offset} is not above the last admitted one, {last}")
        self.admitted[offset] = seconds
        self.unfinished.append(offset)

    def complete(self, offset: int) -> bool:
        if type(offset) is not int:
            raise TypeError(f"complete: offset must be an int, not {type(offset).__name__}")
        if offset not in self.unfinished:
            raise ValueError(
                f"complete: offset {shown(offset)} is not outstanding: it was never admitted or "
                f"is finished already (committable {self.committable}, "
                f"last admitted {self.last_admitted})"
            )
        before = self.committable
        self.unfinished.remove(offset)
        self.finished.append(offset)
        return self.committable != before

    def oldest(self) -> tuple[int, float] | None:
        if not self.unfinished:
            return None
        lowest = min(self.unfinished)
        return lowest, self.admitted[lowest]

    def runs(self) -> Runs:
        """What finished ahead, with the gaps that it spans."""
        ends = [*self.unfinished, max(self.admitted, default=-1) + 1]
        highest = max(self.finished, default=-1)
        return [(a + 1, b) for a, b in pairwise(ends) if a + 1 < b and a < highest]

    def encode_finished(self, max_length: int) -> str:
        if type(max_length) is not int:
            raise TypeError(
                f"encode_finished: max_length must be an int, not {type(max_length).__name__}"
            )
        if max_length < 0:
            raise ValueError(
                f"encode_finished: max_length must not be negative, not {shown(max_length)}"
            )
        return longest_text(self.committable or 0, self.runs(), max_length)

    def encoded_length(self) -> int:
        """As last counted, and what was admitted since; counted now and then."""
        steps = [b - a for a, b in pairwise([-1, *self.admitted])][self.counted :]
        bits = self.needed + ceil(1.5 * len(steps)) + sum(2 * (n - 1).bit_length() for n in steps)
        calls = len(self.admitted) + len(self.finished)
        if calls >= self.count_at or not self.unfinished:
            ends = [*self.unfinished, max(self.admitted, default=-1) + 1]
            now = sum(len(gamma(b - a)) for a, b in pairwise(ends)) + len(self.unfinished) // 2
            self.needed = bits = min(bits, now)
            self.counted = len(self.admitted)
            self.count_at = calls + len(self.unfinished) // 2
        return 7 + ceil(bits / 6) if bits else 0

    def check_valid(self) -> None:
        pass


def shown(offset: int) -> str:
    return f"an int of {offset.bit_length()} bits" if offset.bit_length() > 64 else f"{offset}"
