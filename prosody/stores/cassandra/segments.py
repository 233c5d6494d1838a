"""What is known of a segment's timers while it is open."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

from prosody.stores.cassandra.settings import expiry, time_to_live
from prosody.stores.cassandra.slabs import Slab, Slabs
from prosody.stores.hashing import segment_id

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from prosody.stores.cassandra.link import Link
    from prosody.stores.protocol import Segment


KEPT_LONGER_S: Final = 3600.0
"""So much longer than needed a slab is kept, so that it need not be written for each late timer."""

_serials = itertools.count(1)


class OpenSegment:
    """The slabs of one segment, and how far loading need not look.

    ``passed``: everything before that second is gone. It only moves forward while no timer before it is
    being added, and is moved back, durably, before one is.
    """

    def __init__(self, segment: Segment, slabs: Slabs, passed: int) -> None:
        self.id: uuid.UUID = segment_id(segment)
        self.serial = next(_serials)
        """Tells what is remembered of this opening from what was of an earlier one."""
        self.slabs = slabs
        self.passed = passed
        self._adding: Counter[int] = Counter()
        self._changing = asyncio.Lock()
        """Held while slabs are registered or forgotten, or ``passed`` is written."""

    def begin_adding(self, time: int) -> None:
        """A timer of that time is about to be stored."""
        self._adding[time] += 1

    def end_adding(self, time: int) -> None:
        """It is, or it failed."""
        self._adding[time] -= 1
        if not self._adding[time]:
            del self._adding[time]

    async def slab_for(
        self, link: Link, time: int, size: int, retention_s: float, wall: Callable[[], float]
    ) -> int:
        """The start of the slab for a timer that is being added, which loading will come upon.

        :param size: of a new slab, in seconds.
        """
        needed = expiry(time_to_live(max(0.0, time - wall()) + retention_s, wall()), wall())
        slab = self.slabs.covering(time)
        if slab is not None and slab.expires >= needed and time >= self.passed:
            return slab.start
        async with self._changing:
            if time < self.passed:
                await link.write("segment.passed", time, self.id)
                self.passed = time
            slab = self.slabs.covering(time)
            if slab is not None and slab.expires >= needed:
                return slab.start
            if slab is not None:
                start, end = slab.start, slab.end
            else:
                start, end = self.slabs.new_around(time, size)
            # At least as long as any timer in it that is due by its end.
            keep_s = max(0.0, end - wall(), time - wall()) + retention_s + KEPT_LONGER_S
            ttl = time_to_live(keep_s, wall())
            await link.write("slabs.put", self.id, start, end, ttl)
            self.slabs.put(Slab(start, end, expiry(ttl, wall())))
            return start

    async def pass_before(self, link: Link, before: int) -> None:
        """All timers before a second are gone."""
        async with self._changing:
            before = min([before, *self._adding])
            if before <= self.passed:
                return
            # First here: an add that begins now sees it, and waits for its turn to move it back.
            self.passed = before
            await link.write("segment.passed", before, self.id)
            if (bound := self.slabs.forget_before(before)) is not None:
                await link.write("slabs.forget", self.id, bound)
