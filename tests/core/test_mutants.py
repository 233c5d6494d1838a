"""A test of the tests: each of these faults, put into the pure half, is seen beside the naive model.

``check_valid`` is not asked here: the answers alone must give the fault away.
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.naive_models import NaiveKeyQueue, NaiveOffsetTracker
from tests.core.side_by_side import SideBySide

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = 3_000

KEY_QUEUE_MUTANTS = {
    "single flight dropped": (
        "            followers.append((number, entry))\n",
        "            followers.append((number, entry))\n"
        "            self._ready.append((key, number, entry))\n",
    ),
    "flight not marked": ("self._keys[key] = _IN_FLIGHT", "pass"),
    "flight not marked where more is queued": ("state.in_flight = True", "pass"),
    "flight forgotten when more is queued": (
        "followers.in_flight = state is _IN_FLIGHT",
        "followers.in_flight = False",
    ),
    "last in, first out": ("state.popleft()", "state.pop()"),
    "newest ready key first": (
        "        key, _, entry = ready[0]\n",
        "        ready.rotate()\n        key, _, entry = ready[0]\n",
    ),
    "a key that is done jumps the others": (
        "self._ready.append((key, number, entry))\n        self._ends",
        "self._ready.appendleft((key, number, entry))\n        self._ends",
    ),
    "an idle key remembered": ("            del self._keys[key]\n", "            pass\n"),
    "a busy key forgotten": (
        "        if len(state) == 1:\n            self._keys[key] = _READY\n",
        "        del self._keys[key]\n",
    ),
    "done of what is not in flight": (
        "state is _READY or not state.in_flight",
        "state is _READY",
    ),
    "flights not counted down": ("            self._ends += 1\n            del", "            del"),
    "flights not counted down where more is queued": (
        "        self._ends += 1\n        return True",
        "        return True",
    ),
    "None taken for an entry": ("if entry is None", "if entry is NotImplemented"),
    "a pushed key always called ready": ("return state is None", "return True"),
    "clear out of order": ("numbered.sort(key=_number)", "pass"),
    "clear loses followers": ("numbered.extend(state)", "pass"),
    "clear drops what is in flight": ("kept[key] = state", "pass"),
    "clear drops what is in flight where more is queued": (
        "                if state.in_flight:\n",
        "                if False:\n",
    ),
    "clear leaves keys ready": (
        "        self._ready = deque()\n        self._keys = kept\n",
        "        self._keys = kept\n",
    ),
    "clear leaves entries queued": ("kept[key] = _IN_FLIGHT", "kept[key] = state"),
    "clear does not count": ("self._pushes = self._pops", "pass"),
}

OFFSET_TRACKER_MUTANTS = {
    "committable one too far at the end": ("self._last_admitted + 1)", "self._last_admitted + 2)"),
    "committable one too far in the middle": (
        "next(iter(outstanding), self._last_admitted + 1)",
        "next(iter(outstanding), self._last_admitted) + 1",
    ),
    "committable at the last finished": (
        "next(iter(outstanding), self._last_admitted + 1)",
        "offset + 1",
    ),
    "committable regresses": ("if not outstanding:", "if self._admitted % 7 == 0:"),
    "every completion moves": ("if offset != self._committable:", "if offset is None:"),
    "no completion moves": (
        "            return False\n",
        "            return False\n        return False\n",
    ),
    "an offset admitted twice": (
        "if not self._last_admitted < offset",
        "if not self._last_admitted <= offset",
    ),
    "an offset completed twice": (
        "if offset not in outstanding:",
        "if offset > self._last_admitted:",
    ),
    "an offset never admitted completed": (
        '            raise ValueError(\n                f"complete',
        '            return False\n            raise ValueError(\n                f"complete',
    ),
    "a completion forgotten": ("del outstanding[offset]", "outstanding.move_to_end(offset)"),
    "finished counts the outstanding": (" - len(self._outstanding)\n", "\n"),
    "time of the newest": (
        "in self._outstanding.items()",
        "in reversed(self._outstanding.items())",
    ),
    "time not kept": ("(self._admitted, now)", "(self._admitted, 0.0)"),
    "the highest offset refused": (
        "or offset > MAX_OFFSET:",
        "or offset >= MAX_OFFSET:\n            if offset == MAX_OFFSET: self._refuse(offset)",
    ),
    "an offset too high taken": (
        "< offset <= MAX_OFFSET:\n                self",
        "< offset:\n                self",
    ),
    "nan taken for a time": ("if not -inf < now < inf", "if now in (-inf, inf)"),
    "infinity taken for a time": ("if not -inf < now < inf", "if now != now"),
    "True taken for an offset": (
        'if type(offset) is not int:\n            raise TypeError(f"admit',
        'if not isinstance(offset, int):\n            raise TypeError(f"admit',
    ),
    "admissions miscounted": ("self._admitted += 1", "self._admitted += 1 + (offset % 5 == 0)"),
    "encoded for another offset": ("sealed(body, committed)", "sealed(body, committed + 1)"),
    "True taken for a length": (
        "if type(max_length) is not int",
        "if not isinstance(max_length, int)",
    ),
    "a negative length taken": ("if max_length < 0", "if max_length < -1"),
    "the frame not counted": ("MAX_TEXT) - FRAME)", "MAX_TEXT))"),
    "a character wasted": ("MAX_TEXT) - FRAME)", "MAX_TEXT) - FRAME - 1)"),
    "more encoded than finished": ("if ordinal_of_stop - ordinal > 1", "if True"),
    "the end encoded too early": ("if ordinal_of_stop - ordinal > 1", "if ordinal_of_stop > 1"),
    "a distance one too short": (
        "ordinal_of_stop = self._last_admitted + 1,",
        "ordinal_of_stop = self._last_admitted,",
    ),
    "a distance too long packed": ("if used + len(code) > room", "if used + len(code) > room + 1"),
    "a distance that fits left out": (
        "if used + len(code) > room",
        "if used + len(code) >= room",
    ),
    "the last not cut to fit": ("            if digits > 1:\n", "            if digits < 0:\n"),
    "the last cut too short": ("digits = (room - used + 1) // 2", "digits = (room - used) // 2"),
    "the last cut to a power of two": ('"1" * digits)', '"1" + "0" * (digits - 1))'),
    "unfinished offsets at the end": ("        if distance > 1:\n", "        if distance:\n"),
    "a code too short": ("0{2 * distance.bit_length() - 1}b", "0{2 * distance.bit_length() - 2}b"),
    "the length not rounded up": ("FRAME + -(-bits // 6)", "FRAME + bits // 6"),
    "the length of nothing": ("-(-bits // 6) if bits else 0", "-(-bits // 6)"),
    "completions to come not counted": (
        "self._bits_of_all() + count // 2)",
        "self._bits_of_all())",
    ),
    "admissions not counted": ("(3 * (self._admitted - self._counted) + 1) // 2", "0"),
    "holes not counted": ("self._needed += 2 * (offset", "self._needed += 0 * (offset"),
    "counted once": ("self._count_at = calls +", "self._count_at = 2**80 +"),
    "the higher count kept": ("bits = min(bits, ", "bits = max(0, "),
}


def key_queue_calls(chance: random.Random, naive: NaiveKeyQueue) -> Iterator[tuple[Any, ...]]:
    keys = ["", "a", "b", 1, True, ("a", 1)]
    yield "push", "a", None
    for number in range(CALLS):
        flying = list(naive.flying)
        yield chance.choice(
            [
                ("push", chance.choice(keys), number),
                ("push", chance.choice(keys), number),
                ("pop",),
                ("done", chance.choice(flying or keys)),
                ("done", chance.choice(keys)),
                ("clear",) if chance.random() < 0.1 else ("pop",),
            ]
        )


def offset_tracker_calls(
    chance: random.Random, naive: NaiveOffsetTracker
) -> Iterator[tuple[Any, ...]]:
    last = -1
    for _ in range(150):
        last += chance.choice([1, 1, 1, 2, 7])
        yield "admit", last, chance.uniform(-5, 5)
        for _ in range(chance.choice([0, 1, 1, 2])):
            yield "complete", chance.choice(naive.unfinished or [last])
            yield ("oldest",)
        if chance.random() < 0.3:
            yield "encode_finished", chance.choice([0, 6, 7, 8, 9, 10, 12, 16, 24, 4_096])
            yield ("encoded_length",)
        if chance.random() < 0.1:
            yield "complete", chance.randint(0, last + 2)
            yield "admit", last, 0.0
    # Every second one completed: a count after that is higher than the one before.
    for offset in range(last + 1, last + 301):
        yield "admit", offset, 0.0
    yield ("encoded_length",)
    for offset in range(last + 1, last + 301, 2):
        yield "complete", offset
    last += 310
    for offset in range(last - 9, last + 1):
        yield "admit", offset, 0.0
    yield ("encoded_length",)
    yield "admit", last + 5, 0.0  # with nothing finished behind it
    last += 5
    for max_length in (True, -1, 4_096):
        yield "encode_finished", max_length
    for refused in (True, -1, 2**63):
        yield "admit", refused, 0.0
    for now in (float("nan"), float("inf"), 1):
        yield "admit", last + 1, now
    for offset in list(naive.unfinished):
        yield "complete", offset
        yield ("encoded_length",)
    yield "admit", 2**63 - 1, 0.0
    yield "admit", 2**63, 0.0
    yield ("encoded_length",)


STRUCTURES: dict[str, tuple[str, Any, Any]] = {
    "KeyQueue": ("key_queue_py", NaiveKeyQueue, key_queue_calls),
    "OffsetTracker": ("offset_tracker_py", NaiveOffsetTracker, offset_tracker_calls),
}


def differs(name: str, old: str, new: str) -> str | None:
    """The first difference between the mutant and the naive model, if there is one."""
    module_name, naive_class, calls = STRUCTURES[name]
    original = importlib.import_module(f"prosody._core.{module_name}")
    source = Path(str(original.__file__)).read_text()
    assert source.count(old) == 1, f"{source.count(old)} places to put the mutation: {old!r}"
    mutant = ModuleType(original.__name__)
    exec(compile(source.replace(old, new), f"mutant of {module_name}", "exec"), vars(mutant))
    for seed in range(3):
        naive = naive_class()
        both = SideBySide(name, check=False, naive=naive, mutant=vars(mutant)[name]())
        try:
            for call in calls(random.Random(seed), naive):
                both.call(*call)
        except AssertionError as difference:
            return str(difference)
    return None


@pytest.mark.parametrize("name", list(STRUCTURES))
def test_the_code_as_it_is_shows_no_difference(name: str) -> None:
    assert differs(name, f"class {name}:", f"class {name}:") is None


@pytest.mark.parametrize("mutation", list(KEY_QUEUE_MUTANTS))
def test_a_mutant_of_the_key_queue_is_found(mutation: str) -> None:
    assert differs("KeyQueue", *KEY_QUEUE_MUTANTS[mutation]) is not None


@pytest.mark.parametrize("mutation", list(OFFSET_TRACKER_MUTANTS))
def test_a_mutant_of_the_offset_tracker_is_found(mutation: str) -> None:
    assert differs("OffsetTracker", *OFFSET_TRACKER_MUTANTS[mutation]) is not None
