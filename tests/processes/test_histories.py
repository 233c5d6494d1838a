"""The analysis itself, on histories written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prosody._core import OffsetTracker
from prosody.broker.protocol import OffsetAndMetadata
from tests.processes import histories
from tests.processes.histories import Verdict, Zombie, judge
from tests.processes.history import Event, History, Run, Writer

SENT = {"a": 2, "b": 1}

# member, key and number, from, until; a stands at offsets 0 and 2, b at 1; until ``-``: never ended,
# with ``x`` behind it: cancelled.
RIGHT = "A a1 0 2, A b1 1 4, A a2 2 3"
OFFSETS = {"a1": 0, "b1": 1, "a2": 2}


def runs(text: str) -> list[Run]:
    found = []
    for part in text.split(","):
        member, record, began, ended = part.split()
        end = None if ended == "-" else float(ended.rstrip("x"))
        found.append(
            Run(member, 0, OFFSETS[record], record[0], int(record[1]), float(began), end,
                ended.endswith("x"))
        )  # fmt: skip
    return found


def verdict(text: str, **named: object) -> Verdict:
    return judge(runs(text), SENT, **named)  # type: ignore[arg-type]


def test_a_right_history() -> None:
    assert verdict(RIGHT) == Verdict(3, [], [], [], [])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("A a1 0 2, A a2 2 3", "lost"),
        ("A a1 0 2, A b1 1 4x, A a2 2 3", "lost"),
        ("A a1 0 2, A b1 1 -, A a2 2 3", "lost"),
        ("A a1 0 2, A b1 1 4, A a2 2 3, B b1 5 6", "repeats"),
        ("A a1 0 2, A b1 1 -, A a2 2 3, B b1 5 6", "repeats"),
        ("A a1 2 3, A b1 1 4, A a2 0 1", "disorder"),
        # Handled at last, but the next one did not wait for that.
        ("A a1 0 1x, A b1 1 4, B a2 2 3, B a1 5 6", "disorder"),
        ("A a1 0 2, A b1 1 4, B a2 1 3", "overlaps"),
        ("A a1 0 9, A b1 1 4, B a1 1 2, B a2 5 6", "overlaps"),
    ],
)
def test_each_fault_is_seen(text: str, wrong: str) -> None:
    assert getattr(verdict(text), wrong)


def test_a_repeat_of_what_was_handled_in_order_is_no_disorder() -> None:
    found = verdict("A a1 0 2, A b1 1 4, A a2 2 3, B a1 5 6, B a2 6 7")
    assert not found.disorder
    assert [run.seq for run in found.repeats] == [1, 2]


def test_what_was_never_sent_is_a_fault_of_the_test() -> None:
    with pytest.raises(AssertionError, match="never sent"):
        judge(runs("A a1 0 2"), {"b": 1})


def test_a_killed_member_runs_until_it_is_dead_and_no_longer() -> None:
    text = "A a1 0 2, A b1 1 4, A a2 2 -, B a2 6 7"
    assert verdict(text, died={"A": 7.0}).overlaps
    assert not verdict(text, died={"A": 5.0}).overlaps
    assert verdict(text).overlaps


def test_a_zombie_is_excused_in_its_time_only() -> None:
    text = "A a1 0 2, A b1 1 4, A a2 2 9, B a2 6 7"
    assert not verdict(text, zombies=[Zombie("A", 5.0, 8.0)]).overlaps
    assert verdict(text, zombies=[Zombie("A", 5.0, 6.5)]).overlaps
    assert verdict(text, zombies=[Zombie("A", 6.5, 8.0)]).overlaps
    assert verdict(text, zombies=[Zombie("C", 5.0, 8.0)]).overlaps
    within = "A a1 0 2, A b1 1 4, A a2 2 9, A a2 6 7"
    assert verdict(within, zombies=[Zombie("A", 5.0, 8.0)]).overlaps


def test_what_may_run_again_after_a_kill() -> None:
    of_one = runs("A a1 0 2, A b1 1 -, A a2 2 3")
    tracker = OffsetTracker()
    for offset in range(3):
        tracker.admit(offset, 0.0)
    tracker.complete(0)
    assert histories.unsettled(of_one, {0: OffsetAndMetadata(0)}) == {("a", 1), ("b", 1), ("a", 2)}
    assert histories.unsettled(of_one, {0: OffsetAndMetadata(1)}) == {("b", 1), ("a", 2)}
    tracker.complete(2)
    note = tracker.encode_finished(4096)
    assert histories.unsettled(of_one, {0: OffsetAndMetadata(1, note)}) == {("b", 1)}


def test_commits_that_go_back() -> None:
    def commit(at: float, offset: int, what: str = "committed", partition: int = 0) -> Event:
        return Event("A", what, at, {partition: (offset, "")})

    assert not histories.goes_back(
        [commit(2, 9), commit(1, 5), commit(3, 9), commit(4, 1, "refused")]
    )
    assert not histories.goes_back([commit(1, 5), commit(2, 4, partition=1)])
    assert histories.goes_back([commit(1, 5), commit(2, 4)])


def test_kept_partitions_and_gaps() -> None:
    def event(what: str, at: float, *partitions: int) -> Event:
        return Event("A", what, at, dict.fromkeys(partitions, (0, "")))

    events = [event("assigned", 1, 0, 1, 2), event("revoking", 5, 1), event("assigned", 6, 1)]
    assert histories.kept(events, 2, 4) == {0, 1, 2}
    assert histories.kept(events, 2, 7) == {0, 2}
    assert histories.kept(events, 7, 8) == {0, 1, 2}
    assert histories.kept([*events, event("lost", 8, 0)], 2, 9) == {2}
    starts = [1.0, 2.0, 6.0, 7.0, 7.5]
    assert histories.longest_gap(starts, 3.0, 8.0) == 4.0
    assert histories.longest_gap(starts, 6.5, 8.0) == 1.0
    assert histories.longest_gap([], 0.0, 1.0) == float("inf")


def test_a_file_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "A.jsonl"
    history = History("A", path)
    history.read()
    writer = Writer(path)
    facts = {"topic": "t", "partition": 3, "offset": 7, "key": "a", "seq": 1}
    writer.write("assigned", offsets={3: [7, ""]})
    writer.write("start", **facts)
    history.read()
    assert history.running == 1
    assert histories.held_at(history.events, float("inf")) == {3}
    assert [run.ended for run in history.runs] == [None]
    writer.write("end", **facts, cancelled=False)
    writer.write("lost", offsets={3: [-1, ""]})
    with path.open("ab") as file:
        file.write(json.dumps({"what": "start"}).encode()[:9])
    history.read()
    assert history.running == 0
    assert history.finished == 1
    assert history.handled_of == {"a": 1}
    assert history.runs[0].finished
    assert not histories.held_at(history.events, float("inf"))
    writer.close()
