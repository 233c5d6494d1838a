"""A test of the tests: each of these faults, put into the code, is seen by the oracle of ``world.py``.

A mutant is a module of the library with one place changed, run as a module of its own; every name
that other modules of the library took from the original is replaced. The plans are the same for all
mutants and come from seeds; the code as it is plays all of them without a fault.
"""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest

from prosody._core.offset_set import decode_finished
from prosody.broker.protocol import Start
from prosody.consume.progress import METADATA_MAX
from tests.consume.world import ENDS, Plan, play
from tests.support import run_virtual

pytestmark = pytest.mark.usefixtures("no_logs")

SEEDS = 250

Edit: TypeAlias = "tuple[str, str, str]"
"""A module, a text that stands in it once, and what is to stand there instead."""

MUTANTS: dict[str, Edit | tuple[Edit, ...]] = {
    "a permit is not given back when the wait is cancelled": (
        "middleware.scheduler",
        "        except asyncio.CancelledError:\n            self.give_back(run)\n",
        "        except asyncio.CancelledError:\n",
    ),
    "a permit is not given back when the handler ends": (
        "middleware.scheduler",
        "        self.free += 1\n        self.look_soon()\n        if self.note",
        "        self.look_soon()\n        if self.note",
    ),
    "an interrupted wait stays in the heap": (
        "middleware.scheduler",
        "up.\n            self.give_back(run)\n            return False",
        "up.\n            return False",
    ),
    "a run that was not charged": (
        "middleware.scheduler",
        "        self._charge(run.place, used_s, now)",
        "        pass",
    ),
    "no permit is asked for": (
        "middleware.scheduler",
        "        while self.free:\n            self.latest",
        "        while True:\n            self.latest",
    ),
    "a retry holds its permit": (
        "middleware.stacks",
        "        layers = [retry, defer, monopolization, Shutdown(), scheduler, timeout, telemetry]",
        "        layers = [Shutdown(), scheduler, retry, defer, monopolization, timeout, telemetry]",
    ),
    "a wait holds its permit": (
        "middleware.retry",
        "    run.partition.give_back(run)\n",
        "",
    ),
    "a permit that comes back while others wait wakes nobody": (
        "middleware.scheduler",
        "        self.free += 1\n        self.look_soon()\n        if self.note",
        "        self.free += 1\n        if self.note",
    ),
    "the meter is not told of an end": (
        "middleware.scheduler",
        "            self.meter_end(run.place, now)",
        "            pass",
    ),
    "a key that is refused waits for ever": (
        "middleware.retry",
        "delay_s = outcome.until - self._runtime.monotonic()",
        "delay_s = 1e9",
    ),
    "what waits for a permit outlives its partition": (
        "consume.partition",
        "                self._scheduler.give_back(run)\n                self.finish(run, ABANDONED)",
        "                pass",
    ),
    "an abandoned run completes its offset": (
        "consume.partition",
        "if run.timer is None and (outcome is SUCCESS or outcome.kind is not Kind.ABANDONED):",
        "if run.timer is None:",
    ),
    "a transient failure ends the record": (
        "middleware.retry",
        "while outcome.kind is Kind.TRANSIENT:",
        "while False:",
    ),
    "a key is free before its run has ended": (
        (
            "consume.partition",
            "        self.runs.add(run)\n        self.waiting += 1\n",
            "        self.runs.add(run)\n        self.waiting += 1\n"
            "        if self.queue.done(run.key): self._ready(now)\n",
        ),
        ("consume.partition", "        if self.queue.done(run.key):\n", "        if False:\n"),
    ),
    "a commit goes one past an unfinished offset": (
        "consume.progress",
        "        return offset if self._remembered is None else self._remembered.past(offset)\n",
        "        return offset + bool(self.tracker.outstanding)\n",
    ),
    "the last admitted offset is committed": (
        "consume.progress",
        "        committable = self.tracker.committable\n        offset =",
        "        committable = self.tracker.last_admitted\n"
        "        committable = committable and committable + 1\n        offset =",
    ),
    "a commit that failed counts as done": (
        "consume.committer",
        "or says what runs twice.\n                self._note_failure(error, sent)\n"
        "                return sent, error\n",
        "or says what runs twice.\n                self._note_failure(error, sent)\n",
    ),
    "nobody is woken after an admission": (
        "consume.partition",
        "            if scheduler.free and not scheduler.woken:\n                scheduler.wake()\n",
        "",
    ),
    "a lane does not wake the next one": (
        "consume.lanes",
        "        if scheduler.has_more:\n            self.wake()\n",
        "",
    ),
    "room is not used when nothing waits": (
        "consume.partition",
        "        if not self.waiting or self._ends_until_look <= 0:",
        "        if self._ends_until_look <= 0:",
    ),
    "what a lane takes is not counted": (
        "consume.lanes",
        "                        partition.waiting -= 1\n",
        "",
    ),
    "a lane keeps a cancellation": (
        "middleware.invoke",
        "        while task.cancelling():\n            task.uncancel()",
        "        pass",
    ),
    "a cancellation that nobody saw strikes the stack": (
        "middleware.straight",
        "        if run.task.cancelling():\n            try",
        "        if False:\n            try",
    ),
    "a permit is not given back when the handler has gone straight": (
        "middleware.straight",
        "            scheduler.free += 1  #",
        "            #",
    ),
    "a run that was not charged when it went straight": (
        "middleware.straight",
        "            charge(place, used_s, now)\n",
        "",
    ),
    "the meter is not told of an end when it went straight": (
        "middleware.straight",
        "                meter_end(place, now)",
        "                pass",
    ),
    "what a shutdown has cut short is an ordinary failure": (
        "middleware.straight",
        "        outcome = unless_cut_short(run, outcome)\n",
        "",
    ),
    "a failure that goes straight is no failure": (
        "middleware.straight",
        "            outcome = await ended(run, outcome)\n",
        "            outcome = SUCCESS\n",
    ),
    "a cancelled wait loses its run": (
        "consume.lanes",
        "        if run.partition.running and not self._torn_down():\n",
        "        if False:\n",
    ),
    "a SystemExit ends the lane": (
        "middleware.invoke",
        "except BaseException as error:",
        "except Exception as error:",
    ),
    "a cancelled child ends the lane": (
        "middleware.invoke",
        "            if self._torn_down():\n                return None  #",
        "            if True:\n                return None  #",
    ),
    "an error that cannot say what it is ends the partition": (
        "model.outcome",
        "    except Exception:  # noqa: BLE001\n",
        "    except ZeroDivisionError:\n",
    ),
    "filtered records are not finished": (
        "consume.inbox",
        "done=self._tracker.complete,\n",
        "done=int,\n",
    ),
    "an echo is handled": (
        "consume.filters",
        "first_header(headers, SOURCE_SYSTEM) == self._group_id",
        "False",
    ),
    "dead letters are not written": (
        "middleware.dead_letter",
        "if not await self._writer.write(run, outcome.error):",
        "if False:",
    ),
    "an offset is done before its dead letter is written": (
        "middleware.dead_letter",
        "            if not await self._writer.write(run, outcome.error):\n"
        "                return ABANDONED\n",
        "            import asyncio\n"
        "            self.writing = asyncio.ensure_future(self._writer.write(run, outcome.error))\n",
    ),
    "a revoke does not stop admission": (
        "consume.partition",
        "    def _stop_admission(self) -> None:\n        self.running = False\n",
        "    def _stop_admission(self) -> None:\n        if not self.closed: return\n",
    ),
    "a drain does not wait": (
        "consume.partition",
        "        if self._busy and timeout_s > 0:",
        "        if False:",
    ),
    "a shutdown does not end backoffs": (
        "consume.partition",
        "                run.interrupt()",
        "                pass",
    ),
    "a lost partition is not told": (
        "consume.partition",
        "        self._cancel_runs()\n        self._close()",
        "        self._close()",
    ),
    "a deadline is not watched": (
        "middleware.timeout",
        "        self._watches = True\n",
        "        pass\n",
    ),
    "idle lanes do not end": (
        "consume.lanes",
        "        self._closed = True\n        idle",
        "        return\n        idle",
    ),
    "the last commit is forgotten": (
        "consume.assignment",
        "        await self._committer.commit_finally(partitions, timeout_s)\n",
        "",
    ),
    "a revoke commits without a drain": (
        "consume.assignment",
        "        await asyncio.gather(*(p.drain(CANCEL_AT * limit_s, limit_s) for p in partitions))\n",
        "",
    ),
    "a revoke gives up before the last commit": (
        "consume.assignment",
        "        await self._committer.commit_finally(partitions, timeout_s)\n"
        "        for partition in partitions:\n            self._forget(partition)\n",
        "        for partition in partitions:\n            self._forget(partition)\n"
        "        await self._committer.commit_finally(partitions, timeout_s)\n",
    ),
    "offsets are computed before the group has settled": (
        (
            "consume.committer",
            "        await self._consumer.settled()\n        async with self._lock:\n",
            "        async with self._lock:\n",
        ),
        (
            "consume.committer",
            " for p in sent]\n            try:\n",
            " for p in sent]\n            await self._consumer.settled()\n            try:\n",
        ),
    ),
    "a last commit that is refused is not tried again": (
        "consume.committer",
        "        if refusal.retriable:\n            return sent\n",
        "        if refusal.retriable:\n            return ()\n",
    ),
    "a commit carries no metadata": (
        "consume.committer",
        "[p.progress.text(self._metadata_max) for p in sent]",
        '["" for p in sent]',
    ),
    "what finished ahead makes no commit": (
        "consume.progress",
        "        return Reached(self.offset, self.tracker.finished_ahead - self._recalled)\n",
        "        return Reached(self.offset, 0)\n",
    ),
    "the metadata is not read": (
        "consume.remembered",
        "    if not text:\n        return None\n",
        "    return None\n",
    ),
    "what has not come yet is forgotten when the partition moves on": (
        "consume.progress",
        "        if self._remembered is None:\n            return tracker",
        "        if True:\n            return tracker",
    ),
    "more is admitted than the metadata can hold": (
        "consume.inbox",
        "self._admissible = self._progress.admissible(shared.metadata_max)",
        "self._admissible = 1_000_000",
    ),
    "metadata of another offset is used": (
        "consume.remembered",
        "        runs = decode_finished(text, start.offset)\n",
        "        runs = []\n"
        "        for offset in range(20):\n"
        "            try:\n"
        "                runs = decode_finished(text, offset)\n"
        "            except ValueError:\n"
        "                pass\n",
    ),
    "metadata is used that names more than the log has": (
        "consume.remembered",
        "    if found.end > start.end:\n",
        "    if False:\n",
    ),
}


def plan_of(seed: int) -> Plan:
    """A plan as ``test_interleavings`` makes them, from a seed; every third one is disturbed."""
    chance = random.Random(seed)
    disturbed = seed % 3 == 2
    steps: list[tuple[Any, ...]] = []
    for _ in range(chance.randint(10, 45)):
        match chance.choice("sssseeewwlt" + "jvvxobug" * disturbed):
            case "s":
                kinds = ("message",) * 5 + ("undecodable", "filtered", "echo", "tombstone")
                step: tuple[Any, ...] = (
                    "send",
                    chance.randrange(2),
                    "".join(chance.choices("abc", k=chance.randint(1, 4))),
                    chance.choice(kinds),
                )
            case "e":
                step = ("end", chance.randrange(6), chance.choice(ENDS))
            case "w":
                step = ("end", chance.randrange(6), "success")
            case "l":
                step = ("look",)
            case "t":
                step = ("tick", chance.choice([0.01, 0.3, 1.0, 4.0]))
            case "j":
                step = ("join",)
            case "v":
                step = ("leave", chance.randrange(2))
            case "x":
                step = ("expel", chance.randrange(2))
            case "u" | "g" as letter:
                step = ("unsettle",) if letter == "u" else ("settle",)
            case "o":
                step = ("outage", chance.choice(["poll", "commit"]), chance.randint(1, 4))
            case _:
                step = ("tick", chance.choice([9.0, 25.0]))
        steps.append(step)
    return Plan(
        mode=("pipeline", "pipeline", "best-effort", "low-latency")[seed % 4],
        partitions=chance.randint(1, 2),
        max_concurrency=chance.randint(1, 3),
        max_uncommitted=chance.randint(1, 4),
        metadata_max=chance.choice((30, 40, METADATA_MAX)),
        monopolization_threshold=chance.choice((0.0, 0.1, 1.0, 1.0)),
        steps=tuple(steps),
    )


PLANS = (
    # The last commit of all is the one that fails; chance rarely gets there.
    Plan(
        steps=(
            ("send", 0, "a", "message"),
            ("look",),
            ("outage", "commit", 2),
            ("end", 0, "success"),
            ("tick", 4.0),
        )
    ),
    # Every second record finishes, of more than the metadata has room for; then all moves on.
    Plan(
        max_concurrency=200,
        max_uncommitted=200,
        metadata_max=40,
        steps=(
            ("send", 0, "".join(map(chr, range(0x4E00, 0x4E00 + 200))), "message"),
            ("look",),
            *(("end", number, "success") for number in range(1, 101)),
            ("look",),
            ("leave", 0),
            ("tick", 25.0),
            ("join",),
        ),
    ),
    *(plan_of(seed) for seed in range(SEEDS)),
)


def other_starts() -> None:
    """A note is passed on until it has come; at another offset or in a shorter log it is not used."""
    from prosody.consume.progress import Progress

    note = Progress("p", Start(3))
    for offset in range(3, 9):
        note.tracker.admit(offset, 0.0)
    for offset in (5, 7):
        note.tracker.complete(offset)
    text = note.text(100)
    assert Progress("p", Start(3, text, 8)).recalls
    begun = Progress("p", Start(3, text, 8))
    begun.tracker.admit(3, 0.0)
    begun.tracker.complete(3)
    passed_on = decode_finished(begun.text(100), 4)
    assert passed_on == [(5, 6), (7, 8)], "what has not come yet is forgotten"
    for start in (Start(4, text, 8), Start(3, text, 7)):
        assert not Progress("p", start).recalls, f"used: {start}"


def edits(mutant: str) -> tuple[Edit, ...]:
    found: Any = MUTANTS[mutant]
    return (found,) if isinstance(found[0], str) else found


def mutate(monkeypatch: pytest.MonkeyPatch, *edits: Edit) -> None:
    """Put a mutant of each module that ``edits`` name in its place."""
    for name in dict.fromkeys(name for name, _, _ in edits):
        original = importlib.import_module(f"prosody.{name}")
        source = Path(str(original.__file__)).read_text()
        for _, old, new in (edit for edit in edits if edit[0] == name):
            assert source.count(old) == 1, f"{source.count(old)} places for the mutation: {old!r}"
            source = source.replace(old, new)
        replace_module(monkeypatch, name, original, source)


def replace_module(
    monkeypatch: pytest.MonkeyPatch, name: str, original: ModuleType, source: str
) -> None:
    mutant = ModuleType(original.__name__)
    monkeypatch.setitem(sys.modules, original.__name__, mutant)
    exec(compile(source, f"mutant of {name}", "exec"), vars(mutant))
    if name.startswith("model."):
        # Its classes and constants are compared by identity all over the library; only its functions
        # can be mutants.
        vars(mutant).update(
            (attribute, value)
            for attribute, value in vars(original).items()
            if isinstance(value, type) or attribute.isupper()
        )
    for module in [m for n, m in sys.modules.items() if n.startswith("prosody.")]:
        for attribute, value in list(vars(module).items()):
            mine = getattr(value, "__module__", None) == original.__name__
            replacement = vars(mutant).get(attribute)
            if mine and module is not mutant and replacement is not None and callable(value):
                monkeypatch.setattr(module, attribute, replacement)


def first_fault() -> str | None:
    """What the first plan that goes wrong says; None when all go well."""
    try:
        other_starts()
    except AssertionError as fault:
        return str(fault)
    for number, plan in enumerate(PLANS):
        try:
            run_virtual(play(plan))
        # Whatever it is, it shows: an oracle's fault, a deadlock, an error of the mutant's own.
        except (Exception, SystemExit) as fault:
            return f"plan {number}: {type(fault).__name__}: {fault}"
    return None


def test_the_code_as_it_is_shows_no_fault() -> None:
    assert first_fault() is None


@pytest.mark.parametrize(
    "module", sorted({edit[0] for mutant in MUTANTS for edit in edits(mutant)})
)
def test_a_module_put_in_unchanged_shows_no_fault(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a mutant shows, it shows because of its change, not because it was put in."""
    text = "from __future__ import annotations"
    mutate(monkeypatch, (module, text, text))
    assert first_fault() is None


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_mutant_is_seen(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch, *edits(mutant))
    assert first_fault() is not None, f"no plan shows that {mutant}"
