"""Nothing leaks: resident memory stays where it was over many operations with ever new keys.

200,000 operations in an ordinary run, 10,000,000 with ``HYPOTHESIS_PROFILE=long``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import struct
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace, coroutine
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from prosody.broker.kafka.record_batch import RecordBatch
from prosody.broker.protocol import TopicPartition
from prosody.telemetry.encoder import Encoder
from prosody.telemetry.events import DEMANDS, MESSAGE, MESSAGE_SENT, SENT
from tests.broker.kafka.fetched import NAME, NOT_UTF8, batch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
OPERATIONS = 10_000_000 if LONG else 200_000
WARM_UP = 50_000
GROWTH_MIB_MAX = 1.0


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def key_queue(module: Any) -> Callable[[int], None]:
    queue = module.KeyQueue()

    def operate(i: int) -> None:
        key = f"key-{i}"
        queue.push(key, object())
        queue.push(key, [i])
        queue.pop()
        queue.done(key)
        if i % 3:
            queue.pop()
            queue.done(key)
        else:
            queue.clear()

    return operate


def offset_tracker(module: Any) -> Callable[[int], None]:
    tracker = module.OffsetTracker()

    def operate(i: int) -> None:
        tracker.admit(3 * i, float(i))
        if i % 2:
            tracker.complete(3 * i)
            tracker.complete(3 * (i - 1))
        if i % 1000 == 0:
            tracker.encode_finished(4096)

    return operate


def virtual_time_heap(module: Any) -> Callable[[int], None]:
    heap = module.VirtualTimeHeap(
        failure_weight=0.3, max_wait=120.0, wait_weight=200.0, cache_size=500, half_life=120.0
    )

    def operate(i: int) -> None:
        key = f"key-{i}"
        heap.push(key, [i], i % 2, float(i))
        if i % 5 == 0:
            heap.withdraw(key)
            return
        heap.pop(float(i))
        heap.complete(key, 0.001 * (i % 7), float(i))

    return operate


def time_window(module: Any) -> Callable[[int], None]:
    window = module.TimeWindow(300.0, 500)

    def operate(i: int) -> None:
        key = f"key-{i % 5000}"
        window.begin(key, float(i))
        window.end(key, i + 0.5)

    return operate


def outcome_window(module: Any) -> Callable[[int], None]:
    window = module.OutcomeWindow(300.0, 20)

    def operate(i: int) -> None:
        window.record(i % 3 == 0, i * 0.01)

    return operate


def event_lines(module: Any) -> Callable[[int], None]:
    encoder = Encoder("telemetry", "g", "s", "h")

    def operate(i: int) -> None:
        tp = TopicPartition(f"t{i % 7000}", i % 3)
        key = f"key-{i % 20_000}" + "x" * (i % 300)
        pair = DEMANDS[0], i * 0.01, MESSAGE, tp, i, key, i * 0.01 + 0.5
        odd = "", i * 0.01, MESSAGE, tp, 2**70 + i, key, i * 0.01
        sent = MESSAGE_SENT, i * 0.01, SENT, tp, i, key, "\ud800"
        module.event_lines(encoder, [*pair, *odd, *sent, *pair], 1e12)
        encoder.keys.clear()
        encoder.places.clear()

    return operate


def many_records(module: Any) -> Callable[[int], None]:
    known: dict[bytes, int] = {}

    def operate(i: int) -> None:
        keys = [b"%d" % i] * 2
        batches = {n: RecordBatch(0, 6000) for n in range(2)}
        partitions = module.key_partitions(keys, 2, "murmur2", known, lambda _: i % 2)
        module.keep_records([[], []], partitions, keys, keys, i)
        values = [b"x" * (i % 5000), b"%d" % i]
        module.frame_records(batches, partitions, keys, values, 0)
        with contextlib.suppress(KeyError):
            module.frame_records(batches, [1, 2], keys, values, 0)

    return operate


def fetched_record(module: Any) -> Callable[[int], None]:
    place = TopicPartition("t", 3)

    def operate(i: int) -> None:
        fetched = SimpleNamespace(
            offset=i, timestamp=i, key=b"%d" % i, value=b"x" * (i % 900), headers=[("h", b"%d" % i)]
        )
        record = module.FetchedRecord(place, fetched)
        repr(record)
        fetched.key = 5
        with contextlib.suppress(TypeError):
            module.FetchedRecord(place, fetched)

    return operate


HEADERS = [("first", b"1"), (NAME.decode(), b"2" * 30)]
THREE = batch(1000, 1001, 1002, headers=HEADERS)


def fresh(i: int) -> bytes:
    """Three records with values of their own; the CRC is not theirs."""
    return THREE.replace(b"1001", b"%04d" % (i % 10_000))


def read_answer(module: Any) -> Callable[[int], None]:
    def operate(i: int) -> None:
        name, records = b"t%d" % i, fresh(i)
        start = bytes(14) + struct.pack(">ih", 1, len(name)) + name
        rest = struct.pack(">iihqqqiii", 1, i, 0, 2**40 + i, 2**50 + i, i, -1, -1, len(records))
        assert len(module.read_answer(start + rest + records)) == 1
        # Cut off, a topic too little, and a name that is not UTF-8.
        assert module.read_answer(start + rest + records[:-1]) is None
        assert module.read_answer(start[:17] + b"\2" + start[18:] + rest + records) is None
        assert module.read_answer(start.replace(b"t", b"\xff") + rest + records) is None

    return operate


def read_records(module: Any) -> Callable[[int], None]:
    place = TopicPartition("t", 3)
    stored: int = struct.unpack_from(">I", THREE, 17)[0]
    count = struct.pack(">i", 4)

    def operate(i: int) -> None:
        def agrees(view: memoryview) -> int:
            return stored

        def fails(view: memoryview) -> int:
            raise LookupError(i)

        data = fresh(i)
        size = len(data)
        records, _ = module.read_records(data + b"%d" % i, 0, size, place, 1001, 9, agrees)
        assert len(records) == 2
        # In the middle of all that is made for a record.
        odd = data[:57] + count + data[61:], data.replace(NAME, NOT_UTF8), data[:-60] + b"\xff" * 60
        assert module.read_records(odd[i % 3], 0, size, place, 2**40 + i, 9, agrees) is None
        with contextlib.suppress(LookupError):
            module.read_records(data, 0, size, place, 0, 9, fails)
        with contextlib.suppress(ValueError):
            module.read_records(data, i, size, place, 0, 9, agrees)

    return operate


class Slotted:
    __slots__ = ("kept", "one", "two")

    def __init__(self, one: object, two: object) -> None:
        self.kept, self.one, self.two = "kept", one, two


class Six:
    __slots__ = ("a", "b", "c", "d", "e", "f")

    def __init__(self, *values: object) -> None:
        for name, value in zip(self.__slots__, values, strict=True):
            setattr(self, name, value)


def maker(module: Any) -> Callable[[int], None]:
    make = module.maker(Slotted(1, 2), ("one", "two"), Slotted)

    def operate(i: int) -> None:
        make([i], str(i)).kept = i
        with contextlib.suppress(TypeError):
            make([i])

    return operate


def first_step(module: Any) -> Callable[[int], None]:
    async def ends(value: object, fails: bool) -> object:
        if fails:
            raise ValueError(value)
        return [value]

    @coroutine
    def waits(value: object) -> Generator[object, None, None]:
        yield [value]

    def operate(i: int) -> None:
        with contextlib.suppress(ValueError):
            module.first_step(ends(str(i), i % 3 == 0))
        module.first_step(waits(i))

    return operate


def admission(module: Any) -> Callable[[int], None]:
    ended: list[object] = []
    admit = module.Admission(
        SimpleNamespace(number=1),
        track=lambda *_: None,
        done=lambda _: None,
        push=lambda _, run: not ended.append(run),
        ready=lambda _: ended.clear(),
        decode=msgspec.json.decode,
        message=module.maker(Six(*range(6)), Six.__slots__, Six),
        run=module.maker(Six(*range(6)), Six.__slots__[:5], lambda *values: Six(*values, None)),
        mark=("a", b"b"),
        allows=lambda payload: payload != 7,
        identify=lambda _: None,
    ).admit

    def operate(i: int) -> None:
        values = [b'{"id": %d}' % i, b"%d" % (i % 10), b"{" if i % 3 else b'"%d"' % i]
        records = [
            SimpleNamespace(
                topic="t",
                partition=0,
                offset=n,
                timestamp=i,
                key=b"%d" % i,
                value=value,
                headers=(),
            )
            for n, value in enumerate(values)
        ]
        admit(records, 0, 3, 3, -1, float(i))

    return operate


STRUCTURES = {
    admission: "messages",
    maker: "messages",
    first_step: "messages",
    fetched_record: "fetched",
    read_answer: "fetched",
    read_records: "fetched",
    event_lines: "event_lines",
    many_records: "many_records",
    key_queue: "key_queue",
    offset_tracker: "offset_tracker",
    virtual_time_heap: "vtime_heap",
    time_window: "rolling_window",
    outcome_window: "outcome_window",
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's own account")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("half", ["c", "py"])
@pytest.mark.parametrize("make", STRUCTURES, ids=lambda make: make.__name__)
def test_memory_stays_where_it_was(make: Callable[[Any], Callable[[int], None]], half: str) -> None:
    operate = make(import_module(f"prosody._core.{STRUCTURES[make]}_{half}"))
    for i in range(WARM_UP):
        operate(i)
    gc.collect()
    blocks, before = sys.getallocatedblocks(), resident_mib()
    for i in range(WARM_UP, WARM_UP + OPERATIONS):
        operate(i)
    gc.collect()
    assert resident_mib() - before < GROWTH_MIB_MAX
    assert sys.getallocatedblocks() - blocks < 5_000
