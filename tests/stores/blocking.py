"""A guard that sees blocking calls on the event loop's thread, however short they turn out to be.

A limit in seconds would depend on the machine's load. What the driver blocks on is known: conditions and
events (results, free streams, pools), sleeps, name look-ups and connects.

Two waits are none: one with a time-out of zero only asks, and the one for a new thread to begin is for
nobody's answer. A pool of threads does both when it is given work and has no idle thread: asyncio's own
(``asyncio.to_thread``) as well as the driver's.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCKING = (
    (threading.Condition, "wait"),
    (time, "sleep"),
    (socket, "getaddrinfo"),
    (socket.socket, "connect"),
)
_CALLERS = 12
"""How many frames are shown: from the loop's turn down to the driver's pool there are about ten."""


@contextlib.contextmanager
def no_blocking_call() -> Iterator[None]:
    """Fail at the end when this thread, which runs the loop, was about to block."""
    thread = threading.current_thread()
    seen: list[str] = []
    starting = False

    def watched(name: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            waits = name != "Condition.wait" or not _only_asks(*arguments, **options)
            if waits and not starting and threading.current_thread() is thread:
                callers = traceback.format_stack(limit=_CALLERS + 1)[:-1]
                seen.append(f"{name}\n{''.join(callers)}")
            return original(*arguments, **options)

        return call

    start = threading.Thread.start

    def watched_start(self: threading.Thread) -> None:
        nonlocal starting
        if threading.current_thread() is not thread:
            start(self)
            return
        starting = True
        try:
            start(self)
        finally:
            starting = False

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(threading.Thread, "start", watched_start))
        for owner, name in _BLOCKING:
            call = watched(f"{owner.__name__}.{name}", getattr(owner, name))
            patches.enter_context(mock.patch.object(owner, name, call))
        yield
    assert not seen, "blocking calls on the event loop:\n" + "\n".join(seen)


def _only_asks(_: threading.Condition, timeout: float | None = None) -> bool:
    return timeout is not None and timeout <= 0
