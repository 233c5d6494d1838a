"""The key queue in pure Python: the twin of ``key_queue_c.pyx``, call by call and text by text."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn, Self, final

if TYPE_CHECKING:
    from collections.abc import Hashable


# Of a key with one entry, which is all that most keys ever have: an object for each would cost more
# than what is done with it.
_READY: Final = False
_IN_FLIGHT: Final = True


@final
class _Followers(deque[tuple[int, Any]]):
    """Of a key with several entries those behind the first, each with its number.

    The first one is ready or in flight.
    """

    __slots__ = ("in_flight",)

    in_flight: bool


@final
class KeyQueue:
    """FIFO per key, at most one entry of a key in flight; see ``protocols.KeyQueue``.

    A key goes through these states::

        forgotten --push--> ready --pop--> in flight --done--> forgotten
                              ^             push | (any number)
                              |                  v
                              +---- done -- in flight, more queued

    Pushes are counted: their numbers put entries of all keys in order when ``clear`` drops them. What
    is queued or in flight is the difference of two such counts. State is made in ``__new__``, so that
    there is no half-made queue to be had.
    """

    __slots__ = ("__weakref__", "_ends", "_keys", "_pops", "_pushes", "_ready")

    _ends: int
    _keys: dict[Hashable, bool | _Followers]
    _pops: int
    _pushes: int
    _ready: deque[tuple[Hashable, int, Any]]

    def __new__(cls, *arguments: Never, **named: Never) -> Self:
        if arguments or named:
            raise TypeError("KeyQueue() takes no arguments")
        self = object.__new__(cls)
        self._keys = {}
        self._ready = deque()
        self._pushes = 0
        self._pops = 0
        self._ends = 0
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(f"type '{__name__}.KeyQueue' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyQueue is live state: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return (
            f"KeyQueue(queued={self.queued}, in_flight={self.in_flight}, "
            f"ready={len(self._ready)}, keys={len(self._keys)})"
        )

    @property
    def queued(self) -> int:
        """Entries pushed and not yet popped or cleared."""
        return self._pushes - self._pops

    @property
    def in_flight(self) -> int:
        """Entries popped and not yet done."""
        return self._pops - self._ends

    @property
    def ready(self) -> int:
        """Keys that ``pop`` could serve now."""
        return len(self._ready)

    @property
    def keys(self) -> int:
        """Keys remembered: those with something queued or in flight."""
        return len(self._keys)

    def push(self, key: Hashable, entry: Any) -> bool:
        """Queue ``entry`` behind the others of ``key``. True when that made the key ready.

        :raises ValueError: when ``entry`` is None (``pop`` answers None for "nothing ready").
        :raises TypeError: when ``key`` cannot be hashed.
        """
        if entry is None:
            raise ValueError("push: entry must not be None, which pop answers for 'nothing ready'")
        state = self._keys.get(key)
        number = self._pushes
        if state is None:
            self._keys[key] = _READY
            self._ready.append((key, number, entry))
        elif state is _READY or state is _IN_FLIGHT:
            followers = _Followers()
            followers.in_flight = state is _IN_FLIGHT
            followers.append((number, entry))
            self._keys[key] = followers
        else:
            state.append((number, entry))
        self._pushes = number + 1
        return state is None

    def pop(self) -> Any:
        """Take the head of the key that has been ready longest; None when no key is ready."""
        ready = self._ready
        if not ready:
            return None
        key, _, entry = ready[0]
        state = self._keys[key]
        if state is _READY:
            self._keys[key] = _IN_FLIGHT
        elif isinstance(state, _Followers):
            state.in_flight = True
        ready.popleft()
        self._pops += 1
        return entry

    def done(self, key: Hashable) -> bool:
        """The entry of ``key`` in flight has ended. True when the key is ready again.

        :raises KeyError: when nothing of ``key`` is in flight.
        :raises TypeError: when ``key`` cannot be hashed.
        """
        state = self._keys.get(key)
        if state is _IN_FLIGHT:
            # Counted first: the key may die, and call back.
            self._ends += 1
            del self._keys[key]
            return False
        if state is None or state is _READY or not state.in_flight:
            raise KeyError(f"done: nothing of key {key!r} is in flight")
        if len(state) == 1:
            self._keys[key] = _READY
        number, entry = state.popleft()
        state.in_flight = False
        self._ready.append((key, number, entry))
        self._ends += 1
        return True

    def clear(self) -> list[Any]:
        """Drop every queued entry and return them, oldest push first. In-flight ones stay."""
        numbered = [(number, entry) for _, number, entry in self._ready]
        kept: dict[Hashable, bool | _Followers] = {}
        # Bound to names, so that no key dies (and calls back) before the counts are right again.
        remembered, ready = self._keys, self._ready
        for key, state in remembered.items():
            if state is _IN_FLIGHT:
                kept[key] = state
            elif state is not _READY:
                numbered.extend(state)
                if state.in_flight:
                    kept[key] = _IN_FLIGHT
        numbered.sort(key=_number)
        self._ready = deque()
        self._keys = kept
        self._pushes = self._pops
        del ready
        return [entry for _, entry in numbered]

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        in_flight = 0
        heads = {key: number for key, number, _ in self._ready}
        _require(len(heads) == len(self._ready), "a key is ready twice")
        numbers: set[int] = set(heads.values())
        queued = len(heads)
        for key, state in self._keys.items():
            flies = state is _IN_FLIGHT
            mine = [heads[key]] if key in heads else []
            if isinstance(state, _Followers):
                flies = state.in_flight
                _require(len(state) > 0, "an empty deque is kept")
                mine.extend(number for number, _ in state)
                queued += len(state)
            _require(flies != (key in heads), "a key is neither ready nor in flight, or both")
            _require(mine == sorted(mine), "a key's entries are out of order")
            numbers.update(mine)
            in_flight += flies
        _require(heads.keys() <= self._keys.keys(), "a forgotten key is ready")
        _require(len(numbers) == queued, "two entries have one number")
        _require(all(0 <= number < self._pushes for number in numbers), "a number out of range")
        _require(queued == self.queued, "queued does not add up")
        _require(in_flight == self.in_flight, "in_flight does not add up")


def _number(numbered: tuple[int, Any]) -> int:
    return numbered[0]


def _require(holds: bool, message: str) -> None:
    # Not an assert statement: python -O would drop that, and the check is all this is for.
    if not holds:
        raise AssertionError(f"KeyQueue: {message}")
