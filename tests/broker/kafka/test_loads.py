"""What is asked of a leader, when, and what is made of its answers; the leader is the test's own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import errors as lower

from prosody.broker.kafka.chunks import Chunk
from prosody.broker.kafka.loads import (
    EMPTY_LOOKS,
    EMPTY_WAIT_MS,
    OPEN_S,
    RETRY_S_MAX,
    UNKNOWN_LOOKS,
    PartitionLoads,
)
from prosody.broker.protocol import Record, TopicPartition
from prosody.errors import BrokerError
from tests.broker.kafka.fetched import batch, damaged
from tests.mutant import mutant
from tests.support import DeadlockError, FakeRuntime, run_virtual, settle

TP = TopicPartition("t", 0)
LIMIT_S = 30.0


class Leader:
    """The log of a partition behind a link, and what a :class:`PartitionLoads` makes of it."""

    def __init__(self, discard_threshold: int = 100) -> None:
        self.batches: list[tuple[int, bytes]] = []
        """Each with its last offset."""
        self.beginning = 0
        self.end = 0
        self.stable_end: int | None = None
        self.per_fetch = 1
        """Batches that one fetch brings."""
        self.failures: list[BaseException] = []
        """What the next requests meet."""
        self.takes_s = 0.0
        self.fetches: list[int] = []
        self.waits: set[int] = set()
        self.refreshes = 0
        self.suspected = 0
        self.bounds_asked = 0
        self._discard_threshold = discard_threshold
        self._loads: PartitionLoads | None = None

    # -- the reads, as KafkaReader makes them --------------------------------------------------------

    async def read(self, offset: int, limit_s: float = LIMIT_S) -> Record | None:
        link: Any = self
        if self._loads is None:
            self._loads = PartitionLoads(
                TP,
                link,
                discard_threshold=self._discard_threshold,
                attempt_limit_s=10.0,
                runtime=FakeRuntime(),
                on_idle=self._idle,
            )
        return await self._loads.load(offset, limit_s)

    def _idle(self, loads: PartitionLoads) -> None:
        assert loads is self._loads
        self._loads = None

    async def offsets(self, *wanted: int) -> list[int | None]:
        """Those of the records at these offsets, asked for at once."""
        found = await asyncio.gather(*(self.read(offset) for offset in wanted))
        return [record.offset if record else None for record in found]

    @property
    def idle(self) -> bool:
        return self._loads is None

    # -- the log -------------------------------------------------------------------------------------

    def write(self, *offsets: int, data: bytes | None = None) -> None:
        self.batches.append((offsets[-1], batch(*offsets) if data is None else data))
        self.end = offsets[-1] + 1

    # -- the link ------------------------------------------------------------------------------------

    async def fetch(self, tp: TopicPartition, offset: int, wait_ms: int) -> Chunk:
        assert tp == TP
        self.fetches.append(offset)
        self.waits.add(wait_ms)
        await self._request()
        if not self.beginning <= offset <= self.end:
            raise lower.OffsetOutOfRangeError
        data = [chunk for last, chunk in self.batches if last >= offset][: self.per_fetch]
        stable_end = self.end if self.stable_end is None else self.stable_end
        return Chunk(tp, offset, b"".join(data), None, stable_end)

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        self.bounds_asked += 1
        await self._request()
        return self.beginning, self.end

    async def refresh(self) -> None:
        self.refreshes += 1
        await self._request()

    def suspect(self) -> None:
        self.suspected += 1

    async def _request(self) -> None:
        await asyncio.sleep(self.takes_s)
        if self.failures:
            raise self.failures.pop(0)


def on_leader(test: Callable[[Leader], Awaitable[None]]) -> Callable[[], None]:
    """Run a test with a leader of its own on a virtual loop, and leave no task behind."""

    async def main() -> None:
        leader = Leader()
        await test(leader)
        await settle()
        assert leader.idle
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run() -> None:
        run_virtual(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def now() -> float:
    return asyncio.get_running_loop().time()


# -- what is fetched -----------------------------------------------------------------------------


@on_leader
async def test_equal_offsets_share_one_fetch(leader: Leader) -> None:
    leader.write(*range(10))
    assert await leader.offsets(4, 4, 4) == [4, 4, 4]
    assert leader.fetches == [4]
    assert await leader.offsets(4) == [4]  # nothing is kept
    assert leader.fetches == [4, 4]
    assert leader.bounds_asked == 0


@on_leader
async def test_what_lies_little_ahead_is_reached_by_reading_on(leader: Leader) -> None:
    leader.write(*range(500))
    assert await leader.offsets(300, 0, 100, 101, 202) == [300, 0, 100, 101, 202]
    # 100 is 99 behind 1; 202 is 100 behind 102; 300 is 97 behind 203.
    assert leader.fetches == [0]
    assert await leader.offsets(0, 102) == [0, 102]
    assert leader.fetches == [0, 0, 102]


@on_leader
async def test_where_the_chunk_ends_it_is_fetched_at_the_next_offset(leader: Leader) -> None:
    for first in range(0, 50, 10):
        leader.write(*range(first, first + 10))
    assert await leader.offsets(48, 3, 9, 12, 31) == [48, 3, 9, 12, 31]
    assert leader.fetches == [3, 12, 31, 48]


@on_leader
async def test_a_late_lower_offset_waits_for_those_ahead_and_is_not_forgotten(
    leader: Leader,
) -> None:
    leader.takes_s = 1.0
    for n in range(0, 1000, 200):
        leader.write(n)
    order: list[int] = []

    async def one(offset: int) -> None:
        await leader.read(offset)
        order.append(offset)

    tasks = [asyncio.create_task(one(offset)) for offset in (400, 800)]
    await asyncio.sleep(0.5)
    tasks += [asyncio.create_task(one(offset)) for offset in (0, 600)]
    await asyncio.gather(*tasks)
    assert order == leader.fetches == [400, 600, 800, 0]


# -- what is gone --------------------------------------------------------------------------------


@on_leader
async def test_outside_the_log_is_gone(leader: Leader) -> None:
    leader.write(*range(10, 20))
    leader.beginning = 10
    assert await leader.offsets(-1, 9, 10, 19, 20, 21, 500) == [
        None,
        None,
        10,
        19,
        None,
        None,
        None,
    ]
    assert now() == 0.0


@on_leader
async def test_a_refusal_that_the_bounds_do_not_bear_out_is_no_last_word(leader: Leader) -> None:
    """Of a leader that was one no more."""
    leader.write(*range(5))
    leader.failures = [lower.OffsetOutOfRangeError()]
    assert await leader.offsets(3) == [3]
    assert leader.fetches == [3, 3]


@on_leader
async def test_a_gap_is_gone_and_what_follows_is_not(leader: Leader) -> None:
    leader.write(0)
    leader.write(7, 8)
    assert await leader.offsets(0, 1, 6, 7, 8, 9) == [0, None, None, 7, 8, None]


@on_leader
async def test_a_gap_to_the_end_takes_some_looks_and_no_timeout(leader: Leader) -> None:
    """Compaction has removed the last batches, and nothing was written since."""
    leader.write(0)
    leader.end = 5
    assert await leader.offsets(3) == [None]
    assert leader.fetches == [3] * EMPTY_LOOKS
    assert leader.waits == {0, EMPTY_WAIT_MS}
    assert now() < 1.0


@on_leader
async def test_a_slow_remote_segment_is_not_gone(leader: Leader) -> None:
    """The first answers are empty, although the log reaches further and there is a record."""
    leader.end = 5
    reading = asyncio.create_task(leader.offsets(3, 4))
    await asyncio.sleep(0.15)
    assert len(leader.fetches) > 2
    leader.write(*range(5))
    assert await reading == [3, 4]


@on_leader
async def test_what_an_open_transaction_holds_back_is_waited_for(leader: Leader) -> None:
    leader.write(*range(10))
    late = leader.batches
    leader.batches, leader.stable_end = [(4, batch(*range(5)))], 5
    held = asyncio.create_task(leader.offsets(7))
    await asyncio.sleep(10.0)
    assert len(leader.fetches) <= 10.0 / OPEN_S + 2
    assert leader.waits == {0}  # it occupies no connection
    asked = now()
    assert await leader.offsets(3) == [3]  # before it, so not held back
    assert now() == asked
    with pytest.raises(BrokerError, match=r"t/0 at offset 8: not read within 1 s: an open") as told:
        await leader.read(8, 1.0)
    assert told.value.retriable
    leader.batches, leader.stable_end = late, None
    assert await held == [7]


# -- what fails ----------------------------------------------------------------------------------


@on_leader
async def test_damage_fails_the_reads_it_concerns(leader: Leader) -> None:
    leader.per_fetch = 3
    leader.write(0, 1)
    leader.write(2, 3, data=damaged(2, 3))
    leader.write(4, 5)
    reads = [asyncio.create_task(leader.read(offset)) for offset in range(6)]
    await asyncio.wait(reads)
    assert [read.exception() is None for read in reads] == [True, True, False, False, True, True]
    assert "t/0 cannot be read at offset 2: CorruptRecordException" in str(reads[2].exception())
    assert now() == 0.0


@on_leader
async def test_what_passes_is_tried_again_at_a_pace(leader: Leader) -> None:
    leader.write(*range(5))
    leader.failures = [lower.KafkaConnectionError("away") for _ in range(30)]
    assert await leader.offsets(3, 1) == [3, 1]
    assert now() > 20 * RETRY_S_MAX
    assert leader.refreshes == 30  # first of all, where the leader is


@on_leader
async def test_an_outage_ends_by_the_timeout_and_is_named(leader: Leader) -> None:
    leader.write(*range(5))
    leader.failures = [lower.KafkaConnectionError("away") for _ in range(100)]
    with pytest.raises(BrokerError, match=r"at offset 3: not read within 30 s: .*away") as told:
        await leader.read(3)
    assert told.value.retriable
    assert now() == LIMIT_S
    leader.failures.clear()
    assert await leader.offsets(3) == [3]


@on_leader
async def test_a_request_without_an_answer_is_given_up(leader: Leader) -> None:
    leader.write(*range(5))
    leader.takes_s = 1e6
    with pytest.raises(BrokerError, match=r"not read within 30 s: .*TimeoutError"):
        await leader.read(3)
    assert leader.suspected >= 2
    leader.takes_s = 0.0
    await asyncio.sleep(11.0)
    assert leader.idle
    assert await leader.offsets(3) == [3]


@on_leader
async def test_a_topic_that_is_missing_fails_all_its_reads_soon(leader: Leader) -> None:
    leader.failures = [lower.UnknownTopicOrPartitionError() for _ in range(100)]
    reads = [asyncio.create_task(leader.read(offset)) for offset in range(50)]
    await asyncio.wait(reads)
    for read in reads:
        error = read.exception()
        assert isinstance(error, BrokerError)
        assert error.retriable
    assert len({id(read.exception()) for read in reads}) == 50
    assert now() < 1.0
    assert len(leader.failures) == 100 - UNKNOWN_LOOKS


@on_leader
async def test_a_topic_that_is_about_to_be_there_is_waited_for(leader: Leader) -> None:
    leader.write(0)
    leader.failures = [lower.UnknownTopicOrPartitionError() for _ in range(UNKNOWN_LOOKS - 1)]
    assert await leader.offsets(0) == [0]


@on_leader
async def test_what_no_retry_helps_fails_at_once(leader: Leader) -> None:
    leader.failures = [lower.TopicAuthorizationFailedError()]
    with pytest.raises(BrokerError, match="access rules") as told:
        await leader.read(0)
    assert not told.value.retriable
    assert now() == 0.0


def test_a_fault_of_ours_is_told_and_hangs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    @on_leader
    async def run(leader: Leader) -> None:
        leader.failures = [ZeroDivisionError()]
        with pytest.raises(BrokerError):
            await leader.read(0)

    run()
    [line] = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "internal fault" in line.message


# -- who waits -----------------------------------------------------------------------------------


@on_leader
async def test_each_read_has_its_own_timeout(leader: Leader) -> None:
    leader.write(0)
    leader.takes_s = 3.0
    patient = asyncio.create_task(leader.offsets(0))
    with pytest.raises(BrokerError, match=r"not read within 1 s$"):
        await leader.read(0, 1.0)
    assert await patient == [0]
    assert leader.fetches == [0]


@on_leader
async def test_what_nobody_waits_for_any_more_is_not_fetched(leader: Leader) -> None:
    for n in range(0, 1000, 200):
        leader.write(n)
    leader.takes_s = 1.0
    reads = [asyncio.create_task(leader.offsets(offset)) for offset in (0, 200, 400)]
    await asyncio.sleep(0.5)
    reads[0].cancel()
    reads[1].cancel()
    assert await reads[2] == [400]
    assert leader.fetches == [0, 400]
    await asyncio.wait(reads)


@on_leader
async def test_a_cancelled_read_of_what_is_held_back_leaves_nothing(leader: Leader) -> None:
    leader.write(*range(5))
    leader.batches, leader.stable_end = [], 0
    reading = asyncio.create_task(leader.offsets(3))
    await asyncio.sleep(OPEN_S * 2.5)
    reading.cancel()
    await asyncio.wait((reading,))
    await settle()
    assert leader.idle


# -- each rule, switched off, turns its test red ---------------------------------------------------

MUTANTS: dict[str, tuple[str, str, Callable[[], None]]] = {
    "what lies ahead is fetched": (
        "0 <= offset - chunk.position <= self._discard_threshold",
        "False",
        test_what_lies_little_ahead_is_reached_by_reading_on,
    ),
    "what lies far ahead is read up to": (
        "offset - chunk.position <= self._discard_threshold",
        "offset - chunk.position",
        test_what_lies_little_ahead_is_reached_by_reading_on,
    ),
    "the lowest offset comes first": (
        "min(ahead or due, default=None)",
        "min(due, default=None)",
        test_a_late_lower_offset_waits_for_those_ahead_and_is_not_forgotten,
    ),
    "a refusal is the last word": (
        "            if await self._is_outside(offset):\n    ",
        "",
        test_a_refusal_that_the_bounds_do_not_bear_out_is_no_last_word,
    ),
    "one empty answer is the last word": (
        "wanted.empty >= EMPTY_LOOKS",
        "wanted.empty",
        test_a_slow_remote_segment_is_not_gone,
    ),
    "an open transaction is a gap": (
        "if stable_end <= offset:",
        "if False:",
        test_what_an_open_transaction_holds_back_is_waited_for,
    ),
    "what is held back holds up the others": (
        "wanted.due = now + OPEN_S",
        "await self._runtime.sleep(OPEN_S)",
        test_what_an_open_transaction_holds_back_is_waited_for,
    ),
    "damage on the way concerns what lies behind": (
        "with contextlib.suppress(Exception):",
        "with contextlib.suppress():",
        test_damage_fails_the_reads_it_concerns,
    ),
    "damage is tried again": (
        'return broker_error(f"{self._name} cannot be read at offset {offset}", error)',
        "raise",
        test_damage_fails_the_reads_it_concerns,
    ),
    "the leader stays the leader": (
        "self._stale = True",
        "pass",
        test_what_passes_is_tried_again_at_a_pace,
    ),
    "a missing topic is waited for": (
        "lasting = self._unknown >= UNKNOWN_LOOKS",
        "lasting = False",
        test_a_topic_that_is_missing_fails_all_its_reads_soon,
    ),
    "one look for a topic is enough": (
        "lasting = self._unknown >= UNKNOWN_LOOKS",
        "lasting = True",
        test_a_topic_that_is_about_to_be_there_is_waited_for,
    ),
    "what nobody wants stays wanted": (
        "if not wanted.waiters and self._wanted.get(offset) is wanted:",
        "if False:",
        test_what_nobody_waits_for_any_more_is_not_fetched,
    ),
    "silence is borne": (
        "self._link.suspect()",
        "pass",
        test_a_request_without_an_answer_is_given_up,
    ),
    "a fault of ours is tried again": (
        "lasting = True",
        "pass",
        test_a_fault_of_ours_is_told_and_hangs_nobody,  # type: ignore[dict-item]
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_without_the_rule_its_test_is_red(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, new, test = MUTANTS[name]
    monkeypatch.setitem(
        globals(), "PartitionLoads", mutant("broker.kafka.loads", old, new).PartitionLoads
    )
    arguments = [caplog] if "caplog" in inspect.signature(test).parameters else []
    with pytest.raises((AssertionError, pytest.fail.Exception, BrokerError, DeadlockError)):
        test(*arguments)
