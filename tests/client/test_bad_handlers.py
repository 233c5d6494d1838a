"""Handlers that do not end, raise what they should not, leak, swallow: no offset stays stuck."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from prosody import Context, Message
from tests.client.support import Place, Recorder, run_simulated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STALL_S = 60.0


class OutsideError(BaseException):
    """Not even an ``Exception``."""


def raises(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def raise_it() -> None:
        raise error

    return raise_it


async def raises_after_a_turn() -> None:
    await asyncio.sleep(0)
    raise OutsideError


async def lets_a_cancelled_childs_error_through() -> None:
    child = asyncio.create_task(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(child.cancel)
    await child


async def leaves_a_child_that_raises() -> None:
    """A child nobody awaits, cancelled in the turn in which the handler ends."""
    asyncio.create_task(asyncio.Event().wait()).cancel()


async def cancels_itself() -> None:
    this_task().cancel()
    await asyncio.sleep(0)


async def cancels_itself_unseen() -> None:
    this_task().cancel()


async def cancels_itself_three_times_and_swallows() -> None:
    for _ in range(3):
        this_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            continue  # what this handler is here to do


async def cancels_itself_later() -> None:
    asyncio.get_running_loop().call_soon(this_task().cancel)


async def leaves_a_timeout_half_used() -> None:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()


async def awaits_a_cancelled_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def fails_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(raises(OutsideError())())  # type: ignore[arg-type]
        group.create_task(asyncio.Event().wait())


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


WAYS: dict[str, Callable[[], Awaitable[object]]] = {
    "raise-base": raises(OutsideError("outside")),
    "raise-exit": raises(SystemExit(3)),
    "raise-cancelled": raises(asyncio.CancelledError()),
    "raise-stop": raises(StopAsyncIteration()),
    "raise-group": raises(BaseExceptionGroup("two", [OutsideError(), ValueError()])),
    "raise-recursion": raises(RecursionError()),
    "raise-memory": raises(MemoryError()),
    "raise-late": raises_after_a_turn,
    "child-cancelled": lets_a_cancelled_childs_error_through,
    "child-left": leaves_a_child_that_raises,
    "cancel-self": cancels_itself,
    "cancel-unseen": cancels_itself_unseen,
    "cancel-swallowed": cancels_itself_three_times_and_swallows,
    "cancel-later": cancels_itself_later,
    "timeout-own": leaves_a_timeout_half_used,
    "future-cancelled": awaits_a_cancelled_future,
    "group-fails": fails_in_a_group,
}
"""By key: how the first attempt of the key's first message ends."""


class Bad:
    """A handler behaviour: the first attempt of each key goes wrong in the way the key names."""

    def __init__(self) -> None:
        self.begun: set[str] = set()

    async def __call__(self, context: Context, message: Message) -> None:
        if message.key not in self.begun:
            self.begun.add(message.key)
            if way := WAYS.get(message.key):
                await way()


MODES: dict[str, dict[str, Any]] = {
    # In place: a deferred message would let its partition come to its end before it is handled.
    "pipeline": {"retry_base": 0.001, "defer_enabled": False},
    "best-effort": {},
}


@pytest.mark.parametrize("mode", MODES)
async def test_whatever_handlers_do_every_key_goes_on_in_order(
    place: Place, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    await place.create_topic(partitions=2)
    keys = [*WAYS, "good"]
    await place.put_many([(key.encode(), {"i": i}) for i in range(5) for key in keys])
    recorder = Recorder(Bad())
    # Fewer places than keys: one that is not given back would stop the rest.
    client = place.client(mode=mode, max_uncommitted=7, max_concurrency=4, **MODES[mode])
    await client.subscribe(recorder)
    await place.nothing_left()
    first = 0 if mode == "pipeline" else 1
    for key, payloads in recorder.by_key().items():
        numbers = [p["i"] for p in payloads]
        assert numbers in ([*range(5)], [*range(first, 5)]), key
    assert set(recorder.by_key()) == set(keys)
    assert recorder.overlaps == 0
    assert not [r for r in caplog.records if "internal fault" in r.getMessage()]
    assert not any(recorder.running.values())


class Garbage:
    """Returns what is no coroutine, then coroutines that return something."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def answer(self) -> object:
        return object()

    def on_message(self, context: Context, message: Message) -> Any:
        i = message.payload["i"]
        self.seen.append(i)
        return self.answer() if i >= 5 else (None, 42, object(), [self], len)[i]


async def test_garbage_for_an_answer_is_an_error_and_no_more(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    await place.create_topic(partitions=1)
    await place.put_many([(b"k", {"i": i}) for i in range(7)])

    handler = Garbage()
    await place.client().subscribe(handler)
    await place.nothing_left()
    assert handler.seen == list(range(7))
    lost = [r.getMessage() for r in caplog.records if "message lost" in r.getMessage()]
    assert len(lost) == 5
    assert all("must be an async method" in line for line in lost)


# -- handlers that do not end --------------------------------------------------------------------


class Deaf:
    """A handler behaviour: key ``stuck`` does not end and cannot be cancelled, until released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.refused = 0

    async def __call__(self, context: Context, message: Message) -> None:
        while message.key == "stuck" and not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.refused += 1


def records() -> list[tuple[bytes, dict[str, int]]]:
    return [(key, {"i": i}) for i in range(20) for key in (b"stuck", b"a", b"b", b"c")]


def test_one_that_never_ends_stops_nobody_else_and_shows_as_stalled() -> None:
    async def main(place: Place) -> None:
        await place.create_topic(partitions=1)
        await place.put_many(records())
        deaf = Deaf()
        recorder = Recorder(deaf)
        client = place.client(
            max_uncommitted=100, max_concurrency=2, stall_threshold=STALL_S, commit_interval=1.0
        )
        began = place.runtime.monotonic()
        await client.subscribe(recorder)
        await recorder.until_handled(60)
        assert {m.key for m in recorder.handled} == {"a", "b", "c"}
        assert place.runtime.monotonic() - began < 1.0
        await asyncio.sleep(STALL_S - 2.0)
        assert not await client.is_stalled()
        await asyncio.sleep(3.0)
        assert await client.is_stalled()
        assert deaf.refused == 1, "cancelled once, at its timeout of 80 % of the threshold"
        assert await place.lag() == 80, "nothing behind the oldest unfinished record is committed"
        # What comes new is handled all the same.
        await place.put({"i": 99}, key=b"a")
        await recorder.until_handled(61)
        deaf.released.set()
        await recorder.until_handled(81)
        await place.nothing_left()
        assert not await client.is_stalled()
        assert recorder.overlaps == 0
        for key, payloads in recorder.by_key().items():
            numbers = [p["i"] for p in payloads]
            assert numbers == sorted(numbers), key

    run_simulated(main)


@pytest.mark.parametrize("mode", MODES)
async def test_one_that_never_ends_is_cancelled_at_its_deadline(
    place: Place, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "prosody")
    await place.create_topic(partitions=1)
    await place.put_many(records())
    tries = 0

    async def twice(context: Context, message: Message) -> None:
        nonlocal tries
        if message.key == "stuck" and message.payload["i"] == 0 and tries < 2:
            tries += 1
            await asyncio.Event().wait()

    recorder = Recorder(twice)
    await place.client(mode=mode, timeout=0.1, max_uncommitted=100, **MODES[mode]).subscribe(
        recorder
    )
    await place.nothing_left()
    assert tries == (2 if mode == "pipeline" else 1)
    assert len(recorder.handled) == (80 if mode == "pipeline" else 79)
    said = [r.getMessage() for r in caplog.records if "timed out" in r.getMessage()]
    assert len(said) == tries
    assert "'stuck'" in said[0]


async def test_swallowing_the_deadline_is_the_handlers_right(place: Place) -> None:
    await place.create_topic(partitions=1)
    await place.put_many([(b"k", {"i": i}) for i in range(3)])

    async def swallow(context: Context, message: Message) -> None:
        if message.payload["i"] == 0:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert context.should_cancel()

    recorder = Recorder(swallow)
    await place.client(mode="pipeline", timeout=0.1).subscribe(recorder)
    await place.nothing_left()
    assert [m.payload["i"] for m in recorder.attempts] == [0, 1, 2]
