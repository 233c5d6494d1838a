"""A test of the tests: each rule of the embedded broker, switched off, makes a test of it fail.

A mutant is a function of the broker with one place changed. Its test runs on a virtual loop, where a
wait in vain takes no time.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.memory import MemoryBroker, MemoryCluster
from prosody.errors import BrokerError
from tests.broker import test_contract_handover as handover
from tests.broker import test_contract_life as life
from tests.broker import test_contract_offsets as offsets
from tests.broker import test_contract_starts as starts
from tests.broker import test_memory_cluster as clusters
from tests.broker import test_memory_faults as faults
from tests.broker import test_memory_logs as logs
from tests.broker.levers import MemoryLevers
from tests.support import DeadlockError, FakeRuntime, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Test = Callable[..., Coroutine[Any, Any, None]]

RED = (AssertionError, pytest.fail.Exception, DeadlockError, TimeoutError, BrokerError)
"""How a test fails."""

CALL = "await self._listener.on_revoked(partitions)"

MUTANTS: dict[str, tuple[str, str, str, Test]] = {
    "a revoke holds up the next step": (
        "following",
        "await give_way()  # so that others run even if steps follow on each other for ever\n",
        "await give_way()\n"
        "                if self._revokes:\n"
        "                    await asyncio.wait(self._revokes)\n",
        handover.test_a_slow_revoke_delays_neither_records_nor_assignments_of_others,
    ),
    "revokes run one after the other": (
        "following",
        CALL,
        f"async with self.__dict__.setdefault('order', asyncio.Lock()): {CALL}",
        handover.test_two_revokes_do_not_wait_for_each_other,
    ),
    "what is being revoked is polled": (
        "following",
        "position.ready = False",
        "position.ready = True",
        handover.test_a_slow_revoke_delays_neither_records_nor_assignments_of_others,
    ),
    "a partition is released when its revoke begins": (
        "following",
        CALL,
        f"self._group.release(member, partitions); {CALL}",
        handover.test_commits_work_until_the_revoke_ends,
    ),
    "a partition is never released": (
        "following",
        "if self.held.get(tp) is position:",
        "if False:",
        handover.test_commits_work_until_the_revoke_ends,
    ),
    "a revoke releases what came back after a loss": (
        "following",
        "if self.held.get(tp) is position:",
        "if tp in self.held:",
        faults.test_the_revoke_of_what_was_lost_and_came_back_gives_nothing_away,
    ),
    "a loss waits for the revokes": (
        "following",
        "if step.partitions:\n",
        "if step.partitions and not self._revokes:\n",
        handover.test_a_partition_can_be_lost_while_it_is_revoked,
    ),
    "what others still hold is given": (
        "group",
        "if m is member and tp not in self.holders]",
        "if m is member and self.holders.get(tp) is not member]",
        handover.test_commits_work_until_the_revoke_ends,
    ),
    "revokes go on after stop": (
        "following",
        "for task in self._tasks():",
        "for task in [self._task]:",
        life.test_stopping_during_a_revoke_cancels_it,
    ),
    "stop waits for the revoke that calls it": (
        "following",
        " - {asyncio.current_task()}",
        "",
        clusters.test_a_consumer_may_be_stopped_by_its_own_revoke,
    ),
    "a note goes with any offset": (
        "position",
        'return Start(log.start, "", log.end), warning',
        "return Start(log.start, metadata, log.end), warning",
        starts.test_a_commit_that_retention_has_passed_begins_at_the_beginning_without_its_note,
    ),
    "a note is lost": (
        "position",
        "Start(offset, metadata, log.end)",
        'Start(offset, "", log.end)',
        starts.test_it_is_the_committed_offset_with_its_note,
    ),
    "the end does not belong to the log": (
        "position",
        "log.start <= offset <= log.end",
        "log.start <= offset < log.end",
        starts.test_it_is_the_committed_offset_with_its_note,
    ),
    "what lies beyond the end begins at the end": (
        "position",
        'return Start(log.start, "", log.end), warning',
        'return Start(max(log.start, min(offset, log.end)), "", log.end), warning',
        starts.test_a_commit_beyond_the_end_begins_at_the_beginning_without_its_note,
    ),
    "retention passes in silence": (
        "position",
        "if self.offset >= self.log.start:",
        "if True:",
        starts.test_a_position_that_retention_has_passed_goes_on_at_the_beginning,
    ),
    "a position beyond the end stays": (
        "position",
        "if self.offset > self.log.end or any(",
        "if any(",
        starts.test_a_position_beyond_the_end_is_lost_and_assigned_again,
    ),
    "a log that has grown again counts as the same": (
        "position",
        "or any(self.offset > cut for cut in cuts[self._cuts_seen :])",
        "",
        logs.test_what_was_cut_off_is_lost_and_assigned_again,
    ),
    "every cut is held against a position": (
        "position",
        "self._cuts_seen = len(cuts)",
        "pass",
        logs.test_who_has_not_read_so_far_does_not_notice_the_cut,
    ),
    "a leaving member is given more": (
        "group",
        "if m.subscribes(topic) and not m.leaving",
        "if m.subscribes(topic)",
        handover.test_a_leaving_member_is_given_nothing_more,
    ),
    "a leaving member gives up at once": (
        "group",
        "if m.leaving\n",
        "if False\n",
        faults.test_what_a_leaving_member_has_stays_with_it_while_nobody_else_could_take_it,
    ),
    "a leaving member keeps all it has": (
        "group",
        "            and tp.topic not in subscribers\n",
        "",
        handover.test_what_a_leaving_member_has_drained_moves_before_its_slowest,
    ),
    "a leaving member keeps what it was giving up": (
        "group",
        "            and tp not in m.revoking\n",
        "",
        faults.test_a_leaving_member_does_not_get_back_what_it_was_giving_up,
    ),
    "who leaves and joins anew is given something": (
        "following",
        "self.member.leaving = member.leaving",
        "pass",
        faults.test_a_leaving_member_does_not_get_back_what_it_was_giving_up,
    ),
    "a note of any length is taken": (
        "group",
        "if len(o.metadata) > max_metadata_chars",
        "if False",
        offsets.test_a_note_that_is_too_long_is_refused,
    ),
    "half of a commit is kept": (
        "group",
        "        if too_long :=",
        "        self.committed.update(kept)\n        if too_long :=",
        faults.test_a_note_too_long_spoils_the_whole_commit,
    ),
    "anybody may commit": (
        "group",
        "if self.holders.get(tp) is not member]",
        "if False]",
        faults.test_a_silent_member_goes_on_as_a_zombie_and_its_commits_are_refused,
    ),
    "commits are taken between two assignments": (
        "group",
        "if self.unsettled:",
        "if False:",
        faults.test_an_unsettled_group_refuses_commits_until_it_is_settled,
    ),
    "settled does not wait": (
        "consumer",
        "while self._group.unsettled and",
        "while False and",
        faults.test_an_unsettled_group_refuses_commits_until_it_is_settled,
    ),
    "a poll sits through an outage": (
        "consumer",
        "if self._cluster.down:\n                    raise",
        "if False:\n                    raise",
        faults.test_in_an_outage_nobody_hears_anything_and_afterwards_all_goes_on,
    ),
    "members hear of their group in an outage": (
        "following",
        "not (self._cluster.down or self.member.news_held)",
        "not self.member.news_held",
        faults.test_in_an_outage_nobody_hears_anything_and_afterwards_all_goes_on,
    ),
    "who was thrown out in an outage never hears of it": (
        "group",
        "for member in (*self.members, *self.gone):",
        "for member in self.members:",
        faults.test_in_an_outage_nobody_hears_anything_and_afterwards_all_goes_on,
    ),
    "an outage counts as being slow": (
        "group",
        "self._ask_anew({})",
        "pass",
        clusters.test_a_member_too_slow_to_give_up_is_thrown_out,
    ),
    "a silent member hears": (
        "following",
        "not (self._cluster.down or self.member.news_held)",
        "not self._cluster.down",
        faults.test_a_silent_member_goes_on_as_a_zombie_and_its_commits_are_refused,
    ),
    "a zombie reads nothing": (
        "following",
        "if not (self.member.alive or self.member.news_held):",
        "if not self.member.alive:",
        faults.test_a_silent_member_goes_on_as_a_zombie_and_its_commits_are_refused,
    ),
    "a dead member can be too slow": (
        "group",
        "(m in late and not m.dead)",
        "(m in late)",
        faults.test_a_dead_member_is_not_thrown_out_by_who_waits_for_it,
    ),
    "a crash leaves in order": (
        "consumer",
        "if not crashed:",
        "if True:",
        faults.test_a_crashed_member_vanishes_and_its_group_does_not_know,
    ),
    "a crash leaves its revokes running": (
        "following",
        "for task in self._tasks():",
        "for task in [self._task]:",
        faults.test_a_crashed_member_vanishes_and_its_group_does_not_know,
    ),
}

TESTS = {test.__name__: test for *_, test in MUTANTS.values()}


def play(test: Test, caplog: pytest.LogCaptureFixture) -> None:
    """Run a contract test over an embedded broker on a virtual clock."""
    caplog.clear()
    cluster = MemoryCluster()
    strict = MemoryBroker(cluster, runtime=FakeRuntime(), auto_create_topics=False)
    given = {
        "broker": strict,
        "cluster": cluster,
        "memory": MemoryBroker(cluster, runtime=FakeRuntime(), auto_create_topics=True),
        "levers": MemoryLevers(cluster),
        "caplog": caplog,
        "thrown_out_before": False,
    }
    run_virtual(test(**{name: given[name] for name in inspect.signature(test).parameters}))


@pytest.mark.parametrize("name", TESTS)
def test_the_code_as_it_is_passes(name: str, caplog: pytest.LogCaptureFixture) -> None:
    play(TESTS[name], caplog)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_name, old, new, test = MUTANTS[name]
    module = importlib.import_module(f"prosody.broker.memory.{module_name}")
    assert module.__file__ is not None
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module_name}"
    mutated = dict(vars(module))
    exec(compile(source.replace(old, new), module.__file__, "exec"), mutated)
    changed = 0
    for owner, mutant in [(module, mutated), *classes(module, mutated)]:
        for key, function in list(mutant.items()):
            original = vars(owner).get(key)
            if not (isinstance(function, FunctionType) and isinstance(original, FunctionType)):
                continue
            if code_of(function) != code_of(original):
                monkeypatch.setattr(owner, key, function)
                # What else imported it by name.
                for other in ("consumer", "following"):
                    user = importlib.import_module(f"prosody.broker.memory.{other}")
                    if vars(user).get(key) is original:
                        monkeypatch.setattr(user, key, function)
                changed += 1
    assert changed == 1
    with pytest.raises(RED):
        play(test, caplog)


def classes(module: Any, mutated: dict[str, Any]) -> list[tuple[type, dict[str, Any]]]:
    """The classes made in a module, each with what its mutant has in it."""
    return [
        (original, dict(vars(mutated[name])))
        for name, original in vars(module).items()
        if isinstance(original, type) and original.__module__ == module.__name__
    ]


def code_of(function: FunctionType) -> tuple[Any, ...]:
    """What a function does, whatever its line numbers; functions inside it count too."""

    def flat(code: Any) -> tuple[Any, ...]:
        consts = tuple(flat(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts)
        return (code.co_code, code.co_names, code.co_varnames, consts)

    return flat(function.__code__)
