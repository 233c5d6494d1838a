"""The behaviour tests notice each of these rules being switched off; on virtual time, so in no time."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from prosody.deferral.deferrals import Deferrals
from prosody.deferral.hashes import Hashes
from prosody.deferral.knowledge import Knowledge
from prosody.middleware.redelivery import Redelivery
from prosody.model.context import Context
from prosody.stores.memory.dedup import MemoryDedupStore
from prosody.stores.memory.timers import MemoryTimerStore
from prosody.timers.due import State
from prosody.timers.firing import Firing
from tests.durable import test_context_errors as context_errors
from tests.durable import test_deduplication as deduplication
from tests.durable import test_deferral as deferral
from tests.durable import test_handover as handover
from tests.durable import test_timer_calls as timer_calls
from tests.durable import test_timer_cancels as timer_cancels
from tests.durable import test_timer_life as timer_life
from tests.durable.conftest import in_memory
from tests.simulation.durable.mutants import deferred_is_recorded
from tests.support import DeadlockError, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.durable.support import Place


def fire_early(patch: pytest.MonkeyPatch) -> None:
    right = Firing._time
    patch.setattr(Firing, "_time", lambda self, kind: right(self, kind) - 1)


def fire_what_was_cancelled_while_it_waited(patch: pytest.MonkeyPatch) -> None:
    def begin(self: Firing, timer: Any) -> bool:
        timer.state = State.FIRING
        return True

    patch.setattr(Firing, "begin", begin)


def forget_a_clear(patch: pytest.MonkeyPatch) -> None:
    async def clear(self: Any, segment: Any, key: str, kind: Any) -> list[int]:
        found: list[int] = await self.times(segment, key, kind)
        return found

    patch.setattr(MemoryTimerStore, "clear", clear)


def keep_what_has_fired(patch: pytest.MonkeyPatch) -> None:
    async def remove(*_: Any) -> None:
        """It stays."""

    patch.setattr(MemoryTimerStore, "remove", remove)


def load_nothing(patch: pytest.MonkeyPatch) -> None:
    async def load(*_: Any) -> list[Any]:
        return []

    patch.setattr(MemoryTimerStore, "load", load)


def run_later_messages_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Knowledge, "holds", lambda *_: False)


def do_not_load_which_keys_are_deferred(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hashes, "load", lambda *_: None)


def drop_the_queue_behind_the_head(patch: pytest.MonkeyPatch) -> None:
    async def next_(self: Any, run: Any, kind: Any, done: Any, deferrals: Deferrals) -> None:
        await deferrals.drop(kind, run.key)

    patch.setattr(Redelivery, "_next", next_)


def set_no_timer_anew(patch: pytest.MonkeyPatch) -> None:
    async def retry_at(*_: Any) -> None:
        """The head is never tried again."""

    patch.setattr(Deferrals, "retry_at", retry_at)


def remember_no_id_in_the_store(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryDedupStore, "_record", lambda *_: None)


def end_no_context(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Context, "_end", lambda _: None)


CASES: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[..., Awaitable[None]]]] = [
    (fire_early, timer_calls.test_times_are_rounded_to_whole_seconds_and_none_fires_early),
    (
        fire_what_was_cancelled_while_it_waited,
        timer_cancels.test_a_timer_that_is_due_and_waits_behind_its_canceller_does_not_fire,
    ),
    (forget_a_clear, timer_cancels.test_what_was_cancelled_is_gone_for_the_next_owner_too),
    (keep_what_has_fired, timer_life.test_timers_survive_a_subscription_and_a_client),
    (load_nothing, timer_life.test_timers_survive_a_subscription_and_a_client),
    (
        run_later_messages_at_once,
        deferral.test_later_messages_wait_in_order_and_the_partition_goes_on,
    ),
    (
        do_not_load_which_keys_are_deferred,
        deferral.test_deferred_messages_survive_a_client_and_new_ones_queue_behind,
    ),
    (
        do_not_load_which_keys_are_deferred,
        handover.test_a_rolling_handover_in_the_middle_of_deferral,
    ),
    (
        drop_the_queue_behind_the_head,
        deferral.test_later_messages_wait_in_order_and_the_partition_goes_on,
    ),
    (set_no_timer_anew, deferral.test_what_is_run_again_is_what_was_sent),
    (
        deferred_is_recorded,
        deduplication.test_a_message_that_was_only_deferred_is_not_taken_for_done,
    ),
    (remember_no_id_in_the_store, deduplication.test_after_a_restart),
    (end_no_context, context_errors.test_after_its_event_a_context_refuses),
]


async def play(test: Callable[..., Awaitable[None]]) -> None:
    place: Place = in_memory()
    others: dict[str, Any] = {"options": {}, "runs_again": False}
    wanted = inspect.signature(test).parameters
    try:
        await test(place, **{name: value for name, value in others.items() if name in wanted})
    finally:
        await place.close()


@pytest.mark.parametrize(("switch", "test"), CASES, ids=lambda each: each.__name__)
def test_it_notices(
    switch: Callable[[pytest.MonkeyPatch], None],
    test: Callable[..., Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch(monkeypatch)
    # A wait that never ends is noticed too: by its deadline, or because nothing is left to happen.
    with pytest.raises((AssertionError, TimeoutError, DeadlockError, pytest.fail.Exception)):
        run_virtual(play(test))
