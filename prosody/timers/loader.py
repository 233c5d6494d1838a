"""Loads timers ahead of their time, in the background, for as long as their partition is ours."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from prosody.errors import StoreError
from prosody.timers.backoff import FIRST_S, store_wait_s
from prosody.timers.memory import PAGE, PASSED_AFTER

if TYPE_CHECKING:
    from prosody.model.fields import Fields
    from prosody.observe.storm import Storm
    from prosody.runtime import Runtime
    from prosody.stores.protocol import Segment, StoredTimer, TimerStore
    from prosody.timers.memory import Load, Memory

_log = logging.getLogger("prosody.timers")

LONGEST_WAIT_S: Final = 60.0
"""The wall clock is read again after so long: it may have been set."""
LOGGED_AGAIN_S: Final = 60.0
"""While loading does not work, that is logged again after so long."""
PASSED_AFTER_S: Final = 60.0
"""Fewer removals than ``PASSED_AFTER`` are told to the store after so long."""
PASSED_LAG_S: Final = 5
"""What is told stays so far behind the time: a timer set before it costs the store an extra write."""


class Loader:
    """Fills memory from the store, page after page, while there is room and a timer may be due soon."""

    def __init__(
        self,
        segment: Segment,
        store: TimerStore,
        runtime: Runtime,
        memory: Memory,
        storm: Storm,
        where: str,
        about: Fields,
    ) -> None:
        """``where`` and ``about`` are the partition, for log lines."""
        self._segment = segment
        self._store = store
        self._runtime = runtime
        self._memory = memory
        self._storm = storm
        self._where = where
        self._about = about
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._failing_since = 0.0
        self._logged_at = 0.0
        self._told = 0
        """What the store was told last: nothing lies before that second."""
        self._told_at = runtime.monotonic()
        self._told_removed = 0
        self._telling = False
        self._stopped = False
        self.problem: str | None = None
        """Why loading does not work at present; None when it does."""
        memory.wake_loader = self._rung.set

    def start(self) -> None:
        """Load from now on."""
        self._task = asyncio.create_task(self._run(), name=f"prosody-timers {self._where}")

    def stop(self) -> None:
        """Load nothing more."""
        self._stopped = True
        self.problem = None
        # A page on its way is of no use to anybody. What the store is being told comes to its end, so
        # that it does not arrive when the next owner has begun.
        if self._task is not None and not self._telling:
            self._task.cancel()

    async def settled(self) -> None:
        """Wait until nothing is under way; all that can be has the store's deadline."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._stopped:
            try:
                await self._turn()
            except Exception as error:  # noqa: BLE001
                # A fault of ours. If this task ended, no timer would be loaded any more.
                _log.critical(
                    "internal fault while timers were loaded, %s; please report this",
                    self._where,
                    exc_info=error,
                    extra=self._about,
                )
                await self._runtime.sleep(FIRST_S + self._failed(error))

    async def _turn(self) -> None:
        """Load a page, or wait until there is something to load."""
        self._rung.clear()
        now = int(self._runtime.wall())
        await self._tell_passed(now)
        if self._stopped:
            return
        load = self._memory.begin_load(now)
        if load is None:
            await self._wait(min(self._memory.load_in_s(now), LONGEST_WAIT_S))
            return
        try:
            self._memory.take_page(load, await self._load(load))
        except StoreError as error:
            # The timers in memory go on firing; these come when the store is back.
            await self._runtime.sleep(self._failed(error))
            return
        self._works()

    async def _load(self, load: Load) -> list[StoredTimer]:
        try:
            return list(await self._store.load(self._segment, load.after, load.until, PAGE))
        except BaseException:
            self._memory.fail_load(load)
            raise

    def _failed(self, error: Exception) -> float:
        """Note that loading does not work; returns the wait in seconds until it is tried again."""
        now = self._runtime.monotonic()
        if self.problem is None:
            self._failing_since = now
        self.problem = f"timers cannot be loaded, {self._where}: {error}"
        self._failures += 1
        if self._failures == 1 or now - self._logged_at >= LOGGED_AGAIN_S:
            self._logged_at = now
            self._tell("%s; trying again until they can", self.problem)
        return store_wait_s(self._failures, error, self._runtime.random())

    def _works(self) -> None:
        if self.problem is not None:
            failing_s = self._runtime.monotonic() - self._failing_since
            self._tell("timers are loaded again, %s, after %.1f s", self._where, failing_s)
        self._failures = 0
        self.problem = None

    def _tell(self, text: str, *values: object) -> None:
        """One of the lines that all partitions write at about the same time."""
        if (more := self._storm.allows(logging.WARNING, self._about)) is not None:
            _log.warning(f"{text}%s", *values, more, extra=self._about)

    async def _wait(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._rung.wait()
        except TimeoutError:
            pass  # the wait is over

    async def _tell_passed(self, now: int) -> None:
        """Tell the store where loading may begin, when that spares the next owner something."""
        removed = self._memory.removed - self._told_removed
        since_s = self._runtime.monotonic() - self._told_at
        if not removed or (removed < PASSED_AFTER and since_s < PASSED_AFTER_S):
            return
        before = self._memory.passed(now - PASSED_LAG_S)
        if before <= self._told:
            return
        self._told_at = self._runtime.monotonic()
        self._telling = True
        try:
            await self._store.passed(self._segment, before)
        except StoreError:
            return  # it only spares something; the next time will do
        finally:
            self._telling = False
        self._told = before
        self._told_removed += removed
