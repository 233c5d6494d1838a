"""What fairness means, as figures: each property is the worst that was seen over what is allowed.

So a property holds while its figure is at most 1. Formulas: ``c`` longest run, ``D`` slots, ``W``
``wait_weight``, ``M`` ``max_wait``, ``w`` longest wait, ``lambda`` = ln 2 / half-life, ``S`` service.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from math import inf, log
from typing import TYPE_CHECKING, Any

from tests.fairness.closed_loop import DEFAULTS, FAILURE, NORMAL, PLAIN, Simulation, widest_gap

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

HANDLERS = ("exponential", "pareto")
SLOTS = (1, 4, 16, 32)


def handler(kind: str, chance: random.Random, mean: Callable[[Any], float]) -> Any:
    """Lengths of runs of a key: exponential, or Pareto(1.5), whose variance is infinite."""
    if kind == "exponential":
        return lambda key: chance.expovariate(1.0) * mean(key) + 1e-6
    return lambda key: chance.paretovariate(1.5) / 3.0 * mean(key)


def pairwise_gap(
    cls: Any,
    *,
    slots: int,
    kind: str,
    seed: int = 1,
    keys: int = 40,
    rounds: int = 60,
    **given: Any,
) -> float:
    """|S_f - S_g| <= c_f + c_g + W (w/M)^2 + lambda T (c_f + c_g), for all pairs and intervals."""
    # Every other key has runs four times as long: equal shares are not equal counts.
    lasts = handler(kind, random.Random(seed), lambda key: 0.4 if key % 2 else 0.1)
    until = rounds * keys * 0.25 / min(slots, keys)
    return _worst_pair(cls, slots, keys, lasts, until, {**DEFAULTS, **given})


def long_against_short(cls: Any, *, until: float = 3_600.0, **given: Any) -> float:
    """The same with one slot, four keys of 10 s handlers and four of 0.1 s: the worst there is.

    With decay and boost together the last term is lambda T (c_f + c_g + W (w/M)^2). For with one slot,
    whenever f is picked v_f <= v_g + W (w/M)^2, so that v_f - v_g stays below c_f + W (w/M)^2; and a
    service is what virtual time gained and what decay took of it, so that decay adds to S_f - S_g
    lambda times the integral of v_f - v_g: the part of it that the boost made counts like any other.
    """
    parameters = {**DEFAULTS, **given}
    return _worst_pair(
        cls, 1, 8, lambda key: 10.0 if key % 2 else 0.1, until, parameters, boost_decays=True
    )


def _worst_pair(
    cls: Any,
    slots: int,
    keys: int,
    lasts: Any,
    until: float,
    parameters: dict[str, Any],
    *,
    boost_decays: bool = False,
) -> float:
    names = range(keys)
    simulation = Simulation(
        cls(**parameters),
        slots=slots,
        until=until,
        first=[(key, NORMAL) for key in names],
        lasts=lasts,
    )
    served: dict[Hashable, list[tuple[float, float]]] = {key: [] for key in names}
    longest = dict.fromkeys(names, 0.0)
    for run in simulation.runs:
        served[run.key].append((run.begin, min(run.end, until)))
        longest[run.key] = max(longest[run.key], run.end - run.begin)
    wait = min(max(simulation.waits()) / parameters["max_wait"], 1.0)
    boost = parameters["wait_weight"] * wait**2
    rate = log(2) / parameters["half_life"]
    worst = 0.0
    for one, other in itertools.combinations(names, 2):
        runs = longest[one] + longest[other]
        decayed = rate * (runs + boost if boost_decays else runs)
        gap = widest_gap(served[one], served[other], allowance=decayed)
        worst = max(worst, gap / (runs + boost))
    return worst


def class_shares(
    cls: Any, *, slots: int, kind: str, seed: int = 1, given_back: float = 0.0
) -> float:
    """|N/0.7 - F/0.3| <= (D + 1) (c_N/0.7 + c_F/0.3), for all intervals, both classes backlogged."""
    chance = random.Random(seed)
    lasts = handler(kind, chance, lambda key: 0.1 if key % 2 else 0.25)
    back = (lambda key: key % 2 == 0 and chance.random() < given_back) if given_back else None
    simulation = Simulation(
        cls(**{**DEFAULTS, "half_life": inf}),
        slots=slots,
        until=2_500 * 0.15 / slots,
        first=[(key, FAILURE if key % 2 else NORMAL) for key in range(4 * slots)],
        lasts=lasts,
        gives_back=back,
    )
    return _share_error(simulation, slots)


def shares_with_entries_given_back(cls: Any) -> float:
    """The same bound with half of the normal entries given back: an estimate must not stay charged."""
    return class_shares(cls, slots=4, kind="exponential", given_back=0.5)


def _share_error(simulation: Simulation, slots: int) -> float:
    def normal(run: Any) -> bool:
        return bool(run.work_class == NORMAL)

    def failure(run: Any) -> bool:
        return bool(run.work_class == FAILURE)

    gap = widest_gap(
        simulation.served(normal), simulation.served(failure), up=1 / 0.7, down=1 / 0.3
    )
    longest = simulation.longest(normal) / 0.7 + simulation.longest(failure) / 0.3
    return gap / ((slots + 1) * longest)


def failure_storm(cls: Any) -> float:
    """Half of the keys fail: over any 60 s normal work has 70 % of the time, give or take 2 %."""
    chance = random.Random(3)
    simulation = Simulation(
        cls(**DEFAULTS),
        slots=32,
        until=180.0,
        first=[(key, FAILURE if key % 2 else NORMAL) for key in range(200)],
        lasts=handler("exponential", chance, lambda key: 0.2 if key % 2 else 0.1),
    )
    normal = simulation.served(lambda run: run.work_class == NORMAL)
    every = simulation.served(lambda run: True)
    worst = 0.0
    for begin in range(0, 121, 5):
        share = _within(normal, begin, begin + 60) / _within(every, begin, begin + 60)
        worst = max(worst, abs(share - 0.7) / 0.02)
    return worst


def _within(runs: list[tuple[float, float]], begin: float, end: float) -> float:
    return sum(max(0.0, min(until, end) - max(since, begin)) for since, until in runs)


def starvation(cls: Any, *, slots: int = 4, debt: float = 173.1) -> float:
    """Under a flood of fresh keys nothing waits longer than 87 s + B c/D, B keys waiting.

    Ten keys have run for long, owe all that a key can owe, and are queued with fresh ones; each run
    that ends is followed by a key never seen before, which owes nothing.
    """
    heap = cls(**DEFAULTS)
    for key in range(10):
        heap.push(key, key, NORMAL, 0.0)
        heap.pop(0.0)
        heap.complete(key, debt, 0.0)
    fresh = itertools.count(1_000)
    longest = 1.0
    chance = random.Random(5)
    simulation = Simulation(
        heap,
        slots=slots,
        until=260.0,
        first=[*((key, NORMAL) for key in range(10)), *((next(fresh), NORMAL) for _ in range(54))],
        lasts=lambda key: chance.uniform(0.5, longest),
        after=lambda key, work_class, now: [(next(fresh), NORMAL)],
    )
    bound = 87.0 + simulation.waiting_most * longest / slots
    return max(simulation.waits()) / bound


def virtual_time_bound(cls: Any) -> float:
    """A key that runs without a pause owes at most half-life / ln 2, which the boost outweighs."""
    heap = cls(**DEFAULTS)
    worst = 0.0
    for number in range(2_000):
        now = float(number)
        heap.push("key", "key", NORMAL, now)
        heap.pop(now)
        heap.complete("key", 1.0, now + 1.0)
        worst = max(worst, heap.virtual_time("key", now + 1.0))
    # The last run is charged in full at its end.
    return worst / (120.0 / log(2) + 1.0)


def flooded_cache(cls: Any) -> float:
    """A key that drops out of sight behind a flood of fresh keys still owes what it used.

    It runs for 10 s and comes back only after 40 keys never seen before, in a memory of 32 keys. The
    other one is backlogged all the time with runs of 1 s: never may the first be ahead by more
    than one run of each.
    """
    fresh = itertools.count(1_000)
    flood: set[int] = set()

    def after(key: Any, work_class: int, now: float) -> list[tuple[Any, int]]:
        if key == "greedy":
            flood.update(itertools.islice(fresh, 40))
            return [(each, NORMAL) for each in sorted(flood)]
        if key == "steady":
            return [("steady", NORMAL)]
        flood.remove(key)
        return [] if flood else [("greedy", NORMAL)]

    simulation = Simulation(
        cls(**{**PLAIN, "cache_size": 32}),
        slots=1,
        until=1_000.0,
        first=[("steady", NORMAL), ("greedy", NORMAL)],
        lasts=lambda key: {"greedy": 10.0, "steady": 1.0}.get(key, 0.001),
        after=after,
    )
    greedy = simulation.served(lambda run: run.key == "greedy")
    steady = simulation.served(lambda run: run.key == "steady")
    assert len(greedy) > 3
    ahead = 0.0
    for _, end in greedy:
        ahead = max(ahead, _within(greedy, 0.0, end) - _within(steady, 0.0, end))
    return ahead / 11.0


def jain_index(cls: Any) -> float:
    """Of 100 backlogged keys over 60 s: at least 0.99, though their runs differ twentyfold."""
    chance = random.Random(7)
    simulation = Simulation(
        cls(**DEFAULTS),
        slots=32,
        until=60.0,
        first=[(key, NORMAL) for key in range(100)],
        lasts=handler("exponential", chance, lambda key: 0.01 * (1 + key % 20)),
    )
    shares = [
        sum(end - begin for begin, end in simulation.served(lambda run, key=key: run.key == key))
        for key in range(100)
    ]
    index = sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
    return (1.0 - index) / 0.01


def quiet_keys(cls: Any, *, until: float = 120.0) -> float:
    """The 99th percentile of what quiet keys wait grows by at most half when one key floods.

    200 keys ask now and then, for 85 % of 32 slots; the noisy one has something queued all the time.
    """
    return _quiet_wait(cls, until, noisy=True) / (1.5 * _quiet_wait(cls, until, noisy=False))


def _quiet_wait(cls: Any, until: float, *, noisy: bool) -> float:
    chance = random.Random(11)
    heap = cls(**DEFAULTS)
    arrivals: list[tuple[float, int]] = []
    now = 0.0
    while now < until:
        now += chance.expovariate(0.85 * 32 / 0.05)
        arrivals.append((now, chance.randrange(200)))
    lengths = [chance.expovariate(1 / 0.05) for _ in arrivals]
    queues: dict[int, deque[tuple[float, float]]] = {}
    waits: list[float] = []
    ends: list[tuple[float, int, float]] = []
    free = 32
    following = 0
    if noisy:
        heap.push(-1, -1, NORMAL, 0.0)
    while following < len(arrivals):
        if ends and ends[0][0] <= arrivals[following][0]:
            now, key, used = heapq.heappop(ends)
            heap.complete(key, used, now)
            free += 1
            if key < 0:
                heap.push(key, key, NORMAL, now)
            else:
                queues[key].popleft()
                if queues[key]:
                    heap.push(key, key, NORMAL, now)
        else:
            now, key = arrivals[following]
            queue = queues.setdefault(key, deque())
            queue.append((now, lengths[following]))
            following += 1
            if len(queue) == 1:
                heap.push(key, key, NORMAL, now)
        while free and (key := heap.pop(now)) is not None:
            free -= 1
            came, used = (now, 0.05) if key < 0 else queues[key][0]
            if key >= 0:
                waits.append(now - came)
            heapq.heappush(ends, (now + used, key, used))
    waits.sort()
    return waits[int(0.99 * len(waits))]
