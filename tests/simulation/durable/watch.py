"""Eyes on the embedded stores, and the faults of their calls.

What a call wrote is noted in the very turn in which it had its effect, together with whose call it was.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from prosody.broker.protocol import TopicPartition
from prosody.errors import StoreError
from prosody.stores.protocol import DeferredKind, TimerKind
from tests.simulation.durable.plan import HANG_S
from tests.simulation.loop import WHO
from tests.support import WALL_AT_START_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from prosody.stores.memory import MemoryStoreState
    from prosody.stores.protocol import Segment
    from tests.simulation.durable.plan import DurablePlan
    from tests.simulation.watch import Watch


class StoreWatch:
    """The hooks of the stores' state."""

    def __init__(self, plan: DurablePlan, state: MemoryStoreState, watch: Watch) -> None:
        self._chance = random.Random(f"stores {plan.seed}")
        self._latency_s = plan.latency_s
        self._keeps_content = plan.keeps_content
        self._state = state
        self._watch = watch
        self._failing: dict[str, tuple[float, float, tuple[str, ...]]] = {}
        """Until when, how often, and in which ways."""
        self._rows: dict[tuple[TopicPartition, str, int], None] = {}
        """Deferred messages, as they were when this was looked at last."""
        self._recorded = 0
        self._traps: dict[tuple[str, str], Callable[[str], bool]] = {}
        state.on_call, state.on_done = self._on_call, self._on_done

    def fail(
        self,
        calls: Collection[str],
        ways: tuple[str, ...],
        share: float,
        now_s: float,
        length_s: float,
    ) -> None:
        """Let a share of the calls fail for a time."""
        for call in calls:
            self._failing[call] = (now_s + length_s, share, ways)

    def trap(self, call: str, when: str, strike: Callable[[str], bool]) -> None:
        """Let something happen to the next member that makes a call: before its effect, or after it.

        :param strike: is given the name of the member; False when it is not to be that one.
        """
        self._traps[call, when] = strike

    def end(self) -> None:
        """Nothing fails any more."""
        self._failing.clear()
        self._traps.clear()

    def left(self, now_s: float) -> list[str]:
        """What the stores still hold and should not: deferred work, and timers that are due."""
        found = [
            f"deferred {kind.name.lower()} {_name(segment)} {key} {list(queue.positions)}"
            for (segment, kind), queues in self._state.queues.items()
            for key, queue in queues.items()
        ]
        wall = WALL_AT_START_S + now_s
        for segment, table in self._state.timers.items():
            found += [
                f"timer {_name(segment)} {place.kind.name} {place.key} due "
                f"{place.time - WALL_AT_START_S:.0f}"
                for place in table.by_time
                if place.kind is not TimerKind.APPLICATION or place.time <= wall
            ]
        return found

    # -- the hooks ----------------------------------------------------------------------------

    def _on_call(self, call: str) -> Awaitable[Any] | None:
        if self._watch.closed:
            return None
        if self._struck(call, "before"):
            return asyncio.sleep(0)  # it does not come back from there, or only when it is thawed
        if self._state.problem is not None:
            self._note(f"{call} down")
            return None
        way = self._draw(call, ("before", "hang", "slow"))
        if way == "before":
            raise self._error(call, way)
        if way is None and not self._latency_s:
            return None
        return self._take_time(call, way)

    def _on_done(self, call: str) -> Awaitable[Any] | None:
        if self._watch.closed:
            return None
        self._look(call)
        if self._struck(call, "after"):
            return asyncio.sleep(0)
        way = self._draw(call, ("after", "hang after"))
        if way == "after":
            raise self._error(call, way)
        return None if way is None else self._take_time(call, way)

    async def _take_time(self, call: str, way: str | None) -> None:
        if way is None:
            await asyncio.sleep(self._chance.random() * self._latency_s)
        elif way == "slow":
            self._note(f"{call} {way}")
            await asyncio.sleep(self._chance.random() * HANG_S)
        else:
            error = self._error(call, way)
            await asyncio.sleep(HANG_S)
            raise error
        if self._state.problem is not None and not self._watch.closed:
            self._note(f"{call} down")

    def _struck(self, call: str, when: str) -> bool:
        """Whether a trap has closed on the member that makes the call."""
        strike = self._traps.get((call, when))
        if strike is None or not strike(WHO.get()):
            return False
        del self._traps[call, when]
        return True

    def _draw(self, call: str, ways: tuple[str, ...]) -> str | None:
        """Which of these ways, if any, the call goes."""
        if (failing := self._failing.get(call)) is None:
            return None
        until_s, share, chosen = failing
        if asyncio.get_running_loop().time() >= until_s:
            del self._failing[call]
            return None
        possible = [way for way in ways if way in chosen]
        if not possible or self._chance.random() >= share:
            return None
        return self._chance.choice(possible)

    def _error(self, call: str, way: str) -> StoreError:
        self._note(f"{call} {way}")
        return StoreError(f"{call} fails for the simulation, {way}", retriable=True)

    def _note(self, text: str) -> None:
        self._watch.write(self._watch.event("store", WHO.get(), note=text))

    # -- what was written ---------------------------------------------------------------------

    def _look(self, call: str) -> None:
        if call.startswith("deferred."):
            self._look_at_rows()
        elif call == "dedup.record":
            identity: Any = next(reversed(self._state.seen))
            self._watch.write(self._watch.event("recorded", WHO.get(), note=identity.hex()))

    def _look_at_rows(self) -> None:
        now: dict[tuple[TopicPartition, str, int], None] = {}
        for (segment, kind), queues in self._state.queues.items():
            tp = TopicPartition(segment.topic, segment.partition)
            for key, queue in queues.items():
                if not self._keeps_content:
                    queue.entries = {
                        n: entry._replace(content=None) for n, entry in queue.entries.items()
                    }
                if kind is DeferredKind.MESSAGE:
                    now.update(dict.fromkeys((tp, key, n) for n in queue.positions))
        for what, rows in (("unrow", self._rows.keys() - now), ("row", now.keys() - self._rows)):
            for tp, key, offset in sorted(rows):
                event = self._watch.event(what, WHO.get(), tp=tp, key=key, offset=offset)
                self._watch.write(event)
        self._rows = now


def _name(segment: Segment) -> str:
    return f"{segment.topic}:{segment.partition}"
