"""The comparison with other packages: its bars and its report, on made-up outcomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.compare import report, works
from benchmarks.compare import rivals as r
from benchmarks.compare.bars import AIM, MET, MISSED, NOT_MEASURED, Bar, bars
from benchmarks.compare.outcome import Outcome
from benchmarks.compare.pictures import draw
from benchmarks.compare.records import Work, make, plan
from benchmarks.compare.scenes import late, pause

if TYPE_CHECKING:
    from pathlib import Path

A = next(case for case in works.cases() if case.row == "a")
WELL: dict[str, Any] = {
    "healthy": 1000, "handled": 1000, "seconds": 1.0, "cpu_seconds": 0.02, "distinct_keys": 10,
    "order_faults": 0, "repeated": 0, "lost": 0, "uncommitted": 0, "keys_missing": 0,
    "failures": 0, "peak_mib": 50.0, "first_s": 0.5, "close_s": 0.1,
}  # fmt: skip


def outcome(entrant: r.Entrant, rate: float, number: int = 0, **figures: Any) -> Outcome:
    return Outcome(A.key, entrant, 1000, number, {**WELL, "seconds": 1000 / rate, **figures})


def bar(floor: float | None = 3, aim: float = 6, **fields: Any) -> Bar:
    return Bar(A.key, r.DEFAULTS, r.FASTSTREAM, floor, aim, **fields)


def test_each_round_has_all_entrants_and_begins_with_another_one() -> None:
    rounds = [works.in_turn(A, number, 3) for number in range(3)]
    assert rounds[0] == A.entrants
    assert all(sorted(map(id, turn)) == sorted(map(id, A.entrants)) for turn in rounds)
    assert len({turn[0][0].name for turn in rounds}) == 3
    places = [[entrant for entrant, _ in turn].index(r.DEFAULTS) for turn in rounds]
    assert max(places) - min(places) >= len(A.entrants) // 2


# --------------------------------------------------------------------------------------- the bars


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    """And not the ratio of medians: a round that others slowed down slows both."""
    rounds = [(1000, 100), (100, 50), (9000, 1000)]
    found = [
        outcome(entrant, rate, number)
        for number, rates in enumerate(rounds)
        for entrant, rate in zip((r.DEFAULTS, r.FASTSTREAM), rates, strict=True)
    ]
    assert bar().ratios(found) == pytest.approx([10, 2, 9])
    assert bar().value(found) == pytest.approx(9)


@pytest.mark.parametrize(("rate", "verdict"), [(299, MISSED), (301, MET), (601, AIM)])
def test_a_bar_has_a_floor_and_an_aim(rate: float, verdict: str) -> None:
    found = [outcome(r.DEFAULTS, rate), outcome(r.FASTSTREAM, 100)]
    assert bar().verdict(found) == verdict


def test_a_bar_without_a_floor_cannot_be_missed() -> None:
    found = [outcome(r.DEFAULTS, 1), outcome(r.FASTSTREAM, 100)]
    assert bar(floor=None).verdict(found) == MET


def test_what_was_not_measured_is_said_and_not_passed_over() -> None:
    found = [outcome(r.DEFAULTS, 1000)]
    assert bar().verdict(found) == NOT_MEASURED
    assert report.missed([bar()], found) == [f"{NOT_MEASURED} {bar().text}"]


def test_a_run_that_failed_gives_no_ratio() -> None:
    failed = Outcome(A.key, r.FASTSTREAM, 1000, 0, failure="hung")
    assert bar().ratios([outcome(r.DEFAULTS, 1000), failed]) == []


def test_latency_is_set_against_the_best_of_those_that_keep_order() -> None:
    latency = Bar(A.key, r.DEFAULTS, None, 1.0, 0.5, figure="p99_s", less=True)
    others = [outcome(r.BARE, 1, p99_s=0.02), outcome(r.FASTSTREAM, 1, p99_s=0.08)]
    without_order = outcome(r.TASKS, 1, p99_s=0.001)
    ours_too = outcome(r.DEFAULTS_PURE, 1, p99_s=0.002)
    for ours_s, verdict in ((0.021, MISSED), (0.019, MET), (0.009, AIM)):
        found = [outcome(r.DEFAULTS, 1, p99_s=ours_s), *others, without_order, ours_too]
        assert latency.value(found) == pytest.approx(ours_s / 0.02)
        assert latency.verdict(found) == verdict


def test_the_best_rival_is_one_over_all_rounds() -> None:
    """Not whoever was the luckiest of several in each round."""
    latency = Bar(A.key, r.DEFAULTS, None, 1.0, 0.5, figure="p99_s", less=True)
    rounds = [(0.02, 0.01, 0.03), (0.02, 0.10, 0.015), (0.02, 0.02, 0.03)]
    found = [
        outcome(entrant, 1, number, p99_s=p99_s)
        for number, figures in enumerate(rounds)
        for entrant, p99_s in zip((r.DEFAULTS, r.BARE, r.FASTSTREAM), figures, strict=True)
    ]
    assert latency.ratios(found) == pytest.approx([2.0, 0.2, 1.0])


def test_every_bar_is_about_somebody_who_takes_part() -> None:
    taking_part = {case.key: [e for e, _ in case.entrants] for case in works.cases()}
    for each in bars():
        assert each.ours in taking_part[each.case]
        if each.against is not None:
            assert each.against in taking_part[each.other_case or each.case]


def test_all_rows_are_there_and_no_two_tables_are_one() -> None:
    keys = [case.key for case in works.cases()]
    assert {key[0] for key in keys} == set("abcdefghij")
    assert len(keys) == len(set(keys))


def test_a_smoke_run_has_all_rows_and_less_of_each() -> None:
    whole = {case.key: case for case in works.chosen([], quick=False)}
    quick = works.chosen([], quick=True)
    assert {case.row for case in quick} == set("abcdefghij")
    for case in quick:
        before = {e.name: count for e, count in whole[case.key].entrants}
        assert all(count <= max(before[e.name] / 20, 300) for e, count in case.entrants)
        assert case.seconds <= 2.0
    assert len(quick) < len(whole)


# -------------------------------------------------------------------------------------- the faults


@pytest.mark.parametrize(
    "fault", ["order_faults", "repeated", "lost", "uncommitted", "keys_missing"]
)
def test_a_fault_breaks_the_row(fault: str) -> None:
    found = [outcome(r.DEFAULTS, 10), outcome(r.DEFAULTS, 10, 1, **{fault: 2})]
    table = report.of_case(A, found, {})
    (line,) = [line for line in table.splitlines() if f"{r.DEFAULTS.name} |" in line]
    assert line.startswith("| BROKEN prosody-asyncio, defaults |")
    (said,) = report.wrong(found)
    assert said.startswith("BROKEN round 2 (a")
    assert f"{fault.replace('_', ' ')}: 2" in said


def test_a_run_without_faults_is_not_broken() -> None:
    found = [outcome(r.DEFAULTS, 10)]
    assert report.wrong(found) == []
    assert "BROKEN" not in report.of_case(A, found, {})


def test_a_fault_that_is_not_promised_is_shown_and_breaks_nothing() -> None:
    found = [outcome(r.TASKS, 10, order_faults=7)]
    assert report.wrong(found) == []
    assert "| 7* |" in report.of_case(A, found, {})


def test_what_fails_may_be_lost_by_those_who_do_not_try_again() -> None:
    dropped = outcome(r.FASTSTREAM, 10, lost=3, failures=3)
    assert dropped.broken == []
    assert outcome(r.FASTSTREAM, 10, lost=3).broken == ["lost: 3"]
    assert outcome(r.DEFAULTS, 10, lost=3, failures=3).broken == ["lost: 3"]


def test_a_run_that_hung_is_broken() -> None:
    found = [Outcome(A.key, r.DEFAULTS, 1000, 0, failure="hung: no result within 90 s")]
    assert "hung" in report.wrong(found)[0]
    assert "BROKEN prosody-asyncio, defaults" in report.of_case(A, found, {})


def test_a_rival_that_is_missing_is_shown_with_the_reason() -> None:
    missing = {"quixstreams": "no wheel\nfor this | Python"}
    text = report.page({}, [A], [bar()], [outcome(r.DEFAULTS, 10)], missing, "peers.svg")
    assert "missing: no wheel for this / Python" in text
    assert "| missing: quixstreams, defaults |" in text


def test_the_figures_hold_every_run() -> None:
    found = [outcome(r.DEFAULTS, 1000), outcome(r.FASTSTREAM, 100, lost=1)]
    figures = json.loads(report.as_json({}, [bar()], found, {}))
    assert [run["broken"] for run in figures["runs"]] == [[], ["lost: 1"]]
    assert figures["bars"][0]["ratios"] == [10.0]


@pytest.fixture(scope="module")
def _fonts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """matplotlib keeps the files of the fonts that it has drawn with open, for the whole process."""
    draw([outcome(r.DEFAULTS, 10)], tmp_path_factory.mktemp("fonts") / "first.svg")


@pytest.mark.usefixtures("_fonts")
def test_the_same_outcomes_make_the_same_picture(tmp_path: Path) -> None:
    found = [outcome(r.DEFAULTS, 1000), outcome(r.FASTSTREAM, 100, lost=1)]
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        draw(found, picture)
    first, second = (picture.read_text(encoding="utf-8") for picture in pictures)
    assert first == second
    assert "<dc:date>" not in first


# -------------------------------------------------------------------------------------- the records


def test_records_number_the_messages_of_a_key_and_copies_come_later() -> None:
    made = make(Work(1000, "zipf", distinct=50, ids=True))
    assert len(made.records) == 1010
    assert made.expected == 1000
    seqs: dict[bytes, int] = {}
    for key, value in made.records:
        order = json.loads(value)
        assert order["key"] == key.decode()
        assert order["seq"] <= seqs.get(key, 0)
        seqs[key] = max(seqs.get(key, 0), order["seq"] + 1)
    assert len(seqs) == made.distinct_keys


def test_two_keys_in_a_hundred_fail() -> None:
    made = make(Work(5000, distinct=100, fails=True))
    failing = {key for key, value in made.records if json.loads(value).get("fails")}
    assert failing == {b"key-0", b"key-1"}
    assert made.failing == sum(key in failing for key, _ in made.records)


def test_what_is_sent_late_has_waited_since_it_was_to_be_sent() -> None:
    planned = plan(100.0, 1.0, distinct=10, hot_rate=5.0, warm=3)
    assert [each.i for each in planned] == list(range(3, 108))
    assert sum(each.hot for each in planned) == 5
    _, value = planned[50].record(began_at=1000.0)
    assert json.loads(value)["at"] == pytest.approx(1000.0 + planned[50].after_s)


# ------------------------------------------------------------------------------------ rebalances


def test_a_pause_is_that_of_a_partition_that_stayed() -> None:
    log = [(0, 1.0, 0), (0, 1.5, 1), (0, 4.0, 2), (1, 1.0, 3), (1, 9.0, 4)]
    assert pause(log, {1}, 1.0, 5.0) == pytest.approx(2.5)
    assert pause(log, {0, 1}, 1.0, 5.0) is None
    assert pause(log, {1}, 4.5, 9.5) == pytest.approx(5.0)  # nothing at all came


def test_a_message_after_a_later_one_of_its_key_is_late() -> None:
    planned = plan(10.0, 1.0, distinct=1)
    in_order = [(0, float(i), i) for i in range(4)]
    assert late(in_order, planned) == 0
    assert late([*in_order, (1, 9.0, 1)], planned) == 0  # again, after a rebalance
    assert late([(0, 0.0, 0), (0, 1.0, 2), (0, 2.0, 1)], planned) == 1
