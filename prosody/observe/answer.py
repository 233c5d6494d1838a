"""What is asked over HTTP and what is answered: plain values, and their two forms, text and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """A GET request."""

    query: Mapping[str, str] = field(default_factory=dict)
    """Of a parameter that is given several times the last value."""
    accept: str = ""
    """The ``Accept`` header."""

    @property
    def wants_json(self) -> bool:
        """Whether JSON is named; who takes anything gets text."""
        return any(part.split(";")[0].strip().lower() == _JSON for part in self.accept.split(","))


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, and a body that is complete."""

    status: int
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()


Route: TypeAlias = "Callable[[Request], Answer | asyncio.Future[Answer]]"
"""Answers from memory. At once, if that is quick, as nothing else runs in the event loop meanwhile; or else
with a future, from a thread."""


def told(request: Request, status: int, summary: str, details: Sequence[str] = ()) -> Answer:
    """A sentence, and what explains it, a line each; in JSON with whether all is well."""
    if request.wants_json:
        return document(
            {"healthy": status < 400, "summary": summary, "details": list(details)}, status
        )
    # A key may hold line breaks, and each line is to say one thing; and no bytes that no text has.
    lines = [" ".join(line.splitlines()) for line in (summary, *details)]
    return Answer(status, "\n".join(lines).encode("utf-8", "backslashreplace"))


def document(value: Any, status: int = 200) -> Answer:
    """JSON, in lines that people can read."""
    return Answer(status, json.dumps(value, indent=2).encode(), _JSON)
