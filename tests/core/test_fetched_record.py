"""Records as fetched: both halves hold the same, and the compiled one is nothing to the collector."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest

from prosody.broker.protocol import TopicPartition
from tests.core.halves import HALVES, core_function

PLACE = TopicPartition("orders", 2)
ALL = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")


def made(half: str, **fields: Any) -> Any:
    fetched = {"offset": 7, "timestamp": -1, "key": b"k", "value": b"v", "headers": []}
    return core_function(half, "FetchedRecord")(PLACE, SimpleNamespace(**fetched | fields))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("key", [None, b"", b"k"])
@pytest.mark.parametrize("value", [None, b"", b"v" * 1000])
@pytest.mark.parametrize("headers", [[], [("a", b"1"), ("b", None)], ()])
def test_it_holds_what_was_fetched(half: str, key: Any, value: Any, headers: Any) -> None:
    record = made(half, offset=2**62, timestamp=5, key=key, value=value, headers=headers)
    found = tuple(getattr(record, name) for name in ALL)
    assert found == ("orders", 2, 2**62, 5, key, value, tuple(headers))
    assert type(record.headers) is tuple
    assert repr(record) == f"FetchedRecord('orders', 2, {2**62}, key={key!r})"


@pytest.mark.parametrize("half", HALVES)
def test_it_is_not_kept_by_what_it_was_made_of(half: str) -> None:
    headers = [("a", b"1")]
    record = made(half, headers=headers)
    headers.append(("b", b"2"))
    assert record.headers == (("a", b"1"),)
    with pytest.raises(AttributeError):
        record.other = 1


@pytest.mark.parametrize("half", HALVES)
def test_what_is_no_record_is_refused(half: str) -> None:
    with pytest.raises(AttributeError, match="offset"):
        core_function(half, "FetchedRecord")(PLACE, object())
    with pytest.raises(TypeError):
        core_function(half, "FetchedRecord")(PLACE)


def test_the_compiled_one_is_nothing_to_the_collector() -> None:
    record = made("cython", headers=[("a", b"1")])
    assert not gc.is_tracked(record)
    # What it holds cannot lead back to it either: fields are read-only.
    for name in ALL:
        with pytest.raises(AttributeError):
            setattr(record, name, record)
    for name in ("key", "value"):
        with pytest.raises(TypeError):
            made("cython", **{name: [record]})
