"""Why connecting failed, and which option to look at."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import cassandra
from cassandra.cluster import NoHostAvailable
from cassandra.protocol import BadCredentials

from prosody.errors import StoreError
from prosody.stores.cassandra.errors import reason, store_error

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from prosody.stores.cassandra.settings import CassandraSettings

_NODES = "cassandra_nodes (PROSODY_CASSANDRA_NODES)"
_USER = "cassandra_user and cassandra_password (PROSODY_CASSANDRA_USER, PROSODY_CASSANDRA_PASSWORD)"


def connect_error(
    settings: CassandraSettings, error: Exception, datacenters: AbstractSet[str]
) -> StoreError:
    """What ``subscribe`` is told when connecting fails.

    :param datacenters: those of the nodes that were found, if any were.
    """
    where = ", ".join(settings.nodes)
    causes = _causes(error)
    told = reason(error)
    if any(isinstance(cause, (cassandra.AuthenticationFailed, BadCredentials)) for cause in causes):
        given = f"user {settings.user!r} is refused" if settings.user else "a user is needed"
        return StoreError(
            f"cannot log in to Cassandra at {where}: {given}; check {_USER}: {told}",
            retriable=False,
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return StoreError(
            f"no TLS connection to Cassandra at {where}; check cassandra_ssl_enabled, "
            "cassandra_ssl_cafile, cassandra_ssl_certfile and cassandra_ssl_check_hostname "
            f"(PROSODY_CASSANDRA_SSL_...): {told}",
            retriable=False,
        )
    if datacenters and settings.datacenter is not None:
        return _datacenter_error(settings.datacenter, told, datacenters)
    if isinstance(error, cassandra.UnresolvableContactPoints):
        return StoreError(f"no address is known for {where}: check {_NODES}", retriable=True)
    if isinstance(error, (NoHostAvailable, OSError)):
        return StoreError(
            f"Cassandra cannot be reached at {where}: start it, or check {_NODES}: {told}",
            retriable=True,
        )
    return store_error("connecting to Cassandra", error)


def _datacenter_error(wanted: str, told: str, found: AbstractSet[str]) -> StoreError:
    option = "cassandra_datacenter (PROSODY_CASSANDRA_DATACENTER)"
    if wanted in found:
        return StoreError(
            f"the nodes of Cassandra in datacenter {wanted!r}, to which {option} points, cannot be "
            f"reached: {told}",
            retriable=True,
        )
    return StoreError(
        f"no node of Cassandra is in datacenter {wanted!r}: check {option}; "
        f"found: {', '.join(sorted(found))}",
        retriable=False,
    )


def _causes(error: BaseException) -> list[BaseException]:
    """An error and, of one that covers several nodes, theirs."""
    found = [error]
    if isinstance(error, NoHostAvailable) and isinstance(error.errors, dict):
        found += [inner for inner in error.errors.values() if isinstance(inner, BaseException)]
    return found
