"""Connecting: on a thread, because every step of it blocks.

What the driver brings along: one thread for the input and output of all connections of the process
(libev), two for pools and schema, one for timers, one for heartbeats.
"""

from __future__ import annotations

import logging
import ssl
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cassandra import ConsistencyLevel, ProtocolVersion, UnresolvableContactPoints
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.policies import ExponentialReconnectionPolicy
from cassandra.query import tuple_factory

from prosody.errors import StoreError
from prosody.stores.cassandra.connections import close, connection_class
from prosody.stores.cassandra.errors import reason, store_error
from prosody.stores.cassandra.faults import connect_error
from prosody.stores.cassandra.placement import PreferredRackPolicy
from prosody.stores.cassandra.queries import queries
from prosody.stores.cassandra.schema import SchemaKeeper
from prosody.stores.cassandra.settings import CONNECT_TIMEOUT_S, SCHEMA_TIMEOUT_S
from prosody.stores.cassandra.tables import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.stores.cassandra.settings import CassandraSettings

DEFAULT_PORT: Final = 9042
FIRST_RECONNECT_S: Final = 0.5
LONGEST_RECONNECT_S: Final = 5.0
HEARTBEAT_S: Final = 10.0
"""A connection that has been idle so long is asked whether it lives, and closed if it does not answer."""


class Session(NamedTuple):
    """A connected session."""

    cluster: Any
    session: Any
    prepared: Mapping[str, Any]

    def close(self) -> None:
        """Close all connections and end the driver's threads; blocks."""
        close(self.cluster)


def connect(settings: CassandraSettings, abandoned: threading.Event) -> Session:
    """Connect, look after the schema, prepare all statements; blocks.

    :param abandoned: set from elsewhere when nobody wants the session any more; it is closed then.
    :raises StoreError: naming the option that is wrong, where one is.
    """
    # A filter that is there already is not added again.
    logging.getLogger("cassandra.protocol").addFilter(_is_worth_a_line)
    cluster = _cluster(settings)
    try:
        return _connected(cluster, settings, abandoned)
    except BaseException as error:
        found = {str(host.datacenter) for host in cluster.metadata.all_hosts() if host.datacenter}
        close(cluster)
        if isinstance(error, StoreError) or not isinstance(error, Exception):
            raise
        raise connect_error(settings, error, found) from error


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a warning that the driver passes on from the server says anything.

    For each batch of more than 10 partitions the server says that a batch is not faster. Measured, it is,
    when the partitions are on the same nodes.
    """
    text = record.getMessage()
    return not ("Unlogged batch covering" in text and ".aio_" in text)


def _connected(cluster: Any, settings: CassandraSettings, abandoned: threading.Event) -> Session:
    session = cluster.connect()
    _check_datacenter(cluster, settings)
    SchemaKeeper(cluster, session, settings, abandoned.wait).prepare()
    prepared = {}
    for name, text in queries(quoted(settings.keyspace)).items():
        statement = session.prepare(text)
        statement.is_idempotent = True
        prepared[name] = statement
    # The driver works out the replicas of a keyspace when it is first asked: here, not on the loop.
    cluster.metadata.get_replicas(settings.keyspace, b"")
    if abandoned.is_set():
        raise StoreError("connecting was given up", retriable=True)
    return Session(cluster, session, prepared)


def _cluster(settings: CassandraSettings) -> Any:
    profile = ExecutionProfile(
        load_balancing_policy=PreferredRackPolicy(settings.datacenter, settings.rack),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        row_factory=tuple_factory,
        # Of what is done while connecting; each request says its own.
        request_timeout=CONNECT_TIMEOUT_S,
    )
    auth = None
    if settings.user is not None:
        auth = PlainTextAuthProvider(settings.user, settings.password or "")
    try:
        return Cluster(
            contact_points=[_address(node) for node in settings.nodes],
            port=DEFAULT_PORT,
            connection_class=connection_class(),
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            auth_provider=auth,
            ssl_context=_tls(settings),
            protocol_version=ProtocolVersion.V4,
            # Timestamps come from here (monotonic for each cluster object): of two writes to one row the
            # later one must win, also within the resolution and between the clocks of the nodes.
            reconnection_policy=ExponentialReconnectionPolicy(
                FIRST_RECONNECT_S, LONGEST_RECONNECT_S, max_attempts=None
            ),
            connect_timeout=CONNECT_TIMEOUT_S,
            control_connection_timeout=CONNECT_TIMEOUT_S,
            max_schema_agreement_wait=SCHEMA_TIMEOUT_S,
            idle_heartbeat_interval=HEARTBEAT_S,
            idle_heartbeat_timeout=HEARTBEAT_S,
            # Each node is told when it is first asked; all of them, one after another, would take long.
            prepare_on_all_hosts=False,
        )
    except UnresolvableContactPoints as error:
        raise connect_error(settings, error, set()) from error
    except (OSError, ValueError) as error:
        raise store_error("preparing to connect to Cassandra", error) from error


def _address(node: str) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[v6]:port``."""
    host, colon, port = node.rpartition(":")
    if not colon or host.endswith(":") or (":" in host and not host.startswith("[")):
        return node.strip("[]"), DEFAULT_PORT
    return host.strip("[]"), int(port)


def _tls(settings: CassandraSettings) -> ssl.SSLContext | None:
    if not settings.ssl_enabled:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        context.check_hostname = settings.ssl_check_hostname
        if settings.ssl_certfile is not None:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except (OSError, ValueError) as error:
        raise StoreError(
            "cassandra_ssl_cafile, cassandra_ssl_certfile or cassandra_ssl_keyfile "
            f"(PROSODY_CASSANDRA_SSL_...) cannot be used: {reason(error)}",
            retriable=False,
        ) from error
    return context


def _check_datacenter(cluster: Any, settings: CassandraSettings) -> None:
    if settings.datacenter is None:
        return
    hosts = cluster.metadata.all_hosts()
    if not any(host.datacenter == settings.datacenter for host in hosts):
        raise NoHostAvailable("no node in that datacenter", {})
