"""Keeps log lines out of the live display, and what they said for afterwards."""

from __future__ import annotations

import logging
from collections import deque
from types import TracebackType
from typing import Self

_KEPT_MAX = 20


class LogWatch(logging.Handler):
    """Collects warnings and errors of the whole program while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.warnings = 0
        self.errors = 0
        """Of the library, at ERROR or above: in this run there is no reason for one."""
        self.kept: deque[str] = deque(maxlen=_KEPT_MAX)
        """The last errors, of the library or others, with tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR:
            self.warnings += 1
            return
        if record.name.split(".")[0] == "prosody":
            self.errors += 1
        self.kept.append(self.format(record))

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger().removeHandler(self)
