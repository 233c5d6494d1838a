"""Who should own which partition: balanced, and sticky above all. A pure function.

The loads are as even as the subscriptions allow (the sum of their squares is the least there is). Of all
such ways one is chosen step by step: each wish to keep a partition is granted if some even way grants it
besides everything granted before; then each member is promised more, one at a time, in the same manner.

A wish that was refused has no influence on what comes after it. So the answer stays the same all the way
towards it: when some of the partitions that should move have been let go of, some have arrived, and some
neither, it still names the same owner for each. Members that follow it in their own time, asking again
in between, need no memory of what was meant before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prosody.broker.protocol import TopicPartition

M = TypeVar("M")


def balance(
    partitions: Sequence[TopicPartition],
    subscribers: Mapping[str, Sequence[M]],
    before: Mapping[TopicPartition, M],
    holders: Mapping[TopicPartition, M],
) -> dict[TopicPartition, M]:
    """Give each partition to a subscriber of its topic.

    :param partitions: everything to be given.
    :param subscribers: the members that subscribe to each topic, in the order they joined.
    :param before: who was to own what until now: stays, unless balance needs it elsewhere.
    :param holders: who holds what now, which differs while a partition is handed over; a partition
        without an owner rather goes back to its holder than on to a third member.

    No two members differ by more than one partition if one could give the other a partition, directly
    or by way of others. Where all subscribe to the same topics, a member that joins takes only what that
    needs, one that leaves moves only its own partitions, and of partitions added only these move.
    """
    members = list(dict.fromkeys(m for found in subscribers.values() for m in found))
    rank = {member: n for n, member in enumerate(members)}
    given = sorted(tp for tp in partitions if subscribers.get(tp.topic))
    size: dict[str, int] = {}
    for tp in given:
        size[tp.topic] = size.get(tp.topic, 0) + 1
    # Topics with the same subscribers are of one class: to the loads they are the same.
    audience = {topic: tuple(sorted({rank[m] for m in subscribers[topic]})) for topic in size}
    classes = {ranks: n for n, ranks in enumerate(dict.fromkeys(audience.values()))}
    class_of = {topic: classes[ranks] for topic, ranks in audience.items()}
    shares = _Shares([class_of[tp.topic] for tp in given], list(classes), len(members))

    target: dict[TopicPartition, int] = {}
    for wishes in (before, holders):
        for tp, n in _by_urgency(given, wishes, rank, size):
            if tp not in target and shares.promise(class_of[tp.topic], n):
                target[tp] = n
    lacking = [[share - kept for share, kept in zip(*both, strict=True)] for both in shares.fill()]
    # What is nobody's yet is laid in a row for each class, from which the members take one after the
    # other. Whoever has taken some of his already finds the rest where it was. In the row the topics
    # take turns, so that each spreads over the members.
    rows = [iter([n for n, count in enumerate(row) for _ in range(count)]) for row in lacking]
    for tp in _taking_turns([tp for tp in given if tp not in target], given, size):
        target[tp] = next(rows[class_of[tp.topic]])
    return {tp: members[target[tp]] for tp in partitions if tp in target}


def _by_urgency(
    given: Iterable[TopicPartition],
    wishes: Mapping[TopicPartition, M],
    rank: Mapping[M, int],
    size: Mapping[str, int],
) -> list[tuple[TopicPartition, int]]:
    """The wishes with the number of the member, such that of each topic about the same part is kept."""
    counts: dict[tuple[str, int], int] = {}
    found = []
    for tp in given:
        if (owner := wishes.get(tp)) is not None and (n := rank.get(owner)) is not None:
            nth = counts[tp.topic, n] = counts.get((tp.topic, n), 0) + 1
            found.append((nth / size[tp.topic], tp.topic, n, tp))
    return [(tp, n) for _, _, n, tp in sorted(found)]


def _taking_turns(
    rest: Iterable[TopicPartition], given: Iterable[TopicPartition], size: Mapping[str, int]
) -> list[TopicPartition]:
    counts: dict[str, int] = {}
    place = {}
    for tp in given:
        nth = counts[tp.topic] = counts.get(tp.topic, 0) + 1
        place[tp] = nth / size[tp.topic]
    return sorted(rest, key=lambda tp: (place[tp], tp))


class _Shares:
    """How many partitions of each class each member gets: even loads, at any time.

    Partitions of one class are alike here, and members are numbers. ``_share`` is one even way to give
    everything, and is changed into another one when that lets a promise be made; the loads are then as
    even as before, because load moves only from a member with one more to a member with one less.
    """

    def __init__(
        self, partitions: Iterable[int], subscribers: Sequence[Sequence[int]], members: int
    ) -> None:
        """:param partitions: the class of each."""
        self._subscribers = subscribers
        self._classes: list[list[int]] = [[] for _ in range(members)]
        for c, found in enumerate(subscribers):
            for n in found:
                self._classes[n].append(c)
        self._load = [0] * members
        self._share = [[0] * members for _ in subscribers]
        self._promised = [[0] * members for _ in subscribers]
        self._refused: set[tuple[int, int]] = set()
        for c in partitions:
            self._add(c)

    def promise(self, c: int, n: int) -> bool:
        """Promise member ``n`` one more partition of class ``c``, if everybody can still get the others."""
        if n not in self._subscribers[c] or (c, n) in self._refused:
            return False
        if self._share[c][n] == self._promised[c][n] and not self._take_one(c, n):
            # Promises are never taken back, so it would be refused again.
            self._refused.add((c, n))
            return False
        self._promised[c][n] += 1
        return True

    def fill(self) -> Iterable[tuple[Sequence[int], Sequence[int]]]:
        """Promise everything that is left; for each class the shares, and what was promised before."""
        kept = [list(promised) for promised in self._promised]
        open_ = [(c, n) for c, found in enumerate(self._subscribers) for n in found]
        level = 0
        while open_:
            level += 1
            open_ = [
                (c, n) for c, n in open_ if self._promised[c][n] >= level or self.promise(c, n)
            ]
        return zip(self._promised, kept, strict=True)

    def _add(self, c: int) -> None:
        """One partition more: it, or another in its place, goes to the least loaded of all it can reach."""
        found = self._reach(self._subscribers[c])
        end = min(found, key=lambda n: (self._load[n], n))
        self._share[c][self._pass_on(found, end)] += 1
        self._load[end] += 1

    def _take_one(self, c: int, n: int) -> bool:
        """Change to an even way in which ``n``, whose share is all promised, has one more of ``c``."""
        # In turn it passes on what it has of another class, if it has, and that in turn ...
        takers = self._reach([n])
        giver = self._with_spare(c, takers)
        if giver is not None:
            self._pass_on(takers, giver)
        else:
            # ... to a member with one less than the first of those who pass on to the giver.
            end = min(takers, key=lambda m: (self._load[m], m))
            one_more = self._load[end] + 1
            givers = self._reach([m for m, load in enumerate(self._load) if load == one_more])
            giver = self._with_spare(c, givers)
            if giver is None:
                return False
            self._load[self._pass_on(givers, giver)] -= 1
            self._pass_on(takers, end)
            self._load[end] += 1
        self._share[c][giver] -= 1
        self._share[c][n] += 1
        return True

    def _with_spare(self, c: int, found: Iterable[int]) -> int | None:
        share, promised = self._share[c], self._promised[c]
        return next((n for n in found if share[n] > promised[n]), None)

    def _reach(self, starts: Iterable[int]) -> dict[int, tuple[int, int] | None]:
        """Who can get one partition more when a start does and passes on; for each, from whom and of what.

        Only what is not promised can be passed on.
        """
        found: dict[int, tuple[int, int] | None] = dict.fromkeys(starts)
        seen: set[int] = set()
        queue = list(found)
        for n in queue:
            for c in self._classes[n]:
                if c not in seen and self._share[c][n] > self._promised[c][n]:
                    seen.add(c)
                    fresh = [m for m in self._subscribers[c] if m not in found]
                    found.update(dict.fromkeys(fresh, (n, c)))
                    queue += fresh
        return found

    def _pass_on(self, found: Mapping[int, tuple[int, int] | None], end: int) -> int:
        """Pass one partition on along the way to ``end``; the start of the way."""
        n = end
        while (step := found[n]) is not None:
            giver, c = step
            self._share[c][giver] -= 1
            self._share[c][n] += 1
            n = giver
        return n
