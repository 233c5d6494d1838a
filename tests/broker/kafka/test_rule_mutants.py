"""The rules of a rebalance that docs/DESIGN.md lists, each switched off: the test named sees it.

Those of the leader's decision are in ``test_cooperative_rounds.py``, those that only a history shows in
``test_rounds.py``.
"""

from __future__ import annotations

import asyncio
import inspect
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.kafka import commits, foreign, handover, rebalance, starts
from prosody.consume import committer
from tests.broker.kafka import stage
from tests.broker.kafka import test_commits as on_commits
from tests.broker.kafka import test_foreign as on_foreign
from tests.broker.kafka import test_handover as on_handover
from tests.broker.kafka import test_positions as on_positions
from tests.consume import test_committer as on_committer
from tests.mutant import put_copies
from tests.support import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

    Mutant = tuple[ModuleType, str, str, Callable[..., Any]]

MODULES = (starts, rebalance, handover, commits, foreign, committer)
"""In the order in which they import each other."""

MUTANTS: dict[str, Mutant] = {
    # A claim holds under one member id.
    "a reset of the member id is not noticed": (
        handover,
        "if self.held and not self._same_member():",
        "if False:",
        lambda: on_handover.test_a_reset_of_the_member_id_loses_everything("me again"),
    ),
    "commits are taken after a reset": (
        rebalance,
        "        if not self._same_member():\n            raise",
        "        if False:\n            raise",
        lambda: on_handover.test_a_reset_of_the_member_id_loses_everything(""),
    ),
    "the membership is not looked at again right before sending": (
        commits,
        "                    self._assignment.require(offsets, self._doing)\n                    try:",
        "                    try:",
        on_commits.test_a_commit_is_not_sent_when_the_membership_went_while_it_waited,
    ),
    "the end of an old drain lets go of what is held anew": (
        handover,
        "if self.held.get(tp) is holding:",
        "if tp in self.held:",
        on_handover.test_lost_while_it_drains_and_back,
    ),
    # No commit is under way during a join.
    "a join waits for no commit": (
        rebalance,
        "if self._open_commits:",
        "if False:",
        on_handover.test_commits_wait_for_the_end_of_a_join_and_joins_for_commits,
    ),
    "a join waits for a commit for ever": (
        rebalance,
        "for future in late:",
        "for future in ():",
        on_handover.test_a_commit_that_does_not_end_is_given_up,
    ),
    "commits are taken during a join": (
        rebalance,
        "if not self._settled.is_set():",
        "if False:",
        on_handover.test_commits_wait_for_the_end_of_a_join_and_joins_for_commits,
    ),
    "what a join has refused is sent again during it": (
        committer,
        "        await self._consumer.settled()\n",
        "",
        lambda: run_virtual(on_committer.test_a_commit_that_met_a_join_is_computed_anew()),
    ),
    "an older commit overtakes a newer one": (
        commits,
        "async with asyncio.timeout(COMMIT_LIMIT_S), self._order:",
        "async with asyncio.timeout(COMMIT_LIMIT_S):",
        on_commits.test_an_older_commit_does_not_overtake_a_newer_one,
    ),
    "a commit refused for a rebalance is repeated as it was": (
        commits,
        'broker.retriable and type(error).__name__ != "RebalanceInProgressError"',
        "broker.retriable",
        on_commits.test_a_commit_refused_for_a_rebalance_is_for_its_caller_to_decide,
    ),
    # A member that is leaving is given nothing, and its idle partitions move first.
    "a leaving member begins what it is given": (
        handover,
        "if not self._leaving:\n            self._take(",
        "if True:\n            self._take(",
        on_handover.test_a_leaving_member_takes_nothing,
    ),
    "a leaving member does not ask to be relieved": (
        handover,
        'self._spawn(self._offer_soon(), "leave")',
        "pass",
        on_handover.test_who_leaves_and_is_not_done_soon_asks_to_be_relieved,
    ),
    # What was given up is not taken back by an old claim.
    "what was given up is taken back": (
        handover,
        "for tp, lower in fresh.items() if tp not in outdated}",
        "for tp, lower in fresh.items()}",
        on_handover.test_given_up_while_a_join_was_under_way,
    ),
    # What stays goes on where it was; what moves does not go on.
    "what is being released is fetched again after a join": (
        handover,
        "        if holding.releasing:\n            internals.pause(self._consumer, lower)\n        elif",
        "        if",
        on_handover.test_what_moves_is_drained_while_assigned_and_then_not_claimed,
    ),
    "positions are noted before the join, and not after it": (
        handover,
        "        self._note_positions()\n        given = ",
        "        given = ",
        on_positions.test_what_was_polled_during_a_join_is_not_polled_again,
    ),
    "a position is noted over a seek": (
        handover,
        "            if holding.position is None:\n",
        "            if True:\n",
        on_positions.test_a_seek_after_the_state_was_replaced,
    ),
    "a seek is forgotten with the state it was made in": (
        rebalance,
        "holding.position = None if there else offset",
        "holding.position = None",
        on_positions.test_a_beginning_that_ends_after_the_state_was_replaced,
    ),
    # A position that the log does not have is never passed over.
    "what retention took is not told": (
        rebalance,
        "            if offset < beginning:\n",
        "            if False:\n",
        on_handover.test_what_retention_took_is_told,
    ),
    "what retention took before the start is not told": (
        starts,
        "        if offset < beginning:\n",
        "        if False:\n",
        on_handover.test_what_retention_took_is_told,
    ),
    "another log is read as if it were the same": (
        rebalance,
        "if offset is None or offset > end:",
        "if offset is None:",
        on_handover.test_another_log_under_a_position,
    ),
    "an end that lags begins everything anew": (
        starts,
        "        if not refused:\n",
        "        if False:\n",
        on_handover.test_an_end_that_lags_is_not_believed_alone,
    ),
    "the bounds of a log undo a seek": (
        rebalance,
        "if holding.seeks != seeks:",
        "if False:",
        lambda: on_positions.test_a_seek_while_the_bounds_of_the_log_are_asked_for(500),
    ),
    # A topic that is missing is given up when no broker lists it.
    "one answer is enough to give up a topic": (
        handover,
        "while missed < TOPIC_LOOKS:",
        "while missed < 1:",
        on_handover.test_a_topic_that_some_broker_lists_is_kept,
    ),
    "a deleted topic is never given up": (
        handover,
        "            self._lose(gone)\n",
        "            pass\n",
        on_handover.test_a_topic_that_no_broker_lists_is_given_up,
    ),
    # A group with another assignor is not joined.
    "a group with another assignor is joined": (
        foreign,
        'if group.protocol in ("", assignor):',
        "if True:",
        on_foreign.test_another_assignor_is_named_with_the_option,
    ),
    "a group of another kind is joined": (
        foreign,
        'if group.protocol_type not in ("", "consumer"):',
        "if False:",
        on_foreign.test_a_group_of_another_kind,
    ),
}


def put_in(changed: ModuleType, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the tests use copies of the modules, one of them changed."""
    copies = put_copies(MODULES, changed, old, new, monkeypatch)
    monkeypatch.setattr(stage, "CooperativeAssignment", copies[handover].CooperativeAssignment)
    monkeypatch.setattr(on_commits, "Commits", copies[commits].Commits)
    monkeypatch.setattr(on_committer, "Committer", copies[committer].Committer)
    monkeypatch.setattr(on_foreign, "foreign", copies[foreign])


def run(test: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    wants = inspect.signature(test).parameters
    result = test(**({"caplog": caplog} if "caplog" in wants else {}))
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_rule_is_needed(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module, old, new, test = MUTANTS[name]
    unchanged = "from __future__ import annotations"
    put_in(module, unchanged, unchanged, monkeypatch)
    run(test, caplog)  # what a mutant shows, it shows because of its change
    caplog.clear()
    put_in(module, old, new, monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(test, caplog)
