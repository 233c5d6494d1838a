"""Each client has an assignor class of its own."""

from __future__ import annotations

import pytest

from prosody.broker.kafka.assignors import ASSIGNORS, make_assignor
from prosody.errors import ConfigurationError


@pytest.mark.parametrize("name", ASSIGNORS)
def test_the_group_knows_it_by_its_name(name: str) -> None:
    assert make_assignor(name).name == name


def test_two_clients_share_no_memory() -> None:
    one, two = make_assignor("sticky"), make_assignor("sticky")
    one.member_assignment = ["mine"]
    one.generation = 7
    assert two.member_assignment is None
    assert two.generation != 7


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'round-robin' is not known; use one of range"):
        make_assignor("round-robin")
