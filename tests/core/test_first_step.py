"""The first step of a coroutine: what it waits for, that it has ended, or what left it; in both halves."""

from __future__ import annotations

import asyncio
import traceback
from types import coroutine
from typing import TYPE_CHECKING, Any

import pytest

from prosody._core.constants import ENDED
from tests.core.halves import HALVES, core_function

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.parametrize("half", HALVES)


@coroutine
def waits_for(what: object) -> Generator[object, Any, Any]:
    return (yield what)


async def after(what: object) -> Any:
    return await waits_for(what)


async def answers(what: object) -> object:
    return what


async def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("answer", [None, 3, (1, 2), StopIteration("x"), ENDED])
def test_one_that_waits_for_nothing_has_ended(half: str, answer: object) -> None:
    assert core_function(half, "first_step")(answers(answer)) is ENDED


@pytest.mark.parametrize("what", [None, 3, [1]])
def test_one_that_waits_says_for_what_and_goes_on_from_there(half: str, what: object) -> None:
    pending = after(what)
    assert core_function(half, "first_step")(pending) is what
    with pytest.raises(StopIteration) as stopped:
        pending.send("sent")
    assert stopped.value.value == "sent"


@pytest.mark.parametrize(
    "error", [ValueError("x"), asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1)]
)
def test_what_leaves_it_is_raised_with_its_traceback(half: str, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        core_function(half, "first_step")(raises(error))
    assert raised.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "raises"


def test_a_stop_iteration_out_of_it_is_a_fault(half: str) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        core_function(half, "first_step")(raises(StopIteration("x")))


def test_one_that_has_begun_elsewhere_is_refused(half: str) -> None:
    pending = answers(1)
    pending.close()
    with pytest.raises(RuntimeError, match="reuse"):
        core_function(half, "first_step")(pending)
