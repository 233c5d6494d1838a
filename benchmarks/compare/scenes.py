"""The three ways to run an entrant: over a backlog, over messages that come at their times, and while
another member joins and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from benchmarks.compare.child import started
from benchmarks.compare.records import plan, warm_up
from benchmarks.compare.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.compare.records import Made
    from benchmarks.compare.rivals import Entrant
    from benchmarks.path.places import Place

DEADLINE_S = 150.0
CLOSE_LIMIT_S = 45.0
HEAL_S = 60.0
HEAL_DROPPED_S = 2.0
"""Who drops what fails is not waited for."""
WARM = 400
"""A hundred or so for each partition, far more than the 4 KiB after which a log has an index."""
SETTLE_S = 0.5
REBALANCE_KEYS = 100
STEADY_S = 1.5
JOINED_S = 2.0
LEFT_S = 4.0
LAST_S = 1.0
LONGEST_S = 120.0

Event = tuple[int, float, int]
"""Partition, moment, number of the message."""


async def backlog(
    place: Place, python: str, entrant: Entrant, job: dict[str, Any], made: Made
) -> dict[str, Any]:
    """Everything is there from the start."""
    job = job | {
        "expected": made.expected, "failing": made.failing,
        "heal_s": HEAL_S if entrant.once_done else HEAL_DROPPED_S,
    }  # fmt: skip
    async with started(python, entrant, job) as child:
        figures = await child.until("result", DEADLINE_S + CLOSE_LIMIT_S)
    figures["uncommitted"] = await place.uncommitted(job["group"])
    figures["keys_missing"] = made.distinct_keys - figures["distinct_keys"]
    return figures


async def live(
    place: Place,
    python: str,
    entrant: Entrant,
    job: dict[str, Any],
    rate: float,
    seconds: float,
    hot_rate: float,
) -> dict[str, Any]:
    """Messages come at their times; the first ones are there already, and are not counted."""
    await place.fill(warm_up(WARM), one_by_one=True)
    planned = plan(rate, seconds, hot_rate=hot_rate, warm=WARM)
    job = job | {"topic": place.topic, "expected": WARM + len(planned), "live": True}
    async with started(python, entrant, job) as child:
        await child.until("first", DEADLINE_S)
        await asyncio.sleep(SETTLE_S)
        sender = Sender(job["kafka"], place, planned)
        await sender.run()
        figures = await child.until("result", DEADLINE_S + CLOSE_LIMIT_S)
    figures["uncommitted"] = await place.uncommitted(job["group"])
    figures["keys_missing"] = WARM + len({each.key for each in planned}) - figures["distinct_keys"]
    return figures | {
        "count": len(planned), "sent_rate": rate, "sender_late_s": sender.lateness_s
    }  # fmt: skip


async def rebalance(
    place: Place, python: str, entrant: Entrant, job: dict[str, Any], rate: float
) -> dict[str, Any]:
    """One member stays while another one joins and leaves."""
    await place.fill(warm_up(WARM), one_by_one=True)
    planned = plan(rate, LONGEST_S, distinct=REBALANCE_KEYS, warm=WARM)
    job = job | {
        "topic": place.topic, "expected": WARM + len(planned), "log": True, "until_told": True,
    }  # fmt: skip
    sender = Sender(job["kafka"], place, planned)
    sending = asyncio.ensure_future(asyncio.sleep(0))
    try:
        async with started(python, entrant, job) as stays:
            await stays.until("first", DEADLINE_S)
            sending = asyncio.ensure_future(sender.run())
            await asyncio.sleep(STEADY_S)
            join_at = time.monotonic()
            async with started(python, entrant, job) as comes:
                await comes.until("first", DEADLINE_S)
                await asyncio.sleep(JOINED_S)
                leave_at = time.monotonic()
                comes.tell_to_end()
                guest = await comes.until("result", CLOSE_LIMIT_S)
            await asyncio.sleep(LEFT_S)
            sender.over = True
            await sending
            await asyncio.sleep(LAST_S)
            end_at = time.monotonic()
            stays.tell_to_end()
            figures = await stays.until("result", CLOSE_LIMIT_S)
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
    host_log, guest_log = ([tuple(event) for event in f.pop("log")] for f in (figures, guest))
    seen = {i for _, _, i in host_log} | {i for _, _, i in guest_log}
    figures["lost"] = WARM + sender.sent - len(seen)
    figures["again"] = len(host_log) + len(guest_log) - len(seen)
    figures["order_faults"] = late(host_log + guest_log, planned)
    figures["repeated"] = 0  # allowed where partitions move; shown as ``again``
    figures["uncommitted"] = await place.uncommitted(job["group"])
    moved = {partition for partition, _, _ in guest_log}
    figures["join_pause_s"] = pause(host_log, moved, join_at, leave_at)
    figures["leave_pause_s"] = pause(host_log, moved, leave_at, end_at - LAST_S)
    return figures | {"count": WARM + sender.sent, "healthy": 0}


def pause(log: Sequence[Event], moved: Iterable[int], since: float, until: float) -> float | None:
    """The longest time without a message on a partition that stayed; None when none did."""
    stayed = {partition for partition, _, _ in log} - set(moved)
    longest = None
    for partition in stayed:
        moments = [at for p, at, _ in log if p == partition and since < at < until]
        gaps = [b - a for a, b in zip([since, *moments], [*moments, until], strict=True)]
        longest = max(longest or 0.0, *gaps)
    return longest


def late(log: Sequence[Event], planned: Sequence[Any]) -> int:
    """Messages that came after a later one of their key, and not before as well."""
    of = {each.i: each for each in planned}
    seen: set[int] = set()
    newest: dict[str, int] = {}
    faults = 0
    for _, _, i in sorted(log, key=lambda event: event[1]):
        each = of.get(i)
        if each is None or i in seen:
            continue
        seen.add(i)
        faults += each.seq < newest.get(each.key, -1)
        newest[each.key] = max(each.seq, newest.get(each.key, -1))
    return faults
