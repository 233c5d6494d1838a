"""Sharing out: even, sticky, spread over the topics, and the same answer all the way towards it."""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosody.broker import balance as balance_module
from prosody.broker.balance import balance
from prosody.broker.protocol import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hypothesis.strategies import DrawFn

GROUPS = 1500


class Group:
    """Who subscribes to what, and what each member has."""

    def __init__(
        self, counts: dict[str, int], wishes: list[set[str]], owner: dict[TopicPartition, int]
    ) -> None:
        self.counts = counts
        self.wishes = wishes
        self.owner = owner

    def __repr__(self) -> str:
        return f"Group({self.counts!r}, {self.wishes!r}, {self.owner!r})"

    @property
    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(t, n) for t, count in self.counts.items() for n in range(count)]

    @property
    def subscribers(self) -> dict[str, list[int]]:
        return {t: [m for m, wish in enumerate(self.wishes) if t in wish] for t in self.counts}

    def target(self, owner: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return balance(self.partitions, self.subscribers, owner, {})


@st.composite
def groups(
    draw: DrawFn, *, members: int = 6, partitions: int = 9, same_topics: bool = False
) -> Group:
    counts = draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, partitions), min_size=1))
    wish = st.just(set(counts)) if same_topics else st.sets(st.sampled_from(sorted(counts)))
    wishes = draw(st.lists(wish, min_size=1, max_size=members))
    group = Group(counts, wishes, {})
    owners = st.one_of(st.none(), st.integers(0, len(wishes) - 1))
    # Also of members that do not subscribe any more.
    group.owner = {tp: m for tp in group.partitions if (m := draw(owners)) is not None}
    return group


def squares(target: Mapping[Any, int]) -> int:
    return sum(load * load for load in Counter(target.values()).values())


@given(group=groups(members=3, partitions=2))
@settings(max_examples=300)
def test_no_other_way_is_more_even(group: Group) -> None:
    target = group.target(group.owner)
    able = [tp for tp in group.partitions if group.subscribers[tp.topic]]
    assert set(target) == set(able)
    choices = [group.subscribers[tp.topic] for tp in able]
    ways = itertools.product(*choices)
    assert squares(target) == min(squares(dict(zip(able, way, strict=True))) for way in ways)


@given(group=groups(members=3, partitions=2))
def test_nothing_moves_that_could_have_stayed(group: Group) -> None:
    """No even way keeps all that was kept and one partition more."""
    target = group.target(group.owner)
    able = [tp for tp in group.partitions if group.subscribers[tp.topic]]
    kept = {tp for tp in able if group.owner.get(tp) == target[tp]}
    for way in itertools.product(*[group.subscribers[tp.topic] for tp in able]):
        other = dict(zip(able, way, strict=True))
        if squares(other) == squares(target):
            assert not {tp for tp in able if group.owner.get(tp) == other[tp]} > kept


@given(group=groups(members=8, same_topics=True))
def test_as_few_move_as_can(group: Group) -> None:
    target = group.target(group.owner)
    held = Counter(group.owner.values())
    low, extra = divmod(len(group.partitions), len(group.wishes))
    above = [held[m] - low for m in range(len(group.wishes)) if held[m] > low]
    moved = sum(target[tp] != owner for tp, owner in group.owner.items())
    assert moved == sum(above) - min(extra, len(above))


def random_group(chance: random.Random) -> Group:
    counts = {t: chance.randint(1, 9) for t in "abcd"[: chance.randint(1, 4)]}
    alike = chance.random() < 0.4
    wishes = [
        {t for t in counts if alike or chance.random() < 0.6} for _ in range(chance.randint(1, 7))
    ]
    group = Group(counts, wishes, {})
    few = chance.sample(range(len(wishes)), chance.randint(1, len(wishes)))
    group.owner = {tp: chance.choice(few) for tp in group.partitions if chance.random() < 0.8}
    return group


def on_the_way(
    chance: random.Random,
    owner: Mapping[TopicPartition, int],
    target: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """Any state between two: each partition that moves has moved, or has been let go of, or has not."""
    states = {
        tp: taker if owner.get(tp) == taker else chance.choice([owner.get(tp), None, taker])
        for tp, taker in target.items()
    }
    return {tp: now for tp, now in states.items() if now is not None}


def first_broken_word() -> str | None:
    """The first group whose target changes on the way to it; None when none does."""
    for seed in range(GROUPS):
        chance = random.Random(seed)
        group = random_group(chance)
        target = group.target(group.owner)
        if group.target(target) != target or any(
            group.target(on_the_way(chance, group.owner, target)) != target for _ in range(3)
        ):
            return f"seed {seed}: {group}"
    return None


def test_the_answer_is_the_same_all_the_way() -> None:
    assert first_broken_word() is None


WORD_BREAKERS = {
    "the rest is as it happens to be": (
        "        while open_:\n",
        "        self._promised = self._share\n        while False:\n",
    ),
    "the last are kept first": ("in sorted(found)]", "in sorted(found, reverse=True)]"),
    "who has more is heard first": (
        "found.append((nth / size[tp.topic], ",
        "found.append((-sum(1 for m in wishes.values() if m == owner), ",
    ),
    "the rest is dealt in turn": (
        "iter([n for n, count in enumerate(row) for _ in range(count)])",
        "iter(sorted([n for n, count in enumerate(row) for _ in range(count)], "
        "key=lambda n, seen={}: (seen.setdefault(n, []).append(n) or len(seen[n]), n)))",
    ),
}


@pytest.mark.parametrize("mutant", list(WORD_BREAKERS))
def test_a_mutant_that_changes_its_mind_is_seen(
    mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "balance", mutated(*WORD_BREAKERS[mutant]))
    assert first_broken_word() is not None


def mutated(old: str, new: str) -> Callable[..., Any]:
    source = Path(balance_module.__file__).read_text()
    assert source.count(old) == 1, f"{source.count(old)} places for the change: {old!r}"
    mutant = ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant of balance", "exec"), vars(mutant))
    found: Callable[..., Any] = mutant.balance
    return found


def spread(target: Mapping[TopicPartition, str]) -> dict[str, list[int]]:
    """Topic -> how many of it each member has, fewest first."""
    found: dict[str, Counter[str]] = {}
    for tp, owner in target.items():
        found.setdefault(tp.topic, Counter())[owner] += 1
    return {topic: sorted(counts.values()) for topic, counts in found.items()}


def everything(counts: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(t, n) for t, count in counts.items() for n in range(count)]


def joins(counts: Mapping[str, int], sizes: Sequence[int]) -> list[dict[TopicPartition, str]]:
    """The targets of a group that grows to each of the sizes in turn."""
    targets: list[dict[TopicPartition, str]] = [{}]
    for size in sizes:
        members = [f"m{n}" for n in range(size)]
        subscribers = dict.fromkeys(counts, members)
        targets.append(balance(everything(counts), subscribers, targets[-1], {}))
    return targets[1:]


@pytest.mark.parametrize("counts", [{"a": 12, "b": 12}, {"a": 60, "b": 6, "c": 12}])
@pytest.mark.parametrize("sizes", [[1, 2], [2], [1, 2, 3], [3], [3, 2, 1, 2]])
def test_each_topic_spreads_over_the_members(counts: dict[str, int], sizes: list[int]) -> None:
    target = joins(counts, sizes)[-1]
    for topic, loads in spread(target).items():
        assert len(loads) == sizes[-1], f"{topic} is not with all"
        assert loads[-1] - loads[0] <= 2


def test_a_member_that_leaves_moves_only_its_own() -> None:
    before, after = joins({"a": 10, "b": 7}, [4, 3])
    assert all(after[tp] == owner for tp, owner in before.items() if owner != "m3")


def test_of_partitions_added_only_these_move() -> None:
    subscribers = {"a": ["one", "two", "three"]}
    before = balance(everything({"a": 8}), subscribers, {}, {})
    after = balance(everything({"a": 10}), subscribers, before, {})
    assert before.items() <= after.items()


def test_the_work_grows_with_the_partitions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step looks at the members for each partition and each other member."""
    looks = 0
    reach = balance_module._Shares._reach

    def counting(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return reach(*args)

    monkeypatch.setattr(balance_module._Shares, "_reach", counting)
    alone = joins({"a": 1000}, [1])[0]
    looks = 0
    members = [f"m{n}" for n in range(50)]
    target = balance(everything({"a": 1000}), {"a": members}, alone, {})
    assert set(Counter(target.values()).values()) == {20}
    assert looks <= 1000 + 2 * len(members)
