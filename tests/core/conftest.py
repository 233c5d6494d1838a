"""Fixtures that hand out each half of each core structure, and the long Hypothesis profile."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings

from tests.core.halves import HALVES, STRUCTURES, core_class

settings.register_profile("long", max_examples=1_000, stateful_step_count=150, deadline=None)
if os.environ.get("HYPOTHESIS_PROFILE") == "long":
    settings.load_profile("long")


@pytest.fixture(params=list(HALVES))
def key_queue(request: pytest.FixtureRequest) -> Any:
    """An empty KeyQueue of each half in turn."""
    return core_class(request.param, "KeyQueue")()


@pytest.fixture(params=list(HALVES))
def offset_tracker(request: pytest.FixtureRequest) -> Any:
    """An empty OffsetTracker of each half in turn."""
    return core_class(request.param, "OffsetTracker")()


@pytest.fixture(params=[f"{half}-{name}" for name in STRUCTURES for half in HALVES])
def core_type(request: pytest.FixtureRequest) -> Any:
    """Each class of each half in turn."""
    return core_class(*request.param.split("-"))
