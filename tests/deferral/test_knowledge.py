"""Hashes of keys, and what is known exactly."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.deferral import knowledge
from prosody.deferral.hashes import Hashes
from prosody.deferral.knowledge import Knowledge
from prosody.stores.protocol import DeferredKind
from tests.support import FakeRuntime

M = DeferredKind.MESSAGE


@given(st.lists(st.tuples(st.sampled_from("plt"), st.lists(st.integers(0, 5), max_size=4))))
def test_hashes_count(steps: list[tuple[str, list[int]]]) -> None:
    hashes, model = Hashes(), Counter[int]()
    for step, numbers in steps:
        if step == "l":
            hashes.load(numbers)
            model.update(numbers)
            continue
        for number in numbers:
            if step == "p":
                hashes.put(number)
                model[number] += 1
            else:
                hashes.take(number)
                model[number] = max(0, model[number] - 1)
    assert set(hashes) == set(+model)
    assert hashes.total == model.total()


@pytest.fixture
def same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "key_hash", len)


class Wall(FakeRuntime):
    def wall(self) -> float:
        return 5.0


def make() -> Any:
    return Knowledge(8, Wall())


@pytest.mark.usefixtures("same_hash")
def test_two_keys_with_one_hash_are_held_until_both_are_done() -> None:
    known = make()
    known.has_queue(M, "a", new=True)
    assert known.holds(M, "b"), "not known yet"
    known.has_none(M, "b")
    assert not known.holds(M, "b")
    known.has_queue(M, "b", new=True)
    known.lost_queue(M, "a")
    assert not known.holds(M, "a")
    assert known.holds(M, "b")
    known.lost_queue(M, "b")
    assert not known.hashes[M]


def test_a_loaded_hash_is_taken_for_the_keys_own() -> None:
    known = make()
    known.hashes[M].load([knowledge.key_hash("a")])
    known.has_queue(M, "a")
    assert known.hashes[M].total == 1
    assert known.oldest == 5.0
    known.lost_queue(M, "a")
    assert not known.hashes[M]
    assert known.oldest is None


def test_what_is_told_twice_counts_once() -> None:
    known = make()
    known.has_queue(M, "a", new=True)
    known.has_queue(M, "a", new=True)
    known.lost_queue(M, "a")
    known.lost_queue(M, "a")
    assert known.hashes[M].total == 0


def test_kinds_do_not_see_each_other() -> None:
    known = make()
    known.has_queue(M, "a", new=True)
    assert not known.holds(DeferredKind.TIMER, "a")
