"""How a run ended, and which exceptions mean what."""

from __future__ import annotations

import enum

from prosody.errors import EventHandlerError


class Kind(enum.Enum):
    """What is to become of an event after a run."""

    SUCCESS = "success"
    """Finished."""
    TRANSIENT = "transient"
    """Failed; retrying may help."""
    PERMANENT = "permanent"
    """Failed; retrying cannot help. Finished."""
    DEFERRED = "deferred"
    """Stored for later; the offset is finished, the event is not."""
    ABANDONED = "abandoned"
    """Shutdown came first: left uncommitted, for the next owner of the partition."""


class Outcome:
    """A kind, and the error that led to it. Immutable by convention; compare ``kind`` with ``is``."""

    __slots__ = ("error", "kind")

    def __init__(self, kind: Kind, error: BaseException | None = None) -> None:
        self.kind = kind
        self.error = error

    def __repr__(self) -> str:
        return f"Outcome({self.kind.value}{f', {self.error!r}' if self.error else ''})"


class Refusal(Outcome):
    """The handler was not called, because it is not this event's time. Transient, and no attempt."""

    __slots__ = ("until",)

    def __init__(self, error: BaseException, until: float) -> None:
        """:param until: when the event may come again, on the monotonic clock."""
        super().__init__(Kind.TRANSIENT, error)
        self.until = until


SUCCESS = Outcome(Kind.SUCCESS)
ABANDONED = Outcome(Kind.ABANDONED)


def outcome_of(error: BaseException) -> Outcome:
    """What an exception out of a handler means: transient, unless it says it is permanent.

    An error says so by an attribute ``is_permanent`` that is true, as
    :class:`~prosody.errors.PermanentError` does and as errors of the reference package do.
    """
    try:
        permanent = getattr(error, "is_permanent", False)
    except Exception:  # noqa: BLE001
        permanent = False  # an error that cannot say what it is: a retry is the safe reading
    if permanent is True or (permanent and isinstance(error, EventHandlerError)):
        return Outcome(Kind.PERMANENT, error)
    return Outcome(Kind.TRANSIENT, error)
