"""Time that jumps: an event loop on a clock of its own, and the runtime that goes with it.

On :class:`VirtualLoop` nothing takes time. When no callback is ready the clock jumps to the next timer,
and when there is no timer either, nothing will ever happen again: the loop says so instead of
hanging. The files of a directory run on it when its ``conftest.py`` returns ``LOOPS`` from
``pytest_asyncio_loop_factories``.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

WALL_AT_START_S = 1_700_000_000.0
"""What the wall clock shows when a virtual loop begins."""


class DeadlockError(RuntimeError):
    """Everybody waits for something that nobody is going to do."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when nothing else can be done."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        # The private parts of BaseEventLoop used here are the same from Python 3.11 to 3.14.
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            if not scheduled:
                raise DeadlockError("nothing is ready and no timer is set: everybody waits")
            self._now = max(self._now, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]

    @property
    def quiet(self) -> bool:
        """Whether nothing can happen before the clock moves."""
        return not self._ready  # type: ignore[attr-defined]


LOOPS = {"virtual": VirtualLoop}


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a virtual loop of its own, which is closed afterwards."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def settle() -> None:
    """Let everything happen that can happen without the clock moving."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "only a virtual loop knows when it is quiet"
    for _ in range(10_000):
        await asyncio.sleep(0)
        if loop.quiet:
            return
    raise AssertionError("the loop never comes to rest: something runs in circles")


class FakeRuntime:
    """A :class:`prosody.runtime.Runtime` on the running loop's clock, with chance from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return WALL_AT_START_S + self.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def random(self) -> float:
        return self._chance.random()

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(int=self._chance.getrandbits(128), version=4)


def other_tasks() -> set[asyncio.Task[Any]]:
    """All unfinished tasks of the running loop but the current one."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
