"""A load that goes on while the store is away, and what must be true of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from prosody.errors import ProsodyError
from prosody.model.times import seconds_from_utc
from tests.durable.support import Handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prosody import Context, Message
    from tests.durable.support import Place

PATIENCE_S = 90.0
PLAIN = [f"plain-{n}" for n in range(20)]
FLAKY = [f"flaky-{n}" for n in range(4)]
TIMERS_A_ROUND = 5


class Load:
    """Rounds of messages without end: some plain, some that fail once, some that set a timer."""

    def __init__(self, place: Place, pause_s: float = 0.1) -> None:
        self._place = place
        self._pause_s = pause_s
        self.rounds = 0
        self._ending = False
        self.sent: set[str] = set()
        self.begun: Counter[str] = Counter()
        self.set: dict[str, int] = {}
        """By key, which sets one timer and no more: its second, once that was acknowledged."""
        self.tried: set[tuple[str, int]] = set()
        self.handler = Handler(place, self._handle)

    async def _handle(self, context: Context, message: Message) -> None:
        id_ = message.payload["id"]
        self.begun[id_] += 1
        if message.key.startswith("timer"):
            # The attempt's own second, so that no later attempt sets what has fired already.
            time = self._place.after(2)
            self.tried.add((message.key, seconds_from_utc(time)))
            await context.clear_and_schedule(time)
            self.set[message.key] = seconds_from_utc(time)
        elif message.key.startswith("flaky") and self.begun[id_] == 1 and id_.endswith("5"):
            # Not each one: that costs its key a second, and many come while the store is away.
            raise ValueError("fails the first time")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            # Not torn in the middle of a round: what was counted as sent was sent.
            self._ending = True
            await task

    async def _run(self) -> None:
        while not self._ending:
            n = self.rounds
            timers = [f"timer-{n}-{i}" for i in range(TIMERS_A_ROUND)]
            records = [(key.encode(), {"id": f"{key}:{n}"}) for key in (*PLAIN, *FLAKY, *timers)]
            await self._place.put_many(records)
            self.sent.update(value["id"] for _, value in records)
            self.rounds += 1
            await asyncio.sleep(self._pause_s)  # a modest load: the machine has other things to do

    async def more(self, of: str, count: int) -> None:
        """Wait until ``count`` more runs have succeeded: ``of`` a kind and a family of keys."""
        goal = self.handler.done[of] + count
        await self.handler.until(lambda h: h.done[of] >= goal, PATIENCE_S)

    async def until_all(self) -> None:
        """Wait until every message was handled and every timer that was acknowledged has fired."""
        handler = self.handler
        try:
            await handler.until(lambda h: h.done["message"] >= len(self.sent), PATIENCE_S)
            await handler.until(lambda h: h.done["timer"] >= len(self.set), PATIENCE_S)
        except AssertionError as error:
            handled = {run.value["id"] for run in handler.of("message")}
            fired = {run.key for run in handler.of("timer")}
            left = sorted(self.sent - handled), sorted(set(self.set) - fired)
            raise AssertionError(f"left of {len(self.sent)}: {left}") from error

    def judge(self) -> None:
        """Nothing was lost, and nothing ran again that had succeeded."""
        handler = self.handler
        handled = Counter(run.value["id"] for run in handler.of("message"))
        assert set(handled) == self.sent, "something was lost"
        assert set(handled.values()) == {1}, "a handler that had succeeded ran again"
        begun = {id_: count for id_, count in self.begun.items() if id_.startswith("plain")}
        assert set(begun.values()) == {1}, "a message without a timer ran again"
        # The others failed for what their own handlers did, and for nothing else.
        errors = {type(run.error) for run in handler.of("message", ok=None) if not run.ok}
        assert all(kind is ValueError or issubclass(kind, ProsodyError) for kind in errors), errors
        fired = Counter((run.key, run.value) for run in handler.of("timer", ok=None))
        assert set(self.set.items()) <= set(fired), "a timer that was acknowledged never fired"
        # One that was not acknowledged may have been written all the same.
        assert set(fired) <= self.tried
        twice = [timer for timer, count in fired.items() if count > 1]
        assert not twice, f"fired twice: {twice}"
        for key in (*PLAIN, *FLAKY):
            rounds = [int(p["id"].partition(":")[2]) for p in handler.handled(key)]
            assert rounds == list(range(self.rounds)), key
        assert not handler.overlaps

    async def next_owner_finds_nothing(self) -> None:
        """Whoever comes after the client that had the load finds all of it done with."""
        after = Handler(self._place)
        client = self._place.client()
        await client.subscribe(after)
        await self._place.put_many([(key.encode(), {"id": f"{key}:after"}) for key in PLAIN])
        await after.until_handled(len(PLAIN))
        await client.unsubscribe()
        assert len(after.runs) == len(PLAIN), f"done already: {after.runs[:5]}"
