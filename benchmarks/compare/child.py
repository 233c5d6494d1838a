"""One process of an entrant: started, listened to, told to end, and killed when it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from benchmarks.compare.environments import ROOT
from benchmarks.compare.rivals import RIVALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from benchmarks.compare.rivals import Entrant

SCRIPTS = ROOT / "benchmarks" / "compare" / "scripts"
LINE_LIMIT = 2**24
"""A result with a log is a long line."""
SAID_MAX = 300
GRACE_S = 2.0
"""A process has so long to end once nobody listens to it any more."""


class ChildError(Exception):
    """A process ended without a result, or hung."""


class Child:
    """A running script."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._errors = b""
        self._reading = asyncio.ensure_future(self._read_errors())

    async def until(self, event: str, limit_s: float) -> dict[str, Any]:
        """The next line with this event.

        :raises ChildError: it ends before, or does not say it in time.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await self._until(event)
        except TimeoutError:
            raise ChildError(f"hung: no {event} within {limit_s:.0f} s") from None

    async def _until(self, event: str) -> dict[str, Any]:
        out = self._process.stdout
        assert out is not None
        async for line in out:
            # A package may print lines of its own.
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and found.get("event") == event:
                    return found
        await self._process.wait()
        await self._reading
        lines = [
            line for line in self._errors.decode(errors="replace").splitlines() if line.strip()
        ]
        said = lines[-1].strip()[:SAID_MAX] if lines else "nothing"
        raise ChildError(f"ended with {self._process.returncode}, saying: {said}")

    def tell_to_end(self) -> None:
        """It handles no more, leaves its group and prints its result."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._errors = (self._errors + line)[-4 * LINE_LIMIT // 1024 :]

    async def end(self) -> None:
        """Whatever it does, it is over.

        One that has ended is not signalled: that would take its exit code away from asyncio.
        """
        try:
            async with asyncio.timeout(GRACE_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._reading.cancel()


def environment_of(entrant: Entrant) -> dict[str, str]:
    """Of its process. ``PYTHONPATH`` is this checkout for ours and nothing for others: two packages are
    called prosody. The probes' port is switched off, as it is one for all."""
    found = {
        name: text
        for name, text in os.environ.items()
        if name != "PYTHONPATH" and not name.startswith("PROSODY_")
    }
    found["PROSODY_PROBE_PORT"] = "none"
    if not RIVALS[entrant.rival].requirements:
        found["PYTHONPATH"] = str(ROOT)
    return found | entrant.variables


@contextlib.asynccontextmanager
async def started(python: str, entrant: Entrant, job: Mapping[str, Any]) -> AsyncIterator[Child]:
    """The entrant's script, for as long as the block takes."""
    process = await asyncio.create_subprocess_exec(
        python, RIVALS[entrant.rival].script, json.dumps(job),
        cwd=SCRIPTS, env=environment_of(entrant), limit=LINE_LIMIT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    child = Child(process)
    try:
        yield child
    finally:
        await child.end()
