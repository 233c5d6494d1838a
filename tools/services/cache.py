"""The per-user cache folder, and a lock between processes that share it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.services.errors import ServiceError

_LOCK_POLL_S = 0.1


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/prosody-asyncio``, or ``~/.cache/prosody-asyncio``; made when missing."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "prosody-asyncio"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock file ``path`` for the block; the kernel frees it when the process dies.

    Raises:
        ServiceError: another process held it for ``timeout_s`` seconds.
    """
    # Here and not above: Windows has none, and there the tests import this package for its names.
    import fcntl

    deadline = time.monotonic() + timeout_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Another process holds it: wait for it, but not for ever.
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"another process has held {path} for {timeout_s:.0f} s; "
                        "if none is fetching or starting servers, end the one that holds it"
                    ) from None
                time.sleep(_LOCK_POLL_S)
        yield
