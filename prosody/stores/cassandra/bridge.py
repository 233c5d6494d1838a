"""From the event loop into the driver and back.

::

    loop     start() ──▶ execute_async ─┐                 ┌▶ drain: all that has arrived, in one go
    driver's thread                     └▶ arrived ─▶ deque ─▶ one call_soon_threadsafe

``execute_async`` writes the request on the loop's thread and does not wait, as long as a connection has a
stream to spare: :class:`~prosody.stores.cassandra.groups.Groups` sees to that. Results come by callbacks
on the driver's thread. Waking the loop costs more than taking a result, so many share one wake-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cassandra.cluster import ResultSet

if TYPE_CHECKING:
    import asyncio

Rows = list[tuple[Any, ...]]


Done = Callable[[Rows | None, bytes | None, BaseException | None], None]
"""Told how a request ended, on the loop: its rows, where to continue, or the error."""


def _told(*_: object) -> None:
    """A request ends once."""


class _Request:
    """One request under way.

    The driver's future holds on to this, and this to it: whoever ends it breaks the circle, or the garbage
    collector would have to find it, with all operations of the request.
    """

    __slots__ = ("_bridge", "_done", "_future")

    def __init__(self, bridge: Bridge, done: Done, future: Any) -> None:
        self._bridge = bridge
        self._done = done
        self._future = future

    def succeeded(self, rows: Rows | None) -> None:
        """On the driver's thread."""
        future, done = self._end()
        state = ResultSet(future, []).paging_state if future.has_more_pages else None
        self._bridge.arrived(done, rows, state, None)

    def failed(self, error: BaseException) -> None:
        """On the driver's thread."""
        _, done = self._end()
        self._bridge.arrived(done, None, None, error)

    def _end(self) -> tuple[Any, Done]:
        future, done = self._future, self._done
        self._future = None
        self._done = _told
        timer = future._timer
        if timer is not None:
            # It is cancelled, but stays with the driver until its time comes, and the future with it.
            future._timer = None
            timer.callback = _told
        return future, done


class Bridge:
    """Starts requests of one session, and brings their results to one loop."""

    def __init__(self, session: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop
        self._arrived: deque[tuple[Done, Rows | None, bytes | None, BaseException | None]] = deque()
        self._waking = False

    def start(
        self, statement: Any, timeout_s: float, done: Done, paging_state: bytes | None = None
    ) -> None:
        """Send a statement; ``done`` is called once, in a later turn of the loop."""
        try:
            future = self._session.execute_async(
                statement, timeout=timeout_s, paging_state=paging_state
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, the waiter is to be told
            # A value that cannot be written, or a session that is shut down.
            self.arrived(done, None, None, error)
            return
        request = _Request(self, done, future)
        future.add_callbacks(request.succeeded, request.failed)

    def arrived(
        self, done: Done, rows: Rows | None, state: bytes | None, error: BaseException | None
    ) -> None:
        """Hand a result to the loop; from any thread."""
        self._arrived.append((done, rows, state, error))
        # Appended first, looked at afterwards; _drain lowers the flag first and takes afterwards. So a
        # result is either seen by the drain on its way, or wakes the loop once more.
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                self._arrived.clear()  # the loop is closed: nobody waits any more

    def _drain(self) -> None:
        self._waking = False
        arrived = self._arrived
        while arrived:
            done, rows, state, error = arrived.popleft()
            done(rows, state, error)
