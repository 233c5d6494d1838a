"""The straight way leaves the same behind as the layers, one by one: what is charged, counted and told."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from prosody.config import Config
from prosody.consume.decode import decode
from prosody.errors import PermanentError
from prosody.middleware import stacks
from prosody.middleware.base import whole
from prosody.middleware.straight import Straight
from prosody.model.handler import HandlerMethods
from prosody.stores.memory import MemoryStores, MemoryStoreState
from prosody.telemetry.buffer import CROWDED, LONG_CHARS, Buffer
from tests.middleware.fakes import FakePartition, make_run, storms
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.model.run import Run


class Handler:
    """Takes a second, then does as the test says."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    async def on_message(self, *_: object) -> None:
        await asyncio.sleep(1.0)
        if self.error is not None:
            raise self.error


class AtOnce(Handler):
    async def on_message(self, *_: object) -> None:
        if self.error is not None:
            raise self.error


class Left:
    """A stack, one message through it, and what that left behind."""

    def __init__(self, handler: object, prepare: Callable[[Left], None]) -> None:
        self.runtime = FakeRuntime()
        self.events = Buffer()
        self.woken = 0
        self.events.wake = self._wake
        self.noted: list[tuple[float, str]] = []
        stores = MemoryStores(MemoryStoreState(), runtime=self.runtime, dedup_ttl_s=60.0)
        config = Config.load(
            {"mock": True, "group_id": "g", "subscribed_topics": "t", "max_concurrency": 1}, {}
        )
        self.stack = stacks.build(
            config,
            HandlerMethods(handler),
            self.runtime,
            storms(),
            lambda: False,
            None,
            stacks.Kept(stores.dedup, None, partial(decode, runtime=self.runtime, excise=False)),
            events=self.events,
        )
        self.stack.scheduler.note = lambda _, used_s, end: self.noted.append(
            (round(used_s, 6), repr(end))
        )
        self.partition = FakePartition()
        self.partition.deferrals = SimpleNamespace(  # type: ignore[assignment]
            message_hashes=(), uncertain=SimpleNamespace(events={})
        )
        self.key = "k"
        prepare(self)

    def _wake(self) -> None:
        self.woken += 1

    async def handle(self) -> dict[str, Any]:
        scheduler = self.stack.scheduler
        run = make_run(7, self.partition, key=self.key)
        lane, run.task = run.task, None
        began = self.runtime.monotonic()
        scheduler.enqueue(run, began)
        assert scheduler.take() is run
        run.task = lane
        outcome = await whole(self.stack.call, run)
        now = self.runtime.monotonic()
        assert self.stack.gate is not None
        assert self.stack.monopolization is not None
        return {
            "outcome": repr(outcome),
            "permits": (scheduler.in_use, run.permit, scheduler.heap.dispatched),
            "charged": round(scheduler.heap.virtual_time(run.place, now), 6),
            "window": round(self.stack.monopolization.meter.used(run.place, now), 6),
            "read": round(scheduler.latest - began, 6),
            "gate": self.stack.gate.window.counts(now),
            "events": [
                round(v - began, 6) if type(v) is float else v for v in self.events.values[-14:]
            ],
            "woken": self.woken,
            "noted": self.noted,
            "attempts": (run.attempt, run.handling, run.work_class),
        }


def usual(_: Left) -> None: ...


def long_key(left: Left) -> None:
    left.key = "k" * (LONG_CHARS + 1)


def full_buffer(left: Left) -> None:
    for _ in range(CROWDED - 1):
        left.events.add(("of another", -1, "", ("t", 0), 0, "k", ""))


def cancelling(left: Left) -> None:
    left.partition.cancelling = True


def no_store(left: Left) -> None:
    left.partition.deferrals = None


ERRORS = [None, PermanentError("no use")]


@pytest.mark.parametrize("error", ERRORS, ids=["success", "permanent failure"])
@pytest.mark.parametrize("handler", [Handler, AtOnce], ids=["waits", "at once"])
@pytest.mark.parametrize(
    "prepare", [usual, long_key, full_buffer, cancelling, no_store], ids=lambda f: f.__name__
)
async def test_it_leaves_the_same_behind(
    prepare: Callable[[Left], None],
    handler: type[Handler],
    error: BaseException | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    straight = Left(handler(error), prepare)
    taken: list[Run] = []
    found = await straight.handle()

    def layered(made: Straight, *_: object) -> Any:
        def call(run: Run) -> Any:
            taken.append(run)
            return made._layers(run)

        return call

    monkeypatch.setattr(Straight, "begins", layered)
    expected = await Left(handler(error), prepare).handle()
    assert len(taken) == 1, "the second one went through the layers"
    assert found == expected
    assert found["permits"] == (0, False, 0)
    assert found["charged"] == pytest.approx(1.0 if handler is Handler else 0.0, abs=0.01)
