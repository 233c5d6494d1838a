"""aiokafka's errors become ours: one table, and the functions that use it.

A test fails when aiokafka has an error class that is not in the table.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiokafka import errors as lower

from prosody.errors import BrokerError, CommitMetadataTooLargeError, RecordTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_PERMISSION = "the broker's access rules do not allow it for this user"
_ASSIGNOR = (
    "the group has members with another assignor; "
    "set the assignor option to theirs, or use another group id"
)

# True: the same call may succeed later. Where aiokafka's own ``retriable`` differs, ours is on
# purpose: it asks "may the protocol client repeat this at once", we ask "is another try worth it".
RETRIABLE: dict[type[BaseException], bool] = {
    # Of the client itself.
    lower.KafkaError: False,
    lower.IllegalStateError: False,
    lower.IllegalArgumentError: False,
    lower.IllegalOperation: False,
    lower.NoBrokersAvailable: True,
    lower.NodeNotReadyError: True,
    lower.KafkaProtocolError: True,
    lower.CorrelationIdError: True,
    lower.Cancelled: True,
    lower.TooManyInFlightRequests: True,
    lower.StaleMetadata: True,
    lower.MetadataEmptyBrokerList: True,
    lower.UnrecognizedBrokerVersion: False,
    lower.IncompatibleBrokerVersion: False,
    # The group moved on: its partitions may be another member's, so never send it again as it is.
    lower.CommitFailedError: False,
    lower.AuthenticationMethodNotSupported: False,
    lower.AuthenticationFailedError: False,
    lower.KafkaUnavailableError: True,
    lower.KafkaTimeoutError: True,
    lower.KafkaConnectionError: True,
    lower.UnsupportedCodecError: False,
    lower.KafkaConfigurationError: False,
    lower.QuotaViolationError: True,
    lower.ConsumerStoppedError: False,
    lower.NoOffsetForPartitionError: False,
    lower.RecordTooLargeError: False,
    lower.ProducerClosed: False,
    # The producer is rebuilt after these, so another try may help.
    lower.ProducerFenced: True,
    lower.OutOfOrderSequenceNumber: True,
    lower.InvalidProducerEpoch: True,
    lower.InvalidProducerIdMapping: True,
    lower.UnknownProducerId: True,
    # Answers of the broker, by number.
    lower.BrokerResponseError: False,
    lower.NoError: False,
    lower.UnknownError: True,
    lower.OffsetOutOfRangeError: True,
    lower.CorruptRecordException: True,
    lower.UnknownTopicOrPartitionError: True,
    lower.InvalidFetchRequestError: False,
    lower.LeaderNotAvailableError: True,
    lower.NotLeaderForPartitionError: True,
    lower.RequestTimedOutError: True,
    lower.BrokerNotAvailableError: True,
    lower.ReplicaNotAvailableError: True,
    lower.MessageSizeTooLargeError: False,
    lower.StaleControllerEpochError: True,
    lower.OffsetMetadataTooLargeError: False,
    lower.StaleLeaderEpochCodeError: True,
    lower.GroupLoadInProgressError: True,
    lower.GroupCoordinatorNotAvailableError: True,
    lower.NotCoordinatorForGroupError: True,
    lower.InvalidTopicError: False,
    lower.RecordListTooLargeError: False,
    lower.NotEnoughReplicasError: True,
    lower.NotEnoughReplicasAfterAppendError: True,
    lower.InvalidRequiredAcksError: False,
    lower.IllegalGenerationError: False,
    lower.InconsistentGroupProtocolError: False,
    lower.InvalidGroupIdError: False,
    lower.UnknownMemberIdError: False,
    lower.InvalidSessionTimeoutError: False,
    # Still a member: worth computing the commit again after the rebalance.
    lower.RebalanceInProgressError: True,
    lower.InvalidCommitOffsetSizeError: False,
    lower.TopicAuthorizationFailedError: False,
    lower.GroupAuthorizationFailedError: False,
    lower.ClusterAuthorizationFailedError: False,
    lower.InvalidTimestampError: False,
    lower.UnsupportedSaslMechanismError: False,
    lower.IllegalSaslStateError: False,
    lower.UnsupportedVersionError: False,
    lower.TopicAlreadyExistsError: False,
    lower.InvalidPartitionsError: False,
    lower.InvalidReplicationFactorError: False,
    lower.InvalidReplicationAssignmentError: False,
    lower.InvalidConfigurationError: False,
    lower.NotControllerError: True,
    lower.InvalidRequestError: False,
    lower.UnsupportedForMessageFormatError: False,
    lower.PolicyViolationError: False,
    lower.DuplicateSequenceNumber: False,
    lower.InvalidTxnState: False,
    lower.InvalidTransactionTimeout: False,
    lower.ConcurrentTransactions: True,
    lower.TransactionCoordinatorFenced: False,
    lower.TransactionalIdAuthorizationFailed: False,
    lower.SecurityDisabled: False,
    lower.OperationNotAttempted: True,
    lower.KafkaStorageError: True,
    lower.LogDirNotFound: True,
    lower.SaslAuthenticationFailed: False,
    lower.ReassignmentInProgress: True,
    lower.DelegationTokenAuthDisabled: False,
    lower.DelegationTokenNotFound: False,
    lower.DelegationTokenOwnerMismatch: False,
    lower.DelegationTokenRequestNotAllowed: False,
    lower.DelegationTokenAuthorizationFailed: False,
    lower.DelegationTokenExpired: False,
    lower.InvalidPrincipalType: False,
    lower.NonEmptyGroup: False,
    lower.GroupIdNotFound: False,
    lower.FetchSessionIdNotFound: True,
    lower.InvalidFetchSessionEpoch: True,
    lower.ListenerNotFound: True,
    lower.MemberIdRequired: True,
}

HINTS: dict[type[BaseException], str] = {
    lower.InconsistentGroupProtocolError: _ASSIGNOR,
    lower.InvalidSessionTimeoutError: (
        "set the session timeout option between the broker's group.min.session.timeout.ms "
        "and group.max.session.timeout.ms"
    ),
    lower.TopicAuthorizationFailedError: _NO_PERMISSION,
    lower.GroupAuthorizationFailedError: _NO_PERMISSION,
    lower.ClusterAuthorizationFailedError: _NO_PERMISSION,
    lower.MessageSizeTooLargeError: "the record is larger than the producer or the topic takes",
    lower.RecordListTooLargeError: "the record is larger than the topic takes",
    lower.UnsupportedCodecError: "install the package cramjam",
    lower.CommitFailedError: "the group moved on without this member",
}

WEDGED: tuple[type[Exception], ...] = (
    lower.OutOfOrderSequenceNumber,
    lower.UnknownProducerId,
    lower.InvalidProducerEpoch,
    lower.InvalidProducerIdMapping,
    lower.ProducerFenced,
)
"""After one of these aiokafka's idempotent producer can never write to that partition again."""

TOO_LARGE: tuple[type[Exception], ...] = (
    lower.MessageSizeTooLargeError,
    lower.RecordListTooLargeError,
)
"""A record is larger than aiokafka's limit (the first one) or the broker's."""

OutOfRangeError = (lower.OffsetOutOfRangeError, lower.NoOffsetForPartitionError)
"""The broker has no record at the position of a partition, or aiokafka knows of no position."""

LowerError = (
    lower.KafkaError,
    lower.ConsumerStoppedError,
    lower.IllegalOperation,
    OSError,
    TimeoutError,
)
"""Everything aiokafka raises that is neither a cancellation nor a fault of ours."""


def broker_error(doing: str, error: BaseException, *, reason: str | None = None) -> BrokerError:
    """``error`` of a lower library as ours; ``doing`` says which call failed.

    ``reason`` is the broker's own text, where it gave one.
    """
    if isinstance(error, BrokerError):
        return error
    kind: type[BaseException] = type(error)
    text = reason or getattr(error, "description", "") or str(error)
    if not text and isinstance(error, TimeoutError):
        text = "no answer in time"
    hint = HINTS.get(kind)
    # Whatever is not in the table (OSError, TimeoutError) is the network, which may come back.
    retriable = next((RETRIABLE[base] for base in kind.__mro__ if base in RETRIABLE), True)
    parts = [f"{doing}: {kind.__name__}"]
    if text and text != kind.__name__:
        parts.append(f": {text}")
    if hint:
        parts.append(f" ({hint})")
    if kind is lower.OffsetMetadataTooLargeError:
        return CommitMetadataTooLargeError("".join(parts), retriable=retriable)
    return BrokerError("".join(parts), retriable=retriable)


def send_error(doing: str, error: BaseException) -> BrokerError | RecordTooLargeError:
    """As :func:`broker_error`, for a send: one that no retry can help is told apart."""
    found = broker_error(doing, error)
    return RecordTooLargeError(str(found)) if isinstance(error, TOO_LARGE) else found


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Raise whatever aiokafka raises in the block as a :class:`BrokerError`."""
    try:
        yield
    except LowerError as error:
        raise broker_error(doing, error) from error
