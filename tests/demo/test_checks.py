"""Each check of the closing table fails on a history that breaks it, and only that one does."""

from __future__ import annotations

import pytest

from demo.measure import Facts, latency
from demo.report import as_json, failures, rows
from demo.tables import WIDTH, plain_lines
from tests.demo.histories import OFFSETS, RIGHT, SEEN, facts
from tools.look import Offsets
from tools.look_stores import Left


def failed(measured: Facts) -> list[str]:
    return [row.name for row in rows(measured) if row.ok is False]


def test_right_history_passes_every_check() -> None:
    table = rows(facts())
    assert failures(table) == []
    assert {row.name for row in table if row.ok} == {
        "sent",
        "handled",
        "retried",
        "out_of_order",
        "lost",
        "handled_twice",
        "overlapping",
        "deferred",
        "deferred_finished",
        "timers_set",
        "timers_fired",
        "timers_wrong",
        "timers_early",
        "timers_late_max_s",
        "duplicates_skipped",
        "committed",
        "left_in_stores",
        "errors_logged",
    }


def test_facts_of_a_right_history() -> None:
    measured = facts()
    assert (measured.sent, measured.handled, measured.failed_attempts) == (3, 3, 1)
    assert measured.running_max == 2
    # a1 took from 0 to 13, a2 from 4 to 17, the failing key's from 2 to 19.
    assert measured.latency_others == (13.0, 13.0)
    assert measured.latency_failing == (17.0, 17.0)
    assert measured.latency_hot is None
    assert measured.seconds == 19.0
    assert measured.durable.deferred == (1, 1, 1, 5.5)
    assert measured.durable.timers == (3, 1, 2, 2, 0, 0, 0.5)
    assert measured.durable.copies == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        pytest.param(
            facts(RIGHT, OFFSETS | {0: Offsets(4, 4)}), ["sent"],
            id="more records in the topic than were sent",
        ),
        pytest.param(
            facts(RIGHT, planned=4), ["sent", "handled"], id="an order that was never sent"
        ),
        pytest.param(
            facts(RIGHT.replace("failed failing1,", "handled failing1,").replace(
                "begin failing1 1/0, handled failing1\n", "send a3\n")),
            ["retried", "deferred"],
            id="no failed attempt",
        ),
        pytest.param(
            facts(RIGHT.replace("begin a1 0/0", "begin a2 0/1").replace("handled a1", "handled a2")
                  .replace("begin a2 0/1, set a6", "begin a1 0/0, set a6")
                  .replace("handled a2, begin failing1", "handled a1, begin failing1")),
            ["out_of_order"],
            id="handled in the wrong order",
        ),
        pytest.param(
            facts(RIGHT.replace("handled a1\n", "failed a1\n") + ", begin a1 0/0, handled a1"),
            ["out_of_order"],
            id="a later order before a retry",
        ),
        pytest.param(
            facts(RIGHT.replace("begin a2 0/1, set a6, cancelled a6, handled a2,", "")),
            ["handled", "lost"],
            id="lost",
        ),
        pytest.param(
            facts(RIGHT + ", begin a2 0/1, handled a2"), ["handled_twice"], id="handled twice"
        ),
        pytest.param(
            facts(RIGHT + ", begin a1 0/2, handled a1"),
            ["handled_twice", "duplicates_skipped"],
            id="the copy handled, too",
        ),
        pytest.param(
            facts(RIGHT, planned_copies=2), ["duplicates_skipped"], id="a copy never sent"
        ),
        pytest.param(
            facts(RIGHT.replace("handled a1\n", "").replace(
                "begin a2 0/1,", "begin a2 0/1, handled a1,")),
            ["overlapping"],
            id="two at the same time",
        ),
        pytest.param(
            facts(RIGHT.replace("handled a1\n", "timer_begin a5 +0, handled a1\n")
                  .replace("timer_begin a5 +0.25,", "")),
            ["overlapping"],
            id="a timer while an order of its key runs",
        ),
        pytest.param(
            facts(sights=SEEN[:1]), ["deferred"], id="never seen passed over, but retried in place"
        ),
        pytest.param(
            facts(sights=[(19.0, {1: 1})]), ["deferred"], id="committed when it was handled"
        ),
        pytest.param(
            facts(RIGHT.replace("begin failing1 1/0, handled failing1\n", "\n")),
            ["handled", "lost", "deferred_finished"],
            id="deferred and never tried again",
        ),
        pytest.param(
            facts(
                "send failing1, sent failing1, send failing2, sent failing2\n"
                "send_copy failing1, sent_copy failing1, begin failing1 1/0, failed failing1\n"
                "begin failing2 1/1, set failing5, handled failing2\n"
                "begin failing1 1/0, handled failing1, timer_begin failing5 +0, fired failing5",
                {1: Offsets(3, 3)}, planned=2, sights=[(8.5, {1: 1})]
            ),
            ["out_of_order", "deferred_finished"],
            id="deferred, then in the wrong order",
        ),
        pytest.param(
            facts(RIGHT.replace("timer_begin a7 +0.5, fired a7", "")),
            ["timers_fired"],
            id="a timer that never fires",
        ),
        pytest.param(
            facts(RIGHT.replace("fired a7", "timer_failed a7")),
            ["timers_fired"],
            id="a timer whose handler fails for good",
        ),
        pytest.param(
            facts(RIGHT + ", timer_begin a5 +0.25, fired a5"), ["timers_wrong"], id="fired twice"
        ),
        pytest.param(
            facts(RIGHT + ", timer_begin a6 +0.25, fired a6"),
            ["timers_wrong"],
            id="fired after it was cancelled",
        ),
        pytest.param(
            facts(RIGHT + ", timer_begin b1 +0.25, fired b1"), ["timers_wrong"], id="never set"
        ),
        pytest.param(facts(RIGHT.replace("+0.5", "-0.001")), ["timers_early"], id="early"),
        pytest.param(facts(RIGHT.replace("+0.5", "+13.1")), ["timers_late_max_s"], id="late"),
        pytest.param(facts(left=Left(1, 0)), ["left_in_stores"], id="a timer left in the store"),
        pytest.param(facts(left=Left(0, 1)), ["left_in_stores"], id="an order left in the store"),
        pytest.param(
            facts(RIGHT, OFFSETS | {0: Offsets(2, 3)}), ["committed"], id="commit behind"
        ),
        pytest.param(
            facts(RIGHT, OFFSETS | {0: Offsets(4, 3)}), ["committed"], id="commit beyond"
        ),
        pytest.param(facts(RIGHT, {}), ["sent", "committed"], id="no partition seen"),
        pytest.param(facts(RIGHT, errors_logged=1), ["errors_logged"], id="an error logged"),
    ],
)  # fmt: skip
def test_wrong_history_fails_its_check(wrong: Facts, names: list[str]) -> None:
    assert failed(wrong) == names
    assert len(failures(rows(wrong))) == len(names)


def test_failure_names_what_it_is_and_what_it_must_be() -> None:
    (sentence,) = failures(rows(facts(RIGHT, OFFSETS | {0: Offsets(2, 3)})))
    assert "committed" in sentence
    assert "partition 0 at 2 of 3" in sentence
    assert "must be 2 of 2" in sentence


def test_a_timer_whose_call_failed_may_fire_or_not_but_once() -> None:
    asked = RIGHT.replace("set a7", "set a7, asked a8")
    assert failed(facts(asked)) == []
    assert failed(facts(asked + ", timer_begin a8 +0.1, fired a8")) == []
    twice = asked + ", timer_begin a8 +0.1, fired a8, timer_begin a8 +0.1, fired a8"
    assert failed(facts(twice)) == ["timers_wrong"]


def test_a_timer_may_be_as_late_as_an_order_waits() -> None:
    # The slowest of the other keys took 13 seconds.
    assert failed(facts(RIGHT.replace("+0.5", "+12.9"))) == []


def test_timers_that_were_never_set_are_missed() -> None:
    nothing = ", ".join(step for step in RIGHT.replace("\n", ",").split(",")
                        if not step.strip().startswith(("set", "cancelled", "timer", "fired")))  # fmt: skip
    assert failed(facts(nothing)) == ["timers_set"]


def test_json_says_whether_it_passed_and_what_failed() -> None:
    good = as_json(rows(facts()), "memory", "memory")
    assert good["passed"] is True
    assert good["committed"] == {"0": [3, 3], "1": [1, 1]}
    assert (good["timers_set"], good["timers_cancelled"], good["timers_fired"]) == (3, 1, 2)
    bad = as_json(rows(facts(RIGHT + ", begin a2 0/1, handled a2")), "memory", "memory")
    assert bad["passed"] is False
    assert bad["failed_checks"] == ["handled_twice"]


def test_lines_of_the_table_fit() -> None:
    big = {n: Offsets(9_999_999, 9_999_999) for n in range(4)}
    lines = plain_lines(rows(facts(RIGHT, big | OFFSETS)))
    assert max(map(len, lines)) <= WIDTH + 4


def test_percentiles_are_nearest_rank() -> None:
    assert latency([]) is None
    assert latency([5.0]) == (5.0, 5.0)
    assert latency([float(n) for n in range(100, 0, -1)]) == (50.0, 99.0)
    assert latency([float(n) for n in range(1, 102)]) == (51.0, 100.0)
