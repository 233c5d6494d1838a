"""Every error the library raises, and the two a handler raises.

::

    Exception
     +-- ProsodyError (RuntimeError)        whoever catches this catches all below
     |    +-- ConfigurationError (ValueError)      the caller: an option or variable is wrong
     |    |    +-- ConfigurationTypeError (TypeError)   ... because a value has the wrong type
     |    +-- ConsumerStateError            the caller: not possible in the consumer's present state
     |    |    +-- ClientClosedError        the client was shut down
     |    +-- HandlerTypeError (TypeError)  the caller: the object given to subscribe is no handler
     |    +-- ForkError                     the caller: a client was carried over os.fork()
     |    +-- PayloadError (TypeError)      the caller: a payload that is not JSON
     |    +-- TopicsNotFoundError           the caller or the cluster: topics that do not exist
     |    +-- ContextError                  the caller: a timer call that is not possible (any more)
     |    +-- SendError                     the broker: a record was not acknowledged
     |    |    +-- SendTimeoutError (TimeoutError)     ... within send_timeout
     |    |    +-- RecordTooLargeError      ... because it is larger than the broker takes
     |    +-- BrokerError                   the broker: a call failed; retriable says whether to try again
     |    |    +-- CommitMetadataTooLargeError    ... because the note of a commit is too long for it
     |    +-- StoreError                    the store: a call failed; retriable says whether to try again
     |    |    +-- StoreDownError           ... at once, because the store counts as down
     |    +-- MonopolizationError           the library: a key uses too much handler time; seen in logs only
     +-- EventHandlerError (abstract)       raised by handlers
          +-- TransientError                retrying may help (what every other exception means too)
          +-- PermanentError                retrying cannot help

Errors of lower libraries are mapped to these in one table each: ``broker/kafka/errors.py`` and
``stores/cassandra/errors.py``.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

P = ParamSpec("P")
T = TypeVar("T")


class ProsodyError(RuntimeError):
    """Base of everything the library itself raises.

    A ``RuntimeError``, because programs written for the reference package catch that.
    """


class ConfigurationError(ProsodyError, ValueError):
    """One or more options are wrong. ``problems`` lists each, with its option and variable."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            problems[0]
            if len(problems) == 1
            else f"{len(problems)} options are wrong:\n" + "\n".join(f"  - {p}" for p in problems)
        )


class ConfigurationTypeError(ConfigurationError, TypeError):
    """A :class:`ConfigurationError` in which at least one value has the wrong type."""


class ConsumerStateError(ProsodyError):
    """The call is not possible in the consumer's present state."""


class ClientClosedError(ConsumerStateError):
    """The client was shut down; make a new one."""


class HandlerTypeError(ProsodyError, TypeError):
    """The object given to ``subscribe`` cannot handle events."""


class ForkError(ProsodyError):
    """The client was made before ``os.fork()`` and is used in the child."""


class PayloadError(ProsodyError, TypeError):
    """The payload cannot be written as JSON, or a key is not text."""


class TopicsNotFoundError(ProsodyError):
    """Topics that do not exist; ``topics`` names them all, sorted."""

    def __init__(self, topics: Sequence[str], hint: str = "") -> None:
        self.topics = tuple(sorted(set(topics)))
        super().__init__(f"topics not found: {', '.join(self.topics)}{hint}")


class ContextError(ProsodyError):
    """A context call that is not possible, or no longer possible."""


class SendError(ProsodyError):
    """The broker did not take a record. The text says which topic and key, and why.

    ``retriable`` is true when sending again may succeed.
    """

    def __init__(self, message: str, *, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable


class SendTimeoutError(SendError, TimeoutError):
    """The record was not acknowledged within ``send_timeout``; it may still be delivered."""


class RecordTooLargeError(SendError):
    """The record is larger than the client, the broker or the topic takes; it never will be taken."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retriable=False)


class BrokerError(ProsodyError):
    """A call to the broker failed.

    ``retriable`` is true when the same call may succeed later.
    """

    def __init__(self, message: str, *, retriable: bool) -> None:
        super().__init__(message)
        self.retriable = retriable


class CommitMetadataTooLargeError(BrokerError):
    """The note of a commit is longer than this broker takes (its ``offset.metadata.max.bytes``)."""


class StoreError(ProsodyError):
    """A call to the store failed. What it was to write may have been written all the same.

    ``retriable`` is true when the same call may succeed later.
    """

    def __init__(self, message: str, *, retriable: bool) -> None:
        super().__init__(message)
        self.retriable = retriable


class StoreDownError(StoreError):
    """The store counts as down: nothing was tried. It is looked at again in the background."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retriable=True)


class MonopolizationError(ProsodyError):
    """A key has used too much of the handlers' time, and is held back until that is over.

    It is never raised to a program: the log shows it as the reason why an event waits.
    """


class EventHandlerError(Exception, ABC):
    """Base of the errors by which a handler says how its failure is to be treated."""

    @property
    @abstractmethod
    def is_permanent(self) -> bool:
        """Whether retrying cannot help."""


class TransientError(EventHandlerError):
    """The failure may pass: the event is tried again, as the mode provides."""

    is_permanent = False


class PermanentError(EventHandlerError):
    """The failure will not pass: the event is never tried again."""

    is_permanent = True


def _reraise_as(
    error_class: type[EventHandlerError], exceptions: tuple[type[BaseException], ...]
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    named: tuple[Any, ...] = exceptions
    for listed in named:
        if not (isinstance(listed, type) and issubclass(listed, BaseException)):
            name = error_class.__name__.removesuffix("Error").lower()
            raise TypeError(f"@{name} takes exception classes, got {listed!r}")

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                try:
                    return await function(*args, **kwargs)
                except exceptions as error:
                    raise error_class(str(error)) from error

            return run_async  # type: ignore[return-value]  # the coroutine function's own type is T

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except exceptions as error:
                raise error_class(str(error)) from error

        return run

    return decorate


def permanent(*exceptions: type[BaseException]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a handler method: the listed exceptions become :class:`PermanentError`.

    :raises TypeError: when something listed is no exception class.
    """
    return _reraise_as(PermanentError, exceptions)


def transient(*exceptions: type[BaseException]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a handler method: the listed exceptions become :class:`TransientError`.

    :raises TypeError: when something listed is no exception class.
    """
    return _reraise_as(TransientError, exceptions)
