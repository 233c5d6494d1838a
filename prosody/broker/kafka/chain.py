"""Fetches of the same partitions from the same broker, one after the other. Private parts of aiokafka.

aiokafka's fetching routine plans each fetch anew, in two tasks and several turns of the event loop. Most
plans are the one before with other offsets. Such a fetch is the same bytes with other offsets in them.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.structs import TopicPartition as LowerPartition

from prosody._core import read_answer
from prosody.broker.kafka.errors import LowerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.broker.kafka.frames import Frames

log = logging.getLogger(__name__)

VERSION: Final = FetchResponse_v11.API_VERSION
"""The one whose bytes are known here; aiokafka knows no later one, brokers since 2.3 all know it."""
BRIEF_S: Final = 0.0005
"""Handlers that take longer are worth an overlap with the next fetch, which takes about as long."""
_CORRELATION: Final = struct.Struct(">i")
_SIZE: Final = struct.Struct(">i")
_OFFSET: Final = struct.Struct(">q")
_BEFORE_TOPICS: Final = struct.calcsize(">iiiibiii")
"""Replica, time, least bytes, most bytes, isolation, session, its epoch, count of topics."""
_PARTITION: Final = struct.calcsize(">iiqqi")
_OFFSET_WITHIN: Final = struct.calcsize(">ii")
"""Behind the number and the epoch of a partition."""


class Taking(Protocol):
    """Takes what fetches bring."""

    @property
    def applies(self) -> Callable[[], bool]:
        """Whether fetches may go on without aiokafka's routine."""
        ...

    def take(self, answer: bytes, brought: list[tuple[Part, int, int]]) -> bool:
        """Take records of these partitions, from where in the answer they are, as many bytes.

        True when some is left buffered, so that whoever polls comes for it in the next turn of the event
        loop.
        """
        ...

    def hand_over(self) -> None:
        """Work on what was taken."""
        ...


class Answered(FetchRequest):  # type: ignore[misc]  # aiokafka has no types
    """A fetch with the answer to it, or the failure."""

    def __init__(
        self,
        like: Any,
        topics: list[Any],
        connection: Any,
        answer: bytes | None,
        error: BaseException | None,
    ) -> None:
        super().__init__(
            like._max_wait_ms, like._min_bytes, like._max_bytes, like._isolation_level, topics
        )
        self._connection = connection
        self._answer = answer
        self._error = error

    def answer(self) -> Any:
        """What aiokafka's connection would have answered.

        :raises Exception: what it would have raised.
        """
        if self._answer is None:
            assert self._error is not None, "a fetch is answered or has failed"
            raise self._error
        try:
            return FetchResponse_v11.decode(self._answer[_CORRELATION.size :])
        except Exception as error:
            # Whatever a decoder raises; aiokafka's reader gives up the connection for it, too.
            self._connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"an answer cannot be decoded: {error!r}") from error


class Part:
    """A partition that is fetched."""

    __slots__ = ("at", "lower", "offset", "size", "state")

    def __init__(self, lower: LowerPartition, state: Any, at: int, offset: int, size: int) -> None:
        self.lower = lower
        self.state = state
        """aiokafka's, of its assignment."""
        self.at = at
        """Where its offset is in the request."""
        self.offset = offset
        """The offset that was asked for last."""
        self.size = size
        """The bytes that are asked for."""


class Chain:
    """Goes on until a plan is due; what it does not understand is left to aiokafka."""

    def __init__(
        self,
        fetcher: Any,
        frames: Frames,
        assignment: Any,
        node_id: Any,
        request: FetchRequest,
        taking: Taking,
    ) -> None:
        self._fetcher = fetcher
        self._frames = frames
        self._unassigned: asyncio.Future[None] = assignment.unassign_future
        self._asked = request
        self._taking = taking
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[Answered | None] = self._loop.create_future()
        self._asked_at = 0.0
        self._brief = True
        """The last answer took so little time that the next fetch could wait for its handlers."""
        self.ended = False
        self.stale = False
        """Something has changed that it does not look at: it ends with the next answer."""
        self._request, places = _encode(frames.connection, request)
        self._parts = {
            (topic, number): Part(tp, assignment.state_value(tp), places[tp], offset, size)
            for topic, partitions in request.topics
            for number, offset, size in partitions
            for tp in (LowerPartition(topic, number),)
        }
        # What the broker has besides, but was not to be fetched when this was planned.
        self._others = {
            tp: assignment.state_value(tp)
            for tp in assignment.tps
            if tp not in self._parts and fetcher._select_read_replica(tp) == node_id
        }

    def looks_after(self, partition: LowerPartition) -> bool:
        """Whether it sees for itself when there is room for more of a partition."""
        return not self.ended and (partition in self._parts or partition in self._others)

    async def run(self) -> Answered | None:
        """Fetch, until something else is to be done: what is left to be looked into, if anything is."""
        connection = self._frames.connection
        try:
            self._go_on()
            while not self._over.done():
                left_s = self._asked_at + connection._request_timeout - self._loop.time()
                if left_s <= 0:
                    # As aiokafka does. It tells whoever waits, this chain too if it does.
                    connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
                    self._end(self._left(None, RequestTimedOutError()))
                else:
                    await asyncio.wait([self._over], timeout=left_s)
            return self._over.result()
        finally:
            self.ended = True

    def _end(self, left: Answered | None = None) -> None:
        """Fetch no more. An answer that comes nevertheless is dropped: its offsets are fetched again."""
        self.ended = True
        if not self._over.done():
            self._over.set_result(left)

    def _go_on(self, now: float | None = None) -> None:
        """Send the next fetch, if all there is to change is offsets."""
        if self.ended:
            return
        self._asked_at = self._loop.time() if now is None else now
        if not self._is_due_again() or not self._frames.send(self._request, self):
            self._end()

    def _is_due_again(self) -> bool:
        """Whether a plan would differ in offsets alone, which are in the request then."""
        fetcher = self._fetcher
        if self.stale or fetcher._closed or self._unassigned.done():
            return False
        if not self._taking.applies():
            return False
        buffered = fetcher._records
        for part in self._parts.values():
            offset = part.state._position
            if offset is None or part.state._paused or part.lower in buffered:
                return False
            if offset != part.offset:
                part.offset = offset
                _OFFSET.pack_into(self._request, part.at, offset)
        return all(tp in buffered or state._paused for tp, state in self._others.items())

    # What the connection calls

    def done(self) -> bool:
        return self.ended

    def set_exception(self, error: BaseException) -> None:
        self._end(self._left(None, error))

    def set_result(self, answer: bytes) -> None:
        try:
            self._answered(answer)
        except Exception:
            # A fault of ours. Whoever called is the connection, which has nothing to do with it; aiokafka
            # reads the answer, of which it leaves out what has been taken.
            log.exception("internal fault in the answer to a fetch; please report this")
            self._end(self._left(answer, None))

    def _answered(self, answer: bytes) -> None:
        found = read_answer(answer)
        if found is None or self._unassigned.done():
            self._end(self._left(answer, None))
            return
        brought: list[tuple[Part, int, int]] = []
        for topic, number, end, stable, at, size in found:
            part = self._parts.get((topic, number))
            if part is None:
                continue  # nobody asked for it
            state = part.state
            if state._position != part.offset:
                continue  # it was sent elsewhere meanwhile
            state.highwater = end
            state.lso = stable
            if size:
                brought.append((part, at, size))
        if not brought:
            self._go_on()
            return
        # Sending wakes the broker, which may take the processor from whoever handles what has come. So it
        # comes last, unless handlers compute for so long that the next answer can be here by then.
        brief, buffered = self._brief, False
        try:
            buffered = self._taking.take(answer, brought)
            if not brief and not buffered:
                self._go_on()
        finally:
            # Whatever happens: what is taken will not be fetched again.
            self._taking.hand_over()
            now = self._loop.time()
            self._brief = now - self._frames.received_at < BRIEF_S
        if buffered:
            self._loop.call_soon(self._go_on)
        elif brief:
            self._go_on(now)

    def _left(self, answer: bytes | None, error: BaseException | None) -> Answered:
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for part in self._parts.values():
            topic, number = part.lower
            topics.setdefault(topic, []).append((number, part.offset, part.size))
        connection = self._frames.connection
        return Answered(self._asked, list(topics.items()), connection, answer, error)


def is_known(connection: Any, request: FetchRequest) -> bool:
    """Whether the bytes that a fetch has on a connection are known here."""
    try:
        return bool(request.prepare(connection._versions).API_VERSION == VERSION)
    except (*LowerError, NotImplementedError):
        return False  # a broker too old; aiokafka's own way says so


def _encode(connection: Any, request: FetchRequest) -> tuple[bytearray, dict[tuple[str, int], int]]:
    """The bytes of a fetch, and where in them the offset of each partition is."""
    struct_ = request.prepare(connection._versions)
    header = struct_.build_request_header(correlation_id=0, client_id=connection._client_id)
    head = header.encode()
    body = struct_.encode()
    places: dict[tuple[str, int], int] = {}
    at = _SIZE.size + len(head) + _BEFORE_TOPICS
    for topic, partitions in request.topics:
        at += 2 + len(topic.encode()) + 4  # its name with a size of two bytes, and a count
        for number, _, _ in partitions:
            places[topic, number] = at + _OFFSET_WITHIN
            at += _PARTITION
    return bytearray(_SIZE.pack(len(head) + len(body)) + head + body), places
