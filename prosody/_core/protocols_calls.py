"""The interfaces of what every message needs: objects with slots, and a handler's first step."""

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
