"""What a send writes, and what it refuses before anything is sent."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.errors import PayloadError
from prosody.produce import _encode
from tests.produce.fakes import FakeBroker, make_producer

circle: list[Any] = []
circle.append(circle)
deep: Any = None
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    "payload",
    [
        b"bytes", {1, 2}, dt.datetime(2024, 1, 1, tzinfo=dt.UTC), object(),
        Decimal(1), float("nan"), float("inf"), {"a": float("-inf")}, {("a",): 1}, circle, deep,
        "\ud800", {"\udfff": 1}, 10**5000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
async def test_what_is_no_json_is_refused(payload: Any) -> None:
    broker = FakeBroker()
    with pytest.raises(
        PayloadError, match=r"payload cannot be written as JSON \(topic 't' key 'k'\)"
    ):
        await make_producer(broker).send("t", "k", payload)
    assert broker.made == []


@pytest.mark.parametrize(
    ("topic", "key", "text"),
    [
        (None, "k", "topic must be a str, got None"),
        (b"t", "k", "topic must be a str, got b't'"),
        ("", "k", "topic must not be empty"),
        ("t", None, "key must be a str, got None"),
        ("t", 7, "key must be a str, got 7"),
        ("t", "\ud800", "cannot be written as UTF-8"),
        ("\ud800", "k", "cannot be written as UTF-8"),
    ],
)
async def test_wrong_topics_and_keys_are_refused(topic: Any, key: Any, text: str) -> None:
    with pytest.raises(PayloadError, match=text):
        await make_producer(FakeBroker(), id_cache_size=9).send(topic, key, {"id": "x"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(payload=json_values, key=st.text())
def test_any_json_value_is_written_as_it_is(payload: Any, key: str) -> None:
    key_bytes, value = _encode("t", key, payload)
    assert key_bytes == key.encode()
    assert json.loads(value) == payload


def test_it_is_written_short_and_as_utf_8() -> None:
    assert _encode("t", "", {"a": [1, "é"], "b": None}) == (b"", '{"a":[1,"é"],"b":null}'.encode())


async def test_headers_and_timeout() -> None:
    broker = FakeBroker()
    producer = make_producer(broker, send_timeout_s=7.0)
    await producer.send("t", "k", None)
    assert broker.sent == [
        {
            "topic": "t",
            "key": b"k",
            "value": b"null",
            "headers": [("source-system", b"here")],
            "timeout_s": 7.0,
        }
    ]
    await producer.stop()
