"""Keeps aiokafka's log readable during an outage.

Each of aiokafka's background loops logs each of its failed attempts: ten and more lines a second for
each client while no broker can be reached. The same few texts over and over hide the lines that tell
something, the library's own among them ("connection to Kafka lost", once, and its end, once).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prosody.runtime import Runtime

_ROOT = "aiokafka"

_PERIOD_S = 60.0
"""Each text is let through once in so long."""

_TEXTS_MAX = 256
"""Texts remembered; aiokafka has about a hundred. More than that, and the oldest is forgotten."""


def calm_logs(runtime: Runtime) -> None:
    """Let each of aiokafka's messages through once a minute, with how many were left out.

    "The same" are records of one logger with one text before its arguments are put in and one type of
    exception: ten nodes that cannot be reached are one line. The next one let through ends in
    "(57 more like this in the last 60 s)".

    Whoever configures aiokafka's logging has the last word. Nothing is left out when, on the logger
    ``aiokafka``, a level is set or a handler or filter is added, now or later, nor from a logger that
    is enabled for ``DEBUG``. So ``logging.getLogger("aiokafka").setLevel(logging.INFO)`` is how to
    have every line.

    Installs one filter for the process; called again it only adds it to loggers that are new.
    """
    with _lock:
        if _user_decides():
            return
        filters = logging.getLogger(_ROOT).filters
        calm = next((f for f in filters if isinstance(f, CalmFilter)), None) or CalmFilter(runtime)
        for name, logger in list(logging.Logger.manager.loggerDict.items()):
            # A logger's filters do not see the records of the loggers below it.
            ours = name == _ROOT or name.startswith(f"{_ROOT}.")
            if ours and isinstance(logger, logging.Logger):
                logger.addFilter(calm)  # does nothing when it is there already


class CalmFilter(logging.Filter):
    """Lets one record a minute through for each logger, text and type of exception."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._monotonic = runtime.monotonic
        self._lock = threading.Lock()
        """Clients may live in several threads, each with an event loop."""
        self._texts: OrderedDict[tuple[str, str, object], tuple[float, int]] = OrderedDict()
        """When a record was let through last, and how many were left out since; oldest first."""

    def filter(self, record: logging.LogRecord) -> bool:
        if logging.getLogger(record.name).isEnabledFor(logging.DEBUG) or _user_decides():
            return True
        text = str(record.msg)
        key = (record.name, text, record.exc_info[0] if record.exc_info else None)
        now = self._monotonic()
        with self._lock:
            passed_at, left_out = self._texts.get(key, (float("-inf"), 0))
            if 0 <= now - passed_at < _PERIOD_S:
                self._texts[key] = (passed_at, left_out + 1)
                return False
            self._texts[key] = (now, 0)
            self._texts.move_to_end(key)
            if len(self._texts) > _TEXTS_MAX:
                self._texts.popitem(last=False)
        if left_out:
            # Holds no "%", so the record's arguments still fit.
            record.msg = f"{text} ({left_out} more like this in the last {now - passed_at:.0f} s)"
        return True


def _user_decides() -> bool:
    """Whether somebody has configured aiokafka's logger."""
    logger = logging.getLogger(_ROOT)
    return (
        logger.level != logging.NOTSET
        or bool(logger.handlers)
        or any(not isinstance(installed, CalmFilter) for installed in logger.filters)
    )


_lock = threading.Lock()
