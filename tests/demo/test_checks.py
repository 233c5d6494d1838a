"""Each check of the closing table fails on a history that breaks it, and only that one does."""

from __future__ import annotations

import pytest

from demo.measure import Facts, latency
from demo.report import WIDTH, as_json, failures, plain_lines, rows
from tests.demo.histories import OFFSETS, RIGHT, facts
from tools.look import Offsets


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
        "committed",
        "errors_logged",
    }


def test_facts_of_a_right_history() -> None:
    measured = facts()
    assert (measured.sent, measured.handled, measured.failed_attempts) == (3, 3, 1)
    assert measured.running_max == 2
    # a1 took from 0 to 9, a2 from 4 to 11, the failing key's from 2 to 13.
    assert measured.latency_others == (7.0, 9.0)
    assert measured.latency_failing == (11.0, 11.0)
    assert measured.latency_hot is None
    assert measured.seconds == 13.0


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        pytest.param(
            facts(RIGHT, {0: Offsets(2, 2), 1: Offsets(2, 2)}),
            ["sent"],
            id="more records in the topic than were sent",
        ),
        pytest.param(
            facts(RIGHT, planned=4), ["sent", "handled"], id="an order that was never sent"
        ),
        pytest.param(
            facts(RIGHT.replace("failed failing1,", "handled failing1,").replace(
                "begin failing1, handled failing1\n", "send a3\n")),
            ["retried"],
            id="no failed attempt",
        ),
        pytest.param(
            facts(
                "send a1, sent a1, send a2, sent a2, send failing1, sent failing1\n"
                "begin failing1, failed failing1, begin failing1, handled failing1\n"
                "begin a2, handled a2, begin a1, handled a1"
            ),
            ["out_of_order"],
            id="handled in the wrong order",
        ),
        pytest.param(
            facts(RIGHT.replace("handled a1\n", "failed a1\n") + ", begin a1, handled a1"),
            ["out_of_order"],
            id="a later order before a retry",
        ),
        pytest.param(
            facts(RIGHT.replace("begin a2, handled a2,", "")), ["handled", "lost"], id="lost"
        ),
        pytest.param(
            facts(RIGHT + ", begin a1, handled a1"), ["handled_twice"], id="handled twice"
        ),
        pytest.param(
            facts(
                RIGHT.replace("handled a1\n", "").replace(
                    "begin a2, handled a2,", "begin a2, handled a1, handled a2,"
                )
            ),
            ["overlapping"],
            id="two at the same time",
        ),
        pytest.param(
            facts(RIGHT, {0: Offsets(1, 2), 1: Offsets(1, 1)}), ["committed"], id="commit behind"
        ),
        pytest.param(
            facts(RIGHT, {0: Offsets(3, 2), 1: Offsets(1, 1)}), ["committed"], id="commit beyond"
        ),
        pytest.param(facts(RIGHT, {}), ["sent", "committed"], id="no partition seen"),
        pytest.param(facts(RIGHT, errors_logged=1), ["errors_logged"], id="an error logged"),
    ],
)  # fmt: skip
def test_wrong_history_fails_its_check(wrong: Facts, names: list[str]) -> None:
    assert failed(wrong) == names
    assert len(failures(rows(wrong))) == len(names)


def test_failure_names_what_it_is_and_what_it_must_be() -> None:
    (sentence,) = failures(rows(facts(RIGHT, {0: Offsets(1, 2), 1: Offsets(1, 1)})))
    assert "committed" in sentence
    assert "partition 0 at 1 of 2" in sentence
    assert "must be 2 of 2" in sentence


def test_json_says_whether_it_passed_and_what_failed() -> None:
    good = as_json(rows(facts()), "memory")
    assert good["passed"] is True
    assert good["committed"] == {"0": [2, 2], "1": [1, 1]}
    bad = as_json(rows(facts(RIGHT + ", begin a1, handled a1")), "memory")
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
