"""Small stand-ins for what lies around a layer: a partition, a record, the rest of the stack."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, cast

from prosody.broker.memory.log import MemoryRecord
from prosody.broker.protocol import TopicPartition
from prosody.model.message import ExciseMessage, Message, utc_from_ms
from prosody.model.outcome import SUCCESS, Kind, Outcome
from prosody.model.run import Run
from prosody.observe.storm import Storms
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from prosody.consume.partition import Partition

TRANSIENT = Outcome(Kind.TRANSIENT, ValueError("transient"))
PERMANENT = Outcome(Kind.PERMANENT, ValueError("permanent"))
DEFERRED = Outcome(Kind.DEFERRED)


class FakePartition:
    """The flags of a partition, and what layers call."""

    def __init__(self) -> None:
        self.topic_partition = TopicPartition("orders", 3)
        self.loop = asyncio.get_running_loop()
        self.running = True
        self.cancelling = False
        self.closed = False
        self.number = 1
        self.timer_calls = None
        self.deferrals = None
        self.gave_back: list[Run] = []
        self.written_runs: list[Run] = []

    def written(self, run: Run) -> None:
        self.written_runs.append(run)

    def give_back(self, run: Run) -> None:
        self.gave_back.append(run)

    def fresh_context(self) -> contextvars.Context:
        return contextvars.Context()


def make_run(
    offset: int = 0,
    partition: FakePartition | None = None,
    *,
    key: str = "k",
    event: object = "a message",
    record: MemoryRecord | None = None,
    error: Exception | None = None,
) -> Run:
    """A run in the current task, which stands for its lane."""
    partition = partition or FakePartition()
    record = record or MemoryRecord("orders", 3, offset, 1_000, b"k", b"{}", ())
    if event == "a message":
        event = Message("orders", 3, offset, utc_from_ms(1_000), key, {})
    run = Run(
        cast("Partition", partition),
        record,
        key,
        cast("Message | ExciseMessage | None", event),
        error,
    )
    run.task = asyncio.current_task()
    return run


def storms() -> Storms:
    """Storms that nobody settles."""
    return Storms(FakeRuntime())


class Inner:
    """The rest of the stack: answers in turn, the last answer for ever."""

    def __init__(self, *answers: Outcome) -> None:
        self.answers = list(answers or (SUCCESS,))
        self.runs: list[Run] = []

    async def __call__(self, run: Run) -> Outcome:
        self.runs.append(run)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Gate:
    """The rest of the stack: every run waits inside until it is let out."""

    def __init__(self) -> None:
        self.inside: list[tuple[Run, asyncio.Future[Outcome]]] = []

    async def __call__(self, run: Run) -> Outcome:
        out: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.inside.append((run, out))
        try:
            return await out
        finally:
            self.inside.remove((run, out))

    def let_out(self, outcome: Outcome = SUCCESS) -> None:
        self.inside[0][1].set_result(outcome)

    @property
    def offsets(self) -> list[int]:
        return [run.record.offset for run, _ in self.inside]


def in_lane(call: Any, run: Run) -> asyncio.Task[Outcome]:
    """Take a run through a stack in a task of its own, as a lane does."""

    async def lane() -> Outcome:
        run.task = asyncio.current_task()
        run.began = run.partition.loop.time()  # the scheduler's part
        outcome: Outcome = await call(run)
        return outcome

    return asyncio.create_task(lane())
