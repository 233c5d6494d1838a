"""A test of the tests: each of these faults, put into the code, is seen in some history of ``world.py``.

A mutant is a module of the library with one place changed; every name that other modules of the package
took from the original is replaced. The histories come from seeds and are the same for all; the code as it
is plays all of them without a fault.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import prosody.timers.partition_timers  # noqa: F401  # the modules that mutants take the place of
from tests.support import run_virtual
from tests.timers import test_firing, test_loading, test_operations
from tests.timers.support import Stage
from tests.timers.world import play

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

SEEDS = 150
PACKAGE = "prosody.timers."

MUTANTS: dict[str, tuple[str, str, str]] = {
    "a timer fires early": (
        "firing",
        "self._time(kind) <= now:",
        "self._time(kind) <= now + 1:",
    ),
    "a cancelled timer that waits behind its key fires": (
        "memory",
        "timer.state is not State.FIRING:\n            kind.agenda.discard",
        "timer.state is State.WAITING:\n            kind.agenda.discard",
    ),
    "a cancelled timer stays in memory": (
        "memory",
        "            kind.agenda.discard(timer)\n",
        "",
    ),
    "a cancel is forgotten when the next owner comes": (
        "operations",
        "            return\n        await self._remove(key, time, kind)",
        "            return\n        self._memory.gone(Place(time, kind, key))",
    ),
    "a cancelled timer begins": (
        "firing",
        "        if timer.state is State.FIRING:\n            return True",
        "        if timer.state is not State.ENDED:\n            return True",
    ),
    "what is handed out begins after the end": (
        "firing",
        "            if self._running:\n                timer.state",
        "            if True:\n                timer.state",
    ),
    "what is sent out of memory never comes back": (
        "memory",
        "        kind.frontier.cut(kind.agenda.shrink(self._kept))\n",
        "        kind.agenda.shrink(self._kept)\n",
    ),
    "memory has no limit": (
        "memory",
        "        if kind.agenda.waiting >= self._share:",
        "        if False:",
    ),
    "a removed timer returns through the page": (
        "memory",
        "            self._removed_during_load.add(place)\n",
        "            pass\n",
    ),
    "what is set while a page is loaded is lost": (
        "frontier",
        "return time <= self.reached or (self._until is not None and time <= self._until)",
        "return time <= self.reached",
    ),
    "a full page is taken for the last one": (
        "memory",
        "full = len(page) >= PAGE",
        "full = len(page) > PAGE",
    ),
    "loading goes on behind a second of which not all is known": (
        "frontier",
        "self.reached, self.cursor = second - 1, end_of(second - 1)",
        "self.reached, self.cursor = second, end_of(second)",
    ),
    "what may have been stored is not looked for": (
        "memory",
        "            known.frontier.cut(time)\n",
        "",
    ),
    "set again, and not fired again": (
        "operations",
        "        if again is not None:\n            kind =",
        "        if False:\n            kind =",
    ),
    "set again, and removed": (
        "operations",
        "        again = timer.again\n",
        "        again = None\n",
    ),
    "that a timer fires again cannot be taken back": (
        "operations",
        "            timer.again = None\n            return\n",
        "            return\n",
    ),
    "clearing removes the one that fires": (
        "operations",
        "        if firing is None:\n            gone = await self._removing",
        "        if True:\n            gone = await self._removing",
    ),
    "replacing removes the one that fires": (
        "operations",
        "        if firing is None or firing.time == time:",
        "        if firing is None or firing.time == time or not setattr(firing, 'again', None):",
    ),
    "what replaces is stored last": (
        "operations",
        "        await self._add(key, time, kind, trace)\n        gone = [other for other in await"
        " self._others(key, kind, firing.time) if other != time]\n        for other in gone:\n"
        "            self._check()\n            await self._remove(key, other, kind)\n",
        "        gone = [other for other in await self._others(key, kind, firing.time)"
        " if other != time]\n        for other in gone:\n"
        "            await self._remove(key, other, kind)\n        self._check()\n"
        "        if not gone:\n            await self._add(key, time, kind, trace)\n",
    ),
    "an ended timer is not removed": (
        "operations",
        "            await self._remove(timer.key, timer.time, timer.kind)",
        "            pass",
    ),
    "a removal that fails is not tried again": (
        "firing",
        "if self._order.stopped or not await self._wait(timer, delay_s, error, pause):",
        "if True:",
    ),
    "two operations of a key at once": (
        "key_order",
        "        queue = self._queues.get(key)\n",
        "        queue = None\n",
    ),
    "the store is told of more than has passed: what is in memory": (
        "memory",
        "            earliest = kind.agenda.earliest()",
        "            earliest = None",
    ),
    "the store is told of more than has passed: what is not loaded": (
        "memory",
        "[kind.frontier.reached] if earliest is None else",
        "[] if earliest is None else",
    ),
    "the store is told of more than has passed: other kinds": (
        "memory",
        "                self.leave_alone(timer.time)\n",
        "                pass\n",
    ),
    "the next timer of a key does not follow": (
        "agenda",
        "            self.handed -= 1\n            self._offer(timer.key, found)",
        "            self.handed -= 1",
    ),
    "two timers of a key at once": (
        "agenda",
        "return found is not None and found.handed is None and found.first() == time",
        "return found is not None and found.first() == time",
    ),
    "more are handed out than may be": (
        "agenda",
        "        if self.handed >= self._limit:",
        "        if False:",
    ),
    "timers fire after the end": (
        "firing",
        "        self._running = False\n        self._next_look.cancel()",
        "        if not self._running:\n            self._next_look.cancel()",
    ),
    "loading ends with the first fault of the store": (
        "loader",
        "            await self._runtime.sleep(self._failed(error))\n            return",
        "            raise asyncio.CancelledError",
    ),
}

SEEN_BY_A_TEST: dict[str, tuple[tuple[str, str, str], Callable[[Stage], Coroutine[Any, Any, None]]]] = {
    # What histories come upon too seldom, or cannot tell apart.
    "set again, where a removal may have happened, and not stored": (
        ("operations", "        if not timer.stored:", "        if False:"),
        test_operations.test_set_again_where_its_removal_has_failed_is_stored_again,
    ),
    "a page counts beyond the place where memory was cut": (
        ("frontier", "            self._until = min(self._until, second - 1)", "            pass"),
        test_loading.test_a_schedule_that_failed_during_a_load_is_looked_for,
    ),
    "what a failed call has removed returns through the page": (
        ("memory", "            self._cleared_during_load.add((kind, key))\n", "            pass\n"),
        test_loading.test_what_a_failed_call_has_removed_does_not_come_back_after_a_clear,
    ),
    "what a clear does not know is skipped although it was stored before": (
        (
            "operations",
            "        self._memory.stored(time, kind, key, trace)\n        return _with",
            "        return _with",
        ),
        test_loading.test_a_replacement_that_took_long_is_there_after_a_page,
    ),
    "an operation that its caller has left is not begun": (
        (
            "key_order",
            "                await self._run(key, operation, future)",
            "                if not future.done():\n"
            "                    await self._run(key, operation, future)",
        ),
        test_operations.test_a_cancelled_call_goes_on_although_it_has_not_begun,
    ),
    "an operation begins after the end": (
        ("key_order", "            queue.clear()\n", ""),
        test_operations.test_the_stop_refuses_what_has_not_begun_and_lets_the_rest_end,
    ),
    "the wall clock is read only when a timer is due": (
        ("firing", "wait_s = min(max(self._time(kind) - now, SHORTEST_WAIT_S), wait_s)",
         "wait_s = max(self._time(kind) - now, SHORTEST_WAIT_S)"),
        test_firing.test_a_wall_clock_set_forward_is_noticed_within_a_minute,
    ),
    "a kind waits for the places of another": (
        ("firing", "ready = [kind for kind in self._memory.loaded if kind.agenda.next_time() is not None]",
         "ready = [kind for kind in self._memory.loaded[:1] if kind.agenda.next_time() is not None]"),
        test_firing.test_one_timer_of_a_key_and_kind_at_a_time,
    ),
}  # fmt: skip


def mutate(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Put a mutant of a module in its place."""
    original = importlib.import_module(PACKAGE + name)
    source = Path(str(original.__file__)).read_text()
    assert source.count(old) == 1, f"{source.count(old)} places for the mutation: {old!r}"
    mutant = ModuleType(original.__name__)
    monkeypatch.setitem(sys.modules, original.__name__, mutant)
    exec(compile(source.replace(old, new), f"mutant of {name}", "exec"), vars(mutant))
    for module in [m for n, m in sys.modules.items() if n.startswith(PACKAGE) and m is not mutant]:
        for attribute, value in list(vars(module).items()):
            if getattr(value, "__module__", None) == original.__name__ and callable(value):
                monkeypatch.setattr(module, attribute, getattr(mutant, attribute))


def first_fault() -> str | None:
    """What the first history that goes wrong says; None when all go well."""
    for seed in range(SEEDS):
        try:
            run_virtual(play(random.Random(seed)))
        # Whatever it is, it shows: an oracle's fault, a deadlock, an error of the mutant's own.
        except (Exception, asyncio.CancelledError) as fault:
            return f"seed {seed}: {type(fault).__name__}: {fault}"
    return None


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    """Hundreds of failing calls are the point here; their log lines only cost time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_the_code_as_it_is_shows_no_fault() -> None:
    assert first_fault() is None


@pytest.mark.parametrize("module", sorted({name for name, _, _ in MUTANTS.values()}))
def test_a_module_put_in_unchanged_shows_no_fault(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a mutant shows, it shows because of its change, not because it was put in."""
    text = "from __future__ import annotations"
    mutate(monkeypatch, module, text, text)
    for seed in range(20):
        run_virtual(play(random.Random(seed)))


async def on_a_stage(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    stage = Stage()
    if test.__module__ != test_loading.__name__:  # those begin with what is stored already
        await stage.start()
    try:
        await test(stage)
    finally:
        stage.timers.stop()
        await stage.timers.settled()


@pytest.mark.parametrize("mutant", list(SEEN_BY_A_TEST))
def test_mutant_is_seen_by_a_test(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edit, test = SEEN_BY_A_TEST[mutant]
    run_virtual(on_a_stage(test))
    mutate(monkeypatch, *edit)
    with pytest.raises(AssertionError):
        run_virtual(on_a_stage(test))


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_mutant_is_seen(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch, *MUTANTS[mutant])
    assert first_fault() is not None, f"no history shows that {mutant}"
