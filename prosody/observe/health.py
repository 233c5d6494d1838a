"""What ``/readyz`` and ``/livez`` say. The first lines are the reference's, the others say why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prosody.observe.answer import Answer, Request, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALIVE = "No stalled components."
STALLED = "Consumer-level actor or one or more partitions have stalled. See logs for more details."
NOTHING_ASSIGNED = "no partitions assigned"


class Subject(Protocol):
    """Whose health is asked for: a consumer."""

    @property
    def assigned_partition_count(self) -> int: ...

    def not_ready(self) -> str | None: ...

    def stalled(self) -> Sequence[str]: ...

    def store_problems(self) -> Sequence[str]: ...

    def unreadable(self) -> Sequence[str]: ...


def readyz(subject: Subject) -> Callable[[Request], Answer]:
    """Whether it handles messages: it has partitions, can reach Kafka, and is not on its way out.

    What is wrong with a store or with one partition is told, stalls included, and makes nobody unready:
    other messages are handled all the same, and a member that takes its place would find the same.
    """

    def answer(request: Request) -> Answer:
        reason = subject.not_ready()
        count = subject.assigned_partition_count
        assigned = f"{count} partitions assigned" if count else NOTHING_ASSIGNED
        lines = [assigned]
        if reason is not None and reason != assigned:
            # The first line is true, and the one that the status goes with.
            lines.insert(0 if count else 1, reason)
        problems = [*subject.store_problems(), *subject.unreadable(), *subject.stalled()]
        status = 200 if reason is None else 503
        return told(request, status, lines[0], [*lines[1:], *problems])

    return answer


def livez(subject: Subject) -> Callable[[Request], Answer]:
    """Whether something stands still for ``stall_threshold``, so that a restart might help."""

    def answer(request: Request) -> Answer:
        stalled = subject.stalled()
        if stalled:
            return told(request, 503, STALLED, stalled)
        return told(request, 200, ALIVE)

    return answer
