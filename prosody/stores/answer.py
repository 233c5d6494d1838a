"""A future that tells its listener at once, not in a turn of the event loop of its own.

A store is asked twice for every message with an id. Of what it costs to wait for that, the callbacks that
asyncio would schedule, each by itself, were the largest part.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_set_result = asyncio.Future.set_result
_set_exception = asyncio.Future.set_exception
_cancel = asyncio.Future.cancel


class StoreAnswer(asyncio.Future[T]):
    """Of a store. Made by :meth:`open`, or by whoever sets ``listener``, which is not set by itself."""

    __slots__ = ("about", "listener")

    about: Any
    """Whatever the listener wants to know it by, so that none has to be made for each answer; let go of
    when the listener has been told."""
    listener: Callable[[StoreAnswer[T]], None] | None
    """Called once, within the call that ends this, in whichever way: it must not raise, and be short.
    There is one; whoever sets another knows that the earlier one is of no more use."""

    @classmethod
    def open(cls) -> Self:
        """One that has not ended, of the running event loop."""
        answer = cls(loop=asyncio.get_running_loop())
        answer.listener = None
        return answer

    def set_result(self, result: T) -> None:
        _set_result(self, result)
        if self.listener is not None:
            self._tell()

    def set_exception(self, exception: type | BaseException) -> None:
        _set_exception(self, exception)
        if self.listener is not None:
            self._tell()

    def cancel(self, msg: Any | None = None) -> bool:
        ended = _cancel(self, msg)
        if ended and self.listener is not None:
            self._tell()
        return ended

    def _tell(self) -> None:
        listener, self.listener = self.listener, None
        assert listener is not None, "looked at by the caller"
        try:
            listener(self)
        except Exception as error:  # noqa: BLE001
            # A fault of ours. Others of the same group are still to be ended, so it is told as asyncio
            # tells what a callback raises.
            self.get_loop().call_exception_handler(
                {"message": f"internal fault in {listener!r}", "exception": error, "future": self}
            )
        self.about = None  # it may hold on to this
