"""The shape of a layer, and how layers become a stack.

A stack is a list of layers, outermost first. Each layer is given the next one and returns a function of
the same shape: it takes a :class:`~prosody.model.run.Run` and answers, once awaited, an
:class:`~prosody.model.outcome.Outcome`. One that only looks before the call hands on what the next one
returned, which spares a coroutine for each message. A layer does not raise for what a handler did; an
exception out of a stack is a fault of the library's own. ``asyncio.CancelledError`` out of a stack means
that the lane's task itself was cancelled from outside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from prosody.model.outcome import Outcome
from prosody.model.run import Run

Call: TypeAlias = Callable[[Run], Awaitable[Outcome]]

Begin: TypeAlias = Callable[[Run], Outcome | Awaitable[Outcome]]
"""A call that answers ``SUCCESS`` itself, nothing else, when it need not wait for anything."""


async def whole(begin: Begin, run: Run) -> Outcome:
    """Run a call to its end."""
    begun = begin(run)
    return begun if isinstance(begun, Outcome) else await begun


class Layer(Protocol):
    """One job around the rest of the stack."""

    def wrap(self, inner: Call) -> Call:
        """Remember ``inner`` and return the call that does this layer's job around it."""
        ...


def compose(layers: Sequence[Layer], handler: Call) -> Call:
    """Put ``layers`` around ``handler``; the first one is the outermost."""
    call = handler
    for layer in reversed(layers):
        call = layer.wrap(call)
    return call
