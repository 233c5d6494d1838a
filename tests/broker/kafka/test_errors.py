"""The table of aiokafka's errors, and what is made of them."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from aiokafka import errors as lower

from prosody.broker.kafka.errors import (
    HINTS,
    RETRIABLE,
    TOO_LARGE,
    WEDGED,
    broker_error,
    mapped,
    send_error,
)
from prosody.errors import BrokerError, ProsodyError, RecordTooLargeError


def aiokafka_classes() -> set[type[BaseException]]:
    return {
        kind
        for _, kind in inspect.getmembers(lower, inspect.isclass)
        if issubclass(kind, BaseException) and kind.__module__ == lower.__name__
    }


def test_every_error_of_aiokafka_is_in_the_table() -> None:
    assert aiokafka_classes() - RETRIABLE.keys() == set()


def test_the_table_names_nothing_else() -> None:
    assert RETRIABLE.keys() - aiokafka_classes() == set()
    assert HINTS.keys() <= RETRIABLE.keys()
    assert set(WEDGED) <= RETRIABLE.keys()


def test_the_text_says_what_failed_and_why() -> None:
    error = broker_error("join", lower.InconsistentGroupProtocolError())
    assert not error.retriable
    assert str(error).startswith("join: InconsistentGroupProtocolError: ")
    assert "assignor option" in str(error)


def test_the_brokers_own_reason_comes_first() -> None:
    error = broker_error("create", lower.InvalidReplicationFactorError(), reason="3 > 1 brokers")
    assert "3 > 1 brokers" in str(error)
    assert not error.retriable


@pytest.mark.parametrize(
    ("error", "retriable"),
    [
        (lower.NotLeaderForPartitionError(), True),
        (lower.RebalanceInProgressError(), True),
        (lower.CommitFailedError(), False),
        (lower.IllegalGenerationError(), False),
        (lower.TopicAuthorizationFailedError(), False),
        (ConnectionResetError("gone"), True),
        (TimeoutError(), True),
    ],
)
def test_mapped(error: Exception, retriable: bool) -> None:
    with pytest.raises(BrokerError) as caught, mapped("it"):
        raise error
    assert caught.value.retriable is retriable
    assert caught.value.__cause__ is error
    assert str(caught.value) != "it: "


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_a_record_that_is_too_large_is_told_apart(kind: type[Exception]) -> None:
    error = send_error("send", kind())
    assert isinstance(error, RecordTooLargeError)
    assert not error.retriable
    assert str(error).startswith(f"send: {kind.__name__}")
    other = send_error("send", lower.InvalidTimestampError())
    assert isinstance(other, BrokerError)


def test_a_subclass_counts_as_its_base() -> None:
    class Newer(lower.LeaderNotAvailableError):  # type: ignore[misc]  # aiokafka ships no types
        pass

    assert broker_error("it", Newer()).retriable


def test_what_is_no_error_of_the_broker_passes_untouched() -> None:
    with pytest.raises(asyncio.CancelledError), mapped("it"):
        raise asyncio.CancelledError
    with pytest.raises(ProsodyError, match="ours"), mapped("it"):
        raise ProsodyError("ours")
    ours = BrokerError("ours", retriable=True)
    assert broker_error("it", ours) is ours
