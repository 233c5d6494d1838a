"""What members write down, one JSON object a line, and how it is read back."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple


class Writer:
    """Appends lines to a file; what is written survives SIGKILL.

    One ``write`` system call for each line: nothing waits in a buffer of the process.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, what: str, **facts: Any) -> None:
        """``at`` is CLOCK_MONOTONIC, which all processes of a machine share; seconds."""
        line = {"what": what, "at": time.monotonic(), "wall": time.time(), **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file; nothing else is left to do."""
        os.close(self._file)


class Run(NamedTuple):
    """One handler run."""

    member: str
    partition: int
    offset: int
    key: str
    seq: int
    """1, 2, 3, ... for each key."""
    began: float
    ended: float | None = None
    """None while it runs, and for ever when the process was killed."""
    cancelled: bool = False

    @property
    def finished(self) -> bool:
        """Whether the handler came to its end by itself."""
        return self.ended is not None and not self.cancelled


class Event(NamedTuple):
    """Anything else a member wrote down."""

    member: str
    what: str
    """``up``, ``stopping``, ``stopped``; ``assigned``, ``revoking``, ``revoked``, ``lost``;
    ``commit`` and then ``committed`` or ``refused``; ``told``: a stubborn handler was cancelled."""
    at: float
    offsets: dict[int, tuple[int, str]]
    """By partition: an offset and a note; those of a start, or of a commit."""

    @property
    def partitions(self) -> frozenset[int]:
        """Which partitions it is about."""
        return frozenset(self.offsets)


class History:
    """One member's file, read as it grows."""

    def __init__(self, member: str, path: Path) -> None:
        self.member = member
        self.path = path
        self.runs: list[Run] = []
        """In the order in which they began; replaced when they end."""
        self.events: list[Event] = []
        self.finished = 0
        """Runs that came to their end."""
        self.handled_of: Counter[str] = Counter()
        """The highest number handled of each key."""
        self._open: dict[tuple[int, int], int] = {}
        self._read = 0

    def read(self) -> None:
        """Take in what was written since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        # A process killed in the middle of a write leaves a line without its end.
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self.take(json.loads(line))

    def take(self, line: dict[str, Any]) -> None:
        """Take in one line."""
        what, at = line["what"], line["at"]
        if what == "start":
            place = line["partition"], line["offset"]
            self._open[place] = len(self.runs)
            self.runs.append(Run(self.member, *place, line["key"], line["seq"], at))
        elif what == "end":
            place = line["partition"], line["offset"]
            index = self._open.pop(place)
            run = self.runs[index]._replace(ended=at, cancelled=line["cancelled"])
            self.runs[index] = run
            if run.finished:
                self.finished += 1
                self.handled_of[run.key] = max(self.handled_of[run.key], run.seq)
        else:
            offsets = {int(p): (o, note) for p, (o, note) in line.get("offsets", {}).items()}
            self.events.append(Event(self.member, what, at, offsets))

    @property
    def running(self) -> int:
        """Handlers begun and not ended."""
        return len(self._open)

    def told(self, what: str, since: float = 0.0) -> list[Event]:
        """Its events of one kind, from a time on."""
        return [event for event in self.events if event.what == what and event.at >= since]
