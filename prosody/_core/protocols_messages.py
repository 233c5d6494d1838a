"""The interfaces of what every message needs: objects with slots, admission, a first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

Made = TypeVar("Made")
Given = ParamSpec("Given")


class MakerOf(Protocol):
    """Says how objects of a class are made that has slots and no ``__dict__``."""

    def __call__(
        self, example: Made, names: Sequence[str], plain: Callable[Given, Made]
    ) -> Callable[Given, Made]:
        """A function of as many values, by position, as there are ``names``.

        Compiled, what it makes is a copy of the example with these values in the slots of these names,
        and no ``__init__`` runs; the Python half is ``plain`` itself, which must make the same.

        :raises TypeError: (compiled) the class has a ``__dict__``, or no slot of such a name.
        """
        ...


class FirstStep(Protocol):
    """Begins a coroutine."""

    def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What it waits for first, as its ``send`` gives it; ``ENDED`` when it waits for nothing.

        Compiled, the end of a coroutine is no exception, which would cost more than all else of the step.

        :raises BaseException: whatever leaves the coroutine.
        """
        ...


class Admitting(Protocol):
    """The partition whose records are admitted."""

    number: int


class Admission(Protocol):
    """Takes records of one partition to its key queue, as long as they are plain.

    A plain record is new, has a value and a time, is valid JSON with a key in UTF-8, and does not have the
    mark of an echo. Whatever else comes is for the caller.
    """

    def __init__(
        self,
        partition: Admitting,
        *,
        track: Callable[[int, float], None],
        done: Callable[[int], object],
        push: Callable[[str, Any], bool],
        ready: Callable[[float], None],
        decode: Callable[[bytes], Any],
        message: Callable[..., Any],
        run: Callable[..., Any],
        mark: tuple[str, bytes],
        allows: Callable[[Any], bool] | None,
        identify: Callable[[Any], None] | None,
    ) -> None:
        """
        :param track: told of each offset and when it came.
        :param done: told of those that are not for this consumer.
        :param push: queues a run under its key; when that is ready then, ``ready`` is told.
        :param decode: JSON as Python objects.
        :param message: made by ``maker``, of topic, partition, offset, timestamp, key and payload.
        :param run: made by ``maker``, of partition, record, key, message, and the pair of the partition's
            number and the key.
        :param mark: a header.
        :param allows: whether a payload is for this consumer; None when all are.
        :param identify: told of each run whose payload is an object with an ``id``, before it is queued.
        """
        ...

    def admit(
        self, records: Sequence[Any], at: int, stop: int, room: int, before: int, now: float
    ) -> tuple[int, int]:
        """Admit records from index ``at`` on: up to ``stop``, while there is room, while they are plain.

        Answers the index of the first one not admitted, and what is left of the room. Those that are
        not for this consumer take none.

        :param before: offsets up to this one have come before.
        """
        ...
