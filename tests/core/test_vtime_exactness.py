"""The entry that ``pop`` takes is the least of the published formula, in every state there is.

A state is a heap just before a ``pop``: the formula is worked out in floats for everything that waits,
and the first of the least must be what comes. 1,000,000 states of a dozen entries with the compiled
half and 300,000 with the other, a third of them with long lines only, then larger ones;
HYPOTHESIS_PROFILE=long makes it ten times as many.
"""

from __future__ import annotations

import os
import random
from math import inf, nextafter
from typing import Any

import pytest

from tests.core.vtime import LONG_LINES, SIDES, made

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
STATES = {"cython": 1_000_000, "python": 200_000, LONG_LINES: 100_000}
WALK = 2_000

pytestmark = pytest.mark.timeout(3_600 if LONG else 240)

# Ways in which time passes, and in which runs are long: ties, saturation, new landmarks.
STEPS: list[list[float]] = [
    [0.0],
    [0.0, 0.0, 1.0],
    [0.0016, 0.05, 0.0],
    [1.0, 2.0, 10.0],
    [0.0, 119.9, 120.0, 120.1],
    [1e-9, 1e-7, 30.0],
    [7.3, 61_000.0],
    [0.3, 50_000_000.0],
]
RUNS: list[list[float]] = [
    [0.0],
    [1.0],
    [0.0, 1.0, 2.0, 3.0],
    [0.05, 0.051, 0.0500000001],
    [1e-12, 1e-6, 1.0, 170.0],
    [12.5, 50.0, 112.5, 200.0],
]
WEIGHTS = [0.0, 0.3, 0.3, 0.3, 0.5, 1.0]
MAX_WAITS = [120.0, 120.0, 1.0, 7.7, 1e-9]
WAIT_WEIGHTS = [200.0, 200.0, 1.0, 0.0, 1e6]
HALF_LIVES = [120.0, 120.0, 1.0, 1e-3, inf]


def walk(half: str, seed: int, states: int, entries: int) -> int:
    """So many states of at most so many entries; returns in how many one was not the oldest."""
    chance = random.Random(seed)
    max_wait, wait_weight = chance.choice(MAX_WAITS), chance.choice(WAIT_WEIGHTS)
    weight = chance.choice(WEIGHTS)
    heap = made(
        half,
        failure_weight=weight,
        max_wait=max_wait,
        wait_weight=wait_weight,
        half_life=chance.choice(HALF_LIVES),
        cache_size=chance.choice([1, entries // 2 + 1, 8192]),
    )
    weights = (1.0 - weight, weight)
    steps = chance.choices(chance.choice(STEPS), k=states)
    runs = chance.choices(
        chance.choice([*RUNS, [chance.expovariate(2) for _ in range(50)]]), k=states
    )
    classes = chance.choices(chance.choice([[0], [0, 1], [0, 0, 0, 1]]), k=states + entries)
    busy = chance.randint(0, entries // 3)
    now = chance.choice([0.0, -500.0, 1e7])

    lines: tuple[dict[int, float], dict[int, float]] = ({}, {})  # when a key came, in that order
    flying: list[int] = []
    overtaken = 0
    for key in range(entries):
        heap.push(key, key, classes[-key - 1], now)
        lines[classes[-key - 1]][key] = now
    for state in range(states):
        now += steps[state]
        line = expected_class(heap, lines, weights, now)
        expected = expected_key(heap, line, now)
        if state % 16 == 0:
            for key, since in line.items():
                share = min((now - since) / max_wait, 1.0)
                published = heap.virtual_time(key, now) - wait_weight * (share * share)
                assert heap.priority(key, now) == published
        taken = heap.pop(now)
        assert taken == expected, (seed, state)
        overtaken += next(iter(line)) != taken
        del line[taken]
        flying.append(taken)
        if len(flying) > busy:
            at = state % len(flying)
            flying[at], flying[-1] = flying[-1], flying[at]
            key = flying.pop()
            heap.complete(key, runs[state], now)
            heap.push(key, key, classes[state], now)
            lines[classes[state]][key] = now
    heap.check_valid()
    return overtaken


def expected_class(heap: Any, lines: Any, weights: tuple[float, float], now: float) -> Any:
    if not lines[0] or not lines[1]:
        return lines[0] or lines[1]
    if 0.0 in weights:
        return lines[weights[0] == 0.0]
    score = [heap.class_time(each, now) / weights[each] for each in (0, 1)]
    return lines[score[1] < score[0]]


def expected_key(heap: Any, line: dict[int, float], now: float) -> int:
    """The first of the least: of equals the one that waits longest, which came first."""
    least, expected = inf, -1
    priority = heap.priority
    for key in line:
        mine = priority(key, now)
        if mine < least:
            least, expected = mine, key
    return expected


@pytest.mark.parametrize("half", SIDES)
def test_small_states(half: str) -> None:
    states = STATES[half] * (10 if LONG else 1)
    overtaken = 0
    for seed in range(states // WALK):
        overtaken += walk(half, seed, WALK, 2 + seed % 11)
    # Were it always the oldest, these states would show nothing.
    assert 0.2 * states < overtaken < 0.9 * states


@pytest.mark.parametrize("half", SIDES)
@pytest.mark.parametrize(("entries", "states"), [(40, 2_000), (300, 500), (3_000, 60)])
def test_larger_states(half: str, entries: int, states: int) -> None:
    for seed in range(12 * (10 if LONG else 1)):
        walk(half, 1_000_000 + seed, states, entries)


@pytest.mark.parametrize("half", SIDES)
@pytest.mark.parametrize("noise", ["none", "last bits", "some"])
@pytest.mark.parametrize("entries", [5, 64, 500])
def test_every_entry_is_a_candidate(half: str, noise: str, entries: int) -> None:
    """Boosts that make up for the debts, exactly or but for the last bits: nothing dominates."""
    for seed in range(12):
        chance = random.Random(seed)
        heap = made(half, half_life=inf, cache_size=10_000)
        when = 100.0
        came = sorted(chance.uniform(0.0, when) for _ in range(entries))
        for key, since in enumerate(came):
            share = (when - since) / 120.0
            debt = 200.0 * (share * share)
            if noise == "last bits":
                debt = nextafter(debt, chance.choice([0.0, debt, inf]))
            elif noise == "some":
                debt += chance.uniform(0, 1e-3)
            heap.push(key, key, 0, 0.0)
            heap.pop(0.0)
            heap.complete(key, debt, 0.0)
        line = {}
        for key, since in enumerate(came):
            heap.push(key, key, 0, since)
            line[key] = since
        while line:
            expected = expected_key(heap, line, when)
            assert heap.pop(when) == expected, (seed, len(line))
            del line[expected]
            # The state for the next one differs in time as well, now and then.
            if noise == "some" and chance.random() < 0.1:
                when += chance.uniform(0, 0.01)


@pytest.mark.parametrize("half", SIDES)
def test_withdrawals_leave_the_rest_exact(half: str) -> None:
    for seed in range(60):
        chance = random.Random(seed)
        line: dict[int, float] = {}
        now = 0.0
        heap = made(half, wait_weight=chance.choice(WAIT_WEIGHTS))
        for key in range(400):
            run = chance.choice([0.0, 1.0, 2.0, chance.uniform(0, 50)])
            heap.push(key, key, 0, 0.0)
            heap.complete(heap.pop(0.0), run, 0.0)
        for key in chance.sample(range(400), 400):
            now += chance.choice([0.0, 0.3])
            heap.push(key, key, 0, now)
            line[key] = now
            while line and chance.random() < 0.45:
                if chance.random() < 0.6:
                    gone = chance.choice(list(line))
                    assert heap.withdraw(gone) == gone
                else:
                    gone = expected_key(heap, line, now)
                    assert heap.pop(now) == gone
                del line[gone]
            if key % 40 == 0:
                heap.check_valid()
        while line:
            gone = expected_key(heap, line, now)
            assert heap.pop(now) == gone
            del line[gone]
