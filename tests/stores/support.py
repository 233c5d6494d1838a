"""What the tests of the stores share."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from prosody.stores.protocol import Deferred, StoredTimer, TimerKind
from prosody.stores.protocol import Place as TimerPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prosody.stores.protocol import DeferredKind, Segment, Stores

APP = TimerKind.APPLICATION
FAR = 2**32 - 1
"""The last second a timer can have."""


class Place:
    """Where stores of one kind can be had, again and again, over one content."""

    def __init__(self, kind: str, make: Callable[[float], Stores]) -> None:
        self.kind = kind
        self._make = make
        self._made: list[Stores] = []

    async def stores(self, slab_size_s: float = 3600.0) -> Stores:
        """New ones, as another process would have them."""
        found = self._make(slab_size_s)
        self._made.append(found)
        await found.start()
        return found

    async def close(self) -> None:
        """Stop all."""
        for stores in self._made:
            await stores.stop()


def timer(
    time: int, key: str = "k", kind: TimerKind = APP, trace: dict[str, str] | None = None
) -> StoredTimer:
    return StoredTimer(time, kind, key, trace or {})


def deferred(position: int, trace: dict[str, str] | None = None) -> Deferred:
    return Deferred(position, 1_700_000_000_000 + position, trace or {})


async def load_all(
    stores: Stores, segment: Segment, until: int = FAR, page: int = 3
) -> list[StoredTimer]:
    """All timers of a segment, page by page, as its owner loads them."""
    found: list[StoredTimer] = []
    after: TimerPlace | None = None
    while True:
        some: Sequence[StoredTimer] = await stores.timers.load(segment, after, until, page)
        assert len(some) <= page
        found += some
        if len(some) < page:
            break
        after = some[-1].place
    assert [(t.time, t.kind) for t in found] == sorted((t.time, t.kind) for t in found)
    assert len({t.place for t in found}) == len(found), "a timer was loaded twice"
    return found


async def hashes(stores: Stores, segment: Segment, kind: DeferredKind) -> set[int]:
    """The hashes of all keys with a queue."""
    return {h async for page in stores.deferred.hashes(segment, kind) for h in page}


def plain_session(address: str, user: str | None = None, password: str = "") -> Any:
    """A session of the driver by itself; ``session.cluster.shutdown()`` ends it. Blocks."""
    from cassandra import ProtocolVersion
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.policies import RoundRobinPolicy

    logging.getLogger("cassandra").setLevel(logging.ERROR)
    host, _, port = address.rpartition(":")
    cluster = Cluster(
        [(host, int(port))],
        protocol_version=ProtocolVersion.V4,
        auth_provider=PlainTextAuthProvider(user, password) if user else None,
        execution_profiles={
            EXEC_PROFILE_DEFAULT: ExecutionProfile(RoundRobinPolicy(), request_timeout=30.0)
        },
    )
    try:
        return cluster.connect()
    except BaseException:
        cluster.shutdown()
        raise


def wait_for_login(address: str, user: str, password: str) -> None:
    """A server answers a little before it has made its first user."""
    from cassandra.cluster import NoHostAvailable

    deadline = time.monotonic() + 60.0
    while True:
        try:
            plain_session(address, user, password).cluster.shutdown()
        except NoHostAvailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def drop_keyspace(address: str, name: str) -> None:
    """Drop a keyspace, if it is there."""
    session = plain_session(address)
    try:
        session.execute(f'DROP KEYSPACE IF EXISTS "{name}"')
    finally:
        session.cluster.shutdown()
