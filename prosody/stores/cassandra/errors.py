"""The driver's errors become ours: one table, and the functions that use it.

A test fails when the driver has an error class that is not in the table.
"""

from __future__ import annotations

import ssl

import cassandra
from cassandra import cluster, connection, pool, protocol, query, segment

from prosody.errors import StoreError

# True: the same call may succeed later.
RETRIABLE: dict[type[BaseException], bool] = {
    # Of the client itself.
    cassandra.DriverException: False,
    cassandra.DependencyException: False,
    cassandra.UnsupportedOperation: False,
    cassandra.UnresolvableContactPoints: True,
    cassandra.OperationTimedOut: True,
    cassandra.AuthenticationFailed: False,
    cluster.NoHostAvailable: True,
    cluster.QueryExhausted: False,
    cluster.UserTypeDoesNotExist: False,
    pool.NoConnectionsAvailable: True,
    query.TraceUnavailable: False,
    segment.CrcException: True,
    connection.ConnectionException: True,
    connection.ConnectionShutdown: True,
    connection.ConnectionBusy: True,
    connection.CrcMismatchException: True,
    connection.ProtocolError: True,
    connection.ProtocolVersionUnsupported: False,
    # Answers of the server.
    cassandra.RequestExecutionException: True,
    cassandra.Unavailable: True,
    cassandra.Timeout: True,
    cassandra.ReadTimeout: True,
    cassandra.WriteTimeout: True,
    cassandra.CoordinationFailure: True,
    cassandra.ReadFailure: True,
    cassandra.WriteFailure: True,
    cassandra.CDCWriteFailure: True,
    cassandra.FunctionFailure: False,
    cassandra.RequestValidationException: False,
    cassandra.ConfigurationException: False,
    cassandra.AlreadyExists: False,
    cassandra.InvalidRequest: False,
    cassandra.Unauthorized: False,
    protocol.NotSupportedError: False,
    protocol.InternalError: False,
    protocol.ErrorMessage: True,
    protocol.ErrorMessageSub: True,
    protocol.RequestExecutionException: True,
    protocol.RequestValidationException: False,
    protocol.ServerError: True,
    protocol.ProtocolException: False,
    protocol.BadCredentials: False,
    protocol.UnavailableErrorMessage: True,
    protocol.OverloadedErrorMessage: True,
    protocol.IsBootstrappingErrorMessage: True,
    protocol.TruncateError: True,
    protocol.WriteTimeoutErrorMessage: True,
    protocol.ReadTimeoutErrorMessage: True,
    protocol.ReadFailureMessage: True,
    protocol.FunctionFailureMessage: False,
    protocol.WriteFailureMessage: True,
    protocol.CDCWriteException: True,
    protocol.SyntaxException: False,
    protocol.UnauthorizedErrorMessage: False,
    protocol.InvalidRequestException: False,
    protocol.ConfigurationException: False,
    protocol.PreparedQueryNotFound: True,
    protocol.AlreadyExistsException: False,
    protocol.ClientWriteError: True,
    # A certificate that is not trusted stays so.
    ssl.SSLError: False,
}

TIMED_OUT: tuple[type[BaseException], ...] = (
    cassandra.OperationTimedOut,
    cassandra.ReadTimeout,
    cassandra.WriteTimeout,
)
"""Too much at once, or nobody there: a smaller request may get through."""

UNREACHABLE: tuple[type[BaseException], ...] = (
    cluster.NoHostAvailable,
    connection.ConnectionException,
)
"""No node takes requests."""

NOT_ENOUGH: tuple[type[BaseException], ...] = (cassandra.Unavailable,)
"""Nodes take requests, but too few replicas are there."""


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the store, and not the request, is what is wrong."""
    return isinstance(error, (*TIMED_OUT, *UNREACHABLE, *NOT_ENOUGH))


def reason(error: BaseException) -> str:
    """What the driver says, in a line."""
    if isinstance(error, cluster.NoHostAvailable):
        # Its own text is a dictionary of hosts, without the types of the errors; or a list of hosts.
        hosts = error.errors if isinstance(error.errors, dict) else {}
        each = {str(host): reason(inner) for host, inner in hosts.items()}
        told = "; ".join(f"{host}: {text}" for host, text in each.items())
        return f"no node takes requests ({told})" if told else "no node takes requests"
    if isinstance(error, cassandra.OperationTimedOut):
        return "no answer in time"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def store_error(doing: str, error: BaseException) -> StoreError:
    """``error`` of the driver as ours; ``doing`` says what failed."""
    if isinstance(error, StoreError):
        return StoreError(str(error), retriable=error.retriable)
    # Whatever is not in the table (OSError) is the network, which may come back.
    kinds = type(error).__mro__
    retriable = next((RETRIABLE[kind] for kind in kinds if kind in RETRIABLE), True)
    wrapped = StoreError(f"{doing}: {reason(error)}", retriable=retriable)
    wrapped.__cause__ = error
    return wrapped
