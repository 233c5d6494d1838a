"""The texts of ``/readyz`` and ``/livez``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prosody.observe import health as the_module
from prosody.observe.answer import Request
from tests.mutant import mutant


class Subject:
    """A consumer that is as the test says."""

    def __init__(self, count: int = 2, **is_: Any) -> None:
        self.assigned_partition_count = count
        self._is = is_

    def not_ready(self) -> str | None:
        reason: str | None = self._is.get("not_ready")
        return reason

    def stalled(self) -> list[str]:
        return list(self._is.get("stalled", ()))

    def store_problems(self) -> list[str]:
        return list(self._is.get("stores", ()))

    def unreadable(self) -> list[str]:
        return list(self._is.get("unreadable", ()))


NONE = "no partitions assigned"
LOST = "connection to Kafka lost: no broker can be reached"
STALLED = "Consumer-level actor or one or more partitions have stalled. See logs for more details."
READY = [
    (Subject(), 200, "2 partitions assigned"),
    (Subject(1), 200, "1 partitions assigned"),
    (Subject(0, not_ready=NONE), 503, NONE),
    (Subject(0, not_ready="shutting down"), 503, f"{NONE}\nshutting down"),
    (Subject(not_ready=LOST), 503, f"{LOST}\n2 partitions assigned"),
    (Subject(stores=["Cassandra is down"]), 200, "2 partitions assigned\nCassandra is down"),
    (Subject(unreadable=["p 0: damaged"]), 200, "2 partitions assigned\np 0: damaged"),
    (Subject(stalled=["p 0"]), 200, "2 partitions assigned\np 0"),
]
LIVE = [
    (Subject(), 200, "No stalled components."),
    (Subject(0, not_ready=NONE, stores=["x"]), 200, "No stalled components."),
    (Subject(stalled=["p 0: runs", "p 1"]), 503, f"{STALLED}\np 0: runs\np 1"),
]


def check(module: Any) -> None:
    for route, cases in ((module.readyz, READY), (module.livez, LIVE)):
        for subject, status, text in cases:
            answer = route(subject)(Request())
            assert (answer.status, answer.body.decode()) == (status, text)
            summary, *details = text.split("\n")
            as_json = json.loads(route(subject)(Request(accept="application/json")).body)
            assert as_json == {"healthy": status == 200, "summary": summary, "details": details}


def test() -> None:
    check(the_module)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("200 if reason is None else 503", "200"),
        ("200 if reason is None else 503", "200 if reason is None and not problems else 503"),
        ("0 if count else 1", "0"),
        ("0 if count else 1", "1"),
        ("and reason != assigned", ""),
        ("*subject.unreadable(), ", ""),
        (", *subject.stalled()]", "]"),
        ("*subject.store_problems(), ", ""),
        ("503, STALLED, stalled", "503, STALLED"),
        ("503, STALLED, stalled", "200, STALLED, stalled"),
    ],
)
def test_mutant_is_seen(old: str, new: str) -> None:
    with pytest.raises(AssertionError):
        check(mutant("observe.health", old, new))
