"""Starts members, sends them signals, reads their files. Every wait has a deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tests.processes import mutants
from tests.processes.histories import held_at
from tests.processes.history import Event, History, Run
from tests.processes.member import Options
from tools.services.spawn import wait_until_frozen

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
"""Of every wait."""
_LOOK_S = 0.02
_TAIL_LINES = 40


class Member:
    """One process, and its file."""

    def __init__(
        self, name: str, folder: Path, process: subprocess.Popen[bytes], history: History
    ) -> None:
        self.name = name
        self.history = history
        self.process = process
        self.log_path = folder / f"{name}.log"
        self.expected_to_run = True
        self.died_at: float | None = None
        """When it was surely gone, for one that was killed."""

    @property
    def gone(self) -> bool:
        return self.process.poll() is not None

    def held(self) -> frozenset[int]:
        """The partitions it holds, as far as its file has been read."""
        return held_at(self.history.events, float("inf"))

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def log_lines(self, *parts: str) -> list[str]:
        """The lines it logged, as far as they have all ``parts`` in them."""
        lines = self.log_path.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if all(part in line for part in parts)]

    def log_tail(self) -> str:
        """The last lines it logged."""
        return "\n".join(self.log_lines()[-_TAIL_LINES:])


class Fleet:
    """The members of one group; ends them all at the end, by their ids."""

    program: ClassVar[str] = "tests.processes.member"
    """What a member runs; another one takes the same options, and writes such a file too."""
    history: ClassVar[type[History]] = History
    """What reads the file."""
    deadline_s: ClassVar[float] = DEADLINE_S
    """Of every wait that names no other."""

    def __init__(self, folder: Path, client: dict[str, Any], work: dict[str, Any]) -> None:
        """
        :param client: options of each member's ``ProsodyClient``.
        :param work: the other fields of :class:`~tests.processes.member.Options`.
        """
        self._folder = folder
        self._client = client
        self._work = work
        self.members: list[Member] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for member in self.members:
            if not member.gone:
                member.process.kill()
            member.process.wait(DEADLINE_S)
            if member.process.stdin is not None:
                member.process.stdin.close()

    # -- signals ---------------------------------------------------------------------------------------

    async def start(self, name: str, *, mutant: str = "", **work: Any) -> Member:
        """Start a member and wait until it has subscribed; names are used once."""
        member = self.launch(name, mutant=mutant, **work)
        await self.until(lambda: bool(member.history.told("up")), f"{name} has subscribed")
        return member

    def launch(self, name: str, *, mutant: str = "", **work: Any) -> Member:
        """Start a member, and wait for nothing."""
        options = Options(
            history=str(self._folder / f"{name}.jsonl"),
            client=self._client,
            **{**self._work, **work},
        )
        command = [sys.executable, "-m", self.program, options.text()]
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, mutants.VARIABLE: mutant},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        history = self.history(name, self._folder / f"{name}.jsonl")
        member = Member(name, self._folder, process, history)
        self.members.append(member)
        return member

    async def stop(self, *members: Member, deadline_s: float | None = None) -> None:
        """SIGTERM, and wait until they have ended with 0."""
        for member in members:
            member.expected_to_run = False
            member.send(signal.SIGTERM)
        names = ", ".join(member.name for member in members)
        await self.until(
            lambda: all(member.gone for member in members), f"{names} ended", deadline_s
        )
        for member in members:
            code = member.process.returncode
            assert code == 0, f"{member.name} ended with {code}:\n{member.log_tail()}"

    async def kill(self, member: Member) -> None:
        """SIGKILL, and wait until it is gone."""
        member.expected_to_run = False
        member.send(signal.SIGKILL)
        await self.until(lambda: member.gone, f"{member.name} is dead")
        member.died_at = time.monotonic()

    def freeze(self, member: Member) -> float:
        """SIGSTOP; when every thread stood still."""
        member.send(signal.SIGSTOP)
        frozen = wait_until_frozen(member.process, DEADLINE_S)
        assert frozen, f"{member.name} did not stop"
        return time.monotonic()

    def thaw(self, member: Member) -> float:
        """SIGCONT; when it was sent."""
        at = time.monotonic()
        member.send(signal.SIGCONT)
        return at

    # -- files -----------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take in what the members have written."""
        for member in self.members:
            member.history.read()

    async def until(
        self, condition: Callable[[], bool], what: str, deadline_s: float | None = None
    ) -> None:
        """Read the files again and again until ``condition`` holds; fail when a member ends unasked."""
        deadline_s = self.deadline_s if deadline_s is None else deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                while not self._holds(condition):  # noqa: ASYNC110  # other processes announce nothing
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            tails = "\n".join(f"--- {m.name}\n{m.log_tail()}" for m in self.members)
            raise AssertionError(f"waited {deadline_s:g} s, and not yet: {what}\n{tails}") from None

    def _holds(self, condition: Callable[[], bool]) -> bool:
        for member in self.members:
            if member.expected_to_run and member.gone:
                raise AssertionError(f"{member.name} ended by itself:\n{member.log_tail()}")
        self.read()
        return condition()

    async def until_more(self, count: int, *members: Member) -> None:
        """Until each of ``members`` (nobody named: all together) has handled ``count`` more records."""
        self.read()
        if members:
            goals = [(member, member.history.finished + count) for member in members]
            names = " and ".join(member.name for member in members)
            await self.until(
                lambda: all(member.history.finished >= goal for member, goal in goals),
                f"{names} handled {count} more",
            )
        else:
            goal = self.finished + count
            await self.until(lambda: self.finished >= goal, f"{count} more were handled")

    @property
    def finished(self) -> int:
        """Handler runs that came to their end, in all files; a record may count more than once."""
        return sum(member.history.finished for member in self.members)

    def handled_of(self) -> Counter[str]:
        """The highest number handled of each key."""
        highest: Counter[str] = Counter()
        for member in self.members:
            highest |= member.history.handled_of
        return highest

    def runs(self) -> list[Run]:
        """All handler runs, of all members."""
        return [run for member in self.members for run in member.history.runs]

    def events(self) -> list[Event]:
        """Everything else, of all members."""
        return [event for member in self.members for event in member.history.events]

    def died(self) -> dict[str, float]:
        """When the killed ones were dead."""
        return {m.name: m.died_at for m in self.members if m.died_at is not None}
