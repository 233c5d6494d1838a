"""Whether the store counts as down.

::

    up ──(no node reachable, or time-outs one after another)──▶ down: calls fail at once
     ▲                                                            │ one probe, again and again
     └────────────────────────(it answers)────────────────────────┘
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from prosody.errors import StoreDownError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.stores")

TIMEOUTS_IN_A_ROW: Final = 2
"""One may be the request's own fault, such as a pause of one node."""
FIRST_PROBE_S: Final = 0.25
LONGEST_PROBE_WAIT_S: Final = 5.0


class Breaker:
    """Counts outages, and probes while the store is down."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        runtime: Runtime,
        *,
        on_down: Callable[[str], None],
    ) -> None:
        """
        :param probe: asks the store something; raises ``StoreError`` while it does not answer.
        :param on_down: called when the store begins to count as down, with the reason.
        """
        self._probe = probe
        self._runtime = runtime
        self._on_down = on_down
        self._in_a_row = 0
        self._probing: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why the store counts as down; None when it does not."""

    def check(self) -> None:
        """
        :raises StoreDownError: at once, while the store counts as down.
        """
        if self.problem is not None:
            raise StoreDownError(self.problem)

    def succeeded(self) -> None:
        """A request was answered."""
        self._in_a_row = 0

    def failed(self, reason: str, *, unreachable: bool) -> None:
        """A request failed in a way that speaks of the store.

        :param unreachable: no node took it, which needs no second opinion.
        """
        self._in_a_row += 1
        if self.problem is None and (unreachable or self._in_a_row >= TIMEOUTS_IN_A_ROW):
            self.problem = f"Cassandra counts as down: {reason}"
            _log.error("%s; calls fail at once until it answers again", self.problem)
            self._probing = asyncio.create_task(
                self._probe_until_it_answers(), name="prosody store probe"
            )
            self._on_down(self.problem)

    async def _probe_until_it_answers(self) -> None:
        began = self._runtime.monotonic()
        wait_s = FIRST_PROBE_S
        while True:
            await self._runtime.sleep(wait_s * (0.5 + self._runtime.random() / 2))
            try:
                await self._probe()
            except StoreError:
                wait_s = min(2 * wait_s, LONGEST_PROBE_WAIT_S)
            else:
                break
        self.problem = None
        self._in_a_row = 0
        _log.warning("Cassandra answers again, after %.1f s", self._runtime.monotonic() - began)

    async def stop(self) -> None:
        """End the probe."""
        if (probing := self._probing) is not None:
            self._probing = None
            probing.cancel()
            await asyncio.wait([probing])
