"""Filters: echoes of this system, and event types nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest

from prosody.consume.filters import Filters
from tests.consume.fakes import record

OURS = ("source-system", b"service")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((), False),
        ((OURS,), True),
        ((("other", b"x"), OURS), True),
        ((("source-system", b"Service"),), False),
        ((("source-system", b"service-2"),), False),
        ((("source-system", None),), False),
        ((("source-system", b"there"), OURS), False),
        ((OURS, ("source-system", b"there")), True),
        ((OURS, ("source-kind", b"message")), False),
        ((OURS, ("source-kind", None)), True),
    ],
)
def test_loops(headers: Any, expected: bool) -> None:
    assert Filters("service", None).is_loop(record(0, headers=headers)) is expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"type": "order.made"}, True),
        ({"type": "order."}, True),
        ({"type": "order"}, False),
        ({"type": "Order.made"}, False),
        ({"type": "user"}, True),
        ({"type": ""}, False),
        ({"type": None}, True),
        ({"type": 3}, True),
        ({}, True),
        ([], True),
        ("order.made", True),
        (None, True),
    ],
)
def test_event_types(payload: Any, expected: bool) -> None:
    assert Filters("service", ["order.", "user"]).allows(payload) is expected


def test_without_a_list_all_pass() -> None:
    assert Filters("service", None).allows({"type": "anything"}) is True
