"""The key queue: both halves against the naive model, then what a model cannot show."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.core.halves import core_class
from tests.core.hostile import Hostile
from tests.core.naive_models import NaiveKeyQueue
from tests.core.side_by_side import SideBySide


class Entry:
    """Compares by identity, so that a mixed-up entry is seen."""

    def __init__(self, name: object = "entry") -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Entry({self.name!r})"


NAN = float("nan")  # equal to itself by identity only, which is what dicts go by
# 1, True and 1.0 are one key; "" is the key of records without one.
KEYS = st.sampled_from(["", "a", "b", "c", b"a", 1, True, 1.0, -1, None, ("a", 1), NAN])
UNHASHABLE = st.sampled_from([[], {}, ("a", [])])


class KeyQueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveKeyQueue()
        self.queues = SideBySide(
            "KeyQueue",
            naive=self.naive,
            cython=core_class("cython", "KeyQueue")(),
            python=core_class("python", "KeyQueue")(),
        )
        self.pushes = 0

    def push_one(self, key: Any) -> None:
        self.pushes += 1
        self.queues.call("push", key, Entry(self.pushes))

    @rule(key=KEYS)
    def push(self, key: Any) -> None:
        self.push_one(key)

    @rule(key=KEYS, count=st.integers(2, 12))
    def push_many_of_one_key(self, key: Any, count: int) -> None:
        for _ in range(count):
            self.push_one(key)

    @rule(keys=st.lists(KEYS, min_size=2, max_size=12))
    def push_many(self, keys: list[Any]) -> None:
        for key in keys:
            self.push_one(key)

    @rule()
    def pop(self) -> None:
        self.queues.call("pop")

    @rule()
    def pop_all(self) -> None:
        while self.queues.call("pop") is not None:
            pass

    @rule(key=KEYS)
    def done_of_any_key(self, key: Any) -> None:
        self.queues.call("done", key)

    @precondition(lambda self: self.naive.flying)
    @rule(index=st.integers(0, 100))
    def done(self, index: int) -> None:
        flying = list(self.naive.flying)
        self.queues.call("done", flying[index % len(flying)])

    @rule()
    def clear(self) -> None:
        self.queues.call("clear")

    @rule(key=KEYS | UNHASHABLE)
    def push_nothing(self, key: Any) -> None:
        self.queues.call("push", key, None)

    @rule(key=UNHASHABLE)
    def push_unhashable(self, key: Any) -> None:
        self.queues.call("push", key, Entry())

    @rule(key=UNHASHABLE)
    def done_unhashable(self, key: Any) -> None:
        self.queues.call("done", key)

    @rule()
    def collect(self) -> None:
        gc.collect(0)
        self.queues.compare()


TestKeyQueueAgainstModel = KeyQueueMachine.TestCase
TestKeyQueueAgainstModel.settings = settings(deadline=None)
# The long profile, and shrinking a failure, take longer than a test otherwise may.
TestKeyQueueAgainstModel.pytestmark = [pytest.mark.timeout(3_600)]


def test_one_entry_of_a_key_is_in_flight_and_keys_take_turns(key_queue: Any) -> None:
    pushed = [key_queue.push(key, entry) for key, entry in [("a", 1), ("a", 2), ("b", 3)]]
    assert pushed == [True, False, True]
    assert [key_queue.pop(), key_queue.pop(), key_queue.pop()] == [1, 3, None]
    assert key_queue.done("a") is True
    assert key_queue.pop() == 2
    assert (key_queue.done("a"), key_queue.done("b")) == (False, False)
    assert (key_queue.queued, key_queue.in_flight, key_queue.keys) == (0, 0, 0)


def test_clear_keeps_what_is_in_flight(key_queue: Any) -> None:
    for key, entry in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)]:
        key_queue.push(key, entry)
    assert key_queue.pop() == 1
    assert key_queue.clear() == [2, 3, 4, 5]
    assert (key_queue.queued, key_queue.in_flight, key_queue.ready, key_queue.keys) == (0, 1, 0, 1)
    assert key_queue.push("a", 6) is False, "still in flight"
    assert key_queue.pop() is None
    assert key_queue.done("a") is True
    assert key_queue.pop() == 6


def test_a_key_whose_comparison_fails_changes_nothing(key_queue: Any) -> None:
    kind = Hostile(fails=False)
    key_queue.push(kind, "entry")
    before = repr(key_queue)
    with pytest.raises(RuntimeError, match="no comparison"):
        key_queue.push(Hostile(fails=True), "other")
    assert repr(key_queue) == before
    key_queue.check_valid()
    assert key_queue.pop() == "entry"
    with pytest.raises(RuntimeError, match="no comparison"):
        key_queue.done(Hostile(fails=True))
    assert key_queue.done(kind) is False
    key_queue.check_valid()


def test_entries_and_keys_die_when_let_go(key_queue: Any) -> None:
    def held(key: Any, *entries: Any) -> list[weakref.ref[Any]]:
        for entry in entries:
            key_queue.push(key, entry)
        return [weakref.ref(each) for each in (key, *entries)]

    key, first, second = held(Entry("key"), Entry(1), Entry(2))
    key_queue.pop()
    assert (first(), second() is None, key() is None) == (None, False, False)
    key_queue.done(key())
    key_queue.pop()
    assert second() is None
    key_queue.done(key())
    assert key() is None

    dropped = held(Entry("key"), *[Entry(number) for number in range(5)])
    assert len(key_queue.clear()) == 5
    assert [reference() for reference in dropped] == [None] * 6


def test_references_are_given_back(key_queue: Any) -> None:
    key, entry = Entry("key"), Entry("entry")
    before = sys.getrefcount(key), sys.getrefcount(entry)
    for _ in range(3):
        for _ in range(4):
            key_queue.push(key, entry)
        assert key_queue.pop() is entry
        assert key_queue.pop() is None
        key_queue.done(key)
        assert key_queue.pop() is entry
        assert len(key_queue.clear()) == 2
        key_queue.done(key)
    assert (sys.getrefcount(key), sys.getrefcount(entry)) == before


def test_cycles_through_the_queue_are_collected(key_queue: Any) -> None:
    queue = type(key_queue)()
    entries = [Entry(queue) for _ in range(6)]
    references = [weakref.ref(queue), *map(weakref.ref, entries)]
    for number, entry in enumerate(entries):
        queue.push(entry if number < 3 else "shared", entry)
    queue.pop()
    gc.collect()
    queue.check_valid()
    assert len(queue.clear()) == 5
    for number, entry in enumerate(entries):
        queue.push("shared", Entry((entry, number)))
    del queue, entries, entry
    gc.collect()
    assert [reference() for reference in references] == [None] * 7


def test_a_key_that_calls_back_while_it_dies_sees_right_counts(key_queue: Any) -> None:
    seen = []

    class Farewell:
        def __del__(self) -> None:
            key_queue.check_valid()
            seen.append((key_queue.queued, key_queue.in_flight, key_queue.keys))

    for _ in range(3):
        key_queue.push(Farewell(), "entry")
    key_queue.clear()
    key_queue.push(key := Farewell(), "entry")
    key_queue.pop()
    holder = [key]
    del key
    key_queue.done(holder.pop())
    assert seen == [(0, 0, 0)] * 4


def test_nothing_is_kept_of_keys_gone_by(key_queue: Any) -> None:
    def run(start: int) -> None:
        for number in range(start, start + 20_000):
            key = f"key-{number}"
            for _ in range(3):
                key_queue.push(key, key)
            for _ in range(2):
                key_queue.done(key_queue.pop())
            if number % 100 == 0:
                key_queue.clear()
        key_queue.clear()

    run(0)  # fills free lists and the like
    gc.collect()
    tracemalloc.start()
    try:
        run(100_000)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50_000, f"{kept} bytes left behind by 20,000 keys"


LONG_CHAINS = """
import threading
from prosody._core.key_queue_{half} import KeyQueue

def drop_chains():
    for drop in (KeyQueue.clear, lambda queue: None):
        queue = KeyQueue()
        for number in range(100_000):
            queue.push("one", number)
            queue.push(number, number)
        drop(queue)
        del queue
    print("alive")

threading.stack_size(256 * 1024)  # the usual 8 MB take a chain of a million to overrun
thread = threading.Thread(target=drop_chains)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("half", ["c", "py"])
def test_dropping_long_chains_does_not_overrun_the_stack(half: str) -> None:
    # In a process of its own, because what is feared is a crash.
    run = subprocess.run(
        [sys.executable, "-c", LONG_CHAINS.format(half=half)],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout.strip(), run.returncode) == ("alive", 0), run.stderr
