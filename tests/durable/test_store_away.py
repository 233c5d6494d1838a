"""The store in memory is away for a while under load; and what would go unnoticed otherwise."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from prosody.errors import StoreError
from prosody.middleware.defer import Defer
from prosody.middleware.redelivery import Redelivery
from prosody.middleware.reload import GivenUpError
from prosody.model.outcome import Kind, Outcome
from prosody.stores.memory import MemoryStoreState
from prosody.timers.firing import Firing
from prosody.timers.operations import Operations
from tests.durable.away import Load
from tests.durable.conftest import in_memory
from tests.support import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OUTAGE_S = 6.0


async def outage_under_load() -> None:
    place = in_memory()
    try:
        await place.create_topic()
        load = Load(place, pause_s=0.3)
        state = place.cluster.attached(MemoryStoreState)
        client = place.client(retry_base=0.05, max_retry_delay=1.0, max_uncommitted=2048)
        await client.subscribe(load.handler)
        async with load.running():
            await load.more("timer timer", 20)
            state.outage()
            back_at = place.runtime.wall() + OUTAGE_S
            while place.runtime.wall() < back_at:
                await load.more("message plain", 20)
            state.restore()
            await load.more("timer timer", 30)
            await load.more("message flaky", 40)
        await load.until_all()
        await place.nothing_left()
        await client.unsubscribe()
        load.judge()
        await load.next_owner_finds_nothing()
    finally:
        await place.close()


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    """Hundreds of tracebacks are the point here; to write them takes most of the time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_is_lost_and_no_handler_runs_again_because_of_it() -> None:
    run_virtual(outage_under_load())


def defer_what_cannot_be_stored(patch: pytest.MonkeyPatch) -> None:
    right = Defer._defer

    async def defer(self: Any, run: Any, *rest: Any) -> Outcome:
        outcome = await right(self, run, *rest)
        return Outcome(Kind.DEFERRED) if outcome.kind is Kind.TRANSIENT else outcome

    patch.setattr(Defer, "_defer", defer)


def give_up_taking_out_what_is_done(patch: pytest.MonkeyPatch) -> None:
    async def persist(self: Any, run: Any, operation: Any) -> Any:
        try:
            return await operation()
        except StoreError:
            raise GivenUpError from None

    patch.setattr(Redelivery, "_persist", persist)


def leave_what_has_fired(patch: pytest.MonkeyPatch) -> None:
    right = Firing.end

    async def end(self: Firing, timer: Any, pause: Any) -> bool:
        return await right(self, timer, None) if self._order.stopped else await once(self, timer)

    async def once(self: Firing, timer: Any) -> bool:
        try:
            await self._order.run(timer.key, lambda: self._operations.end(timer))
        except StoreError:
            self.abort(timer)
            return True
        self._release(timer)
        return True

    patch.setattr(Firing, "end", end)


def acknowledge_what_was_not_stored(patch: pytest.MonkeyPatch) -> None:
    right = Operations.replace

    async def replace(self: Any, *rest: Any) -> Any:
        try:
            return await right(self, *rest)
        except StoreError:
            return []

    patch.setattr(Operations, "replace", replace)


@pytest.mark.parametrize(
    "switch",
    [
        defer_what_cannot_be_stored,
        give_up_taking_out_what_is_done,
        leave_what_has_fired,
        acknowledge_what_was_not_stored,
    ],
    ids=lambda switch: switch.__name__,
)
def test_it_notices(
    switch: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    switch(monkeypatch)
    with pytest.raises(AssertionError):
        run_virtual(outage_under_load())
