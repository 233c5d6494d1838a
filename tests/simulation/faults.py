"""Failing calls of the broker seam, by chance from a seed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.simulation.watch import Watch


class Faults:
    """The cluster's ``on_call``: each kind of call fails while it is told to."""

    def __init__(self, seed: int, watch: Watch) -> None:
        self._chance = random.Random(f"faults {seed}")
        self._watch = watch
        self._failing: dict[str, tuple[float, float, float]] = {}
        """Until when, how often, and how often it is worth another try."""

    def fail(
        self, calls: Collection[str], share: float, retriable: float, now_s: float, length_s: float
    ) -> None:
        """Let a share of the calls fail for a time."""
        for call in calls:
            self._failing[call] = (now_s + length_s, share, retriable)

    def end(self) -> None:
        """Nothing fails any more."""
        self._failing.clear()

    def on_call(self, call: str, client_id: str) -> None:
        """Called by the cluster at the beginning of each call."""
        if (failing := self._failing.get(call)) is None or self._watch.closed:
            return
        until_s, share, retriable = failing
        event = self._watch.event("failed", client_id, note=call)
        if event.at_s >= until_s:
            del self._failing[call]
        elif self._chance.random() < share:
            self._watch.write(event)
            raise BrokerError(
                f"{call} fails for the simulation", retriable=self._chance.random() < retriable
            )
