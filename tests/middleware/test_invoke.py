"""Every end of a handler becomes an outcome, and leaves a clean task: in the layer, and straight."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import TYPE_CHECKING, Any

import pytest

from prosody.config.options_qos import SchedulerOptions
from prosody.errors import HandlerTypeError, PermanentError, TransientError
from prosody.middleware.base import whole
from prosody.middleware.invoke import Invoke
from prosody.middleware.scheduler import Scheduler
from prosody.middleware.straight import Straight
from prosody.model.handler import HandlerMethods
from prosody.model.message import ExciseMessage, utc_from_ms
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from tests.middleware.fakes import Inner, in_lane, make_run
from tests.support import FakeRuntime, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody import Context
    from prosody.model.run import Run

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")


class Handler:
    """``on_message`` and ``on_excise`` do what the test says."""

    def __init__(self, behave: Callable[..., Any]) -> None:
        self.behave = behave
        self.excised: list[object] = []

    def on_message(self, context: Context, message: object) -> Any:
        return self.behave(context, message)

    async def on_excise(self, _: Context, message: object) -> None:
        self.excised.append(message)


class StraightCall:
    """First attempts straight, with a scheduler; later ones through the layer."""

    def __init__(self, layer: Invoke) -> None:
        self.layer = layer
        self.scheduler = Scheduler(1, SchedulerOptions(), FakeRuntime())
        self.begin = Straight(layer.call, [], layer, self.scheduler).begins()

    async def call(self, run: Run) -> Outcome:
        if run.attempt or run.event is None:
            return await whole(self.begin, run)
        run.task, lane = None, run.task
        self.scheduler.enqueue(run, 0.0)
        assert self.scheduler.take() is run
        run.task = lane
        try:
            return await whole(self.begin, run)
        finally:
            assert (self.scheduler.in_use, run.permit) == (0, False), "its permit is lost"


@pytest.fixture(params=["layer", "straight"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the handler is called in a test."""
    monkeypatch.setattr(sys.modules[__name__], "WAY", request.param)


WAY = "layer"


def invoke(behave: Callable[..., Any], *, torn_down: bool = False) -> Invoke | StraightCall:
    return of_handler(Handler(behave), torn_down=torn_down)


def of_handler(handler: object, *, torn_down: bool = False) -> Invoke | StraightCall:
    layer = Invoke(HandlerMethods(handler), lambda: torn_down)
    return layer if WAY == "layer" else StraightCall(layer)


def raising(error: BaseException) -> Callable[..., Any]:
    async def fails(*_: object) -> None:
        raise error

    return fails


class SaysPermanentError(Exception):
    is_permanent = True


class OddError(Exception):
    is_permanent = "yes"


class UglyError(Exception):
    @property
    def is_permanent(self) -> bool:
        raise RuntimeError("no answer")


class OutsideError(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("x"), Kind.TRANSIENT),
        (TransientError("x"), Kind.TRANSIENT),
        (PermanentError("x"), Kind.PERMANENT),
        (SaysPermanentError("x"), Kind.PERMANENT),
        (OddError("x"), Kind.TRANSIENT),
        (UglyError("x"), Kind.TRANSIENT),
        (asyncio.CancelledError(), Kind.TRANSIENT),
        (TimeoutError("x"), Kind.TRANSIENT),
        (SystemExit(3), Kind.TRANSIENT),
        (OutsideError("x"), Kind.TRANSIENT),
        (StopAsyncIteration("x"), Kind.TRANSIENT),
        (GeneratorExit("x"), Kind.TRANSIENT),
        (BaseExceptionGroup("x", [SystemExit(3)]), Kind.TRANSIENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
async def test_exceptions(error: BaseException, kind: Kind) -> None:
    run = make_run()
    outcome = await in_lane(invoke(raising(error)).call, run)
    assert (outcome.kind, outcome.error) == (kind, error)
    assert (run.handling, run.attempt) == (False, 1)


async def test_what_is_meant_for_the_process_passes() -> None:
    call = invoke(raising(KeyboardInterrupt())).call(make_run())
    with pytest.raises(KeyboardInterrupt):
        call.send(None)  # by hand: a task would end the whole test run


@pytest.mark.parametrize("attempts", [1, 2], ids=["first attempt", "second attempt"])
async def test_a_coroutine_that_is_closed_ends(attempts: int) -> None:
    run = make_run()
    closed: list[str] = []

    async def hangs(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("handler")

    call = invoke(hangs).call

    async def lane() -> None:
        run.task = asyncio.current_task()
        run.attempt = attempts - 1
        await call(run)
        raise AssertionError("went on after it was closed")

    coroutine = lane()
    task = asyncio.create_task(coroutine)
    await settle()
    task.cancel()  # to be absorbed after an attempt, but not after this
    coroutine.close()  # what the interpreter does with one that nobody holds any more
    assert closed == ["handler"]
    await asyncio.wait([task])


async def test_what_a_handler_returns_is_ignored() -> None:
    async def returns(*_: object) -> object:
        return {"any": "thing"}

    assert await in_lane(invoke(returns).call, make_run()) is SUCCESS


@pytest.mark.parametrize("returned", [None, 42, "text"])
async def test_a_handler_that_is_not_async_is_told_so(returned: object) -> None:
    outcome = await in_lane(invoke(lambda *_: returned).call, make_run())
    assert outcome.kind is Kind.TRANSIENT
    assert isinstance(outcome.error, HandlerTypeError)
    assert "must be an async method" in str(outcome.error)
    assert repr(returned) in str(outcome.error)


async def test_a_handler_that_is_not_async_and_cancels_itself_leaves_a_clean_task() -> None:
    def cancels(*_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def lane() -> tuple[Kind, int]:
        run.task = task = asyncio.current_task()
        assert task is not None
        outcome = await invoke(cancels).call(run)
        await asyncio.sleep(0)  # a cancellation still under way would strike here
        return outcome.kind, task.cancelling()

    run = make_run()
    assert await asyncio.create_task(lane()) == (Kind.TRANSIENT, 0)


class Garbage:
    """Neither a coroutine nor sure of anything."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError("no answer")

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class AwaitsGarbage:
    def __init__(self, waited_for: object) -> None:
        self.waited_for = waited_for

    def __await__(self) -> Any:
        yield self.waited_for


async def async_generator(*_: object) -> Any:
    yield 1


def raises_stop(*_: object) -> None:
    raise StopIteration("x")


@pytest.mark.parametrize("attempts", [1, 2], ids=["first attempt", "second attempt"])
@pytest.mark.parametrize(
    "behave",
    [
        lambda *_: Garbage(),
        lambda *_: AwaitsGarbage(42),
        lambda *_: AwaitsGarbage(asyncio.current_task()),
        async_generator,
        raises_stop,
    ],
    ids=["garbage", "bad yield", "awaits itself", "generator", "StopIteration"],
)
async def test_garbage_is_a_failure_and_leaves_a_clean_task(
    behave: Callable[..., Any], attempts: int
) -> None:
    async def lane() -> tuple[Kind, int]:
        run.task = task = asyncio.current_task()
        assert task is not None
        run.attempt = attempts - 1
        outcome = await invoke(behave).call(run)
        await asyncio.sleep(0)
        return outcome.kind, task.cancelling()

    run = make_run()
    assert await asyncio.create_task(lane()) == (Kind.TRANSIENT, 0)
    assert not run.handling


async def test_any_awaitable_will_do() -> None:
    future = asyncio.get_running_loop().create_future()
    lane = in_lane(invoke(lambda *_: future).call, make_run())
    await settle()
    future.set_result("x")
    assert await lane is SUCCESS


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("seen", [True, False])
async def test_a_cancellation_ends_with_its_attempt(times: int, seen: bool) -> None:
    async def handler(*_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(times):
            task.cancel()
        if seen:
            await asyncio.sleep(0)

    async def lane() -> tuple[Kind, int]:
        run.task = task = asyncio.current_task()
        assert task is not None
        outcome = await invoke(handler).call(run)
        await asyncio.sleep(0)
        return outcome.kind, task.cancelling()

    run = make_run()
    expected = Kind.TRANSIENT if seen else Kind.SUCCESS
    assert await asyncio.create_task(lane()) == (expected, 0)


async def test_our_cancellation_is_transient_and_says_that_it_was_ours() -> None:
    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    run = make_run(5)
    lane = in_lane(invoke(hangs).call, run)
    await settle()
    assert run.handling
    run.cancel()
    run.cancel()  # once per attempt
    outcome = await lane
    assert outcome.kind is Kind.TRANSIENT
    assert isinstance(outcome.error, TimeoutError)
    assert "offset 5" in str(outcome.error)


async def test_a_handler_that_finishes_all_the_same_has_succeeded() -> None:
    async def stubborn(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    run = make_run()
    lane = in_lane(invoke(stubborn).call, run)
    await settle()
    run.cancel()
    assert await lane is SUCCESS


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("told_before", [False, True])
async def test_the_end_of_the_loop_is_not_held_up(swallows: bool, told_before: bool) -> None:
    async def hangs(*_: object) -> None:
        for _ in range(1 + told_before):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallows:
                    raise

    run = make_run()
    lane = in_lane(invoke(hangs, torn_down=True).call, run)
    await settle()
    if told_before:
        run.cancel()
        await settle()
    lane.cancel()
    await settle()
    assert lane.cancelled()
    assert not run.handling


async def test_each_attempt_has_context_variables_of_its_own() -> None:
    seen: list[str] = []

    async def handler(*_: object) -> None:
        seen.append(variable.get())
        variable.set(f"dirt of attempt {len(seen)}")
        await asyncio.sleep(0.1)
        child = asyncio.create_task(asyncio.sleep(0, variable.get()))
        assert await child == f"dirt of attempt {len(seen)}"
        raise ValueError("again")

    call = invoke(handler).call

    async def lane(run: Run) -> None:
        run.task = asyncio.current_task()
        for _ in range(3):
            assert (await call(run)).kind is Kind.TRANSIENT

    await asyncio.create_task(lane(make_run()))
    assert seen == ["clean"] * 3


async def test_a_later_attempt_is_cancelled_like_the_first() -> None:
    async def handler(context: Context, _: object) -> None:
        async with asyncio.timeout(100):
            await asyncio.Event().wait()

    call = invoke(handler).call

    async def lane() -> list[Kind]:
        run.task = asyncio.current_task()
        return [(await call(run)).kind for _ in range(3)]

    run = make_run()
    task = asyncio.create_task(lane())
    for _ in range(3):
        await settle()
        run.cancel()
    assert await task == [Kind.TRANSIENT] * 3


async def test_excise_and_undecodable() -> None:
    handler = Handler(raising(AssertionError("no message")))
    call = of_handler(handler).call
    event = ExciseMessage("orders", 3, 0, utc_from_ms(0), "k")
    assert await in_lane(call, make_run(event=event)) is SUCCESS
    assert handler.excised == [event]
    broken = ValueError("cannot be decoded")
    run = make_run(event=None, error=broken)
    outcome = await in_lane(call, run)
    assert (outcome.kind, outcome.error, run.attempt) == (Kind.PERMANENT, broken, 0)


async def test_a_cancellation_reaches_a_handler_that_only_gave_way() -> None:
    """Unlike a future, a bare turn of the loop does not tell by itself that it was cancelled."""
    ends: list[str] = []

    async def gives_way(*_: object) -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(0)
                ends.append("went on")
            except asyncio.CancelledError:
                ends.append("cancelled")

    lane = in_lane(invoke(gives_way).call, make_run())
    for _ in range(2):
        await asyncio.sleep(0)  # one turn: the handler has just given way
        lane.cancel()
    assert await lane is SUCCESS
    assert ends == ["cancelled", "cancelled"]


async def test_nothing_goes_straight_in_a_partition_that_is_given_up() -> None:
    layers = Inner(ABANDONED)
    handled: list[object] = []

    async def handler(_: object, message: object) -> None:
        handled.append(message)

    layer = Invoke(HandlerMethods(Handler(handler)), lambda: False)
    begin = Straight(layers, [], layer, Scheduler(1, SchedulerOptions(), FakeRuntime())).begins()
    run = make_run()
    run.permit, run.partition.running = True, False
    assert await whole(begin, run) is ABANDONED
    assert (handled, layers.runs) == ([], [run])
