"""Context and run: cancellation seen from the handler, timer calls refused with a reason."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from prosody.errors import ContextError
from prosody.model.context import Context
from prosody.model.run import shorten
from tests.middleware.fakes import FakePartition, make_run

WHEN = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("reason", ["cancelled", "finished", "shutdown"])
async def test_should_cancel(reason: str) -> None:
    partition = FakePartition()
    run = make_run(0, partition)
    context = Context(run)
    assert context.should_cancel() is False
    run.cancelled = reason == "cancelled"
    if reason == "finished":
        run.context = context
        run.finish()
    partition.cancelling = reason == "shutdown"
    assert context.should_cancel() is True
    async with asyncio.timeout(1):
        await context.on_cancel()


async def test_on_cancel_wakes_all_who_wait_and_forgets_who_gave_up() -> None:
    run = make_run()
    context = run.context = Context(run)
    waiting = [asyncio.create_task(context.on_cancel()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(context._waiters or ()) == 2
    run.finish()
    async with asyncio.timeout(1):
        await asyncio.gather(waiting[0], waiting[2])
    assert waiting[1].cancelled()
    assert not context._waiters


async def test_a_run_is_cancelled_only_in_its_handler_and_once_per_attempt() -> None:
    run = make_run()
    run.context = Context(run)

    async def lane() -> int:
        run.task = task = asyncio.current_task()
        assert task is not None
        run.cancel()
        before = task.cancelling()
        run.handling = True
        run.cancel()
        run.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return before * 100 + task.cancelling()
        raise AssertionError("not cancelled")

    assert await asyncio.create_task(lane()) == 1
    assert run.context.should_cancel()


async def test_a_finished_run_needs_no_garbage_collector() -> None:
    class Payload:
        """Stands for the message, which takes no weak references."""

    payload = Payload()
    gone = weakref.ref(payload)
    run = make_run(event=payload)
    context = run.context = Context(run)
    del payload
    gc.disable()
    try:
        run.finish()
        assert context.should_cancel()
        del run, context
        assert gone() is None
    finally:
        gc.enable()


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("schedule", (WHEN,)),
    ("clear_and_schedule", (WHEN,)),
    ("unschedule", (WHEN,)),
    ("clear_scheduled", ()),
    ("scheduled", ()),
]


@pytest.mark.parametrize(("call", "arguments"), CALLS, ids=[name for name, _ in CALLS])
async def test_timer_calls_say_why_they_are_refused(call: str, arguments: tuple[Any, ...]) -> None:
    run = make_run(7)
    context = run.context = Context(run)
    with pytest.raises(ContextError, match=rf"context\.{call}\(\): timers are not available"):
        await getattr(context, call)(*arguments)
    run.finish()
    with pytest.raises(ContextError, match=r"after its event has ended .*offset 7"):
        await getattr(context, call)(*arguments)


@pytest.mark.parametrize("call", ["schedule", "clear_and_schedule", "unschedule"])
@pytest.mark.parametrize(
    ("when", "error"),
    [
        (1_900_000_000, TypeError),
        (None, TypeError),
        (datetime(2030, 1, 1), ValueError),  # noqa: DTZ001  # that is what is wrong with it
        (datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), ValueError),
        (datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC), ValueError),
        (datetime(2106, 2, 7, 8, 28, 15, tzinfo=timezone(timedelta(hours=1))), ValueError),
    ],
)
async def test_wrong_times_are_the_callers_error(call: str, when: Any, error: type) -> None:
    with pytest.raises(error, match=rf"context\.{call}\(\)"):
        await getattr(Context(make_run()), call)(when)


async def test_where_names_the_record_and_shortens_the_key() -> None:
    assert make_run(7, key="k").where() == "topic 'orders' partition 3 offset 7 key 'k'"
    assert shorten("x" * 80) == repr("x" * 80)
    assert shorten("x" * 81) == f"{'x' * 80!r}... (81 characters)"
