"""The error tree, outcomes of exceptions, and the decorators."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prosody import errors
from prosody.errors import PermanentError, TransientError, permanent, transient
from prosody.model.outcome import Kind, Outcome, outcome_of

OURS = [
    e for e in vars(errors).values()
    if isinstance(e, type) and issubclass(e, errors.ProsodyError)
]  # fmt: skip


def test_whatever_the_library_raises_is_a_runtime_error() -> None:
    assert len(OURS) >= 12
    assert all(issubclass(error, RuntimeError) for error in OURS)
    for error, base in (
        (errors.ConfigurationError, ValueError),
        (errors.ConfigurationTypeError, TypeError),
        (errors.HandlerTypeError, TypeError),
        (errors.PayloadError, TypeError),
        (errors.SendTimeoutError, TimeoutError),
        (errors.ClientClosedError, errors.ConsumerStateError),
    ):
        assert issubclass(error, base)


def test_every_error_of_the_tree_is_drawn() -> None:
    tree = errors.__doc__ or ""
    for error in [*OURS, errors.EventHandlerError, PermanentError, TransientError]:
        assert error.__name__ in tree


def test_several_problems_are_listed_each_on_its_line() -> None:
    one = errors.ConfigurationError(["a is wrong"])
    two = errors.ConfigurationError(["a is wrong", "b is wrong"])
    assert (str(one), one.problems) == ("a is wrong", ("a is wrong",))
    assert str(two) == "2 options are wrong:\n  - a is wrong\n  - b is wrong"


def test_missing_topics_are_sorted_and_named_once() -> None:
    error = errors.TopicsNotFoundError(["b", "a", "b"], "; make them")
    assert (error.topics, str(error)) == (("a", "b"), "topics not found: a, b; make them")


def test_handler_errors() -> None:
    assert PermanentError("x").is_permanent is True
    assert TransientError("x").is_permanent is False
    assert not issubclass(PermanentError, errors.ProsodyError)


def test_a_handler_error_that_does_not_say_what_it_is_is_transient() -> None:
    # Python enforces abstract methods for everything but exceptions.
    assert outcome_of(errors.EventHandlerError()).kind is Kind.TRANSIENT  # type: ignore[abstract]


def test_outcomes_name_their_kind() -> None:
    assert repr(Outcome(Kind.SUCCESS)) == "Outcome(success)"
    assert repr(outcome_of(ValueError("x"))) == "Outcome(transient, ValueError('x'))"
    assert outcome_of(PermanentError("x")).kind is Kind.PERMANENT


DECORATORS = [(permanent, PermanentError), (transient, TransientError)]


@pytest.mark.parametrize(("decorator", "error_class"), DECORATORS)
async def test_decorated_coroutine_functions(decorator: Any, error_class: type) -> None:
    @decorator(KeyError, ValueError)
    async def handle(error: BaseException | None) -> str:
        """Its text."""
        if error is not None:
            raise error
        return "done"

    assert asyncio.iscoroutinefunction(handle)
    assert (handle.__name__, handle.__doc__) == ("handle", "Its text.")
    assert await handle(None) == "done"
    cause = ValueError("why")
    with pytest.raises(error_class, match="why") as caught:
        await handle(cause)
    assert caught.value.__cause__ is cause
    with pytest.raises(ZeroDivisionError):
        await handle(ZeroDivisionError())
    with pytest.raises(asyncio.CancelledError):
        await handle(asyncio.CancelledError())


@pytest.mark.parametrize(("decorator", "error_class"), DECORATORS)
def test_decorated_functions(decorator: Any, error_class: type) -> None:
    @decorator(ValueError)
    def check(value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value

    assert check(3) == 3
    with pytest.raises(error_class, match="negative"):
        check(-1)


@pytest.mark.parametrize("listed", [ValueError("x"), "ValueError", int, None])
def test_what_is_listed_must_be_exception_classes(listed: Any) -> None:
    with pytest.raises(TypeError, match="@permanent takes exception classes"):
        permanent(KeyError, listed)
    with pytest.raises(TypeError, match="@transient takes exception classes"):
        transient(listed)


def test_the_inner_decorator_wins() -> None:
    @permanent(Exception)
    @transient(ValueError)
    def fails() -> None:
        raise ValueError("x")

    with pytest.raises(PermanentError):
        fails()
