"""An independent look at the stores: what they hold of timers and deferred work.

Not through the library's own queries, for the reason of ``look.py``: those could only repeat what it
believes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prosody.stores.memory import MemoryStoreState
from tools.look import LookError

if TYPE_CHECKING:
    from prosody.broker.memory import MemoryCluster

_LIMIT_S = 20.0
_TABLES = ("aio_timers", "aio_deferred")


class Left(NamedTuple):
    """What the stores hold."""

    timers: int
    deferred: int
    """Entries of queues of deferred work, messages and timers."""


class StoresLook(Protocol):
    """Counts what the stores hold."""

    async def left(self) -> Left:
        """What there is now.

        :raises LookError: the store does not answer.
        """
        ...

    async def drop(self) -> None:
        """Remove what was stored, if it can be removed apart from what others have."""
        ...


class MemoryStoresLook:
    """Counts in the state of an embedded cluster, of one group."""

    def __init__(self, cluster: MemoryCluster, group_id: str) -> None:
        self._state = cluster.attached(MemoryStoreState)
        self._group_id = group_id

    async def left(self) -> Left:
        state = self._state
        with state.lock:
            return Left(
                sum(
                    len(table.by_time)
                    for segment, table in state.timers.items()
                    if segment.group_id == self._group_id
                ),
                sum(
                    len(queue.entries)
                    for (segment, _), queues in state.queues.items()
                    if segment.group_id == self._group_id
                    for queue in queues.values()
                ),
            )

    async def drop(self) -> None:
        """It ends with the process."""


class CassandraStoresLook:
    """Counts rows in the tables of a keyspace with the driver itself: for few rows, as in a demo."""

    def __init__(self, address: str, keyspace: str) -> None:
        self._address = address
        self._keyspace = keyspace

    async def left(self) -> Left:
        def count(session: Any) -> Left:
            counts = []
            for table in _TABLES:
                text = f'SELECT count(*) FROM "{self._keyspace}".{table}'
                counts.append(int(session.execute(text, timeout=_LIMIT_S).one()[0]))
            return Left(*counts)

        return await asyncio.to_thread(self._ask, count)

    async def drop(self) -> None:
        def drop(session: Any) -> None:
            session.execute(f'DROP KEYSPACE IF EXISTS "{self._keyspace}"', timeout=_LIMIT_S)

        await asyncio.to_thread(self._ask, drop)

    def _ask(self, question: Any) -> Any:
        # Imported here: the driver takes a while, and the embedded stores do not need it.
        from cassandra import ConsistencyLevel, DriverException, ProtocolVersion
        from cassandra.cluster import (
            EXEC_PROFILE_DEFAULT,
            Cluster,
            ExecutionProfile,
            NoHostAvailable,
        )
        from cassandra.policies import RoundRobinPolicy

        host, _, port = self._address.rpartition(":")
        profile = ExecutionProfile(
            load_balancing_policy=RoundRobinPolicy(),
            # As the library writes, so that nothing it has written is missed.
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        )
        cluster = Cluster(
            [(host, int(port))],
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            protocol_version=ProtocolVersion.V4,
        )
        try:
            return question(cluster.connect())
        except (DriverException, NoHostAvailable, OSError) as error:
            raise LookError(f"Cassandra at {self._address} does not say: {error!r}") from error
        finally:
            cluster.shutdown()
