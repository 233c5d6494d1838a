"""What is known of the keys of a partition: which have a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

from prosody.deferral.hashes import Hashes
from prosody.stores.hashing import key_hash
from prosody.stores.protocol import DeferredKind

if TYPE_CHECKING:
    from prosody.runtime import Runtime

_NOTHING: Final = 0.0
"""Remembered of a key without a queue; of one with a queue, when that was first known (wall clock)."""


FAILURES_KEPT: Final = 1_000
"""Of so many keys of a partition it is remembered how often and with what their heads failed."""


class Failure(NamedTuple):
    """How often the head of a queue has failed, and with what the last time."""

    failures: int
    error: str


class Knowledge:
    """The hash of every key that has a queue, and something exact of those used last.

    ``hashes`` has more than that only where keys share a hash, or where a key lost its queue while the
    hashes were read. So a key is remembered too that turned out to have none. What is forgotten again is
    asked once more: nothing is held back by a hash alone.
    """

    def __init__(self, cache_size: int, runtime: Runtime) -> None:
        """:param cache_size: ``defer_store_cache_size``, in keys."""
        self.hashes = {kind: Hashes() for kind in DeferredKind}
        self._exact: LRUCache[tuple[DeferredKind, str], float] = LRUCache(cache_size)
        self._failures: LRUCache[tuple[DeferredKind, str], Failure] = LRUCache(FAILURES_KEPT)
        self._runtime = runtime

    def forget(self) -> None:
        """Begin anew."""
        self._exact.clear()
        self._failures.clear()
        for hashes in self.hashes.values():
            hashes.forget()

    def holds(self, kind: DeferredKind, key: str) -> bool:
        """Whether a key has a queue, as far as is known without asking."""
        hashes = self.hashes[kind]
        if not hashes or key_hash(key) not in hashes:
            return False
        return self._exact.get((kind, key)) != _NOTHING

    def exactly(self, kind: DeferredKind, key: str) -> bool | None:
        """Whether it has; None when that must be asked."""
        since = self._exact.get((kind, key))
        return None if since is None else since != _NOTHING

    def has_queue(self, kind: DeferredKind, key: str, *, new: bool = False) -> None:
        """A key has a queue for certain. ``new``: it had none up to now."""
        exactly = self.exactly(kind, key)
        if exactly:
            return
        number = key_hash(key)
        # Where nothing exact is known, a hash that is there is taken for this key's own.
        if new or exactly is not None or number not in self.hashes[kind]:
            self.hashes[kind].put(number)
        self._exact[kind, key] = self._runtime.wall()

    def has_none(self, kind: DeferredKind, key: str) -> None:
        """A key has no queue for certain, and perhaps had none."""
        if self.exactly(kind, key):
            self.hashes[kind].take(key_hash(key))
        self._exact[kind, key] = _NOTHING
        self._failures.pop((kind, key), None)

    def lost_queue(self, kind: DeferredKind, key: str) -> None:
        """A key had a queue, and has none any more."""
        if self.exactly(kind, key) is not False:
            self.hashes[kind].take(key_hash(key))
        self._exact[kind, key] = _NOTHING
        self._failures.pop((kind, key), None)

    # For those who look: nothing is decided by what follows.

    def failed(self, kind: DeferredKind, key: str, failures: int, error: str) -> None:
        """The head of a key's queue has failed ``failures`` times; 0 when it has not."""
        self._failures[kind, key] = Failure(failures, error)

    def failure(self, kind: DeferredKind, key: str) -> Failure | None:
        """How the head of a key's queue has failed, if that is remembered."""
        return self._failures.get((kind, key))

    def known(self, kind: DeferredKind) -> list[str]:
        """The keys with a queue that are remembered by name."""
        return [key for (of, key), since in self._exact.items() if of is kind and since != _NOTHING]

    @property
    def oldest(self) -> float | None:
        """Since when, on the wall clock, the key remembered for longest has a queue."""
        return min((since for since in self._exact.values() if since != _NOTHING), default=None)
