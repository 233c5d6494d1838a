"""What a chain of fetches looks at before it goes on, each left out: the test named sees it."""

from __future__ import annotations

import asyncio
import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.kafka import buffers, chain, fetches, frames, polls
from prosody.consume import poller
from tests.broker.kafka import chained, consuming, fetched
from tests.broker.kafka import test_chain as on_chain
from tests.broker.kafka import test_fetches as on_fetches
from tests.broker.kafka import test_fetches_left as on_left
from tests.broker.kafka import test_frames as on_frames
from tests.consume import test_poller as on_poller
from tests.mutant import put_copies
from tests.support import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

    Test = Callable[..., Any]
    Mutant = tuple[ModuleType, str, str, Test]

MODULES = (frames, chain, fetches, buffers, polls, poller)
"""In the order in which they import each other."""


def ends(name: str) -> Test:
    return lambda: on_chain.test_it_ends_with_an_answer(name)


def ends_at_once(name: str) -> Test:
    return lambda: on_chain.test_it_ends_before_it_begins(name)


def buffered(name: str) -> Test:
    return lambda: on_fetches.test_records_are_buffered_when(name)


def by_itself(name: str) -> Test:
    return lambda: on_left.test_aiokafka_fetches_by_itself_when(name)


MUTANTS: dict[str, Mutant] = {
    # Each gets its own answer.
    "an answer to aiokafka is taken for ours": (
        frames, "            and requests[0][1] is _REQUEST\n", "",
        on_frames.test_the_answer_to_an_own_request_goes_to_its_future,
    ),
    "the middle of an answer is taken for one": (
        frames, "            and not self._missing\n", "",
        lambda: on_frames.test_an_answer_that_does_not_show_whose_it_is_comes_by_the_reader(4),
    ),
    "it is forgotten where a frame ends": (
        frames, "            self._follow(data)\n", "",
        lambda: on_frames.test_an_answer_that_does_not_show_whose_it_is_comes_by_the_reader(4),
    ),
    "pieces are not put together": (
        frames, "        if self._left:\n            self", "        if False:\n            self",
        lambda: on_frames.test_an_answer_in_pieces_is_told_with_its_last_byte(9, 3),
    ),
    "an answer has the pieces of the one before": (
        frames, "            self._pieces.clear()\n", "",
        lambda: on_frames.test_an_answer_in_pieces_is_told_with_its_last_byte(9, 3),
    ),
    "the last piece goes too far": (
        frames, "append(data[: self._left])", "append(data)",
        lambda: on_frames.test_what_comes_with_the_end_of_an_answer_is_received_too(8),
    ),
    "what comes behind an answer is dropped": (
        frames, "        if rest:\n", "        if False:\n",
        lambda: on_frames.test_what_comes_with_the_end_of_an_answer_is_received_too(None),
    ),
    "any size has room for a number": (
        frames, "            and head[0] >= _LEAST\n", "",
        lambda: on_frames.test_a_size_that_has_no_room_for_a_number_closes_the_connection(3, 8),
    ),
    "an asking that is over is told": (
        frames, "        if not asking.done():\n", "        if True:\n",
        on_frames.test_an_asking_that_wants_nothing_more_gets_nothing,
    ),
    "answers are left to the reader": (
        frames, "        self._reader.feed_data = self._received\n", "",
        on_frames.test_the_answer_to_an_own_request_goes_to_its_future,
    ),
    "an answer is no sign of life": (
        frames, "connection._last_action = self.received_at =", "self.received_at =",
        on_frames.test_what_is_sent_has_the_number_that_its_answer_is_known_by,
    ),
    "what is on its way is changed": (
        frames, "write(bytes(request))", "write(memoryview(request))",
        on_frames.test_what_is_sent_has_the_number_that_its_answer_is_known_by,
    ),
    # A chain goes on only where a plan would be the same.
    "a paused partition is fetched": (chain, "part.state._paused or ", "", ends("paused")),
    "a buffered partition is fetched": (
        chain, " or part.lower in buffered:", ":", ends("buffered"),
    ),
    "others are not looked at": (
        chain,
        "for tp, state in self._others.items())",
        "for tp, state in ())",
        ends("another partition can be fetched"),
    ),
    "those of another broker are looked at": (
        chain, " and fetcher._select_read_replica(tp) == node_id", "",
        on_chain.test_it_goes_on_beside_another_brokers_partition,
    ),
    "others that are paused are looked at": (
        chain, "all(tp in buffered or state._paused for", "all(tp in buffered for",
        on_chain.test_a_partition_that_is_resumed_is_fetched_too,
    ),
    "a closed fetcher fetches": (
        chain, " or fetcher._closed or", " or", ends("the fetcher is closed"),
    ),
    "aiokafka does not see the fetches": (
        chain, "if not self._taking.applies():", "if False:", ends("aiokafka is to see the fetches"),
    ),
    "a lost assignment is fetched": (
        chain, "if self.stale or fetcher._closed or self._unassigned.done():",
        "if self.stale or fetcher._closed:",
        on_chain.test_a_lost_assignment,
    ),
    "a lost assignment is given what comes": (
        chain, "if found is None or self._unassigned.done():", "if found is None:",
        on_chain.test_a_lost_assignment,
    ),
    "a closed connection is waited for": (
        chain,
        " or not self._frames.send(self._request, self):",
        " or self._frames.send(self._request, self) is None:",
        ends_at_once("the connection is closed"),
    ),
    "one that was ended goes on": (
        chain, "        if self.ended:\n            return\n", "",
        on_chain.test_one_that_has_ended_sends_nothing_more,
    ),
    "new metadata ends nothing": (
        chain, "if self.stale or fetcher._closed", "if fetcher._closed", ends("there is new metadata"),
    ),
    # What comes is for where the partition stands.
    "what was asked for before a seek is taken": (
        chain, "if state._position != part.offset:", "if False:",
        on_chain.test_a_partition_that_was_sent_elsewhere_meanwhile,
    ),
    "the same offsets are fetched again": (
        chain, "                _OFFSET.pack_into(self._request, part.at, offset)\n", "",
        on_chain.test_each_request_is_what_aiokafka_would_send,
    ),
    "offsets are put where those of one topic would be": (
        chain, "        at += 2 + len(topic.encode()) + 4 ", "        at += 2 + len(topic) + 4 ",
        on_chain.test_each_request_is_what_aiokafka_would_send,
    ),
    "what is buffered is not polled first": (
        chain,
        "        if buffered:\n            self._loop.call_soon(self._go_on)\n        elif",
        "        if",
        on_chain.test_what_is_left_buffered_is_polled_before_the_next_fetch,
    ),
    "what is handed over waits for the next fetch": (
        chain, "brief, buffered = self._brief, False", "brief, buffered = False, False",
        on_chain.test_the_next_fetch_is_sent_after_records_are_handed_over,
    ),
    "the next fetch waits for whoever computes": (
        chain, "            self._brief = now - self._frames.received_at < BRIEF_S\n", "",
        on_chain.test_where_handlers_compute_for_long_the_next_fetch_is_sent_before,
    ),
    "an answer does not begin the time anew": (
        chain, "        self._asked_at = self._loop.time() if now is None else now\n", "",
        on_chain.test_a_broker_that_does_not_answer,
    ),
    # Records are handed over only to who wants them.
    "what may not be polled is handed over": (
        polls, "            and partition in self._assignment.pollable\n", "",
        buffered("their partition may not be polled"),
    ),
    "what is sent elsewhere is handed over": (
        polls,
        "            and held.position is None\n            and partition not in",
        "            and partition not in",
        buffered("their partition is sent elsewhere"),
    ),
    "what could not be read is handed over": (
        polls, "            and partition not in self._polls.unreadable\n", "",
        buffered("their partition could not be read"),
    ),
    "nobody is asked whether it wants them": (
        polls, "return self._taker.wants(partition)", "return self._taker.receiver(partition)",
        buffered("the poll does not want them"),
    ),
    "what is full is polled": (
        polls,
        "                partitions = [tp for tp in partitions if taker.wants(tp) is not None]\n",
        "",
        buffered("the poll does not want them"),
    ),
    "a poll that has ended is handed records": (
        polls,
        "                finally:\n                    self._buffers.fetches.waiting = None\n",
        "                finally:\n                    pass\n",
        on_fetches.test_nothing_is_handed_to_a_poll_that_has_ended,
    ),
    "records are handed over that aiokafka is to see": (
        fetches, "self.waiting if self.applies() else None", "self.waiting",
        on_fetches.test_records_are_buffered_as_soon_as_aiokafka_is_to_see_the_fetches,
    ),
    "the position stays behind what was handed over": (
        fetches, "        part.state.consumed_to(reached)\n", "",
        on_fetches.test_records_go_to_the_poll_that_waits,
    ),
    "nobody is told of what is buffered": (
        fetches, "            internals.tell_waiters(self._fetcher)\n", "            pass\n",
        buffered("they are compressed"),
    ),
    "a connection is used that is not quiet": (
        fetches, "if not is_quiet(connection):", "if False:", by_itself("something is received"),
    ),
    "another version is taken for the one known": (
        fetches, " or not is_known(connection, request):", ":",
        by_itself("the broker speaks another version"),
    ),
    "the connection of before is used": (
        fetches, "if frames is None or frames.connection is not connection:", "if frames is None:",
        on_fetches.test_a_new_connection_is_used_as_the_one_before,
    ),
    "metadata ends no chain": (
        fetches, "            chain.stale = True\n", "            pass\n",
        on_fetches.test_metadata_has_all_planned_anew,
    ),
    "a cancelled fetch raises": (
        fetches,
        "            # Only the routine and ``close`` have this task, and both wait for it to end in "
        "order.\n            return False\n",
        "            raise AssertionError from None\n",
        on_fetches.test_a_cancelled_fetch_is_over_in_order,
    ),
    "the routine is told of what a chain looks after": (
        buffers, "        if not self.fetches.looks_after(partition):\n", "        if True:\n",
        on_fetches.test_what_a_chain_looks_after_is_told_to_nobody,
    ),
    # The poller.
    "room for what is taken wakes the poll": (
        poller,
        "        self._waiting = False\n        self.hold()\n",
        "        self.hold()\n",
        on_poller.test_room_for_more_of_what_is_taken_wakes_no_poll,
    ),
    "room wakes no poll after something was taken": (
        poller,
        "            self._waiting = True\n            self.begin()\n",
        "            self.begin()\n",
        on_poller.test_room_for_more_of_what_is_taken_wakes_no_poll,
    ),
    "what is taken is no turn of polling": (
        poller,
        "        try:\n            self._arrived()\n",
        "        try:\n",
        on_poller.test_taking_counts_as_a_turn_of_polling,
    ),
    "what is taken ends no outage": (
        poller, "            self._note_success(self._failing_since)\n", "            pass\n",
        on_poller.test_what_is_taken_ends_an_outage,
    ),
    "records are wanted without room": (
        poller, "if found is not None and found.wants_records else None", "if found is not None else None",
        on_poller.test_what_has_room_is_wanted,
    ),
}  # fmt: skip


def put_in(changed: ModuleType, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the tests use copies of the modules, one of them changed."""
    copies = put_copies(MODULES, changed, old, new, monkeypatch)
    monkeypatch.setattr(on_frames, "Frames", copies[frames].Frames)
    monkeypatch.setattr(on_frames, "is_quiet", copies[frames].is_quiet)
    monkeypatch.setattr(on_chain, "Frames", copies[frames].Frames)
    monkeypatch.setattr(chained, "Chain", copies[chain].Chain)
    for module in (consuming, fetched):
        monkeypatch.setattr(module, "Polls", copies[polls].Polls)
    monkeypatch.setattr(on_poller, "Poller", copies[poller].Poller)


def run(test: Test, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    wants = inspect.signature(test).parameters
    result = test(**({"caplog": caplog} if "caplog" in wants else {}))
    if inspect.iscoroutine(result):
        # Those of the poller are on virtual time.
        (run_virtual if test.__module__ == on_poller.__name__ else asyncio.run)(result)


@pytest.mark.parametrize("name", list(MUTANTS))
def test_what_is_looked_at_is_needed(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module, old, new, test = MUTANTS[name]
    unchanged = "from __future__ import annotations"
    put_in(module, unchanged, unchanged, monkeypatch)
    run(test, caplog)  # what a mutant shows, it shows because of its change
    put_in(module, old, new, monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(test, caplog)
