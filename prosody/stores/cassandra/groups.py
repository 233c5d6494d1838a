"""Operations travel in groups: what one turn of the loop asks for goes out together.

Measured on one node: single requests 6,000 to 12,000 operations a second, groups of 50 from 78,000 to
101,000. Operations are grouped by kind and by the replicas that hold their data, so that a group costs its
nodes no more than the operations by themselves. Each caller gets a result of its own: a group that fails
is halved and tried again, down to single operations.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from cassandra import OperationTimedOut

from prosody.errors import StoreDownError, StoreError
from prosody.stores.answer import StoreAnswer
from prosody.stores.cassandra.errors import TIMED_OUT, UNREACHABLE, is_outage, reason, store_error

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from prosody.stores.cassandra.breaker import Breaker
    from prosody.stores.cassandra.bridge import Bridge, Rows
    from prosody.stores.cassandra.kinds import Kind

GROUP_BYTES: Final = 4096
"""Cassandra warns of batches above 5 KiB."""
MOST_IN_FLIGHT: Final = 128
"""Requests at once. A connection has 32,768 streams; without a free one the driver would block the loop."""
FEW_IN_FLIGHT: Final = 2
"""With so many of a queue under way, the next one waits until it is full or one of them returns."""
SWEEP_S: Final = 1.0
LOST_AFTER_S: Final = 5.0
"""A request the driver has not ended so long after its deadline is given up."""


class Op(StoreAnswer[Any]):
    """One operation of one caller, who may cancel it at any time."""

    __slots__ = ("deadline", "size", "value")

    value: Any
    size: int
    deadline: float


class Queue:
    """The operations of one kind for the same replicas; all lines are in the order of their deadlines."""

    __slots__ = ("again", "flights", "key", "kind", "waiting")

    def __init__(self, key: Hashable, kind: Kind) -> None:
        self.key = key
        self.kind = kind
        self.waiting: deque[Op] = deque()
        self.again: deque[list[Op]] = deque()
        """Halves of groups that failed; they go first."""
        self.flights = 0

    @property
    def ready(self) -> bool:
        """Whether a group should go out now, if there is room."""
        if self.again:
            return True
        few = self.flights < FEW_IN_FLIGHT
        return bool(self.waiting) and (few or len(self.waiting) >= self.kind.most)

    def take(self) -> list[Op]:
        """The next group, without those whose caller has gone."""
        if self.again:
            return [op for op in self.again.popleft() if not op.done()]
        taken: list[Op] = []
        room = GROUP_BYTES
        waiting, most = self.waiting, self.kind.most
        while waiting and len(taken) < most:
            op = waiting[0]
            if taken and op.size > room:
                break
            waiting.popleft()
            if not op.done():
                taken.append(op)
                room -= op.size
        return taken


class Flight:
    """One request under way."""

    __slots__ = ("landed", "lost_at", "ops", "queue")

    def __init__(self, queue: Queue, ops: list[Op], lost_at: float) -> None:
        self.queue = queue
        self.ops = ops
        self.lost_at = lost_at
        self.landed = False


class Groups:
    """Collects operations, sends them in groups, and gives each its own result."""

    def __init__(
        self,
        bridge: Bridge,
        breaker: Breaker,
        loop: asyncio.AbstractEventLoop,
        replicas: Callable[[bytes], Hashable],
        *,
        request_timeout_s: float,
        step_timeout_s: float,
    ) -> None:
        """
        :param replicas: which nodes hold the data of a routing key.
        """
        self._bridge = bridge
        self._breaker = breaker
        self._loop = loop
        self._replicas = replicas
        self._request_timeout_s = request_timeout_s
        self._step_timeout_s = step_timeout_s
        self._queues: dict[Hashable, Queue] = {}
        self._flights: set[Flight] = set()
        self._pumping: asyncio.Handle | None = None
        self._deadline = 0.0
        """Of what is asked for in this turn of the loop."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False
        self.requests = 0
        """Sent so far, repeated ones included."""

    def submit(
        self, kind: Kind, value: Any, routing_key: bytes | None, size: int
    ) -> StoreAnswer[Any]:
        """Ask for an operation. Cancelling the future leaves nothing behind.

        :param routing_key: of its partition; None for one that is never grouped.
        :param size: about how many bytes it takes.
        :raises StoreDownError: at once, while the store counts as down.
        :raises StoreError: the stores are stopped.
        """
        if self._breaker.problem is not None:
            self._breaker.check()
        if self._closed:
            raise StoreError("the stores are stopped", retriable=False)
        key = (kind, None if routing_key is None else self._replicas(routing_key))
        if (queue := self._queues.get(key)) is None:
            queue = self._queues[key] = Queue(key, kind)
        if self._pumping is None:
            # In the next turn, after everybody who is going to ask for something in this one.
            self._pumping = self._loop.call_soon(self._pump)
            self._deadline = self._loop.time() + self._step_timeout_s
        op = Op(loop=self._loop)
        op.listener = None
        op.value = value
        op.size = size
        op.deadline = self._deadline
        queue.waiting.append(op)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        return op

    def close(self, reason: str) -> None:
        """Fail whatever is unfinished, and take nothing more."""
        self._closed = True
        for handle in (self._pumping, self._sweeping):
            if handle is not None:
                handle.cancel()
        self._fail_all(lambda: StoreError(reason, retriable=False))

    def fail_down(self, problem: str) -> None:
        """Fail whatever is unfinished, because the store counts as down."""
        self._fail_all(lambda: StoreDownError(problem))

    def _fail_all(self, error: Callable[[], StoreError]) -> None:
        # Requests under way keep their places until they return.
        for line in self._lines():
            for op in line:
                if not op.done():
                    _fail(op, error())
        self._queues = {key: queue for key, queue in self._queues.items() if queue.flights}
        for queue in self._queues.values():
            queue.waiting.clear()
            queue.again.clear()

    def _lines(self) -> Iterator[Iterable[Op]]:
        """Everything that is asked for and not finished, in lines by deadline."""
        for queue in self._queues.values():
            yield queue.waiting
            yield from queue.again
        for flight in self._flights:
            yield flight.ops

    def _pump(self) -> None:
        self._pumping = None
        ready = deque(queue for queue in self._queues.values() if queue.ready)
        while ready and len(self._flights) < MOST_IN_FLIGHT:
            queue = ready.popleft()
            self._send(queue, queue.take())
            if queue.ready:
                ready.append(queue)  # in turn with the others
        for key in [k for k, q in self._queues.items() if not (q.waiting or q.again or q.flights)]:
            del self._queues[key]

    def _send(self, queue: Queue, ops: list[Op]) -> None:
        now = self._loop.time()
        if ops and ops[0].deadline <= now:  # the others are later or as late
            self._fail_late(ops, now)
            ops = [op for op in ops if op.deadline > now]
        if not ops:
            return
        # Its full time, however little is left to some of its callers: they end by themselves, and a
        # request cut short would look like a store that does not answer.
        flight = Flight(queue, ops, now + self._request_timeout_s + LOST_AFTER_S)
        self._flights.add(flight)
        queue.flights += 1
        self.requests += 1

        def landed(
            rows: Rows | None, paging_state: bytes | None, error: BaseException | None
        ) -> None:
            self._landed(flight, rows, paging_state, error)

        try:
            statement, paging_state = queue.kind.statement([op.value for op in ops])
        except Exception as error:  # noqa: BLE001
            # A value that cannot be written: found out like one that the server refuses, by halves.
            self._loop.call_soon(landed, None, None, error)
            return
        self._bridge.start(statement, self._request_timeout_s, landed, paging_state)

    def _landed(
        self,
        flight: Flight,
        rows: Rows | None,
        paging_state: bytes | None,
        error: BaseException | None,
    ) -> None:
        if flight.landed:
            return  # given up before
        flight.landed = True
        self._flights.discard(flight)
        flight.queue.flights -= 1
        ops, flight.ops = flight.ops, []  # the driver may hold on to the flight for a while
        if error is None:
            self._breaker.succeeded()
            results = flight.queue.kind.results([op.value for op in ops], rows, paging_state)
            for op, result in zip(ops, results, strict=True):
                # Whoever was cancelled has left, but its request has had its place until now.
                if not op.done():
                    op.set_result(result)
        else:
            self._failed(flight.queue, ops, error)
        if self._pumping is None and not self._closed:
            self._pumping = self._loop.call_soon(self._pump)

    def _failed(self, queue: Queue, ops: list[Op], error: BaseException) -> None:
        unreachable = isinstance(error, UNREACHABLE)
        if is_outage(error) and not self._closed:
            self._breaker.failed(reason(error), unreachable=unreachable)
        ops = [op for op in ops if not op.done()]
        if (problem := self._breaker.problem) is not None:
            # It has ended all others, perhaps just now; these were in no line.
            for op in ops:
                _fail(op, StoreDownError(problem))
        elif len(ops) > 1 and not unreachable:
            # Too large, or one of them is at fault: the others shall not suffer for it.
            half = len(ops) // 2
            queue.again.extend((ops[:half], ops[half:]))
        elif ops and isinstance(error, TIMED_OUT) and ops[0].deadline > self._loop.time():
            queue.again.append(ops)  # all statements can be repeated
        else:
            for op in ops:
                _fail(op, store_error(queue.kind.doing, error))

    def _late(self) -> StoreError:
        return StoreError(f"Cassandra: not done within {self._step_timeout_s:g} s", retriable=True)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._loop.time()
        for flight in [flight for flight in self._flights if flight.lost_at <= now]:
            self._landed(flight, None, None, OperationTimedOut())
        for line in self._lines():
            self._fail_late(line, now)
        if self._queues:
            self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    def _fail_late(self, line: Iterable[Op], now: float) -> None:
        for op in line:
            if op.deadline > now:
                return
            if not op.done():
                _fail(op, self._late())


def _fail(op: Op, error: StoreError) -> None:
    op.set_exception(error)
    # Looked at here, because whoever has lost interest in it is not to be told of it by the loop.
    op.exception()
