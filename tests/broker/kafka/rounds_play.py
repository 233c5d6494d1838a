"""Plays the model of ``rounds.py`` from a seed: faults at random, and now and then a rest.

``python -m tests.broker.kafka.rounds_play SEED`` replays one, with its history.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

from tests.broker.kafka.rounds import Member, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.broker.kafka.rounds import Decide

STEPS = 40
MODULE = "tests.broker.kafka.rounds_play"


class Play:
    """One seed: what it does next depends on nothing but the seed and what happened before."""

    def __init__(self, decide: Decide, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.world = World(decide)
        self.mixed = self.chance.random() < 0.5
        """Whether members subscribe to different topics."""
        self.old_counts = dict(self.world.counts)

    def run(self) -> None:
        """A fault has the whole history, and how to replay it, in its notes."""
        try:
            self._run()
        except Exception as fault:
            fault.add_note(f"{self.world.text()}\nreplay with: python -m {MODULE} {self.seed}")
            raise

    def _run(self) -> None:
        for _ in range(STEPS):
            act = self.chance.choices(list(self.ACTS), weights=list(self.ACTS.values()))[0]
            act(self)
            self.world.check()
        self.world.settle(self.chance)

    def _some(self) -> list[Member]:
        members = self.world.members
        return self.chance.sample(members, self.chance.randint(0, len(members)))

    def start(self) -> None:
        topics = list(self.world.counts)
        if self.mixed:
            topics = self.chance.sample(topics, self.chance.randint(1, len(topics)))
        self.world.start(topics, 1)

    def start_many(self) -> None:
        self.world.start(self.world.counts, self.chance.randint(2, 50))

    def simple_round(self) -> None:
        self.world.round(self.chance)

    def round_with_losses(self) -> None:
        self.world.round(
            self.chance,
            deaf=self._some() if self.chance.random() < 0.5 else (),
            expelled=self._some() if self.chance.random() < 0.3 else (),
        )

    def round_of_a_stale_leader(self) -> None:
        known = {
            topic: self.chance.choice([count, self.old_counts.get(topic, count)])
            for topic, count in self.world.counts.items()
        }
        if self.chance.random() < 0.3:
            del known[self.chance.choice(list(known))]
        self.world.round(self.chance, known=known)

    def drain(self) -> None:
        for member in self._some():
            part = [tp for tp in sorted(member.releasing) if self.chance.random() < 0.7]
            self.world.drain(member, part)

    def leave(self) -> None:
        for member in self._some()[:2]:
            self.world.leave(member)

    def depart(self) -> None:
        for member in self._some():
            if member.leaving:
                self.world.depart(member)

    def crash(self) -> None:
        for member in self._some()[:3]:
            self.world.crash(member, joined=self.chance.random() < 0.5)

    def reset(self) -> None:
        for member in self._some()[:3]:
            self.world.reset(
                member, joined=self.chance.random() < 0.5, zombie=self.chance.random() < 0.5
            )

    def expel(self) -> None:
        for member in self._some()[:3]:
            self.world.expel(member)

    def unsubscribe(self) -> None:
        for member in self._some()[:2]:
            if len(member.topics) > 1:
                self.world.unsubscribe(member, self.chance.choice(sorted(member.topics)))

    def add_foreigner(self) -> None:
        self.world.add_foreigner(self.world.counts)

    def forget_ghosts(self) -> None:
        self.world.forget_ghosts()

    def add_partitions(self) -> None:
        self.old_counts = dict(self.world.counts)
        topic = self.chance.choice(list(self.world.counts))
        self.world.counts[topic] += self.chance.randint(1, 4)

    def add_topic(self) -> None:
        self.world.counts[f"t{len(self.world.counts)}"] = self.chance.randint(1, 9)

    def rest(self) -> None:
        self.world.settle(self.chance)

    ACTS: dict[Callable[[Play], None], int] = {  # noqa: RUF012
        start: 6, start_many: 1, simple_round: 8, round_with_losses: 6, round_of_a_stale_leader: 3,
        drain: 6, leave: 1, depart: 2, crash: 2, reset: 2, expel: 2, add_foreigner: 1, unsubscribe: 1,
        forget_ghosts: 1, add_partitions: 2, add_topic: 1, rest: 2,
    }  # fmt: skip


def first_fault(decide: Decide, seeds: int) -> str | None:
    """What goes wrong with the first seed that does; None when all go well."""
    for seed in range(seeds):
        try:
            Play(decide, seed).run()
        # A mutant may show itself in any way.
        except Exception as fault:
            return f"seed {seed}: {type(fault).__name__}: {fault}"
    return None


if __name__ == "__main__":
    from prosody.broker.kafka.cooperative import share_out

    for number in map(int, sys.argv[1:]):
        play = Play(share_out, number)
        play.run()
        print(f"{play.world.text()}\nseed {number}: no fault")
