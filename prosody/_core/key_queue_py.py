"""The key queue in pure Python: the twin of ``key_queue_c.pyx``, call by call and text by text."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Never, NoReturn, Self, final

if TYPE_CHECKING:
    from collections.abc import Hashable


@final
class _Key:
    """What is remembered of one key.

    ``head`` is its oldest queued entry (None: nothing queued) and ``number`` counts pushes, so that
    ``clear`` can put entries of all keys in order. ``rest`` exists only while a second entry is
    queued: most keys never have two, and a deque is forty times the size of a reference.
    """

    __slots__ = ("head", "in_flight", "key", "number", "rest")

    def __init__(self, key: Hashable, head: Any, number: int) -> None:
        self.key = key
        self.head = head
        self.number = number
        self.rest: deque[tuple[int, Any]] | None = None
        self.in_flight = False


@final
class KeyQueue:
    """FIFO per key, at most one entry of a key in flight; see ``protocols.KeyQueue``.

    A key goes through these states::

        forgotten --push--> ready --pop--> in flight --done--> forgotten
                              ^             push | (any number)
                              |                  v
                              +---- done -- in flight, more queued

    State is made in ``__new__``, so that there is no half-made queue to be had.
    """

    __slots__ = ("__weakref__", "_in_flight", "_keys", "_pushes", "_queued", "_ready")

    _in_flight: int
    _keys: dict[Hashable, _Key]
    _pushes: int
    _queued: int
    _ready: deque[_Key]

    def __new__(cls, *arguments: Never, **named: Never) -> Self:
        if arguments or named:
            raise TypeError("KeyQueue() takes no arguments")
        self = object.__new__(cls)
        self._keys = {}
        self._ready = deque()
        self._queued = 0
        self._in_flight = 0
        self._pushes = 0
        return self

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError(f"type '{__name__}.KeyQueue' is not an acceptable base type")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyQueue is live state: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return (
            f"KeyQueue(queued={self._queued}, in_flight={self._in_flight}, "
            f"ready={len(self._ready)}, keys={len(self._keys)})"
        )

    @property
    def queued(self) -> int:
        """Entries pushed and not yet popped or cleared."""
        return self._queued

    @property
    def in_flight(self) -> int:
        """Entries popped and not yet done."""
        return self._in_flight

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
        ready = state is None
        if state is None:
            state = _Key(key, entry, self._pushes)
            self._keys[key] = state
            self._ready.append(state)
        elif state.head is None:
            state.head = entry
            state.number = self._pushes
        else:
            if state.rest is None:
                state.rest = deque()
            state.rest.append((self._pushes, entry))
        self._pushes += 1
        self._queued += 1
        return ready

    def pop(self) -> Any:
        """Take the head of the key that has been ready longest; None when no key is ready."""
        if not self._ready:
            return None
        state = self._ready.popleft()
        entry = state.head
        if state.rest is None:
            state.head = None
        else:
            state.number, state.head = state.rest.popleft()
            if not state.rest:
                state.rest = None
        state.in_flight = True
        self._queued -= 1
        self._in_flight += 1
        return entry

    def done(self, key: Hashable) -> bool:
        """The entry of ``key`` in flight has ended. True when the key is ready again.

        :raises KeyError: when nothing of ``key`` is in flight.
        :raises TypeError: when ``key`` cannot be hashed.
        """
        state = self._keys.get(key)
        if state is None or not state.in_flight:
            raise KeyError(f"done: nothing of key {key!r} is in flight")
        ready = state.head is not None
        if ready:
            self._ready.append(state)
        else:
            del self._keys[state.key]
        state.in_flight = False
        self._in_flight -= 1
        return ready

    def clear(self) -> list[Any]:
        """Drop every queued entry and return them, oldest push first. In-flight ones stay."""
        numbered: list[tuple[int, Any]] = []
        kept: dict[Hashable, _Key] = {}
        # Bound to a name, so that no key dies (and calls back) before the counts are right again.
        remembered = self._keys
        for state in remembered.values():
            if state.head is not None:
                numbered.append((state.number, state.head))
                if state.rest is not None:
                    numbered.extend(state.rest)
            if state.in_flight:
                kept[state.key] = state
        numbered.sort(key=_number)
        entries = [entry for _, entry in numbered]
        self._ready.clear()
        self._keys = kept
        self._queued = 0
        for state in kept.values():
            state.head = None
            state.rest = None
        return entries

    def check_valid(self) -> None:
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        queued = in_flight = ready = 0
        numbers: set[int] = set()
        for key, state in self._keys.items():
            _require(state.key is key, "a key is filed under another")
            _require(state.head is not None or state.in_flight, "an idle key is remembered")
            _require(state.rest is None or len(state.rest) > 0, "an empty deque is kept")
            _require(state.rest is None or state.head is not None, "a deque without a head")
            mine = [] if state.head is None else [state.number]
            mine.extend(number for number, _ in state.rest or ())
            _require(mine == sorted(mine), "a key's entries are out of order")
            numbers.update(mine)
            queued += len(mine)
            in_flight += state.in_flight
            ready += state.head is not None and not state.in_flight
        _require(len(numbers) == queued, "two entries have one number")
        _require(all(0 <= number < self._pushes for number in numbers), "a number out of range")
        _require(queued == self._queued, "queued does not add up")
        _require(in_flight == self._in_flight, "in_flight does not add up")
        _require(ready == len(self._ready), "ready does not add up")
        for state in self._ready:
            _require(self._keys.get(state.key) is state, "a forgotten key is ready")
            _require(state.head is not None, "a ready key has nothing queued")
            _require(not state.in_flight, "a ready key is in flight")
        _require(len({id(state) for state in self._ready}) == ready, "a key is ready twice")


def _number(numbered: tuple[int, Any]) -> int:
    return numbered[0]


def _require(holds: bool, message: str) -> None:
    # Not an assert statement: python -O would drop that, and the check is all this is for.
    if not holds:
        raise AssertionError(f"KeyQueue: {message}")
