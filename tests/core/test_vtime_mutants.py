"""A test of the tests: each of these faults, put into the pure half, is seen beside the naive model.

``check_valid`` is not asked here: the answers alone must give the fault away. What the faults of the
rules do to fairness is seen in ``tests/fairness``.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.naive_vtime import NaiveVirtualTimeHeap
from tests.core.side_by_side import SideBySide
from tests.core.vtime import DEFAULTS
from tests.core.vtime_mutant import PARTS, mutant

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = 1_000

# name: part, what stands there, what is put there instead
MUTANTS: dict[str, tuple[str, str, str]] = {
    # the formula and the choice
    "boost dropped": (
        "staircase_py",
        "return debt * decay - wait_weight * (wait * wait)",
        "return debt * decay",
    ),
    "boost dropped from the scan": (
        "staircase_py",
        "boost = wait_weight * (wait * wait)",
        "boost = 0.0",
    ),
    "boost linear": (
        "staircase_py",
        "boost = wait_weight * (wait * wait)",
        "boost = wait_weight * wait",
    ),
    "boost not saturated": (
        "staircase_py",
        "                wait = 1.0\n            boost",
        "                pass\n            boost",
    ),
    "debt not decayed against the boost": (
        "staircase_py",
        "other = state.debt * decay",
        "other = state.debt",
    ),
    "always the least virtual time": (
        "staircase_py",
        "        chosen = last\n",
        "        return last\n",
    ),
    "always the oldest": ("staircase_py", "        chosen = last\n", "        return 0\n"),
    "the last of equals": (
        "staircase_py",
        "if other <= least and (other < least or step < chosen):",
        "if other < least:",
    ),
    "the last of equals but the last of all": (
        "staircase_py",
        "(other < least or step < chosen)",
        "(other < least or step > chosen)",
    ),
    "the first step not looked at": (
        "staircase_py",
        "        step = 0\n",
        "        step = 1\n",
    ),
    "what a wait makes up for not seen": (
        "staircase_py",
        "(least + boost + margin)",
        "(least + margin)",
    ),
    "a step passed over": ("staircase_py", "/ decay, step + 1)", "/ decay, step + 2)"),
    # lines
    "what was covered is not uncovered": (
        "short_line_py",
        "if not covered or not (least := min(covered)) < bound:",
        "if (least := 0.0) == 0.0:",
    ),
    "what was covered is not uncovered in a long line": (
        "waiting_line_py",
        "if slot + 1 < behind:",
        "if False:",
    ),
    "only the last is uncovered": (
        "short_line_py",
        "        while at:\n",
        "        while False:\n",
    ),
    "only the last is uncovered in a long line": (
        "waiting_line_py",
        "            uncovered.append(states[behind])\n",
        "            uncovered.append(states[behind])\n            break\n",
    ),
    "uncovered what owes more than those before": (
        "short_line_py",
        "bound = steps[step - 1].debt if step else inf",
        "bound = inf",
    ),
    "uncovered what lies behind the next step": (
        "short_line_py",
        "debts[place : bisect_left(self._numbers, steps[step + 1].slot)]",
        "debts[place:]",
    ),
    "minima not lowered": ("waiting_line_py", "elif debt < level[slot]:", "elif False:"),
    "a step that is withdrawn stays": (
        "short_line_py",
        "if step < len(self._steps) and self._steps[step] is state:",
        "if False:",
    ),
    "a step that is withdrawn stays in a long line": (
        "waiting_line_py",
        "self._remove(state, step if is_step else None)",
        "self._remove(state, None)",
    ),
    "what waits lost when much waits": (
        "class_account_py",
        "WaitingLine(self._max_wait, self._wait_weight, self.line.states())",
        "WaitingLine(self._max_wait, self._wait_weight, self.line.states()[1:])",
    ),
    "what waits reversed when little waits": (
        "class_account_py",
        "ShortLine(self._max_wait, self._wait_weight, self.line.states())",
        "ShortLine(self._max_wait, self._wait_weight, self.line.states()[::-1])",
    ),
    "debts not rescaled in line": ("class_account_py", "self.line.rebuild()", "pass"),
    "slots mixed up when the line moves": (
        "waiting_line_py",
        "            state.slot = slot\n",
        "            pass\n",
    ),
    # who is forgotten
    "eviction by age": (
        "idle_keys_py",
        "heappush(self.heap, (state.debt, state.rested, state))",
        "heappush(self.heap, (float(state.rested), state.rested, state))",
    ),
    "eviction of the greatest debt": (
        "idle_keys_py",
        "heappush(self.heap, (state.debt, state.rested, state))",
        "heappush(self.heap, (-state.debt, state.rested, state))",
    ),
    "the new key is never the one forgotten": (
        "idle_keys_py",
        "if forgotten.debt > state.debt:",
        "if False:",
    ),
    "of equals the new one is forgotten": (
        "idle_keys_py",
        "if forgotten.debt > state.debt:",
        "if forgotten.debt >= state.debt:",
    ),
    "of equals the last is forgotten": (
        "idle_keys_py",
        "(state.debt, state.rested, state))\n        return",
        "(state.debt, -state.rested, state))\n        return",
    ),
    "one key too many": (
        "idle_keys_py",
        "if len(states) == self.limit:",
        "if len(states) > self.limit:",
    ),
    "busy keys count as idle": ("vtime_heap_py", "del idle.states[state]", "pass"),
    "busy keys count as idle where there is an order": (
        "idle_keys_py",
        "        del states[state]\n",
        "",
    ),
    "more keys than there is room for": (
        "vtime_heap_py",
        "len(states) < idle.limit",
        "len(states) <= idle.limit",
    ),
    "the order of the idle is that of an older one": (
        "idle_keys_py",
        "            state.rested = rested\n",
        "            state.rested = max(state.rested, rested)\n",
    ),
    "order of the idle kept over a new landmark": (
        "vtime_heap_py",
        "self._idle.rescaled()",
        "pass",
    ),
    # what is charged
    "charge dropped": ("vtime_heap_py", "state.debt += state", "state.debt += 0.0 * state"),
    "charge of another landmark": ("vtime_heap_py", "growth = exp(LN2 *", "growth = exp(-LN2 *"),
    "class not charged": ("class_account_py", "self.settled += charge", "self.settled += 0.0"),
    "estimate not charged": (
        "class_account_py",
        "self.estimated += charge",
        "self.estimated += 0.0",
    ),
    "estimate not given back": (
        "class_account_py",
        "left = self.estimated - charge",
        "left = self.estimated",
    ),
    "estimate not replaced": (
        "class_account_py",
        "estimated = self.estimated - charge",
        "estimated = self.estimated",
    ),
    "rounding left over": (
        "class_account_py",
        "left if self.dispatched and left > 0.0 else 0.0",
        "left if left > 0.0 else 0.0",
    ),
    "mean over all time": ("class_account_py", "if self.runs < ESTIMATE_RUNS:", "if True:"),
    "estimate of the last run": (
        "class_account_py",
        "(used - self.mean_run) / self.runs",
        "used - self.mean_run",
    ),
    "class time not decayed": ("class_account_py", "* decay\n", "\n"),
    "class time not rescaled": ("class_account_py", "self.settled *= factor", "pass"),
    "estimates not rescaled": ("class_account_py", "self.estimated *= factor", "pass"),
    "class weights ignored": (
        "class_account_py",
        "self.time(decay) / self.weight",
        "self.time(decay)",
    ),
    "weight 0 is like any other": (
        "class_account_py",
        "            return inf\n",
        "            return self.time(decay)\n",
    ),
    # time
    "decay dropped": ("decay_clock_py", "return exp(-LN2 * self._half_lives(now))", "return 1.0"),
    "decay dropped from the choice": ("vtime_heap_py", "decay = exp(-LN2 * passed)", "decay = 1.0"),
    "time goes back": (
        "decay_clock_py",
        "            return self._latest\n        self._latest = now",
        "            return now\n        self._latest = now",
    ),
    "a look moves time": (
        "vtime_heap_py",
        'max(seconds("virtual_time: now", now), self._latest)',
        'self._advance(seconds("virtual_time: now", now))',
    ),
    "landmark never moved": (
        "decay_clock_py",
        "        self._landmark = now\n",
        "        self._landmark = max(self._landmark, 0.0)\n",
    ),
    "debts not rescaled": (
        "vtime_heap_py",
        "            state.debt *= factor\n",
        "            pass\n",
    ),
    "charges not rescaled": ("vtime_heap_py", "            state.charge *= factor\n", ""),
    # classes and states
    "class split ignored": ("vtime_heap_py", "failure.score(decay) < chosen.score(decay)", "False"),
    "failure first when equal": (
        "vtime_heap_py",
        "failure.score(decay) < chosen.score(decay)",
        "failure.score(decay) <= chosen.score(decay)",
    ),
    "classes swapped when one is empty": ("vtime_heap_py", "failing == waiting or ", ""),
    "a second entry taken": (
        "vtime_heap_py",
        "        elif state.status == IDLE:\n",
        "        elif state.status != WAITING:\n",
    ),
    "completed before dispatched": (
        "vtime_heap_py",
        'state.status != DISPATCHED:\n            raise KeyError(f"complete',
        'state.status == IDLE:\n            raise KeyError(f"complete',
    ),
    "keys that owe nothing remembered": (
        "vtime_heap_py",
        "if state.debt == 0.0:",
        "if state.debt < 0.0:",
    ),
    "a longest run of any length": (
        "vtime_heap_py",
        'min(run_seconds("complete: used", used), LONGEST_RUN_S)',
        'run_seconds("complete: used", used)',
    ),
    "a negative run taken": (
        "vtime_heap_py",
        "not 0.0 <= used <= LONGEST",
        "not -inf < used <= LONGEST",
    ),
    "nan taken for a time": (
        "vtime_heap_py",
        'self._advance(seconds("pop: now", now))',
        "self._advance(now)",
    ),
}

PARAMETERS: list[dict[str, Any]] = [
    {},
    {"wait_weight": 5.0, "max_wait": 10.0, "cache_size": 3},
    {"failure_weight": 0.0, "cache_size": 2},
    {"failure_weight": 1.0, "half_life": 1.0},
    {"half_life": 0.05, "cache_size": 4},
    {"half_life": float("inf"), "wait_weight": 1.0},
    {"half_life": 1.0, "wait_weight": 0.0},
]


def calls(chance: random.Random, naive: NaiveVirtualTimeHeap) -> Iterator[tuple[Any, ...]]:
    """Mostly a closed loop, at times a queue of a hundred, with calls that must be refused."""
    keys = [f"k{number}" for number in range(chance.choice([4, 12, 150]))]
    runs = chance.choice(
        [[0.0, 1.0, 1.0, 2.0], [0.05, 0.0501, 30.0], [chance.uniform(0, 9) for _ in keys]]
    )
    steps = chance.choice([[0.0, 1.0], [0.0016, 0.01], [0.5, 3.0, 9.0], [2.0, 40.0]])
    now = 0.0
    for number in range(CALLS):
        now += chance.choice(steps)
        if chance.random() < 0.004:
            now += chance.choice([600.0, 70_000.0])
        flying, waiting = list(naive.flying), list(naive.lines)
        kind = chance.random()
        if kind < 0.4:
            yield "push", chance.choice(keys), number, chance.choice([0, 0, 1]), now
        elif kind < 0.65:
            yield "pop", now
        elif kind < 0.85 and flying:
            yield "complete", chance.choice(flying), chance.choice(runs), now
        elif kind < 0.9 and flying:
            yield "give_back", chance.choice(flying), now
        elif kind < 0.95 and waiting:
            yield "withdraw", chance.choice(waiting)
        else:
            yield "virtual_time", chance.choice(keys), now + chance.choice([-1.0, 0.0, 5.0])
            yield "class_time", chance.choice([0, 1]), now
            if waiting:
                yield "priority", chance.choice(waiting), now
    for key in [*naive.lines][:3]:
        yield "complete", key, 1.0, now
        yield "push", key, number, 0, now
    yield "push", "new", number, 0, now - 50.0
    yield "priority", "new", now + 1.0
    for _ in range(len(naive.lines)):
        yield "pop", now
    yield "push", next(iter(naive.flying)), number, 0, now
    yield "complete", next(iter(naive.flying)), -1.0, now
    yield "complete", next(iter(naive.flying)), 1e300, now
    yield "pop", float("nan")
    yield "class_time", 0, now


def staircase_calls(
    chance: random.Random, naive: NaiveVirtualTimeHeap
) -> Iterator[tuple[Any, ...]]:
    """Boosts that make up for the debts at one time, for some keys but for a little."""
    when = naive.max_wait * 0.9
    favoured = chance.choice([0.0, 0.03, 0.5])
    came = sorted(chance.uniform(0.0, when) for _ in range(110))
    for number, since in enumerate(came):
        share = (when - since) / naive.max_wait
        yield "push", number, number, 0, 0.0
        yield "pop", 0.0
        debt = naive.wait_weight * (share * share)
        less = 0.01 * chance.random() if chance.random() < favoured else 0.0
        yield "complete", number, max(0.0, debt - less * naive.wait_weight), 0.0
    for number, since in enumerate(came):
        yield "push", number, number, 0, since
    for _ in came:
        yield "pop", when


def long_line_calls(
    chance: random.Random, naive: NaiveVirtualTimeHeap
) -> Iterator[tuple[Any, ...]]:
    """Many that wait, most of them since before the landmark moved, and are taken in turn."""
    keys = list(range(190))  # so that the line is not rebuilt for want of room
    for key in keys:
        yield "push", key, key, 0, 0.0
        yield "pop", 0.0
        yield "complete", key, chance.choice([chance.random(), 1.0]), 0.0
    for key in keys[:150]:
        yield "push", key, key, 0, 0.0
    now = 600.0 * min(naive.half_life, 1e3)
    for key in keys[150:]:
        yield "push", key, key, 0, now
    for key in chance.sample(keys, 20):
        yield "withdraw", key
    for _ in range(170):
        yield "pop", now


def differs(part: str, old: str, new: str) -> str | None:
    """The first difference between the mutant and the naive model, if there is one."""
    # Every sequence of long lines fits into a short one of the size that there is.
    cls = mutant(part, (old, new), short=0 if part == "waiting_line_py" else 100)
    for seed in range(5):
        for given in PARAMETERS:
            for sequence in (staircase_calls, long_line_calls, calls):
                parameters = {**DEFAULTS, **given}
                naive = NaiveVirtualTimeHeap(**parameters)
                both = SideBySide(
                    "VirtualTimeHeap", check=False, naive=naive, mutant=cls(**parameters)
                )
                try:
                    for call in sequence(random.Random(seed), naive):
                        both.call(*call)
                # A mutant may also fall over: that is seen as well.
                except Exception as difference:
                    return str(difference) or repr(difference)
    return None


def test_the_code_as_it_is_shows_no_difference() -> None:
    assert (
        differs(
            PARTS[0],
            "from __future__ import annotations\n",
            "from __future__ import annotations\n\n",
        )
        is None
    )


@pytest.mark.parametrize("mutation", list(MUTANTS))
def test_a_mutant_is_found(mutation: str) -> None:
    assert differs(*MUTANTS[mutation]) is not None
