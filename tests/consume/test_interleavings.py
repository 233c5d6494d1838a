"""Random interleavings through the whole consume path; what must hold is written in ``world.py``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosody.consume.progress import METADATA_MAX
from tests.consume.world import ENDS, VALUES, Plan, play
from tests.support import run_virtual

KINDS = ("message", "message", "message", *sorted(VALUES.keys() - {"message"}))

pytestmark = pytest.mark.usefixtures("no_logs")


def steps(disturbances: bool) -> st.SearchStrategy[tuple[Any, ...]]:
    small = st.integers(0, 5)
    send = st.tuples(
        st.just("send"),
        st.integers(0, 1),
        st.text("abc", min_size=1, max_size=4),
        st.sampled_from(KINDS),
    )
    end = st.tuples(st.just("end"), small, st.sampled_from(ENDS))
    well = st.tuples(st.just("end"), small, st.just("success"))
    look = st.just(("look",))
    tick = st.tuples(st.just("tick"), st.sampled_from([0.01, 0.3, 1.0, 4.0]))
    kinds: list[st.SearchStrategy[tuple[Any, ...]]] = [send, send, end, end, well, look, tick]
    if disturbances:
        kinds += [
            st.just(("join",)),
            st.tuples(st.just("leave"), small),
            st.tuples(st.just("expel"), small),
            st.tuples(st.just("outage"), st.sampled_from(["poll", "commit"]), st.integers(1, 4)),
            st.sampled_from([("unsettle",), ("settle",), ("settle",)]),
            st.tuples(st.just("tick"), st.sampled_from([9.0, 25.0])),
        ]
    return st.one_of(kinds)


def plans(mode: str, disturbances: bool) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        mode=st.just(mode),
        partitions=st.integers(1, 2),
        max_concurrency=st.integers(1, 3),
        max_uncommitted=st.integers(1, 4),
        metadata_max=st.sampled_from([30, 40, METADATA_MAX]),
        monopolization_threshold=st.sampled_from([0.0, 0.1, 1.0, 1.0]),
        steps=st.lists(steps(disturbances), min_size=4, max_size=40).map(tuple),
    )


@pytest.mark.parametrize("disturbances", [False, True], ids=["steady", "disturbed"])
@pytest.mark.parametrize("mode", ["best-effort", "pipeline", "low-latency"])
def test_any_interleaving(mode: str, disturbances: bool) -> None:
    @settings(max_examples=settings().max_examples * 3 // 5)  # all of "long" in a night
    @given(plan=plans(mode, disturbances))
    def holds(plan: Plan) -> None:
        run_virtual(play(plan))

    holds()


def test_a_deadline_that_rounding_moves_is_not_looked_at_for_ever() -> None:
    """What is left until a lane is looked at again is a part of a second that no clock can show."""
    steps = (
        ("tick", 0.01),
        ("outage", "poll", 1),
        ("send", 0, "a", "message"),
        ("look",),
        ("send", 0, "a", "message"),
    )
    run_virtual(play(Plan("low-latency", 1, 1, 1, 30, 0.0, steps)))
