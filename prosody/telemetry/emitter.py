"""Writes the events of one client to their topic, beside everything else it does.

::

    begin ──▶ a task connects, finds the topic
    buffer ──(1,024, or 50 ms)──▶ a slice in one turn of the loop: JSON, batches
               ▲ more: the next turn                │ (2,048 events, or a second)
               │                                    ▼
               └─────── meanwhile goes on ── a task writes these ──(failed)──▶ again later
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Final

from prosody.errors import BrokerError
from prosody.runtime import OneCall
from prosody.telemetry.buffer import CROWDED
from prosody.telemetry.events import FIELDS
from prosody.telemetry.telling import Telling

if TYPE_CHECKING:
    from prosody.broker.protocol import Broker, BrokerBatches, ProducerSettings
    from prosody.runtime import Runtime
    from prosody.telemetry.buffer import Buffer
    from prosody.telemetry.encoder import Encoder

LINGER_S: Final = 1.0
"""How long an event waits for others, as in the reference."""
SLICE: Final = 2000
"""Entries encoded in one turn of the loop: a few milliseconds."""
SLICE_S: Final = 0.05
"""While events come, those of so long are encoded together. Those of a second at once would be a pause, and
so the latency of some messages."""
WRITE: Final = 2 * CROWDED
"""So many events are written before their time: each attempt is two."""
ADDED_MAX: Final = 32_768
"""Events that are encoded while others are being written; what comes then waits in the buffer."""
WRITE_S: Final = 30.0
FLUSH_S: Final = 1.0
STOP_S: Final = 2.0
"""How long a write under way at ``stop`` is waited for once it was told to end."""
AGAIN_S_MAX: Final = 60.0


class Emitter:
    """The events of one client on their way to ``topic``.

    Nothing it does raises, or makes anybody wait but those who ask for a ``flush``, and these not long.
    """

    def __init__(
        self,
        broker: Broker,
        settings: ProducerSettings,
        topic: str,
        buffer: Buffer,
        encoder: Encoder,
        runtime: Runtime,
    ) -> None:
        self._broker = broker
        self._settings = settings
        self._topic = topic
        self._buffer = buffer
        self._encoder = encoder
        self._runtime = runtime
        self._context = contextvars.Context()
        """An empty one: what wakes it may be a handler, whose variables are none of its business."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches: BrokerBatches | None = None
        self._ready = False
        """The batches know the topic: events may be added."""
        self._due = False
        """What there is is to be written, however little."""
        self._next_look = OneCall(self._look, self._context)
        self._next_slice = OneCall(self._slice, self._context)
        self._writing: asyncio.Task[None] | None = None
        self._subscribed = False
        self._added = 0
        """Events in the batches that no write has taken yet."""
        self._under_way = 0
        """Events of the present write."""
        self._again_at = float("-inf")
        """After a failure: not before this time, on the monotonic clock."""
        self._failures = 0
        self._telling = Telling(topic, buffer, runtime)
        buffer.wake = self._wake

    # -- life -------------------------------------------------------------------------------------

    def begin(self, *, subscribed: bool = False) -> None:
        """Events come from now on, in this event loop. Cheap enough for each send.

        :param subscribed: they come until ``rest``; else it is looked until none has come for a second.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed() and self._subscribed:
                return  # a subscription in another loop goes on writing for both
            # A closed loop took the connection, the tasks and the timers with it.
            self._lost()
            self._loop, self._batches, self._ready = loop, None, False
            self._writing, self._again_at = None, float("-inf")
            self._stop_looking()
        if subscribed:
            self._subscribed = True
            self._start_writing()  # to be connected when events come
        if not self._next_look.pending:
            self._next_look.later(loop, LINGER_S)

    async def rest(self) -> None:
        """The subscription has ended: write what there is, for at most ``FLUSH_S``, and look no more."""
        self._subscribed = False
        await self.flush()
        self._stop_looking()

    async def stop(self) -> None:
        """Write what there is, for at most ``FLUSH_S``, and close. A later ``begin`` connects anew."""
        self._subscribed = False
        if self._loop is not asyncio.get_running_loop():
            return  # nothing has begun, or in a loop that has ended and took everything with it
        try:
            await self.flush()
        finally:
            self._stop_looking()
            try:
                await self._give_up()
            finally:
                await self._disconnect()

    async def _give_up(self) -> None:
        """End a write that is under way; what is not written is lost."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.cancel()
            await asyncio.wait([writing], timeout=STOP_S)
        self._buffer.drop(len(self._buffer))
        self._lost()
        self._telling.dropped("the client was shut down before they could be written")

    async def flush(self) -> None:
        """Wait until what there is is written, or cannot be, or for ``FLUSH_S``."""
        if self._loop is not asyncio.get_running_loop():
            return
        # What is left is written later, or counted by ``stop``.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                self._buffer.before_look()
                while self._writing is not None or self._added or len(self._buffer):
                    self._slice(due=True)
                    if self._writing is None:
                        return  # it has just failed
                    await asyncio.wait([self._writing])

    def _stop_looking(self) -> None:
        self._next_look.cancel()
        self._next_slice.cancel()

    # -- looking, encoding ------------------------------------------------------------------------

    def _look(self) -> None:
        assert self._loop is not None, "looked at in a loop"
        self._buffer.before_look()
        waiting = len(self._buffer) + self._added
        if waiting or self._subscribed or self._writing is not None:
            self._next_look.later(self._loop, LINGER_S)
        if waiting:
            self._slice(due=True)
        self._telling.look()

    def _wake(self) -> None:
        """There are many: encode some at the loop's next turn."""
        if self._loop is not None and not self._loop.is_closed():
            self._next_slice.soon(self._loop)

    def _slice(self, *, due: bool = False) -> None:
        """Encode what there is, at most ``SLICE``, and have it written if it is much.

        :param due: its time has come: have it written in any case.
        """
        self._next_slice.cancel()
        self._due = self._due or due
        if self._ready and self._batches is not None and self._added < ADDED_MAX:
            taken = self._buffer.take(SLICE)
            entries = len(taken) // FIELDS
            self._added += entries
            try:
                self._encoder.set_clock(self._runtime.monotonic(), self._runtime.wall())
                keys, values = self._encoder.encode(taken)
                self._added += len(keys) - entries  # some are two events, some are not told
                self._batches.add(keys, values)
            except Exception as fault:  # noqa: BLE001  # whoever called has to do with none of it
                self._fault(fault)
            if len(self._buffer) >= CROWDED:
                self._wake()
            elif (entries or (due and self._added)) and self._loop is not None:
                self._next_slice.later(self._loop, SLICE_S)
        if self._worth_a_write or not self._ready:
            self._start_writing()

    @property
    def _worth_a_write(self) -> bool:
        return self._added >= WRITE or (self._due and self._added > 0)

    # -- writing ----------------------------------------------------------------------------------

    def _start_writing(self) -> None:
        """Write, unless that goes on already, or failed a short while ago."""
        if self._writing is None and self._runtime.monotonic() >= self._again_at:
            assert self._loop is not None, "begun in a loop"
            self._writing = self._loop.create_task(
                self._write(), name="prosody-telemetry", context=self._context
            )
            self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Task[None]) -> None:
        if self._writing is writing:
            self._writing = None
        if not writing.cancelled() and (fault := writing.exception()) is not None:
            self._fault(fault)

    async def _write(self) -> None:
        """Write what is encoded, and what is meanwhile, until little is left or a write fails."""
        while True:
            try:
                batches = await self._connected()
                await batches.find(self._topic, WRITE_S)
            except BrokerError as error:
                # All events are still there, and more have room: it is tried again, less and less often.
                self._failed(error)
                return
            self._ready = True
            if not self._added and (self._due or len(self._buffer) >= CROWDED):
                self._slice()
            if not self._worth_a_write:
                # Few, if any: they wait for others, or each write would be of a handful.
                self._works()
                return
            self._under_way, self._added, self._due = self._added, 0, False
            lost, problem = await batches.write(WRITE_S)
            self._under_way = 0
            self._buffer.dropped += lost
            if problem is None:
                self._works()
            elif not problem.retriable:
                # Some of them will never be taken, too large perhaps. That says nothing about others.
                self._telling.dropped(str(problem))
            else:
                self._failed(problem)
                await self._disconnect()  # whatever state it is in
                return

    def _lost(self) -> None:
        """What is out of the buffer will not be written, or nobody will know."""
        self._buffer.dropped += self._under_way + self._added
        self._under_way = self._added = 0

    async def _connected(self) -> BrokerBatches:
        """:raises BrokerError: the broker cannot be reached."""
        if self._batches is None:
            batches = self._broker.batches(self._settings)
            try:
                await batches.start()
            except BaseException:
                # Failed or cancelled: what was half made must not linger.
                await batches.stop()
                raise
            self._batches = batches
        return self._batches

    async def _disconnect(self) -> None:
        batches, self._batches = self._batches, None
        self._ready = False
        self._lost()
        if batches is not None:
            await batches.stop()

    # -- how it goes ------------------------------------------------------------------------------

    def _works(self) -> None:
        self._failures = 0
        self._again_at = float("-inf")
        self._telling.works()

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        wait_s = min(2.0 ** (self._failures - 1), AGAIN_S_MAX)
        self._again_at = self._runtime.monotonic() + wait_s
        self._telling.fails(error)

    def _fault(self, fault: BaseException) -> None:
        """A fault of ours, or something no table of errors knows: later events may do better."""
        self._ready = False
        self._lost()
        self._telling.fault(fault)
        self._failed(fault)
