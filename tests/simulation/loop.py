"""A virtual loop on which one program among several can be stopped, and killed.

Every callback carries the context variables of whoever made it, and :data:`WHO` among them says whose
program that was. While a program is frozen its callbacks and timers are put aside, so not one line of
it runs, no ``finally`` and no clean-up: what SIGSTOP does to a process, and, when it is never
thawed, SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from tests.support import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="")
"""Whose program the running code belongs to; empty for the simulation's own."""


class SimulationLoop(VirtualLoop):
    """See the module."""

    # Private parts of BaseEventLoop; the same from Python 3.11 to 3.14.
    _ready: deque[Any]
    _scheduled: list[Any]
    _timer_cancelled_count: int

    def __init__(self) -> None:
        super().__init__()
        self._aside: dict[str, list[asyncio.Handle]] = {}
        self._timers_aside: dict[str, list[Any]] = {}
        self._owners: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = (
            weakref.WeakKeyDictionary()
        )
        self.set_task_factory(self._make_task)

    def freeze(self, who: str) -> None:
        """Run nothing more of ``who``."""
        self._aside[who] = []
        mine = [t for t in self._scheduled if t._context.get(WHO) == who]
        if not mine:
            return
        for timer in mine:
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            timer._scheduled = False
        gone = set(map(id, mine))
        self._scheduled = [t for t in self._scheduled if id(t) not in gone]
        heapq.heapify(self._scheduled)
        self._timers_aside[who] = mine

    def thaw(self, who: str) -> None:
        """Let ``who`` go on; what became due meanwhile runs at once."""
        self._ready.extend(self._aside.pop(who))
        for timer in self._timers_aside.pop(who, ()):
            if not timer._cancelled:
                timer._scheduled = True
                heapq.heappush(self._scheduled, timer)

    def thaw_all(self) -> None:
        """Let everybody go on, the dead as well: only for taking the loop down."""
        for who in list(self._aside):
            self.thaw(who)

    def is_frozen(self, who: str) -> bool:
        return who in self._aside

    def tasks_of_the_living(self) -> list[asyncio.Task[Any]]:
        """Unfinished tasks that can still run, but the current one."""
        current = asyncio.current_task(self)
        return [
            task
            for task in asyncio.all_tasks(self)
            if task is not current and self._owners.get(task, "") not in self._aside
        ]

    def owner(self, task: asyncio.Task[Any]) -> str:
        """Whose program a task belongs to."""
        return self._owners.get(task, "")

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        context = options.get("context")
        self._owners[task] = WHO.get() if context is None else context.get(WHO, "")
        return task

    def _run_once(self) -> None:
        if self._aside:
            ready = self._ready
            for _ in range(len(ready)):
                handle = ready.popleft()
                self._aside.get(handle._context.get(WHO, ""), ready).append(handle)
        super()._run_once()
