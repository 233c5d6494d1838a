"""The stores of timers and deferred work, with their failures counted.

Here, because who calls a store deals with its failure in a dozen places, each in its own way.
Deduplication counts for itself: its store is asked for each message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from prosody.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from prosody.consume.counts import Counts

S = TypeVar("S")


def counted(store: S, name: str, counts: Counts) -> S:
    """``store``, whose failed operations are counted as those of ``name``."""
    return _Counted(store, name, counts)  # type: ignore[return-value]  # it answers as the store does


class _Counted:
    def __init__(self, store: Any, name: str, counts: Counts) -> None:
        self._store = store
        self._name = name
        self._counts = counts

    def __getattr__(self, method: str) -> Any:
        # Asked once for each method: what is made here is found without it the next time.
        made = self._pages(method) if method == "hashes" else self._call(method)
        setattr(self, method, made)
        return made

    def _call(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def counting(*arguments: Any) -> Any:
            try:
                return await getattr(self._store, method)(*arguments)
            except StoreError:
                self._counts.store_errors[self._name] += 1
                raise

        return counting

    def _pages(self, method: str) -> Callable[..., AsyncIterator[Sequence[int]]]:
        async def counting(*arguments: Any) -> AsyncIterator[Sequence[int]]:
            try:
                async for page in getattr(self._store, method)(*arguments):
                    yield page
            except StoreError:
                self._counts.store_errors[self._name] += 1
                raise

        return counting
