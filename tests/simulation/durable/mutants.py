"""Rules of the durable parts, switched off one at a time, to see that the oracle misses each of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from prosody.consume.progress import Progress
from prosody.deferral.deferrals import Deferrals
from prosody.errors import StoreError
from prosody.middleware.deduplication import Deduplication
from prosody.middleware.defer import Defer
from prosody.middleware.redelivery import Redelivery
from prosody.model.outcome import Kind
from prosody.stores.memory.timers import MemoryTimerStore
from prosody.stores.protocol import DeferredKind, TimerKind
from prosody.timers.agenda import Agenda
from prosody.timers.due import DueTimer
from prosody.timers.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


# -- timers -----------------------------------------------------------------------------------------


def fires_early(patch: pytest.MonkeyPatch) -> None:
    next_time = Agenda.next_time

    def hurried(self: Agenda) -> int | None:
        time = next_time(self)
        return None if time is None else time - 1

    patch.setattr(Agenda, "next_time", hurried)


def cancel_not_stored(patch: pytest.MonkeyPatch) -> None:
    """A cancelled timer is forgotten in memory alone, so it comes back with the next owner."""

    async def clear(self: Any, segment: Any, key: str, kind: TimerKind) -> list[int]:
        return await MemoryTimerStore.times(self, segment, key, kind)

    patch.setattr(MemoryTimerStore, "clear", clear)


def cancelled_while_queued_fires(patch: pytest.MonkeyPatch) -> None:
    begin = DueTimer.begin

    def begun(self: DueTimer) -> bool:
        begin(self)
        return True

    patch.setattr(DueTimer, "begin", begun)


def fired_not_removed(patch: pytest.MonkeyPatch) -> None:
    async def remove(*_: Any) -> None:
        return

    patch.setattr(MemoryTimerStore, "remove", remove)


def retry_timers_not_loaded(patch: pytest.MonkeyPatch) -> None:
    """Those of the owner before are left alone."""
    made = Memory.__init__

    def without(self: Memory, kinds: Any, limit: int) -> None:
        made(self, [kind for kind in kinds if kind is not TimerKind.DEFERRED_MESSAGE], limit)

    patch.setattr(Memory, "__init__", without)


# -- deferral ---------------------------------------------------------------------------------------


def queue_dropped_behind_the_head(patch: pytest.MonkeyPatch) -> None:
    async def done(self: Any, kind: DeferredKind, key: str, _: int) -> None:
        await self.drop(kind, key)

    patch.setattr(Deferrals, "done", done)


def queue_left_behind_the_head(patch: pytest.MonkeyPatch) -> None:
    """What is behind the head stays there, without a timer."""
    done = Deferrals.done

    async def alone(self: Any, kind: DeferredKind, key: str, position: int) -> None:
        await done(self, kind, key, position)

    patch.setattr(Deferrals, "done", alone)


def row_before_timer(patch: pytest.MonkeyPatch) -> None:
    async def defer(
        self: Any, kind: DeferredKind, key: str, entry: Any, error: str | None, at: int
    ) -> None:
        self.uncertain.add(kind, key, entry.position)
        await self._in_turn(key, partial(self._begin, kind, key, entry, error))
        self.uncertain.discard(kind, key, entry.position)
        await self.retry_at(kind, key, at, entry.trace)

    patch.setattr(Deferrals, "defer", defer)


def advance_once(patch: pytest.MonkeyPatch) -> None:
    """A head that cannot be taken out is run again."""

    async def once(self: Any, run: Any, kind: DeferredKind, done: Any, deferrals: Any) -> Any:
        try:
            return await deferrals.advance(kind, run.key, done.position)
        except StoreError:
            return await self._persist(run, partial(deferrals.queue, kind, run.key))

    patch.setattr(Redelivery, "_next", once)


def row_before_its_record(patch: pytest.MonkeyPatch) -> None:
    """What the last owner deferred and did not commit runs when its timer fires."""
    patch.setattr(Progress, "awaited", range(0))


def hashes_not_loaded(patch: pytest.MonkeyPatch) -> None:
    async def opened(_: Any) -> None:
        return

    patch.setattr(Deferrals, "open", opened)


def followers_overtake(patch: pytest.MonkeyPatch) -> None:
    """Who cannot be put behind the deferred ones of its key runs at once."""

    append = Defer._append

    async def impatient(self: Any, run: Any, kind: DeferredKind, deferrals: Any) -> Any:
        outcome = await append(self, run, kind, deferrals)
        return None if outcome is not None and outcome.kind is Kind.TRANSIENT else outcome

    patch.setattr(Defer, "_append", impatient)


def finished_in_place_stays(patch: pytest.MonkeyPatch) -> None:
    """What failed to be deferred, and was handled in place, stays in the store if it is there."""

    async def finished(*_: Any) -> None:
        return

    patch.setattr(Deferrals, "finished_in_place", finished)


def deferred_timers_not_cancelled(patch: pytest.MonkeyPatch) -> None:
    from prosody.deferral.timer_calls import TimerCalls

    patch.setattr(TimerCalls, "_has_deferred", lambda *_: False)


# -- deduplication ----------------------------------------------------------------------------------


def recorded_too_soon(patch: pytest.MonkeyPatch) -> None:
    wrap = Deduplication.wrap

    def early(self: Any, inner: Any) -> Any:
        async def recorded(run: Any) -> Any:
            if run.duplicate is not None:
                self._finished(run, run.duplicate)
            return await inner(run)

        return wrap(self, recorded)

    patch.setattr(Deduplication, "wrap", early)


def offset_before_record(patch: pytest.MonkeyPatch) -> None:
    finished = Deduplication._finished

    def hurried(self: Any, run: Any, entry: Any) -> None:
        finished(self, run, entry)
        run.unwritten = False

    patch.setattr(Deduplication, "_finished", hurried)


def deferred_is_recorded(patch: pytest.MonkeyPatch) -> None:
    wrap = Deduplication.wrap

    def eager(self: Any, inner: Any) -> Any:
        async def recorded(run: Any) -> Any:
            outcome = await inner(run)
            if outcome.kind is Kind.DEFERRED and run.duplicate is not None:
                self._finished(run, run.duplicate)
            return outcome

        return wrap(self, recorded)

    patch.setattr(Deduplication, "wrap", eager)


def memory_tier_not_asked_again(patch: pytest.MonkeyPatch) -> None:
    """Only the look-up at admission counts."""

    class Forgetful(dict[Any, Any]):
        def __setitem__(self, *_: Any) -> None:
            return

    made = Deduplication.__init__

    def without(self: Any, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        self.recent.knows = lambda _: False
        self._entries = Forgetful()

    patch.setattr(Deduplication, "__init__", without)


MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "a timer fires early": (fires_early, "L6"),
    "a cancel is forgotten after a restart": (cancel_not_stored, "L6 timer"),
    "a timer fires that was cancelled while it waited": (cancelled_while_queued_fires, "L6"),
    "a timer that has fired stays in the store": (fired_not_removed, "L"),
    "retry timers are lost on handover": (retry_timers_not_loaded, "L4"),
    "what waits behind a deferred head is dropped": (queue_dropped_behind_the_head, "L0"),
    "what waits behind a deferred head is forgotten": (queue_left_behind_the_head, "L"),
    "the deferred row is written before its timer": (row_before_timer, "L4"),
    "a failed advance runs the handler again": (advance_once, "L6"),
    "a deferred message does not wait for its own record": (row_before_its_record, "L"),
    "the hashes are not loaded at assignment": (hashes_not_loaded, "L1"),
    "who cannot be deferred behind others overtakes them": (followers_overtake, "L1"),
    "what was handled in place comes again": (finished_in_place_stays, "L"),
    "a deferred timer cannot be cancelled": (deferred_timers_not_cancelled, "L6"),
    "recorded before it is handled": (recorded_too_soon, "dedup"),
    "a deferred message is recorded": (deferred_is_recorded, "dedup"),
    "the offset is done before the record": (offset_before_record, "dedup"),
    "the memory tier is not asked again": (memory_tier_not_asked_again, "dedup"),
}
"""What each does, and how a fault that shows it begins."""
