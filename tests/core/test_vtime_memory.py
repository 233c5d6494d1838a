"""The virtual-time heap as an object: final, complete from birth, and nothing kept of what has gone."""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
import weakref
from typing import Any

import pytest

from tests.core.halves import HALVES
from tests.core.hostile import Hostile
from tests.core.vtime import FAILURE, NORMAL, made

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
# Each is pushed, and popped or withdrawn, and ended: three operations. 10,000,000 in the long run.
KEYS_GONE_BY = 3_400_000 if LONG else 20_000


@pytest.fixture(params=list(HALVES))
def half(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Entry:
    """Can be referred to weakly, and can refer to others."""

    def __init__(self, other: object = None) -> None:
        self.other = other


def test_asked_before_any_time_is_known(half: str) -> None:
    assert made(half).class_time(FAILURE, -5.0) == 0.0
    assert made(half, half_life=float("inf")).class_time(FAILURE, -5.0) == 0.0


def test_references_are_given_back(half: str) -> None:
    key, entry = Entry(), Entry()
    heap = made(half, cache_size=2)
    before = sys.getrefcount(key), sys.getrefcount(entry)
    for used in (0.0, 1.0, 0.0):
        for _ in range(3):
            heap.push(key, entry, FAILURE, 0.0)
            assert heap.withdraw(key) is entry
            heap.push(key, entry, NORMAL, 0.0)
            assert heap.pop(0.0) is entry
            heap.give_back(key, 0.0)
            heap.push(key, entry, NORMAL, 0.0)
            assert heap.pop(0.0) is entry
            heap.complete(key, used, 0.0)
        # Debts that crowd out the one of ``key``.
        for number in range(2):
            heap.push(number, "entry", NORMAL, 0.0)
            heap.pop(0.0)
            heap.complete(number, 1e6, 0.0)
    assert heap.remembered == 2
    assert (sys.getrefcount(key), sys.getrefcount(entry)) == before


def test_keys_and_entries_die_when_let_go(half: str) -> None:
    heap = made(half)

    def held() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        key, entry = Entry(), Entry()
        heap.push(key, entry, NORMAL, 0.0)
        return weakref.ref(key), weakref.ref(entry)

    key, entry = held()
    assert (heap.withdraw(key()) is entry(), key(), entry()) == (True, None, None)
    key, entry = held()
    heap.pop(0.0)
    assert (entry(), key() is None) == (None, False)
    heap.complete(key(), 1.0, 0.0)
    assert key() is not None, "it owes something"
    heap.push(key(), "entry", NORMAL, 1e9)
    heap.pop(1e9)
    heap.complete(key(), 0.0, 1e9)
    assert key() is None


def test_a_key_that_calls_back_while_it_dies_sees_right_counts(half: str) -> None:
    heap = made(half, cache_size=1)
    seen = []

    class Farewell:
        def __del__(self) -> None:
            heap.check_valid()
            seen.append((heap.waiting, heap.dispatched, heap.remembered))

    for used in (1.0, 2.0, 1.0, 0.0):
        holder = [Farewell()]
        heap.push(holder[0], "entry", NORMAL, 0.0)
        heap.pop(0.0)
        heap.complete(holder[0], used, 0.0)
        holder.clear()
    # 1 goes when 2 comes; the second 1 and 0 go at once.
    assert seen == [(0, 0, 1)] * 3


def test_cycles_through_the_heap_are_collected(half: str) -> None:
    heap = made(half)
    entries = [Entry(heap) for _ in range(40)]
    references = [weakref.ref(heap), *map(weakref.ref, entries)]
    for number, entry in enumerate(entries):
        heap.push(entry, Entry(entry), number % 2, 0.0)
    for _ in range(20):
        key = heap.pop(0.0).other
        if heap.dispatched > 10:
            heap.complete(key, 1.0, 0.0)
    gc.collect()
    heap.check_valid()
    del heap, entries, entry, key
    gc.collect()
    assert [reference() for reference in references] == [None] * 41


def test_a_key_whose_comparison_fails_changes_nothing(half: str) -> None:
    heap = made(half)
    kind, hostile = Hostile(fails=False), Hostile(fails=True)
    heap.push(kind, "entry", NORMAL, 1.0)
    before = repr(heap)
    for attempt in (
        lambda: heap.push(hostile, "other", NORMAL, 99.0),
        lambda: heap.withdraw(hostile),
        lambda: heap.complete(hostile, 1.0, 99.0),
        lambda: heap.give_back(hostile, 99.0),
        lambda: heap.priority(hostile, 99.0),
        lambda: heap.virtual_time(hostile, 99.0),
    ):
        with pytest.raises(RuntimeError, match="no comparison"):
            attempt()
        assert repr(heap) == before
        heap.check_valid()
    assert heap.priority(kind, 1.0) == 0.0, "time has not moved"
    assert heap.pop(1.0) == "entry"


@pytest.mark.timeout(3_600 if LONG else 120)
def test_nothing_is_kept_of_keys_gone_by(half: str) -> None:
    heap = made(half, cache_size=16)

    def churn(start: int, count: int) -> None:
        for number in range(start, start + count):
            key = f"key-{number}"
            now = float(number)
            heap.push(key, key, number % 2, now)
            if number % 5 == 0:
                heap.withdraw(key)
            elif number % 5 == 1:
                heap.give_back(heap.pop(now), now)
            else:
                heap.complete(heap.pop(now), number % 7 / 4, now)

    churn(0, 2_000)  # fills free lists and the like
    gc.collect()
    tracemalloc.start()
    try:
        churn(1_000_000, KEYS_GONE_BY)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50_000, f"{kept} bytes left behind by {KEYS_GONE_BY} keys"


def test_memory_of_a_flood_is_given_back(half: str) -> None:
    heap = made(half)
    tracemalloc.start()
    try:
        for number in range(20_000):
            heap.push(number, "entry", number % 2, float(number))
        full, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            heap.withdraw(number)
        heap.check_valid()
        empty, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert full > 1_000_000
    # The dict of keys keeps its table until it grows next.
    assert empty < 1_200_000, f"{empty} bytes of {full} left"
