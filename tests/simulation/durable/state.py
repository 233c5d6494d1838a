"""What the oracle of the durable parts keeps in mind: messages, timers, and what runs of a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.state import Held, Record

if TYPE_CHECKING:
    from prosody.broker.protocol import TopicPartition


@dataclass(eq=False)
class Sent(Record):
    """A record. ``done``, whether it may be committed, is also true once its like was handled."""

    at_s: float = 0.0
    identity: str = ""
    """What deduplication knows it by; empty when it has no id."""
    like: list[Sent] = field(default_factory=list)
    """All records with this identity, itself included."""
    handled: bool = False
    """A handler has come to an end with it: success, or permanent failure."""
    counted: bool = False
    """The latest such end came while its member could still say so."""
    row: bool = False
    """It is among the deferred messages now."""
    deferred: bool = False
    """It has ever been."""
    foreign: bool = False
    """Its row was written by a member that did not hold the partition any more."""


@dataclass(eq=False)
class Place:
    """A timer: a key and a second, through all the times it is set."""

    tp: TopicPartition
    key: str
    due: int
    must: bool = False
    """It has to fire: a call that set it has returned, and nobody has begun to cancel it since."""
    may: int = 0
    """So often it may come to a good end; 2 when it was set again by its own handler."""
    cancelled_s: float | None = None
    finished_s: float = -1.0
    finished_by: Held | None = None

    def __str__(self) -> str:
        return f"timer {self.tp.topic}:{self.tp.partition} {self.key} due {self.due}"


@dataclass(eq=False)
class Running:
    """A handler that runs."""

    held: Held
    what: Sent | Place
    set_again: bool = False
    """It has set the timer anew that it was called for."""


@dataclass(eq=False)
class Key:
    """What is known of a key of a partition."""

    running: list[Running] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)

    def of(self, held: Held) -> Running | None:
        """What runs of it in an assignment; the latest, if that is wrong and there are two."""
        return next((r for r in reversed(self.running) if r.held is held), None)
