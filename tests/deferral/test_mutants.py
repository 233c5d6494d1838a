"""A test of the tests: each of these faults, put into the code, breaks a rule of ``world.py`` or below."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest

from prosody.deferral.gate import SAMPLE
from prosody.model.outcome import SUCCESS, Kind, Refusal
from tests.deferral.world import plan_of, play
from tests.middleware.deferring import Deferring, Handler, M
from tests.middleware.fakes import TRANSIENT, in_lane
from tests.mutant import mutant
from tests.support import run_virtual

SEEDS = 200

Edit: TypeAlias = "tuple[str, str, str]"
"""A module, a text that stands in it once, and what is to stand there instead."""

MUTANTS: dict[str, Edit] = {
    "the queue behind a head that has ended is dropped": (
        "deferral.deferrals",
        "        queue = await self._advance(kind, key, position)\n        self.uncertain",
        "        await self._drop(kind, key)\n        queue = None\n        self.uncertain",
    ),
    "the row is written before its timer": (
        "deferral.deferrals",
        "        await self.retry_at(kind, key, at, entry.trace)\n        self.uncertain.add",
        "        await self._in_turn(key, partial(self._begin, kind, key, entry, error))\n"
        "        await self.retry_at(kind, key, at, entry.trace)\n        self.uncertain.add",
    ),
    "a head runs again when it cannot be taken out": (
        "middleware.redelivery",
        "                queue = await self._next(run, kind, queue.head, deferrals)\n",
        "                try:\n"
        "                    queue = await deferrals.advance(kind, run.key, queue.head.position)\n"
        "                except StoreError:\n"
        "                    pass\n",
    ),
    "a message runs while the head of its key waits": (
        "middleware.defer",
        "                if deferrals.message_hashes and deferrals.holds(messages, run.key):",
        "                if False:",
    ),
    "a timer runs while the head of its key waits": (
        "middleware.defer",
        "        if deferrals.timer_hashes and deferrals.holds(timers, run.key):",
        "        if False:",
    ),
    "a follower runs because it cannot be stored": (
        "middleware.defer",
        "            return Outcome(Kind.TRANSIENT, error)",
        "            return None",
    ),
    "a message goes on while its key is deferred": (
        "middleware.redelivery",
        "                if outcome.kind is Kind.DEFERRED:\n"
        "                    await self._again_later(run, kind, queue, outcome, deferrals)\n"
        "                    return outcome\n",
        "",
    ),
    "what may be stored is forgotten": (
        "middleware.defer",
        "            await deferrals.finished_in_place(kind, run.key, _position(run))",
        "            pass",
    ),
    "what may be stored is given up after one try": (
        "deferral.uncertain",
        "            if self._removing is None and not self._closed:",
        "            if False:",
    ),
    "a failed head gets no timer": (
        "middleware.redelivery",
        "        await self._persist(run, partial(deferrals.retry_at, kind, run.key, at, trace))\n",
        "",
    ),
    "the wait does not grow": (
        "middleware.redelivery",
        "            wait_s = delay_s(failures,",
        "            wait_s = delay_s(1,",
    ),
    "a retry timer is early": ("deferral.delays", "math.ceil(", "math.floor("),
    "a timer for each message of a backlog": (
        "middleware.redelivery",
        "        if kind is DeferredKind.MESSAGE:\n            self._reload.forget",
        "        if left is not None:\n"
        "            at = timer_second(self._runtime.wall(), self._base_s)\n"
        "            await deferrals.retry_at(kind, run.key, at, left.head.trace)\n"
        "        if kind is DeferredKind.MESSAGE:\n            self._reload.forget",
    ),
    "a key is held for ever": (
        "deferral.knowledge",
        '        """A key had a queue, and has none any more."""\n',
        "        return\n",
    ),
    "what is retried now can be cleared": ("deferral.timer_calls", " - {running}", ""),
    "a cleared timer stays deferred": (
        "deferral.timer_calls",
        "            await self._remove(run, await self._positions(run.key))",
        "            pass",
    ),
    "the next owner does not know what is deferred": (
        "deferral.deferrals",
        "                hashes.load(page)",
        "                pass",
    ),
    "the gate counts retries": (
        "middleware.defer",
        "            if run.timer is None and run.attempt == 1:",
        "            if run.timer is None:",
    ),
    "the gate counts successes of retries": (
        "middleware.defer",
        "        if run.attempt == 1 and self.counts:",
        "        if self.counts:",
    ),
    "the gate counts what was deferred": (
        "middleware.defer",
        "            if run.timer is None and run.attempt == 1:",
        "            if run.attempt == 1:",
    ),
    "the gate counts refusals": (
        "middleware.defer",
        "        if self.counts and not refused:\n            self._count(run, outcome.kind)\n"
        "        if outcome.kind is Kind.TRANSIENT:\n            if not",
        "        if refused:\n            self.gate.window.record(True, self._clock.latest)\n"
        "        elif self.counts:\n            self._count(run, outcome.kind)\n"
        "        if outcome.kind is Kind.TRANSIENT:\n            if not",
    ),
    "a refusal is stored as a failure": (
        "middleware.defer",
        "            text = None",
        '            text = "refused"',
    ),
    "a refusal of what was deferred is a failure": (
        "middleware.redelivery",
        "            failures = queue.failures\n",
        "            failures = queue.failures + 1\n",
    ),
    "the gate never opens again": (
        "deferral.gate",
        "        if reason is None:",
        "        if True:",
    ),
    "the gate remembers the failures of before": (
        "deferral.gate",
        "        self.closed = False\n        self.window = OutcomeWindow(self._window_s, SAMPLE)",
        "        self.closed = False",
    ),
}


async def counting() -> None:
    """What the gate counts, and when it closes and opens."""
    bench = Deferring(Handler(TRANSIENT, TRANSIENT, SUCCESS))
    bench.failing = {"timers.replace"}
    await in_lane(bench.call, bench.message(1))
    assert bench.gate.window.counts(bench.clock.latest) == (0, 1), "first attempts only"
    bench.failing = set()
    bench.handler.answers = [TRANSIENT]
    await bench.defer(bench.timer(50))
    assert bench.gate.window.counts(bench.clock.latest) == (0, 1), "messages only"
    bench.handler.answers = [Refusal(ValueError("greedy"), 40.0)]
    await bench.defer(bench.message(2, key=b"refused"))
    assert bench.gate.window.counts(bench.clock.latest) == (0, 1), "attempts only"
    queue = await bench.deferrals.queue(M, "refused")
    assert queue is not None
    assert queue.failures == 0
    await in_lane(bench.redelivery, bench.retry_run("refused"))
    queue = await bench.deferrals.queue(M, "refused")
    assert queue is not None
    assert queue.failures == 0


async def closing() -> None:
    bench = Deferring(Handler(TRANSIENT))
    ends = [await bench.defer(bench.message(n, key=b"%d" % n)) for n in range(SAMPLE - 1)]
    assert {end.kind for end in ends} == {Kind.DEFERRED}
    held = bench.message(99)
    assert await bench.defer(held) is TRANSIENT
    bench.handler.answers = [SUCCESS]
    await bench.defer(held)
    assert not bench.gate.closed
    bench.handler.answers = [TRANSIENT]
    assert (await bench.defer(bench.message(100, key=b"100"))).kind is Kind.DEFERRED


async def outage() -> None:
    """A row that was written all the same, of an event that has finished in place meanwhile."""
    bench = Deferring(Handler(TRANSIENT, SUCCESS))
    bench.lying, bench.failing = {"deferred.defer"}, {"deferred.drop"}
    assert await in_lane(bench.call, bench.message(1)) is SUCCESS
    assert bench.queue(M, "k") == [1]
    bench.failing = set()
    await asyncio.sleep(60)
    assert bench.queue(M, "k") == [], "its row is left"


def first_fault() -> str | None:
    """What the first scene or plan that goes wrong says; None when all go well."""
    scenes = [("counting", counting), ("closing", closing), ("outage", outage)]
    plays = [(f"plan {seed}", lambda seed=seed: play(plan_of(seed))) for seed in range(SEEDS)]
    for name, scene in [*scenes, *plays]:
        try:
            run_virtual(scene())
        # Whatever it is, it shows: a rule, a deadlock, an error of the mutant's own.
        except Exception as fault:
            return f"{name}: {type(fault).__name__}: {fault}"
    return None


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def mutate(monkeypatch: pytest.MonkeyPatch, edit: Edit) -> None:
    """Put a mutant of a module in its place, wherever something of it was taken."""
    changed = mutant(*edit)
    original = sys.modules[changed.__name__]
    monkeypatch.setitem(sys.modules, original.__name__, changed)
    for name, module in list(sys.modules.items()):
        if module is changed or not name.startswith(("prosody.", "tests.")):
            continue
        for attribute, value in list(vars(module).items()):
            replacement: Any = vars(changed).get(attribute)
            mine = callable(value) and getattr(value, "__module__", "") == original.__name__
            if mine and replacement is not None and value is vars(original).get(attribute):
                monkeypatch.setattr(module, attribute, replacement)


def test_the_code_as_it_is_breaks_no_rule() -> None:
    assert first_fault() is None


@pytest.mark.parametrize("module", sorted({edit[0] for edit in MUTANTS.values()}))
def test_a_module_put_in_unchanged_breaks_none(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from __future__ import annotations"
    mutate(monkeypatch, (module, text, text))
    assert first_fault() is None


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch, MUTANTS[name])
    assert first_fault() is not None, f"nothing shows that {name}"
