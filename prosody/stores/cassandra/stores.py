"""The three stores over one session of Cassandra, for one consumer."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from prosody.errors import StoreError
from prosody.stores.cassandra.breaker import Breaker
from prosody.stores.cassandra.bridge import Bridge
from prosody.stores.cassandra.dedup import CassandraDedupStore
from prosody.stores.cassandra.defer import CassandraDeferStore
from prosody.stores.cassandra.errors import store_error
from prosody.stores.cassandra.groups import Groups
from prosody.stores.cassandra.link import Link
from prosody.stores.cassandra.replicas import ReplicaSets
from prosody.stores.cassandra.session import Session, connect
from prosody.stores.cassandra.timers import CassandraTimerStore

if TYPE_CHECKING:
    from prosody.runtime import Runtime
    from prosody.stores.cassandra.bridge import Rows
    from prosody.stores.cassandra.settings import CassandraSettings


class CassandraStores:
    """Connects at ``start``; between it and ``stop`` the three stores can be used."""

    def __init__(self, settings: CassandraSettings, runtime: Runtime) -> None:
        """No I/O."""
        self._settings = settings
        self._runtime = runtime
        self._session: Session | None = None
        self._link: Link | None = None
        self._bridge: Bridge | None = None
        self._breaker = Breaker(self._probe, runtime, on_down=self._went_down)
        self.deferred = CassandraDeferStore(
            self._connected, runtime, retention_s=settings.retention_s
        )
        self.timers = CassandraTimerStore(
            self._connected,
            runtime,
            retention_s=settings.retention_s,
            slab_size_s=settings.slab_size_s,
            on_open=self.deferred.opened,
        )
        self.dedup = CassandraDedupStore(self._connected, runtime, ttl_s=settings.dedup_ttl_s)

    @property
    def keeps_records(self) -> bool:
        return False

    @property
    def problem(self) -> str | None:
        return self._breaker.problem

    @property
    def requests(self) -> int:
        """Sent to Cassandra since ``start``; for tests and benchmarks."""
        return 0 if self._link is None else self._link.groups.requests

    async def start(self) -> None:
        if self._session is not None:
            return
        loop = asyncio.get_running_loop()
        abandoned = threading.Event()
        connecting = loop.run_in_executor(None, connect, self._settings, abandoned)
        try:
            session = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # The thread cannot be stopped, but it closes what it is about to open.
            abandoned.set()
            connecting.add_done_callback(_close_unwanted)
            raise
        self._session = session
        self._bridge = Bridge(session.session, loop)
        groups = Groups(
            self._bridge,
            self._breaker,
            loop,
            ReplicaSets(
                session.cluster.metadata, self._settings.keyspace, self._settings.datacenter
            ).number,
            request_timeout_s=self._settings.request_timeout_s,
            step_timeout_s=self._settings.step_timeout_s,
        )
        self._link = Link(groups, session.prepared)

    async def stop(self) -> None:
        await self._breaker.stop()
        session, link = self._session, self._link
        self._session = self._link = self._bridge = None
        self._breaker.problem = None
        if link is not None:
            link.groups.close("the stores are stopped")
        self.timers.forget()
        self.deferred.forget()
        if session is not None:
            closing = asyncio.get_running_loop().run_in_executor(None, session.close)
            await asyncio.shield(closing)

    def _connected(self) -> Link:
        if self._link is None:
            raise StoreError("the stores are not started", retriable=False)
        return self._link

    def _went_down(self, problem: str) -> None:
        if self._link is not None:
            self._link.groups.fail_down(problem)

    async def _probe(self) -> None:
        """Read something that is not there, where nobody else waits for it."""
        session, bridge = self._session, self._bridge
        if session is None or bridge is None:
            return
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(rows: Rows | None, state: bytes | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(store_error("asking whether Cassandra is back", error))

        statement = session.prepared["dedup.probe"].bind((self._runtime.uuid4(),))
        bridge.start(statement, self._settings.request_timeout_s, done)
        await answer


def _close_unwanted(connecting: asyncio.Future[Session]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        session = connecting.result()
        try:
            connecting.get_loop().run_in_executor(None, session.close)
        except RuntimeError:
            session.close()  # the loop is about to close and starts no thread any more
