"""Offsets of one assignment: what is committed, and what an earlier owner noted as finished."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosody._core.offset_set import MAX_TEXT, decode_finished
from prosody.broker.protocol import Start
from prosody.consume.progress import METADATA_MAX, Progress, Reached
from prosody.consume.remembered import encode_runs, remembered

if TYPE_CHECKING:
    from collections.abc import Callable


def offsets(runs: list[tuple[int, int]]) -> set[int]:
    return {offset for start, end in runs for offset in range(start, end)}


def noted(offset: int, *finished: int, end: int = 1_000_000) -> Start:
    return Start(offset, encode_runs(offset, [(n, n + 1) for n in finished], METADATA_MAX), end)


def admit(progress: Progress, *received: int) -> list[int]:
    """Admit as the inbox does; those that are to run."""
    to_run = []
    for offset in received:
        progress.tracker.admit(offset, 0.0)
        if not progress.recall(offset):
            to_run.append(offset)
    return to_run


def said(progress: Progress, limit: int = METADATA_MAX) -> set[int]:
    return offsets(decode_finished(progress.text(limit), progress.offset))


def test_the_start_counts_as_committed() -> None:
    progress = Progress("p", Start(7))
    assert (progress.offset, progress.to_commit(), progress.text(100)) == (7, None, "")
    assert progress.last_received == 6


def test_the_offset_or_what_is_ahead_of_it_makes_a_commit() -> None:
    progress = Progress("p", Start(0))
    admit(progress, 0, 1, 2)
    assert progress.to_commit() is None
    progress.tracker.complete(1)
    assert progress.to_commit() == Reached(0, 1)
    progress.committed = progress.reached
    assert progress.to_commit() is None
    progress.tracker.complete(2)
    assert progress.to_commit() == Reached(0, 2)
    progress.tracker.complete(0)
    assert progress.to_commit() == Reached(3, 0)


# What an earlier owner noted


def test_what_is_noted_as_finished_does_not_run() -> None:
    progress = Progress("p", noted(10, 11, 12, 15))
    assert admit(progress, *range(10, 18)) == [10, 13, 14, 16, 17]
    assert (progress.offset, progress.to_commit(), said(progress)) == (10, None, {11, 12, 15})
    progress.tracker.complete(10)
    assert (progress.to_commit(), said(progress)) == (Reached(13, -2), {15})
    assert not progress.recalls  # all of it has come


def test_what_has_not_come_yet_is_noted_again() -> None:
    progress = Progress("p", noted(10, 11, 12, 15))
    assert (said(progress), progress.to_commit()) == ({11, 12, 15}, None)
    admit(progress, 10)
    assert (progress.offset, said(progress), progress.to_commit()) == (10, {11, 12, 15}, None)
    progress.tracker.complete(10)
    # 11 and 12 are as good as behind.
    assert (progress.offset, said(progress)) == (13, {15})
    progress.committed = progress.reached
    assert admit(progress, 11, 12) == []
    assert (progress.offset, said(progress), progress.to_commit()) == (13, {15}, None)
    assert admit(progress, 13, 14) == [13, 14]
    assert (said(progress), progress.to_commit()) == ({15}, None)
    progress.tracker.complete(14)
    assert (said(progress), progress.to_commit()) == ({14, 15}, Reached(13, 1))
    assert admit(progress, 20) == [20]  # 15 to 19 are gone from the log
    assert (progress.offset, said(progress)) == (13, {14, 15, 16, 17, 18, 19})
    progress.tracker.complete(13)
    assert (progress.offset, said(progress)) == (20, set())


@pytest.mark.parametrize(
    ("change", "level", "reason"),
    [
        (lambda s: s._replace(offset=9), "WARNING", "not meant for offset 9"),
        (lambda s: s._replace(offset=11), "WARNING", "not meant for offset 11"),
        (lambda s: s._replace(metadata=s.metadata[:-1]), "WARNING", "changed"),
        (lambda s: s._replace(metadata=s.metadata[:5]), "WARNING", "cut short"),
        (lambda s: s._replace(end=15), "WARNING", "the log ends at 15"),
        (lambda s: s._replace(metadata="consumer-7 at noon"), "DEBUG", "not this library's"),
        (lambda s: s._replace(metadata="2" + s.metadata[1:]), "DEBUG", "not this library's"),
    ],
    ids=["before", "after", "changed", "cut", "beyond the end", "foreign", "newer"],
)
def test_a_note_that_does_not_fit_is_dropped(
    change: Callable[[Start], Start], level: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    start = change(noted(10, 11, 12, 15, end=16))
    progress = Progress("p", start)
    assert [(r.levelname, reason in r.getMessage()) for r in caplog.records] == [(level, True)]
    # Replaced at once: it must not come to look right when the log has grown.
    assert (progress.to_commit(), progress.text(100)) == (Reached(start.offset, 0), "")
    assert admit(progress, *range(11, 18)) == list(range(11, 18))


def test_a_note_up_to_the_very_end_is_used(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("p", noted(10, 11, 15, end=16))
    assert (caplog.text, progress.recalls) == ("", True)


def test_a_new_assignment_of_the_same_log_runs_nothing_twice() -> None:
    progress = Progress("p", noted(10, 12, 30))
    admit(progress, 10, 11, 12, 13)
    progress.tracker.complete(11)
    again = Progress("p", progress.begin_again())
    assert admit(again, *range(10, 32)) == [10, *range(13, 30), 31]

    progress = Progress("p", Start(0))
    admit(progress, *range(5))
    progress.tracker.complete(4)
    again = Progress("p", progress.begin_again())
    assert admit(again, *range(6)) == [0, 1, 2, 3, 5]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, int]]]:
    """Offsets of a log with gaps; then how many are received, which one of those out is finished."""
    gaps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 7]), min_size=1, max_size=30))
    log = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    steps = draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10)), min_size=1, max_size=40)
    )
    return log, steps


@given(histories(), st.lists(st.integers(0, 39), max_size=4))
def test_owners_in_turn_run_each_record_once(
    history: tuple[list[int], list[tuple[int, int]]], handovers: list[int]
) -> None:
    """Whatever finishes in whatever order, and whenever the partition moves on."""
    log, steps = history
    progress = Progress("p", Start(0, "", 1000))
    received = 0
    running: list[int] = []
    finished: list[int] = []
    before = 0
    for number, (take, which) in enumerate(steps):
        running += admit(progress, *log[received : received + take])
        received = min(received + take, len(log))
        changed = progress.to_commit() is not None
        if running and which < 8:
            done = running.pop(which % len(running))
            progress.tracker.complete(done)
            finished.append(done)
            assert progress.to_commit() is not None
        elif not take:
            assert (progress.to_commit() is not None) == changed
        progress.tracker.check_valid()
        assert progress.offset >= before, "went back"
        before = progress.offset
        known = said(progress)
        assert {n for n in log if n < progress.offset or n in known} == set(finished)
        if number % 3 == 0:
            progress.committed = progress.reached
        if number in handovers:
            start = Start(progress.offset, progress.text(METADATA_MAX), 1000)
            progress = Progress("p", start)
            received = sum(n < start.offset for n in log)
            running = []
    assert len(finished) == len(set(finished))


@given(
    received=st.lists(st.sampled_from([1, 1, 1, 2, 5]), min_size=1, max_size=80),
    limit=st.integers(30, 60),
    known=st.sets(st.integers(1, 200), max_size=40),
    seed=st.integers(0, 2**32),
)
def test_what_may_be_admitted_always_fits(
    received: list[int], limit: int, known: set[int], seed: int
) -> None:
    """In whatever order it then completes, the text of ``limit`` characters leaves nothing out."""
    chance = random.Random(seed)
    start = noted(0, *known)
    progress = Progress("p", start if len(start.metadata) <= limit else Start(0))
    running: list[int] = []
    offset = -1
    admissible = 0

    def end(at: int) -> None:
        progress.tracker.complete(running.pop(at))
        assert progress.text(limit) == progress.text(MAX_TEXT)

    for step in received:
        offset += step
        while not (admissible := admissible or progress.admissible(limit)):
            assert running, "nothing can be admitted, and nothing will end"
            end(0)
        admissible -= 1
        running += admit(progress, offset)
        assert progress.text(limit) == progress.text(MAX_TEXT)
        if running and chance.random() < 0.5:
            end(chance.randrange(len(running)))
    while running:
        end(chance.randrange(len(running)))


@given(
    finished=st.sets(st.integers(1, 60), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300)
def test_what_lies_between_the_runs_of_a_note_finishes_within_its_bound(
    finished: set[int], seed: int
) -> None:
    start = noted(0, *finished)
    found = remembered("p", start)
    assert found is not None
    order = [offset for offset in range(found.end) if offset not in finished]
    random.Random(seed).shuffle(order)
    done = set(finished)
    longest = len(start.metadata)
    for offset in order:
        done.add(offset)
        lowest = next(n for n in range(found.end + 1) if n not in done)
        runs = [(n, n + 1) for n in done if n > lowest]
        longest = max(longest, len(encode_runs(lowest, runs, MAX_TEXT)))
    assert longest <= found.most
    # A note that was written within a limit does not come close to one twice as long.
    assert found.most <= 1.5 * len(start.metadata) + 1


def test_runs_that_overlap_are_one() -> None:
    text = encode_runs(3, [(10, 20), (5, 7), (6, 12), (1, 2)], 100)
    assert decode_finished(text, 3) == [(5, 20)]
    assert encode_runs(3, [], 100) == ""
    assert encode_runs(3, [(1, 3)], 100) == ""
