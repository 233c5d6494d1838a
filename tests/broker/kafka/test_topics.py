"""Plain names and regular expressions become one subscription."""

from __future__ import annotations

import re

import pytest

from prosody.broker.kafka.topics import subscription_for
from prosody.errors import ConfigurationError


def matches(*topics: str) -> re.Pattern[str]:
    pattern = subscription_for(topics).pattern
    assert pattern is not None
    return re.compile(pattern)


def test_names_alone_stay_names() -> None:
    subscription = subscription_for(["b", "a", "b"])
    assert subscription.names == ("b", "a")
    assert subscription.pattern is None


@pytest.mark.parametrize("topic", ["orders", "orders-eu", "prices", "a.b"])
def test_what_a_mixed_subscription_takes(topic: str) -> None:
    assert matches("^order", "prices", "a.b").match(topic)


@pytest.mark.parametrize("topic", ["prices2", "my-orders", "axb", "prices\n", "a"])
def test_what_it_leaves(topic: str) -> None:
    assert not matches("^order", "prices", "a.b").match(topic)


def test_names_beside_an_expression_must_still_exist() -> None:
    assert subscription_for(["^x", "prices"]).names == ("prices",)


def test_a_choice_inside_one_expression_does_not_reach_the_others() -> None:
    pattern = matches("^a|b$", "^c")
    assert [t for t in ("a1", "b", "bb", "c") if pattern.match(t)] == ["a1", "b", "c"]


def test_every_wrong_expression_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        subscription_for(["^a(", "^ok", "^b["])
    assert len(caught.value.problems) == 2
    assert "'^a('" in caught.value.problems[0]


def test_groups_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be combined"):
        subscription_for(["^(?P<x>a)", "^(?P<x>b)"])
