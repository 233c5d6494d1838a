"""The three modes as wholes: which layers there are, in which order, and what a failure comes to."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from prosody.config import Config
from prosody.consume.decode import decode
from prosody.errors import PermanentError
from prosody.middleware import stacks
from prosody.middleware.base import compose
from prosody.middleware.dead_letter import DeadLetterWriter
from prosody.model.handler import HandlerMethods
from prosody.model.outcome import Kind, Outcome
from prosody.model.run import Run
from prosody.stores.memory import MemoryStores, MemoryStoreState
from tests.middleware.fakes import in_lane, make_run, storms
from tests.middleware.test_dead_letter import Sender
from tests.support import FakeRuntime, settle


class Handler:
    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def on_message(self, *_: object) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def build(
    mode: str,
    handler: object,
    sender: Sender | None = None,
    kept: stacks.Kept | None = None,
    **options: Any,
) -> stacks.Stack:
    values: dict[str, Any] = {
        "mock": True, "group_id": "g", "subscribed_topics": "t", "mode": mode, "max_retries": 2,
        "retry_base": 1.0, "max_retry_delay": 4.0, "failure_topic": "failures",
        "telemetry_enabled": False, **options,
    }  # fmt: skip
    runtime = FakeRuntime()
    writer = sender and DeadLetterWriter(sender, "failures", "g", "s", 1.0, 4.0, runtime, storms())
    return stacks.build(
        Config.load(values, {}),
        HandlerMethods(handler),
        runtime,
        storms(),
        lambda: False,
        writer,
        kept,
    )


async def test_compose_puts_the_first_layer_outermost() -> None:
    trace: list[str] = []

    class Traced:
        def __init__(self, name: str) -> None:
            self.name = name

        def wrap(self, inner: Any) -> Any:
            async def call(run: Run) -> Outcome:
                trace.append(self.name)
                return await inner(run)  # type: ignore[no-any-return]

            return call

    async def end(_: Run) -> Outcome:
        trace.append("end")
        return Outcome(Kind.SUCCESS)

    await compose([Traced("a"), Traced("b")], end)(make_run())
    assert trace == ["a", "b", "end"]


@pytest.mark.parametrize(
    ("mode", "layers"),
    [
        (
            "pipeline",
            [
                "Retry",
                "Defer",
                "Monopolization",
                "Shutdown",
                "Scheduler",
                "Timeout",
            ],
        ),
        ("low-latency", ["DeadLetter", "Retry", "Shutdown", "Scheduler", "Timeout"]),
        ("best-effort", ["LogAndSkip", "Shutdown", "Scheduler", "Timeout"]),
    ],
)
async def test_the_layers_of_each_mode(
    mode: str, layers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def look(given: list[Any], handler: Any) -> Any:
        found.extend(type(layer).__name__ for layer in given)
        return compose(given, handler)

    monkeypatch.setattr(stacks, "compose", look)
    state, runtime = MemoryStoreState(), FakeRuntime()
    stores = MemoryStores(state, runtime=runtime, dedup_ttl_s=60.0)
    kept = stacks.Kept(stores.dedup, None, partial(decode, runtime=runtime, excise=False))
    stack = build(mode, Handler(), Sender(), kept)
    assert found == layers
    assert (stack.deduplication is not None) is (mode == "pipeline"), "it lies around the others"
    found.clear()
    build(mode, Handler(), Sender(), idempotence_cache_size=0, monopolization_enabled=False)
    absent = {"Defer", "Monopolization"}
    assert found == [layer for layer in layers if layer not in absent]
    assert stack.takes_undecodable is (mode == "low-latency")
    assert stack.takes_excise is False


@pytest.mark.parametrize(
    ("mode", "errors", "calls", "kind", "letters"),
    [
        ("pipeline", [ValueError()] * 9, 10, Kind.SUCCESS, 0),
        ("pipeline", [ValueError(), PermanentError()], 2, Kind.PERMANENT, 0),
        ("low-latency", [ValueError()] * 2, 3, Kind.SUCCESS, 0),
        ("low-latency", [ValueError()] * 9, 3, Kind.PERMANENT, 1),
        ("low-latency", [PermanentError()], 1, Kind.PERMANENT, 1),
        ("best-effort", [ValueError()], 1, Kind.PERMANENT, 0),
        ("best-effort", [], 1, Kind.SUCCESS, 0),
    ],
)
async def test_what_failures_come_to(
    mode: str, errors: list[BaseException], calls: int, kind: Kind, letters: int
) -> None:
    handler, sender = Handler(*errors), Sender()
    outcome = await in_lane(build(mode, handler, sender).call, make_run())
    assert (handler.calls, outcome.kind, len(sender.sent)) == (calls, kind, letters)


async def test_no_permit_is_held_in_a_backoff() -> None:
    handler = Handler(*[ValueError()] * 3)
    stack = build("pipeline", handler, max_concurrency=1, retry_base=100.0, max_retry_delay=500.0)
    lane = in_lane(stack.call, make_run(0))
    await settle()
    assert (handler.calls, stack.scheduler.in_use) == (1, 0)
    assert (await in_lane(stack.call, make_run(1, key="other"))).kind is not None
    await lane


async def test_undecodable_records_become_dead_letters_without_the_handler() -> None:
    handler, sender = Handler(), Sender()
    run = make_run(event=None, error=ValueError("no JSON"))
    outcome = await in_lane(build("low-latency", handler, sender).call, run)
    assert (outcome.kind, handler.calls, len(sender.sent)) == (Kind.PERMANENT, 0, 1)


async def test_a_handler_past_its_deadline_is_tried_again() -> None:
    class Slow:
        calls = 0

        async def on_message(self, *_: object) -> None:
            self.calls += 1
            if self.calls == 1:
                await asyncio.Event().wait()

    handler = Slow()
    stack = build("pipeline", handler, timeout=5.0)
    run = make_run()
    stack.timeout.lanes = lambda: [SimpleNamespace(run=run)]
    stack.timeout.watch()
    outcome = await in_lane(stack.call, run)
    assert (handler.calls, outcome.kind) == (2, Kind.SUCCESS)
    assert asyncio.get_running_loop().time() >= 5.0
    stack.timeout.close()
