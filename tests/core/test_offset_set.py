"""The finished set as text: what it says, how long it is, and that nothing else is ever believed."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosody._core.offset_set import FRAME, MAX_TEXT, decode_finished, sealed
from tests.core.halves import HALVES, core_class
from tests.core.naive_offset_set import DIGITS, lowest, text_of

END = 2**63
ROOMY = MAX_TEXT


def tracker_of(half: str, offsets: Any, finished: Any) -> Any:
    tracker = core_class(half, "OffsetTracker")()
    for offset in offsets:
        tracker.admit(offset, 0.0)
    for offset in finished:
        tracker.complete(offset)
    return tracker


@st.composite
def states(draw: Any) -> tuple[list[int], list[int]]:
    """Offsets admitted, and those of them that finished, in order of completion."""
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, 50, 2**20]), min_size=1, max_size=60))
    start = draw(st.sampled_from([0, 1, 1_000, END - 2 - sum(steps)]))
    offsets = [start + sum(steps[: number + 1]) for number in range(len(steps))]
    finished = [offset for offset in offsets if draw(st.booleans())]
    draw(st.randoms(use_true_random=False)).shuffle(finished)
    return offsets, finished


def both(offsets: Any, finished: Any) -> list[Any]:
    return [tracker_of(half, offsets, finished) for half in HALVES]


@given(states())
@settings(deadline=None)
def test_a_text_says_what_has_finished(state: tuple[list[int], list[int]]) -> None:
    offsets, finished = state
    for tracker in both(offsets, finished):
        committed = tracker.committable
        runs = decode_finished(tracker.encode_finished(ROOMY), committed)
        said = [n for n in offsets if any(start <= n < end for start, end in runs)]
        assert said == [n for n in offsets if n in finished and n > committed]
        ends = [committed, *(end for run in runs for end in run)]
        assert ends == sorted(set(ends)), "the runs are not ascending, disjoint and apart"
        assert ends[-1] <= offsets[-1] + 1


@given(states())
@settings(deadline=None)
def test_a_shorter_text_holds_the_longest_prefix(state: tuple[list[int], list[int]]) -> None:
    trackers = both(*state)
    committed = trackers[0].committable
    whole = decode_finished(trackers[0].encode_finished(ROOMY), committed)
    length_before = 0
    for max_length in range(len(trackers[0].encode_finished(ROOMY)) + 2):
        text, pure = (tracker.encode_finished(max_length) for tracker in trackers)
        assert text == pure
        assert length_before <= len(text) <= max_length
        runs = decode_finished(text, committed)
        count = sum(end - start for start, end in runs)
        assert runs == lowest(whole, count)
        assert runs == whole or len(text_of(committed, lowest(whole, count + 1))) > max_length
        length_before = len(text)
    assert runs == whole


@given(states(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_no_completion_makes_a_text_longer_than_was_said(
    state: tuple[list[int], list[int]], chance: random.Random
) -> None:
    offsets, finished = state
    rest = [offset for offset in offsets if offset not in finished]
    for tracker in both(offsets, finished):
        said = tracker.encoded_length()
        now = len(tracker.encode_finished(ROOMY))
        chance.shuffle(rest)
        for offset in rest:
            assert now <= tracker.encoded_length() <= said
            tracker.complete(offset)
            now = len(tracker.encode_finished(ROOMY))
        assert (now, tracker.encoded_length()) == (0, 0)


@given(states(), st.sampled_from([1, 2, 1_000, 2**40]))
@settings(deadline=None)
def test_an_admission_adds_at_most_22_characters(
    state: tuple[list[int], list[int]], step: int
) -> None:
    offsets, finished = state
    offset = offsets[-1] + step
    if offset >= END:
        return
    for tracker in both(offsets, finished):
        before = tracker.encoded_length()
        tracker.admit(offset, 0.0)
        frame = 0 if before else FRAME
        assert tracker.encoded_length() <= before + frame + (1 if step == 1 else 22)


@pytest.mark.parametrize("step", [1, 2, 7])
@pytest.mark.parametrize("outstanding", [3, 64, 1_024])
def test_the_length_said_is_near_what_is_needed(step: int, outstanding: int) -> None:
    """In traffic that completes one drawn at random for each one admitted."""
    chance = random.Random(outstanding)
    trackers = both(range(0, outstanding * step, step), [])
    waiting = list(range(0, outstanding * step, step))
    for offset in range(outstanding * step, outstanding * step * 9, step):
        place = chance.randrange(outstanding)
        said = []
        for tracker in trackers:
            tracker.admit(offset, 0.0)
            tracker.complete(waiting[place])
            said.append(tracker.encoded_length())
        waiting[place] = offset
        assert said[0] == said[1]
        if offset % 64 == 0:
            assert said[0] <= 2 * len(text_of_all(waiting, offset + 1)) + 8


def text_of_all(unfinished: list[int], end: int) -> str:
    """The text there would be if something had finished behind the last unfinished one, too."""
    ends = [*sorted(unfinished), end + 1]
    runs = [(a + 1, b) for a, b in pairwise(ends) if b - a > 1]
    return text_of(ends[0], runs)


@pytest.mark.parametrize("half", list(HALVES))
@pytest.mark.parametrize(
    ("admitted", "finished", "most"),
    [
        (8_192, range(1, 8_192, 2), 2_055),
        (8_192, [n for n in range(1, 8_192) if random.Random(n).random() < 0.5], 1_600),
        (8_192, [8_191], 1_373),
        (1_000_001, range(1, 1_000_001), 14),
        (10_000, [n for n in range(1, 10_000) if n % 157], 167),
    ],
    ids=["every second", "random half", "the last alone", "blocked head", "64 of 10,000 left"],
)
def test_typical_states_need_few_characters(
    half: str, admitted: int, finished: Any, most: int
) -> None:
    tracker = tracker_of(half, range(admitted), finished)
    text = tracker.encode_finished(4_096)
    assert text.isascii()
    assert 0 < len(text) <= most
    runs = decode_finished(text, 0)
    assert sum(end - start for start, end in runs) == len(finished)
    assert len(text) <= tracker.encoded_length() <= 4_096


def test_the_text_itself(offset_tracker: Any) -> None:
    """What was written once must be read by every later release: this text may not change."""
    for offset in range(10, 15):
        offset_tracker.admit(offset, 0.0)
    for offset in (14, 11, 12):
        offset_tracker.complete(offset)
    assert offset_tracker.encode_finished(100) == EXAMPLE
    assert decode_finished(EXAMPLE, 10) == [(11, 13), (14, 15)]


EXAMPLE = "1KYOTyAa"


def test_what_is_longer_than_can_be_read_is_not_written(offset_tracker: Any) -> None:
    for offset in range(0, 200_000, 3):
        offset_tracker.admit(offset, 0.0)
    offset_tracker.complete(199_998)
    assert offset_tracker.encoded_length() > MAX_TEXT
    text = offset_tracker.encode_finished(10**9)
    assert MAX_TEXT - 1 <= len(text) <= MAX_TEXT
    assert decode_finished(text, 0)[:2] == [(1, 3), (4, 6)]


def refused(text: str, committed: int = 10) -> str:
    with pytest.raises(ValueError, match=r"^decode_finished: ") as refusal:
        decode_finished(text, committed)
    return str(refusal.value)


def test_any_changed_character_is_noticed() -> None:
    offsets = range(100, 200)
    text = tracker_of("cython", offsets, offsets[1::3]).encode_finished(ROOMY)
    for place, right in enumerate(text):
        for wrong in [chr(code) for code in range(256)] + ["\u0391", "\ud800", "\U0001f600"]:
            if wrong != right:
                refused(text[:place] + wrong + text[place + 1 :], 100)
        refused(text[:place] + text[place + 1 :], 100)
        refused(text[:place] + "A" + text[place:], 100)
        if place:
            refused(text[:place], 100)
    assert "not meant for offset 101" in refused(text, 101)


def body_of(bits: str) -> str:
    return "".join(DIGITS[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("somebody else's notes", "not of version 1"),
        ("2" + EXAMPLE[1:], "not of version 1"),
        ("1", "cut short"),
        (EXAMPLE[:7], "cut short"),
        (EXAMPLE + "=", "not in base64"),
        (EXAMPLE + "\n", "not in base64"),
        ("1" + "A" * 32_767, "changed"),
        ("1" + "A" * 32_768, "longer than 32768"),
        ("\ud800" * 10**6, "longer than 32768"),
        (sealed("A" * 32_000, 10), "too many zeros"),
        (sealed("A" * 20_000 + "/", 10), "inside a number"),
        (sealed("A" * 10_000 + "/" * 10_001, 10), "beyond the highest offset"),
        (sealed(body_of("010" + "000" * 3), 10), "too many zeros"),
        (sealed(body_of("010111"), 10), "not finished"),
        (sealed(body_of("111111"), 10), "not finished"),
    ],
)
def test_what_is_not_ours_is_refused(text: str, reason: str) -> None:
    assert reason in refused(text)


def test_the_highest_offset_is_within_reach() -> None:
    highest = sealed(body_of("0" * 63 + "1" + "0" * 63 + "00000"), 0)
    assert decode_finished(highest, 0) == [(1, END)]
    beyond = sealed(body_of("010" + "000"), END - 1)
    assert "beyond the highest offset" in refused(beyond, END - 1)


def test_empty_metadata_is_no_set_and_a_wrong_offset_no_offset() -> None:
    assert decode_finished("", 0) == []
    for committed in (-1, END):
        refused("", committed)


@given(st.text(max_size=60) | st.text(DIGITS, max_size=60).map("1".__add__), st.integers(-2, END))
def test_any_text_is_refused_or_empty(text: str, committed: int) -> None:
    if text or not 0 <= committed < END:
        refused(text, committed)


@given(st.text(DIGITS, max_size=80), st.sampled_from([0, 10, END - 1_000, END - 1]))
def test_a_text_with_a_right_checksum_is_refused_or_read_exactly(body: str, committed: int) -> None:
    text = sealed(body, committed)
    try:
        runs = decode_finished(text, committed)
    except ValueError:
        return
    assert text_of(committed, runs) == text
    assert all(committed < start < end <= END for start, end in runs)
