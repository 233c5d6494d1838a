"""A test of the tests: each of these faults, put into the pure half, is seen beside the naive model.

``check_valid`` is not asked here: the answers alone must give the fault away.
"""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.core.naive_windows import NaiveOutcomeWindow, NaiveTimeWindow
from tests.core.side_by_side import SideBySide

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = 2_500
# In the order in which they import one another.
MODULES = ["window_clock_py", "window_keys_py", "outcome_window_py", "rolling_window_py"]

TIME_WINDOW_MUTANTS = {
    "the run in progress not counted": (
        "        if state.running:\n            ahead",
        "        if False:\n            ahead",
    ),
    "a long run in progress counted without end": (
        "            if ahead < BUCKETS:\n",
        "            if True:\n",
    ),
    "the oldest bucket counted whole": (
        "total -= oldest - min(oldest, BUCKET_TICKS - self._tick())",
        "pass",
    ),
    "the oldest bucket not counted": (
        "total -= oldest - min(oldest, BUCKET_TICKS - self._tick())",
        "total -= oldest",
    ),
    "a bucket forgotten too soon": (
        "self._bucket + 1, min(bucket, self._bucket + RING) + 1",
        "self._bucket + 2, min(bucket, self._bucket + RING) + 2",
    ),
    "a run longer than the window charged a bucket short": (
        "began, began_tick = bucket - BUCKETS, 0",
        "began, began_tick = bucket - BUCKETS + 1, 0",
    ),
    "a jump leaves a bucket behind": (
        "min(bucket, self._bucket + RING) + 1",
        "min(bucket, self._bucket + RING)",
    ),
    "time goes back at an end": (
        'runs")\n        gone = None\n        latest = self._latest\n        if now > latest:',
        'runs")\n        gone = None\n        latest = self._latest\n        if True:',
    ),
    "time goes back at a look": (
        "get(key)\n        gone = None\n        if now > self._latest:",
        "get(key)\n        gone = None\n        if True:",
    ),
    "a bucket without end": (
        "self._until = min(until, ",
        "self._until = min(until + 3.0 * self._width, ",
    ),
    "a run within a bucket not counted": (
        "added = (tick if 0 <= tick < BUCKET_TICKS else self._tick()) - state.began_tick",
        "added = 0",
    ),
    "a refused call moves the clock": (
        '        now = self._checked("end", now)\n',
        '        now = self._checked("end", now)\n        self._move(now)\n',
    ),
    "only the last bucket of a run charged": (
        "            buckets[between % RING] = BUCKET_TICKS\n",
        "            pass\n",
    ),
    "the first part of a run charged twice": (
        "buckets[began % RING] += BUCKET_TICKS - began_tick",
        "buckets[began % RING] += BUCKET_TICKS",
    ),
    "an unused key remembered": (
        "        if not total:\n            gone = gone or []\n            self._forget(state, gone)\n"
        "            return\n",
        "",
    ),
    "an unused key remembered after a while": (
        "            state.serial = 0  # its time begins anew, and may be less than what is listed\n"
        "        else:\n            self._forget(state, gone)\n",
        "            state.serial = 0\n",
    ),
    "a key begins twice": ("if state is not None and state.running:", "if False:"),
    "end of what does not run": (
        "if state is None or not state.running:",
        "if state is None:",
    ),
    "eviction by time long gone": (
        "            if state.serial and state.total < state.listed:\n",
        "            if False:\n",
    ),
    "eviction by time when it was listed": (
        "elif (total, number) != (state.total, state.number):",
        "elif False:",
    ),
    "eviction of a key that runs": (
        "elif state.running or self._is_recent(state):",
        "elif self._is_recent(state):",
    ),
    "eviction of a key that ran last": (
        "elif state.running or self._is_recent(state):",
        "elif state.running:",
    ),
    "those that ran last not known when the order begins": (
        "latest[state.number - self._ends - 1] = state",
        "pass",
    ),
    "places in a given up order kept": (
        "        for state in self._keys.values():\n            state.serial = 0\n",
        "",
    ),
    "the place of a bucket kept": ("self._place = bucket % RING", "pass"),
    "no eviction": ("> self._cache_size:", "> self._cache_size + 1:"),
    "running keys crowd out the others": (
        "len(self._keys) - self._running >",
        "len(self._keys) >",
    ),
    "room a bucket late": (
        "return self._reached(bucket, tick)",
        "return self._reached(bucket + 1, 0)",
    ),
    "room a bucket early": (
        "return self._reached(bucket, tick)",
        "return self._reached(bucket, 0)",
    ),
    "room without the run in progress": (
        "            full += self._charge(state, buckets)\n",
        "            pass\n",
    ),
    "room never now": (
        "if full + min(oldest, BUCKET_TICKS - self._tick()) <= allowed:",
        "if False:",
    ),
    "a limit below zero taken": ("if not limit >= 0.0:", "if limit != limit:"),
    "a limit that is nan taken": ("if not limit >= 0.0:", "if limit < 0.0:"),
    "a limit rounded up": (
        "        elif (allowed + 1) * unit <= limit:\n            allowed += 1\n",
        "        else:\n            allowed += 1\n",
    ),
    "infinity taken for a time": (
        "if not -self._farthest <= seconds <= self._farthest:",
        "if seconds != seconds or seconds == -inf:",
    ),
    "a bucket rounded up": (
        "return floor(now / self._width)",
        "return -floor(-now / self._width)",
    ),
}

EVICT = "            self._evict(gone)\n"
EVICT_ANOTHER = """            idle = [each for each in self._keys.values() if not each.running]
            state = {rule}
            self._wheel[state.oldest % RING].discard(state)
            self._forget(state, gone)
"""
TIME_WINDOW_MUTANTS |= {
    "eviction by age": (
        EVICT,
        EVICT_ANOTHER.format(rule="min(idle, key=lambda each: each.number)"),
    ),
    "eviction of whoever ran last": (
        EVICT,
        EVICT_ANOTHER.format(rule="max(idle, key=lambda each: each.number)"),
    ),
    "eviction of whoever used most": (
        EVICT,
        EVICT_ANOTHER.format(rule="max(idle, key=lambda each: each.total)"),
    ),
    "eviction of whoever was seen first": (EVICT, EVICT_ANOTHER.format(rule="idle[0]")),
}

OUTCOME_WINDOW_MUTANTS = {
    "successes and failures swapped": ("        if failed:\n", "        if not failed:\n"),
    "what is old counts": (
        "            self._failures -= self._of_failures[place]\n",
        "            pass\n",
    ),
    "a bucket too few": (
        "self._bucket + 1, min(bucket, self._bucket + BUCKETS) + 1",
        "self._bucket + 1, min(bucket, self._bucket + BUCKETS) + 2",
    ),
    "a jump leaves a bucket behind": (
        "min(bucket, self._bucket + BUCKETS) + 1",
        "min(bucket, self._bucket + BUCKETS)",
    ),
    "a bucket emptied but counted again": (
        "            self._of_successes[place] = self._of_failures[place] = 0\n",
        "            pass\n",
    ),
    "no minimum": ("if outcomes < self._minimum:", "if not outcomes:"),
    "one above the minimum": ("if outcomes < self._minimum:", "if outcomes <= self._minimum:"),
    "failures to successes": (
        "return self._failures / outcomes",
        "return self._failures / max(1, self._successes)",
    ),
    "anything taken for an outcome": ("if type(failed) is not bool:", "if failed is None:"),
    "time goes back": ("        if now <= self._latest:\n            return\n", ""),
}


def time_window_calls(chance: random.Random, naive: NaiveTimeWindow) -> Iterator[tuple[Any, ...]]:
    """Some keys that run often and many that run once, with jumps, steps back and refusals."""
    now = 0.0
    window = naive.window
    for number in range(CALLS):
        now += window * chance.choice([0, 0, 1e-3, 0.01, 0.02]) * chance.random()
        if chance.random() < 0.008:
            now += window * chance.choice([0.4, 0.95, 1.01, 1.1, 5.0])
        again = "again", chance.randrange(60)  # each runs a few times, and never long
        key = chance.choice(["a", "b", "c", "d", again, again, ("once", number)])
        at = now - window * chance.choice([0, 0, 0, 0, 0, 0.5])
        if chance.random() < 0.1:  # next to no time, so it is safe only while it ran last
            tiny = "tiny", chance.randrange(3)
            yield "begin", tiny, now
            now += window * 1e-7
            yield "end", tiny, now
        running = list(naive.began)
        kind = chance.random()
        if kind < 0.3:
            yield "begin", key, at
        elif kind < 0.65:
            yield "end", chance.choice(running or [key]), at
        elif kind < 0.67:
            yield "end", ("never", number), at + window / 3
        elif kind < 0.85:
            yield "used", chance.choice([*naive.runs, key]), at
        else:
            limit = window * chance.choice([0, 1, 0.5, chance.random(), chance.random() * 0.01])
            yield "room_at", chance.choice([*naive.runs, key]), limit, at
    yield from order_calls(naive, now + 9.0 * window)
    now += 20.0 * window
    for limit in (-1.0, float("nan")):
        yield "room_at", "a", limit, now
    for refused in (float("inf"), float("nan"), window * 2.0**60):
        yield "used", "a", refused


def order_calls(naive: NaiveTimeWindow, now: float) -> Iterator[tuple[Any, ...]]:
    """The order of eviction is given up, and begins again while a key that had a place in it ran last."""
    size, step = naive.cache_size, naive.window / 1_000
    again = ("late", 0)
    late = [("late", number) for number in range(size // 8 + 2)]
    fresh = [key for number in range(size) for key in (("fresh", number), again)]
    # keys, how long each runs, how long nothing runs after that
    phases = [
        ([("early", number) for number in range(size + 4)], 0.1, 500),
        (late, 0.3, 600),
        (fresh, 0.5, 0),
        ([("more", number) for number in range(size)], 0.5, 0),
    ]
    for keys, used, pause in phases:
        for key in keys:
            yield "begin", key, now
            now += step * (0.001 if keys is fresh and key is again else used)
            yield "end", key, now
            yield "used", again, now
        now += step * pause


def outcome_window_calls(
    chance: random.Random, naive: NaiveOutcomeWindow
) -> Iterator[tuple[Any, ...]]:
    now = 0.0
    for _ in range(400):
        now += naive.window * chance.choice([0, 0.01, 0.05]) * chance.random()
        if chance.random() < 0.03:
            now += naive.window * chance.choice([0.5, 1.0, 1.01, 4.0])
        yield "record", chance.random() < 0.7, now - chance.choice([0, 0, 0, naive.window])
        at = now - chance.choice([0, 0, 0, naive.window])
        yield chance.choice([("counts", at), ("failure_rate", at)])
    yield "record", 1, now


def mutated(old: str, new: str) -> dict[str, Any]:
    """What is in the pure half with ``old``, which stands in one place of its modules, replaced."""
    names = [f"prosody._core.{name}" for name in MODULES]
    files = [Path(str(importlib.import_module(name).__file__)) for name in names]
    sources = [file.read_text() for file in files]
    places = sum(source.count(old) for source in sources)
    assert places == 1, f"{places} places to put the mutation: {old!r}"
    found: dict[str, Any] = {}
    # Each is found by those made after it, which import it by name.
    with mock.patch.dict(sys.modules):
        for name, source in zip(names, sources, strict=True):
            mutant = sys.modules[name] = ModuleType(name)
            exec(compile(source.replace(old, new), f"mutant of {name}", "exec"), vars(mutant))
            found |= vars(mutant)
    return found


def differs(name: str, old: str, new: str) -> str | None:
    """The first difference between the mutant and the naive model, if there is one."""
    mutant = mutated(old, new)[name]
    for seed, size in enumerate([1, 3, 16, 24, 3, 16, 8]):
        naive: Any
        if name == "TimeWindow":
            naive = NaiveTimeWindow(300.0, size)
            calls = time_window_calls(random.Random(seed), naive)
        else:
            naive = NaiveOutcomeWindow(300.0, size)
            calls = outcome_window_calls(random.Random(seed), naive)
        subject = mutant(300.0, size)
        both = SideBySide(name, check=False, naive=naive, mutant=subject)
        try:
            for call in calls:
                both.call(*call)
        except AssertionError as difference:
            return str(difference)
    return None


@pytest.mark.parametrize("name", ["TimeWindow", "OutcomeWindow"])
def test_the_code_as_it_is_shows_no_difference(name: str) -> None:
    assert differs(name, f"class {name}(", f"class {name}(") is None


@pytest.mark.parametrize("mutation", list(TIME_WINDOW_MUTANTS))
def test_a_mutant_of_the_time_window_is_found(mutation: str) -> None:
    assert differs("TimeWindow", *TIME_WINDOW_MUTANTS[mutation]) is not None


@pytest.mark.parametrize("mutation", list(OUTCOME_WINDOW_MUTANTS))
def test_a_mutant_of_the_outcome_window_is_found(mutation: str) -> None:
    assert differs("OutcomeWindow", *OUTCOME_WINDOW_MUTANTS[mutation]) is not None
