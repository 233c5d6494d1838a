"""A test of the tests: each rule of the stores, switched off, makes one of them fail."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from prosody.errors import ProsodyError
from prosody.stores.memory import MemoryStores
from prosody.stores.protocol import Segment
from tests.mutant import mutant
from tests.stores import test_contract_defer as defer_contract
from tests.stores import test_groups as groups
from tests.stores.test_crashes import SCENARIOS, World
from tests.support import DeadlockError, FakeRuntime, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

RED = (
    AssertionError, pytest.fail.Exception, DeadlockError, TimeoutError, ProsodyError, KeyError,
    ValueError,
)  # fmt: skip
"""How a test fails."""

PUT = "            slab = await opened.slab_for("

STORES: dict[str, tuple[str, str, str, str]] = {
    # rule: module below prosody.stores.cassandra, what stands there, what the mutant has, scenario
    "a slab is registered before it is used": (
        "segments",
        "            await link.write(\"slabs.put\", self.id, start, end, ttl)\n",
        "            link.write(\"slabs.put\", self.id, start, end, ttl)\n"
        "            await asyncio.sleep(0)\n            await asyncio.sleep(0)\n",
        "adding",
    ),
    "a key's row is written before the timer": (
        "timers",
        "            if timer.time not in times:\n",
        "            if False:\n",
        "adding",
    ),
    "what has passed is moved back before an earlier timer is added": (
        "segments",
        "            if time < self.passed:\n",
        "            if False:\n",
        "adding_late",
    ),
    "it is moved back in the store too": (
        "segments",
        "                await link.write(\"segment.passed\", time, self.id)\n",
        "",
        "adding_late",
    ),
    "it moves forward only so far as nothing is being added": (
        "segments",
        "            before = min([before, *self._adding])\n",
        "",
        "passing",
    ),
    "a timer goes out of its slab before it goes from its key's row": (
        "timers",
        "        await self._take_from_slabs(link, opened, place.key, place.kind, [place.time])\n",
        "        link.write(\"times.clear\", opened.id, stored_key(place.key), int(place.kind))\n"
        "        await self._take_from_slabs(link, opened, place.key, place.kind, [place.time])\n",
        "removing",
    ),
    "the new one is stored before the old ones go": (
        "timers",
        "        await self._put(link, opened, times, timer)\n        if others:\n"
        "            await self._take_from_slabs(link, opened, timer.key, timer.kind, others)\n",
        "        if others:\n"
        "            await self._take_from_slabs(link, opened, timer.key, timer.kind, others)\n"
        "        await self._put(link, opened, times, timer)\n        if others:\n",
        "replacing",
    ),
    "nothing is remembered of a write that failed": (
        "timers",
        "        self._times.pop((opened.serial, place.key, place.kind), None)\n",
        "        times.put(chunk, listed)\n",
        "nothing_is_remembered_of_a_write_that_failed",
    ),
    "nor of one about deferred work": (
        "defer",
        "    def _forget(self, whose: _Key) -> None:\n",
        "    def _forget(self, whose: _Key) -> None:\n        return\n",
        "nothing_is_remembered_of_a_write_that_failed",
    ),
    "reading begins where nothing was removed": (
        "timers",
        "start = (opened.passed, -1, \"\")",
        "start = (0, -1, \"\")",
        "removed_rows_are_not_read_again",
    ),
    "slabs that have passed are forgotten": (
        "segments",
        "            if (bound := self.slabs.forget_before(before)) is not None:\n",
        "            if (bound := None) is not None:\n",
        "removed_rows_are_not_read_again",
    ),
    "the entries of a queue go before its key's row": (
        "defer",
        "        await link.write(\"entries.clear\", whose.segment, int(whose.kind), whose.key)\n",
        "        link.write(\"queues.remove\", *whose[:4])\n"
        "        await link.write(\"entries.clear\", whose.segment, int(whose.kind), whose.key)\n",
        "nothing_deferred_is_lost",
    ),
    "the new head is written when the old one goes": (
        "defer",
        "        rows = await link.read(\"entries.next\", whose.segment, int(kind), whose.key, position)\n",
        "        rows = []\n",
        "nothing_deferred_is_lost",
    ),
}  # fmt: skip

STORES["what is deferred is known while the hashes are read"] = (
    "defer",
    "        for sets in (self._named, self._naming):\n",
    "        for sets in ():\n",
    "known_keys",
)
STORES["keys count as known when all of them are"] = (
    "defer",
    "        self._naming[whose] = named\n",
    "        self._naming[whose] = self._named[whose] = named\n",
    "known_keys",
)

GROUPS: dict[str, tuple[str, str, str]] = {
    # rule: what stands there, what the mutant has, test of test_groups.py
    "a place is given back when its caller has gone": (
        "        self._flights.discard(flight)\n",
        "        if not all(op.cancelled() for op in flight.ops):\n"
        "            self._flights.discard(flight)\n",
        "test_cancelling_gives_the_place_back_when_the_request_returns",
    ),
    "a place is kept while its request is under way": (
        "while ready and len(self._flights) < MOST_IN_FLIGHT:",
        "while ready:",
        "test_no_more_requests_at_once_than_there_are_places",
    ),
    "what nobody waits for is not sent": (
        "            if not op.done():\n                taken.append(op)\n",
        "            if True:\n                taken.append(op)\n",
        "test_what_is_cancelled_before_it_is_sent_is_not_sent",
    ),
    "the halves of a group are its own": (
        "queue.again.extend((ops[:half], ops[half:]))",
        "queue.again.extend((ops[:half], ops[:half]))",
        "test_a_group_that_times_out_is_split_and_each_gets_its_own_result",
    ),
    "a group that fails is split": (
        "        elif len(ops) > 1 and not unreachable:\n",
        "        elif False:\n",
        "test_a_group_that_fails_is_halved_until_only_the_bad_one_fails",
    ),
    "each gets the result of its own": (
        "zip(ops, results, strict=True)",
        "zip(reversed(ops), results, strict=True)",
        "test_a_group_that_times_out_is_split_and_each_gets_its_own_result",
    ),
    "a lost request gives its place back": (
        "[flight for flight in self._flights if flight.lost_at <= now]",
        "[]",
        "test_a_request_that_the_driver_lost_gives_its_place_back",
    ),
    "a step has a deadline": (
        "            if not op.done():\n                _fail(op, self._late())\n",
        "            pass\n",
        "test_no_step_takes_longer_than_its_deadline",
    ),
    "whoever waits when the store goes down is told": (
        "            for op in line:\n                if not op.done():\n",
        "            for op in ():\n                if not op.done():\n",
        "test_time_outs_in_a_row_open_the_breaker_and_a_probe_closes_it",
    ),
    "while it is down nothing is tried": (
        "            self._breaker.check()\n",
        "            pass\n",
        "test_time_outs_in_a_row_open_the_breaker_and_a_probe_closes_it",
    ),
    "an answer ends a row of time-outs": (
        "            self._breaker.succeeded()\n",
        "",
        "test_an_answer_in_between_keeps_the_breaker_closed",
    ),
    "operations are grouped by their replicas": (
        "self._replicas(routing_key))",
        "b\"all\")",
        "test_one_turn_travels_together_by_replicas",
    ),
    "a group that cannot be written fails its own": (
        "            self._loop.call_soon(landed, None, None, error)\n",
        "            pass\n",
        "test_a_value_that_cannot_be_written_fails_alone",
    ),
    "a group keeps within its bytes": (
        "if taken and op.size > room:",
        "if False:",
        "test_a_group_is_small",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", list(STORES))
def test_a_store_without_this_rule_is_seen(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, old, new, scenario = STORES[rule]
    changed = mutant(f"stores.cassandra.{name}", old, new)
    classes: dict[str, Any] = {}
    if name == "segments":
        import prosody.stores.cassandra.timers as timers

        monkeypatch.setattr(timers, "OpenSegment", changed.OpenSegment)
    elif name == "timers":
        classes["timers"] = changed.CassandraTimerStore
    else:
        classes["deferred"] = changed.CassandraDeferStore
    with pytest.raises(RED):
        run_virtual(SCENARIOS[scenario](lambda: World(**classes)))


@pytest.mark.parametrize("rule", list(GROUPS))
def test_groups_without_this_rule_are_seen(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, test = GROUPS[rule]
    changed = mutant("stores.cassandra.groups", old, new)
    scene = groups.Scene
    monkeypatch.setattr(groups, "Scene", lambda: scene(changed.Groups))
    run: Callable[[], None] = getattr(groups, test)
    with pytest.raises((*RED, IndexError)):
        run()


def test_the_groups_as_they_are_show_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from __future__ import annotations"
    changed = mutant("stores.cassandra.groups", text, text)
    scene = groups.Scene
    monkeypatch.setattr(groups, "Scene", lambda: scene(changed.Groups))
    for test in {test for _, _, test in GROUPS.values()}:
        getattr(groups, test)()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("state", "next(iter(self.positions)) == entry.position", "False"),
        ("defer", "            if queue.add(entry):\n                queue.failures, queue.error = 1, ",
         "            if queue.add(entry) or True:\n                queue.failures, queue.error = 1, "),
    ],
)  # fmt: skip
def test_memory_without_this_rule_is_seen(
    module: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = mutant(f"stores.memory.{module}", old, new)
    import prosody.stores.memory as memory
    import prosody.stores.memory.defer as defer

    if module == "state":
        monkeypatch.setattr(defer, "Queue", changed.Queue)
    else:
        monkeypatch.setattr(memory, "MemoryDeferStore", changed.MemoryDeferStore)
    assert sys.modules["prosody.stores.memory"] is memory
    stores = MemoryStores(memory.MemoryStoreState(), runtime=FakeRuntime(), dedup_ttl_s=60.0)
    with pytest.raises(RED):
        run_virtual(
            defer_contract.test_an_entry_joins_a_queue_that_is_left_over(
                stores, Segment("g", "t", 0)
            )
        )
