"""A guard that sees blocking calls on the event loop's thread, however short they turn out to be.

A limit in seconds would depend on the machine's load. What the driver blocks on is known: conditions and
events (results, free streams, pools), sleeps, name look-ups and connects.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCKING = (
    (threading.Condition, "wait"),
    (time, "sleep"),
    (socket, "getaddrinfo"),
    (socket.socket, "connect"),
)


@contextlib.contextmanager
def no_blocking_call() -> Iterator[None]:
    """Fail at the end when this thread, which runs the loop, was about to block."""
    thread = threading.current_thread()
    seen: list[str] = []
    originals = [(owner, name, getattr(owner, name)) for owner, name in _BLOCKING]

    def watched(name: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is thread:
                seen.append(name)
            return original(*arguments, **options)

        return call

    for owner, name, original in originals:
        setattr(owner, name, watched(f"{owner.__name__}.{name}", original))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
    assert not seen, f"blocking calls on the event loop: {seen}"
