"""Grouping, splitting, deadlines, cancellation and the breaker, without a server, on a virtual clock."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import cassandra
import pytest
from cassandra.cluster import NoHostAvailable

from prosody.errors import StoreDownError, StoreError
from prosody.stores.cassandra.breaker import Breaker
from prosody.stores.cassandra.groups import FEW_IN_FLIGHT, MOST_IN_FLIGHT, Groups
from tests.support import FakeRuntime, run_virtual, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

REQUEST_S, STEP_S = 4.0, 10.0


class Plain:
    """A kind whose statement is the list of its values; the result of each is the value, upper case."""

    def __init__(self, most: int = 50) -> None:
        self.most = most
        self.doing = "trying"

    def statement(self, values: Sequence[Any]) -> tuple[Any, bytes | None]:
        if "unwritable" in values:
            raise ValueError("it has no bytes")
        return list(values), None

    def results(self, values: Sequence[Any], rows: Any, state: Any) -> Sequence[Any]:
        return [value.upper() for value in values]


class FakeBridge:
    """Keeps what is sent until the test answers it; or answers by itself, as ``answer`` says."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.timeouts: list[float] = []
        self.open: list[tuple[list[str], Any]] = []
        self.answer: Callable[[list[str]], BaseException | None] | None = None

    def start(
        self, statement: Any, timeout_s: float, done: Any, paging_state: bytes | None = None
    ) -> None:
        self.sent.append(statement)
        self.timeouts.append(timeout_s)
        if self.answer is None:
            self.open.append((statement, done))
        else:
            error = self.answer(statement)
            asyncio.get_running_loop().call_soon(done, [], None, error)

    def land(self, error: BaseException | None = None) -> None:
        """Answer the oldest open request."""
        _, done = self.open.pop(0)
        done([], None, error)


class Scene:
    def __init__(self, make: type[Groups] = Groups) -> None:
        self.bridge = FakeBridge()
        self.probes = 0
        self.well = True
        self.breaker = Breaker(self._probe, FakeRuntime(), on_down=self._down)
        self.groups = make(
            self.bridge,  # type: ignore[arg-type]
            self.breaker,
            asyncio.get_running_loop(),
            lambda key: key,
            request_timeout_s=REQUEST_S,
            step_timeout_s=STEP_S,
        )
        self.kind = Plain()
        self.asked: list[asyncio.Future[Any]] = []

    def _down(self, problem: str) -> None:
        self.groups.fail_down(problem)

    async def _probe(self) -> None:
        self.probes += 1
        if not self.well:
            raise StoreError("not yet", retriable=True)

    def ask(self, value: str, where: bytes = b"a", size: int = 1) -> asyncio.Future[Any]:
        self.asked.append(self.groups.submit(self.kind, value, where, size))
        return self.asked[-1]

    async def end(self) -> None:
        """All of it is over: no place is taken, and nothing is left behind."""
        self.groups.close("the test is over")
        await self.breaker.stop()
        await asyncio.gather(*self.asked, return_exceptions=True)


def scene(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on a virtual loop, with a scene."""

    async def play() -> None:
        found = Scene()
        try:
            await test(found)
        finally:
            await found.end()

    def run() -> None:
        run_virtual(play())

    run.__name__ = test.__name__
    return run


def names(count: int) -> list[str]:
    return [f"v{n}" for n in range(count)]


@scene
async def test_one_turn_travels_together_by_replicas(s: Scene) -> None:
    s.bridge.answer = lambda values: None
    asked = [s.ask(name, b"ab"[n % 2 : n % 2 + 1]) for n, name in enumerate(names(1000))]
    assert s.bridge.sent == []
    assert await asyncio.gather(*asked) == [name.upper() for name in names(1000)]
    assert [len(values) for values in s.bridge.sent] == [50] * 20
    assert all(len({int(v[1:]) % 2 for v in values}) == 1 for values in s.bridge.sent)
    assert s.groups.requests == 20


@scene
async def test_a_group_is_small(s: Scene) -> None:
    s.bridge.answer = lambda values: None
    await asyncio.gather(*(s.ask(name, size=1000) for name in names(10)))
    assert [len(values) for values in s.bridge.sent] == [4, 4, 2]
    assert await s.ask("large", size=10**6) == "LARGE"


@scene
async def test_a_busy_queue_waits_until_its_group_is_full(s: Scene) -> None:
    for n in range(FEW_IN_FLIGHT + 3):
        s.ask(f"v{n}")
        await settle()
    assert [len(values) for values in s.bridge.sent] == [1] * FEW_IN_FLIGHT
    s.bridge.land()
    await settle()
    assert len(s.bridge.sent[-1]) == 3
    for name in names(50):
        s.ask(name)
    await settle()
    assert len(s.bridge.sent[-1]) == 50, "a full group need not wait"


@scene
async def test_no_more_requests_at_once_than_there_are_places(s: Scene) -> None:
    asked = [s.ask(name, name.encode()) for name in names(3 * MOST_IN_FLIGHT)]
    await settle()
    assert len(s.bridge.open) == MOST_IN_FLIGHT
    for left in range(3 * MOST_IN_FLIGHT, 0, -1):
        assert len(s.bridge.open) == min(left, MOST_IN_FLIGHT)
        s.bridge.land()
        await settle()
    assert all(each.done() for each in asked)


@scene
async def test_cancelling_gives_the_place_back_when_the_request_returns(s: Scene) -> None:
    asked = [s.ask(name, name.encode()) for name in names(MOST_IN_FLIGHT + 1)]
    await settle()
    for each in asked[:-1]:
        each.cancel()
    await settle()
    # The server still works on them, so their streams are still in use.
    assert len(s.bridge.sent) == MOST_IN_FLIGHT
    s.bridge.land()
    await settle()
    assert len(s.bridge.sent) == MOST_IN_FLIGHT + 1
    while s.bridge.open:
        s.bridge.land()
    assert await asked[-1] == f"V{MOST_IN_FLIGHT}"
    again = [s.ask(name, name.encode()) for name in names(MOST_IN_FLIGHT)]
    await settle()
    assert len(s.bridge.open) == MOST_IN_FLIGHT
    for each in again:
        each.cancel()


@scene
async def test_what_is_cancelled_before_it_is_sent_is_not_sent(s: Scene) -> None:
    s.bridge.answer = lambda values: None
    first, second = s.ask("first"), s.ask("second")
    first.cancel()
    assert await second == "SECOND"
    assert s.bridge.sent == [["second"]]


@scene
async def test_a_group_that_fails_is_halved_until_only_the_bad_one_fails(s: Scene) -> None:
    bad = cassandra.InvalidRequest("too large")
    s.bridge.answer = lambda values: bad if "v13" in values else None
    asked = [s.ask(name) for name in names(50)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    for n, result in enumerate(found):
        if n == 13:
            assert isinstance(result, StoreError)
            assert not result.retriable
            assert "too large" in str(result)
        else:
            assert result == f"V{n}"
    assert len(s.bridge.sent) < 15
    assert s.breaker.problem is None


@scene
async def test_a_value_that_cannot_be_written_fails_alone(s: Scene) -> None:
    s.bridge.answer = lambda values: None
    asked = [s.ask(name) for name in [*names(20), "unwritable"]]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert found[:20] == [name.upper() for name in names(20)]
    assert isinstance(found[20], StoreError)
    assert "it has no bytes" in str(found[20])
    assert s.breaker.problem is None
    assert asyncio.get_running_loop().time() < STEP_S


@scene
async def test_a_group_that_times_out_is_split_and_each_gets_its_own_result(s: Scene) -> None:
    def answer(values: list[str]) -> BaseException | None:
        return cassandra.WriteTimeout("slow") if len(values) > 30 else None

    s.bridge.answer = answer
    asked = [s.ask(name) for name in names(50)]
    assert await asyncio.gather(*asked) == [name.upper() for name in names(50)]
    assert [len(values) for values in s.bridge.sent] == [50, 25, 25]


@scene
async def test_each_caller_has_an_exception_of_its_own(s: Scene) -> None:
    s.bridge.answer = lambda values: cassandra.Unauthorized("no")
    found = await asyncio.gather(*(s.ask(n) for n in names(4)), return_exceptions=True)
    assert len({id(each) for each in found}) == 4
    assert all(isinstance(each, StoreError) and not each.retriable for each in found)


@scene
async def test_no_step_takes_longer_than_its_deadline(s: Scene) -> None:
    """Nobody answers, and the driver does not even report that."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreError, match="not done within 10 s") as caught:
        await s.ask("lost")
    assert caught.value.retriable
    assert asyncio.get_running_loop().time() - began <= STEP_S + 1.0


@scene
async def test_a_caller_with_little_time_left_cuts_no_request_short(s: Scene) -> None:
    blocked = [s.ask(name, name.encode()) for name in names(MOST_IN_FLIGHT)]
    old = s.ask("old", b"last")
    await asyncio.sleep(STEP_S - 2)
    new = s.ask("new", b"last")
    for _ in range(MOST_IN_FLIGHT):
        s.bridge.land()
    await settle()
    assert (s.bridge.sent[-1], s.bridge.timeouts[-1]) == (["old", "new"], REQUEST_S)
    with pytest.raises(StoreError, match="not done within 10 s"):
        await old
    s.bridge.land()
    assert await new == "NEW"
    assert all(each.done() for each in blocked)


@scene
async def test_a_request_that_the_driver_lost_gives_its_place_back(s: Scene) -> None:
    asked = [s.ask(name, name.encode()) for name in names(MOST_IN_FLIGHT + 1)]
    await asyncio.gather(*asked, return_exceptions=True)
    await asyncio.sleep(STEP_S)
    assert s.breaker.problem is None, "the probe has found it well again"
    late = s.ask("late", b"late")
    await settle()
    assert s.bridge.sent[-1] == ["late"]
    while s.bridge.open:
        s.bridge.land()  # at last; those given up are not counted twice
    assert await late == "LATE"
    again = [s.ask(name, name.encode()) for name in names(MOST_IN_FLIGHT + 1)]
    await settle()
    assert len(s.bridge.open) == MOST_IN_FLIGHT
    for each in again:
        each.cancel()


@scene
async def test_time_outs_in_a_row_open_the_breaker_and_a_probe_closes_it(s: Scene) -> None:
    s.well = False
    asked = [s.ask(name, name.encode()) for name in names(5)]
    await settle()
    s.bridge.land(cassandra.OperationTimedOut())
    assert s.breaker.problem is None
    s.bridge.land(cassandra.OperationTimedOut())
    # Nobody waits for a deadline of his own any more.
    async with asyncio.timeout(1.0):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, StoreDownError) for each in found)
    with pytest.raises(StoreDownError, match="no answer in time"):
        s.ask("at once")
    sent = len(s.bridge.sent)
    await asyncio.sleep(60)
    assert s.probes > 5
    assert len(s.bridge.sent) == sent, "only the probe asks"
    s.well = True
    await asyncio.sleep(6)
    assert s.breaker.problem is None
    s.bridge.answer = lambda values: None
    assert await s.ask("again") == "AGAIN"


@scene
async def test_an_answer_in_between_keeps_the_breaker_closed(s: Scene) -> None:
    for _ in range(5):
        asked = s.ask("slow")
        await settle()
        s.bridge.land(cassandra.ReadTimeout("slow"))
        await settle()
        s.bridge.land()
        assert await asked == "SLOW"
    assert s.breaker.problem is None


@scene
async def test_no_node_at_all_opens_the_breaker_at_once(s: Scene) -> None:
    asked = [s.ask("one"), s.ask("two")]
    await settle()
    s.bridge.land(NoHostAvailable("nobody", {"n1": ConnectionRefusedError("refused")}))
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, StoreDownError) for each in found)
    assert "n1: ConnectionRefusedError: refused" in str(s.breaker.problem)


def test_one_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        s = Scene()
        s.well = False
        s.bridge.answer = lambda values: NoHostAvailable("nobody", {})
        for _ in range(3):
            asked = [s.ask(name, name.encode()) for name in names(20)]
            await asyncio.gather(*asked, return_exceptions=True)
            s.well = True
            await asyncio.sleep(10)
            s.well = False
        await s.end()

    with caplog.at_level(logging.DEBUG, "prosody.stores"):
        run_virtual(play())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 3
    assert "answers again, after" in caplog.records[1].getMessage()


@scene
async def test_closing_fails_what_is_unfinished(s: Scene) -> None:
    asked = [s.ask(name, name.encode()) for name in names(3 * MOST_IN_FLIGHT)]
    await settle()
    s.groups.close("the stores are stopped")
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, StoreError) for each in found)
    with pytest.raises(StoreError, match="stopped"):
        s.ask("after that")
