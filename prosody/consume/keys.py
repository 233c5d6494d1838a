"""Keys by name, for a snapshot: which have used most handler time, and which have deferred work."""

from __future__ import annotations

from datetime import UTC, datetime
from heapq import nlargest, nsmallest
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prosody.consume.doing import short
from prosody.deferral.deferrals import RETRY_TIMER
from prosody.model.snapshot import BusyKey, DeferredKey
from prosody.stores.protocol import DeferredKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prosody.consume.partition import Partition
    from prosody.model.run import Run

BUSIEST_MOST: Final = 20
DEFERRED_MOST: Final = 50
"""So many are shown."""


def busiest(
    held: Iterable[Partition],
    charged: Mapping[Any, float],
    begun: Iterable[Run],
    now: float,
) -> tuple[BusyKey, ...]:
    """The keys that have used most handler time, of the partitions that are held.

    :param charged: seconds of runs that have ended, by ``Run.place``.
    :param begun: the runs under way, which are charged when they end.
    """
    by_number = {partition.number: partition.topic_partition for partition in held}
    used = {place: used_s for place, used_s in charged.items() if place[0] in by_number}
    handling = {run.place for run in begun if run.handling}
    for run in begun:
        if run.handling:
            used[run.place] = used.get(run.place, 0.0) + max(0.0, now - run.began)
    return tuple(
        BusyKey(*by_number[place[0]], short(place[1]), round(used_s, 3), place in handling)
        for place, used_s in nlargest(BUSIEST_MOST, used.items(), key=itemgetter(1))
        if used_s > 0.0
    )


class _Found(NamedTuple):
    """A key with deferred work that is known by name."""

    at: float
    """When it is tried next; infinite when that is not in memory."""
    partition: Partition
    kind: DeferredKind
    key: str


def deferred_keys(held: Sequence[Partition]) -> tuple[tuple[DeferredKey, ...], int]:
    """The keys with deferred work that are tried next, and how many others there are."""
    total = sum(
        count
        for partition in held
        if partition.deferrals is not None
        for count in partition.deferrals.keys.values()
    )
    if not total:
        return (), 0
    found = (each for partition in held for each in _of(partition))
    shown = tuple(_shown(each) for each in nsmallest(DEFERRED_MOST, found, key=itemgetter(0)))
    return shown, max(0, total - len(shown))


def _of(partition: Partition) -> Iterator[_Found]:
    """Each such key has a retry timer; those that are due soon are in memory, with the key's name."""
    durable, deferrals = partition.durable, partition.deferrals
    if durable is None or deferrals is None:
        return
    for kind in DeferredKind:
        retries = durable.timers.first_times(RETRY_TIMER[kind])
        for key, at in retries.items():
            if deferrals.holds(kind, key):
                yield _Found(at, partition, kind, key)
        for key in deferrals.known(kind):
            if key not in retries:
                yield _Found(inf, partition, kind, key)


def _shown(found: _Found) -> DeferredKey:
    deferrals = found.partition.deferrals
    assert deferrals is not None, "it has deferred keys"
    failure = deferrals.failure(found.kind, found.key)
    return DeferredKey(
        *found.partition.topic_partition,
        key=short(found.key),
        kind=found.kind.name.lower(),
        next_try=None if found.at == inf else datetime.fromtimestamp(found.at, UTC),
        failures=None if failure is None else failure.failures,
        last_error=None if failure is None or not failure.error else short(failure.error),
    )
