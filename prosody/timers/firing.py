"""Hands timers to their partition when they are due, and takes their ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from prosody.errors import StoreError
from prosody.model.fields import cut
from prosody.runtime import OneCall
from prosody.timers.backoff import store_wait_s
from prosody.timers.due import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.model.fields import Fields
    from prosody.observe.storm import Storm
    from prosody.runtime import Runtime
    from prosody.timers.due import DueTimer, Pause
    from prosody.timers.key_order import KeyOrder
    from prosody.timers.memory import Kind, Memory
    from prosody.timers.operations import Operations

_log = logging.getLogger("prosody.timers")

LONGEST_WAIT_S: Final = 30.0
"""The wall clock is read again after so long, however far the next timer is: it may have been set."""
SHORTEST_WAIT_S: Final = 0.001
"""A loop may wake up a little early; waiting for the rest must not become a busy loop."""


class Firing:
    """The clock of a partition's timers, and their keeper.

    Waiting is on the loop's clock; what decides is the wall clock, so no timer is early.
    """

    def __init__(
        self,
        memory: Memory,
        order: KeyOrder,
        operations: Operations,
        runtime: Runtime,
        fire: Callable[[DueTimer], None],
        storm: Storm,
        where: str,
        about: Fields,
    ) -> None:
        """``where`` and ``about`` are the partition, for log lines."""
        self._memory = memory
        self._order = order
        self._operations = operations
        self._runtime = runtime
        self._fire = fire
        self._storm = storm
        self._where = where
        self._about = about
        self._next_look = OneCall(self._look)
        self._expected = 0.0
        """The wall clock when the next look is due, if one is."""
        self._running = False
        self._stopped = asyncio.Event()
        memory.keeper = self
        memory.expect = self.expect
        memory.on_released = self._look_soon

    def start(self) -> None:
        """Hand out timers from now on."""
        self._running = True
        self._look_soon()

    def hold(self) -> None:
        """Hand out nothing more, and have nothing begin that was handed out."""
        self._running = False
        self._next_look.cancel()

    def stop(self) -> None:
        """As ``hold``, and end the waits between tries to remove a timer."""
        self.hold()
        self._stopped.set()

    def expect(self, time: int) -> None:
        """A timer of that time has come into memory."""
        if self._running and (not self._next_look.pending or time < self._expected):
            self._look_soon()

    # The keeper of timers

    def begin(self, timer: DueTimer) -> bool:
        if timer.state is State.HANDED:
            if self._running:
                timer.state = State.FIRING
            else:
                self.abort(timer)
        if timer.state is State.FIRING:
            return True
        self._memory.release(timer)
        return False

    async def end(self, timer: DueTimer, pause: Pause | None) -> bool:
        failures = 0
        while timer.state is State.FIRING:
            try:
                await self._order.run(timer.key, lambda: self._operations.end(timer))
            except StoreError as error:
                # Not removed: its key waits, and it is tried again for as long as this is our partition.
                failures += 1
                delay_s = store_wait_s(failures, error, self._runtime.random())
                if self._order.stopped or not await self._wait(timer, delay_s, error, pause):
                    self.abort(timer)
        return timer.state is State.ENDED

    def abort(self, timer: DueTimer) -> None:
        if timer.state in {State.HANDED, State.FIRING}:
            timer.state = State.GONE
            self._memory.leave_alone(timer.time)
        self._memory.release(timer)

    async def _wait(
        self, timer: DueTimer, delay_s: float, error: StoreError, pause: Pause | None
    ) -> bool:
        about = {**self._about, "key": cut(timer.key)}
        more = self._storm.allows(logging.WARNING, about)
        if more is not None:
            _log.warning(
                "a timer that has fired cannot be removed, trying again in %.3g s: %s key %r: %s%s",
                delay_s,
                self._where,
                timer.key[:80],
                error,
                more,
                extra=about,
            )
        if pause is not None:
            return await pause(delay_s) and not self._order.stopped
        try:
            async with asyncio.timeout(delay_s):
                await self._stopped.wait()
        except TimeoutError:
            return True  # the wait is over
        return False

    # The clock

    def _look_soon(self) -> None:
        if self._running:
            self._expected = float("-inf")
            self._next_look.soon(asyncio.get_running_loop())

    def _look(self) -> None:
        now = self._runtime.wall()
        try:
            while (kind := self._next()) is not None and self._time(kind) <= now:
                self._hand_out(kind)
        except Exception as error:  # noqa: BLE001  # a fault of ours; the next look may go better
            _log.critical(
                "internal fault in timers; please report this", exc_info=error, extra=self._about
            )
            kind = None
        if not self._running or self._next_look.pending:
            return  # the partition gave the timers up, or some back, when it was given one
        wait_s = LONGEST_WAIT_S
        if kind is not None:
            wait_s = min(max(self._time(kind) - now, SHORTEST_WAIT_S), wait_s)
        self._expected = now + wait_s
        self._next_look.later(asyncio.get_running_loop(), wait_s)

    def _next(self) -> Kind | None:
        """The kind that has the earliest of those timers that can be handed out."""
        ready = [kind for kind in self._memory.loaded if kind.agenda.next_time() is not None]
        return min(ready, key=self._time, default=None)

    def _time(self, kind: Kind) -> int:
        time = kind.agenda.next_time()
        assert time is not None, "the kind has a timer that can be handed out"
        return time

    def _hand_out(self, kind: Kind) -> None:
        timer = kind.agenda.hand()
        self._memory.look_for_room(kind)
        try:
            self._fire(timer)
        except Exception as error:  # noqa: BLE001  # a fault of ours; the others are to fire all the same
            _log.critical(
                "internal fault: a timer was not taken, %s key %r; please report this",
                self._where,
                timer.key[:80],
                exc_info=error,
                extra={**self._about, "key": cut(timer.key)},
            )
            self.abort(timer)
