"""A partition with deferral, and the layers around a scripted handler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from prosody.broker.memory.log import MemoryRecord
from prosody.consume.decode import decode_excise, decode_key, decode_message
from prosody.deferral.gate import Gate
from prosody.middleware.base import compose
from prosody.middleware.defer import Defer
from prosody.middleware.redelivery import Redelivery
from prosody.middleware.reload import Reload
from prosody.middleware.retry import Retry
from prosody.middleware.shutdown import Shutdown
from prosody.model.message import Timer
from prosody.model.outcome import SUCCESS, Outcome
from prosody.model.times import utc_from_seconds
from prosody.stores.protocol import Deferred, DeferredKind, StoredTimer, TimerKind
from tests.deferral.fakes import Bench, FakeDue, options
from tests.middleware.fakes import FakePartition, make_run, storms

if TYPE_CHECKING:
    from prosody.model.run import Run

M, T = DeferredKind.MESSAGE, DeferredKind.TIMER


def record(offset: int, key: bytes = b"k", value: bytes | None = b"{}", **changes: Any) -> Any:
    known = {"timestamp": 1_000, "headers": ()} | changes
    return MemoryRecord("orders", 3, offset, known["timestamp"], key, value, known["headers"])


class Handler:
    """Answers in turn; the last answer for ever. Knows which event it was called for."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers or (SUCCESS,))
        self.seen: list[Any] = []
        self.runs: list[tuple[Any, ...]] = []

    async def __call__(self, run: Run) -> Outcome:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = answer(run)
        if type(answer) is Outcome:
            run.attempt += 1
        event: Any = run.event
        self.seen.append(getattr(event, "offset", None) if run.timer is None else _number(event))
        self.runs.append((self.seen[-1], run.work_class.name, run.attempt))
        return cast("Outcome", answer)


def _number(event: Any) -> int:
    if isinstance(event, Timer):
        return int(event.time.timestamp())
    return int(event.offset)


class FakeLoader:
    """Has some records, and fails as it is told to."""

    def __init__(self) -> None:
        self.records: dict[int, Any] = {}
        self.remembered: list[int] = []
        self.forgotten: list[int] = []
        self.loads: list[int] = []
        self.errors: list[BaseException] = []
        self.wait: Any = None

    def remember(self, found: Any) -> None:
        self.remembered.append(found.offset)

    async def load(self, topic_partition: Any, offset: int) -> Any:
        assert topic_partition == ("orders", 3)
        self.loads.append(offset)
        if self.wait is not None:
            await self.wait
        if self.errors:
            raise self.errors.pop(0)
        return self.records.get(offset)

    def forget(self, _: Any, offset: int) -> None:
        self.forgotten.append(offset)


class Deferring(Bench):
    """All of it, for one partition."""

    def __init__(self, handler: Handler | None = None, *, loads: bool = False, **of: Any) -> None:
        super().__init__()
        self.handler = handler or Handler()
        self.partition: Any = FakePartition()
        self.partition.deferrals = self.deferrals
        self.partition.timer_calls = None
        self.clock = SimpleNamespace(latest=0.0)
        chosen = options(**of)
        self.gate = Gate(chosen, self.runtime, storms())
        self.loader = FakeLoader()
        self.gone: list[tuple[str, int, int]] = []
        self.layer = Defer(
            chosen, self.gate, self.clock, self.runtime, storms(), self.loader.remember
        )
        self.retry = Retry(0.5, 8.0, self.runtime, storms())
        self.call = compose([self.retry, self.layer, Shutdown()], self.handler)
        self.defer = compose([self.layer, Shutdown()], self.handler)
        self.admitted: list[int] = []
        reload = Reload(self.loader if loads else None, self.decode, cast("Any", self), storms())
        self.redelivery = Redelivery(chosen, reload, self.runtime, storms(), self._admit)
        self.redelivery.call = self.call

    def decode(self, found: Any) -> Any:
        key = decode_key(found)
        if found.value is None:
            return decode_excise(found, key, self.runtime)
        return decode_message(found, key, self.runtime)

    async def write_gone(self, run: Run, offset: int, timestamp_ms: int) -> bool:
        self.gone.append((run.key, offset, timestamp_ms))
        return bool(self.partition.running)

    def _admit(self, run: Run) -> None:
        self.admitted.append(cast("Any", run.event).offset)

    def message(self, offset: int, **changes: Any) -> Run:
        found = record(offset, **changes)
        event = self.decode(found)
        return make_run(offset, self.partition, key=event.key, event=event, record=found)

    def timer(self, time: int, kind: TimerKind = TimerKind.APPLICATION, key: str = "k") -> Run:
        event: Any = Timer(key, utc_from_seconds(time)) if kind == TimerKind.APPLICATION else None
        run = make_run(0, self.partition, key=key, event=event)
        run.record = None
        run.timer = cast(
            "Any", FakeDue(StoredTimer(time, kind, key, {"traceparent": "x"}), self.timers)
        )
        return run

    def retry_run(self, key: str = "k", kind: DeferredKind = M) -> Run:
        retry = TimerKind.DEFERRED_MESSAGE if kind is M else TimerKind.DEFERRED_TIMER
        return self.timer(self.wall, retry, key)

    async def store(self, *positions: int, kind: DeferredKind = M, failures: int = 1) -> None:
        """A queue of deferred work."""
        for position in positions:
            content = record(position) if kind is M else None
            stored = Deferred(position, 1_000 if kind is M else 0, {}, content)
            self.loader.records[position] = content
            if position == positions[0]:
                await self.deferrals.defer(kind, "k", stored, "why", self.wall + 1)
                await self.deferrals.failed(kind, "k", failures, "why")
            else:
                await self.deferrals.append(kind, "k", stored, 0)
        self.timers.calls.clear()
        self.calls.clear()
