"""Events whose write into the store failed: they are handled in place, but may be stored as well."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeAlias

from prosody.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prosody.model.fields import Fields
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime
    from prosody.stores.protocol import DeferredKind

_log = logging.getLogger("prosody.deferral")

Event: TypeAlias = "tuple[DeferredKind, str, int]"
"""Kind, key and position."""

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""Between two rounds of removals; a store that is down looks for itself every 5 s."""


class Uncertain:
    """Remembers them until they are certainly not stored, or certainly deferred.

    An event is added before it is written, and leaves in one of three ways: the write is known to have
    worked; or the event finished in place and has been removed; or the partition is given up, and the
    next owner, which finds the row if there is one, has to run the event once more.
    """

    def __init__(
        self,
        remove: Callable[[DeferredKind, str, int], Awaitable[None]],
        runtime: Runtime,
        storms: Storms,
        about: Fields | None = None,
    ) -> None:
        """
        :param remove: takes an event out of the store, and then calls ``discard``.
        :param about: the partition, for log lines.
        """
        self._remove = remove
        self._runtime = runtime
        self._storm = storms.common(_log)
        self._about = about
        self.events: dict[Event, bool] = {}
        """Whether each has finished; only read by others."""
        self._by_key: dict[tuple[DeferredKind, str], list[int]] = {}
        """Positions of those that have finished."""
        self._removing: asyncio.Task[None] | None = None
        self._closed = False
        self.problem: str | None = None

    def add(self, kind: DeferredKind, key: str, position: int) -> None:
        """An event is about to be written.

        A timer that finished in place may be set again for the same second: it is a new event then, whose
        row must not be taken for what was left of the old one.
        """
        self.discard(kind, key, position)
        self.events[kind, key, position] = False

    def discard(self, kind: DeferredKind, key: str, position: int) -> None:
        """It is certain now."""
        if self.events.pop((kind, key, position), False):
            positions = self._by_key[kind, key]
            positions.remove(position)
            if not positions:
                del self._by_key[kind, key]

    def finish(self, kind: DeferredKind, key: str, position: int) -> bool:
        """An event has finished in place; whether it may be stored."""
        event = (kind, key, position)
        if self.events.get(event) is not False:
            return False  # certain; or told twice
        self.events[event] = True
        self._by_key.setdefault((kind, key), []).append(position)
        return True

    def finished(self, kind: DeferredKind, key: str) -> Sequence[int]:
        """Positions of a key that have finished, and may be stored."""
        return tuple(self._by_key.get((kind, key), ()))

    async def remove(self, kind: DeferredKind, key: str, position: int) -> None:
        """Remove a finished one from the store; in the background, if that fails now."""
        try:
            await self._remove(kind, key, position)
        except StoreError as error:
            # It has finished, and its key is to be free: whoever reads the key's queue looks here first.
            self._failed(error)
            if self._removing is None and not self._closed:
                self._removing = asyncio.get_running_loop().create_task(
                    self._remove_all(), name="prosody-deferral-removals"
                )

    async def _remove_all(self) -> None:
        wait_s = FIRST_WAIT_S
        try:
            while self._by_key and not self._closed:
                await self._runtime.sleep(wait_s * (1.0 - self._runtime.random() / 2.0))
                try:
                    for (kind, key), positions in list(self._by_key.items()):
                        for position in list(positions):
                            await self._remove(kind, key, position)
                except StoreError as error:
                    # Tried again: nothing else would keep the event from running once more.
                    self._failed(error)
                    wait_s = min(2.0 * wait_s, LONGEST_WAIT_S)
        finally:
            self._removing = None
        self.problem = None

    def _failed(self, error: StoreError) -> None:
        self.problem = (
            f"{len(self.events)} finished events may still be stored as deferred: {error}"
        )
        more = self._storm.allows(logging.WARNING, self._about)
        if more is not None:
            _log.warning(
                "%s; removing them is tried again%s", self.problem, more, extra=self._about
            )

    def close(self) -> None:
        """The partition is given up."""
        self._closed = True
        if self._removing is not None:
            self._removing.cancel()
