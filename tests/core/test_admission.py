"""Admission of plain records: both halves make the same calls as a model that goes record by record."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosody.broker.protocol import TopicPartition
from prosody.consume.decode import MESSAGE
from prosody.consume.inbox import RUN
from tests.core.halves import HALVES, core_function
from tests.mutant import mutant

PLACE = TopicPartition("orders", 2)
MARK = ("source-system", b"me")
NOW = 12.5
decode = msgspec.json.Decoder().decode


def fetched(half: str, offset: int, **fields: Any) -> Any:
    """A record of the half's own kind, or of any other."""
    values = {"timestamp": 5, "key": b"k", "value": b"{}", "headers": []} | fields
    record = SimpleNamespace(topic=PLACE.topic, partition=PLACE.partition, offset=offset, **values)
    return core_function(half, "FetchedRecord")(PLACE, record) if offset % 2 else record


def admission(half: str, partition: Any, **calls: Any) -> Any:
    maker = core_function(half, "maker")
    return core_function(half, "Admission")(
        partition,
        decode=decode,
        message=maker(*MESSAGE),
        run=maker(*RUN),
        mark=MARK,
        **calls,
    )


class Around:
    """All that an admission calls, noted in order."""

    def __init__(self, half: str, allows: bool = False, identifies: bool = True) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.number = 4
        self.admission = admission(
            half,
            self,
            track=lambda *call: self.calls.append(("track", *call)),
            done=lambda *call: self.calls.append(("done", *call)),
            push=self.push,
            ready=lambda *call: self.calls.append(("ready", *call)),
            allows=wanted if allows else None,
            identify=(lambda run: self.calls.append(("identify", run.key))) if identifies else None,
        )

    def push(self, key: str, run: Any) -> bool:
        assert run.partition is self
        assert (run.key, run.place, run.event.key) == (key, (4, key), key)
        event = run.event
        about = event.topic, event.partition, event.offset, event._timestamp_ms, event.payload
        self.calls.append(("push", key, run.record, about))
        return is_ready(key)


def wanted(payload: Any) -> bool:
    return not (isinstance(payload, dict) and payload.get("type") == "other")


def is_ready(key: str) -> bool:
    return len(key) % 2 == 0


def expected(
    records: list[Any], at: int, stop: int, room: int, before: int, allows: bool, identifies: bool
) -> tuple[tuple[int, int], list[tuple[Any, ...]]]:
    """The rules, in the words of the protocol."""
    calls: list[tuple[Any, ...]] = []
    while at < stop and room > 0:
        record = records[at]
        is_new = record.offset > before
        if not is_new or record.value is None or record.timestamp < 0 or MARK in record.headers:
            break
        try:
            key, payload = (record.key or b"").decode(), decode(record.value)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            break
        before = record.offset
        calls.append(("track", record.offset, NOW))
        at += 1
        if allows and not wanted(payload):
            calls.append(("done", record.offset))
            continue
        if identifies and isinstance(payload, dict) and "id" in payload:
            calls.append(("identify", key))
        about = record.topic, record.partition, record.offset, record.timestamp, payload
        calls.append(("push", key, record, about))
        if is_ready(key):
            calls.append(("ready", NOW))
        room -= 1
    return (at, room), calls


PLAIN: dict[str, list[Any]] = {
    "key": [None, b"", b"k", b"ab", "ü".encode()],
    "value": [b"{}", b"3", b"[1]", b'"id"', b'{"id": "x"}', b'{"id": 3}', b'{"type": "other"}'],
    "headers": [[], [("a", b"1")], [("source-system", b"you"), ("a", None)]],
    "timestamp": [0, 5, 2**62],
}
ODD: list[dict[str, Any]] = [
    {"value": None},
    {"value": b""},
    {"value": b"{"},
    {"value": b'"\xff"'},
    {"value": b"[" * 100_000},
    {"key": b"\xff"},
    {"timestamp": -1},
    {"headers": [MARK]},
    {"headers": [("a", None), MARK]},
]


class Case(NamedTuple):
    steps: list[tuple[int, dict[str, Any]]]
    """By how much each offset is higher, 0 for one that comes a second time, and the record's fields."""
    at: int
    left_out: int
    room: int
    allows: bool
    identifies: bool

    def check(self, half: str) -> None:
        records, offset = [], 7
        for step, fields in self.steps:
            offset += step
            records.append(fetched(half, offset, **fields))
        at, stop = min(self.at, len(records)), max(0, len(records) - self.left_out)
        around = Around(half, self.allows, self.identifies)
        answer, calls = expected(records, at, stop, self.room, 7, self.allows, self.identifies)
        assert around.admission.admit(records, at, stop, self.room, 7, NOW) == answer
        assert around.calls == calls


PLAIN_RECORDS = st.fixed_dictionaries({name: st.sampled_from(PLAIN[name]) for name in PLAIN})
RECORDS = st.one_of(PLAIN_RECORDS, PLAIN_RECORDS, PLAIN_RECORDS, st.sampled_from(ODD))
CASES = st.builds(
    Case,
    steps=st.lists(st.tuples(st.sampled_from([0, 1, 1, 1, 3]), RECORDS)),
    at=st.integers(0, 3),
    left_out=st.integers(0, 2),
    room=st.integers(0, 8),
    allows=st.booleans(),
    identifies=st.booleans(),
)


@pytest.mark.parametrize("half", HALVES)
@given(case=CASES)
def test_it_does_what_the_model_does(half: str, case: Case) -> None:
    case.check(half)


MUTANTS = {
    "what comes a second time is admitted": ("offset <= before", "offset < before"),
    "where it has come to is forgotten": ("            before = offset\n", ""),
    "a record without a time is plain": ("timestamp < 0 or ", ""),
    "an echo is plain": ("(headers and mark in headers)", "False"),
    "an offset is not tracked": ("            track(offset, now)\n", ""),
    "what is not chosen is not finished": ("                self._done(offset)\n", ""),
    "what is not chosen is queued": ("                continue\n", ""),
    "a message without an id is identified": (' and "id" in payload', ""),
    "a key that is ready is not told": ("                ready(now)\n", "                pass\n"),
    "there is always room": ("            room -= 1\n", ""),
    "it goes beyond the last one": ("while at < stop", "while at < len(records)"),
    "it goes beyond the room": (" and room > 0:", ":"),
    "one that cannot be read is passed over": (
        "                break\n            at += 1",
        "                pass\n            at += 1",
    ),
}


def random_case(chance: random.Random) -> Case:
    def record() -> dict[str, Any]:
        if chance.random() < 0.2:
            return chance.choice(ODD)
        return {name: chance.choice(PLAIN[name]) for name in PLAIN}

    steps = [(chance.choice([0, 1, 1, 1, 3]), record()) for _ in range(chance.randint(0, 6))]
    flags = chance.random() < 0.5, chance.random() < 0.5
    return Case(steps, chance.randint(0, 2), chance.randint(0, 2), chance.randint(0, 6), *flags)


@pytest.mark.parametrize("name", ["", *MUTANTS])
def test_a_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is none: what a mutant shows, it shows because of its change."""
    old, new = MUTANTS.get(name, ("class Admission", "class Admission"))
    changed = mutant("_core.messages_py", old, new)
    monkeypatch.setitem(sys.modules, "prosody._core.messages_py", changed)
    chance, found = random.Random(1), False
    for _ in range(300):
        try:
            random_case(chance).check("python")
        except Exception:  # a mutant fails as it likes
            found = True
    assert found is bool(name)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("fails", ["track", "push", "ready", "identify", "done", "allows"])
def test_a_fault_of_what_it_calls_is_raised(half: str, fails: str) -> None:
    def fault(*_: Any) -> None:
        raise LookupError(fails)

    calls = {
        "track": lambda *_: None, "done": lambda *_: None, "push": lambda *_: True,
        "ready": lambda *_: None, "identify": lambda *_: None, "allows": lambda _: fails != "done",
    } | {fails: fault}  # fmt: skip
    record = fetched(half, 1, value=b'{"id": "x"}')
    with pytest.raises(LookupError, match=fails):
        admission(half, SimpleNamespace(number=0), **calls).admit([record], 0, 1, 1, 0, NOW)


@pytest.mark.parametrize("half", HALVES)
def test_what_is_no_record_is_refused(half: str) -> None:
    admit = Around(half).admission.admit
    with pytest.raises(AttributeError):
        admit([object()], 0, 1, 1, 0, NOW)
    with pytest.raises(IndexError):
        admit([], 0, 1, 1, 0, NOW)
