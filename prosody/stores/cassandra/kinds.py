"""The kinds of operations: how a group of each becomes one statement, and its answer their results."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from cassandra.query import BatchStatement, BatchType

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from prosody.stores.cassandra.bridge import Rows
    from prosody.stores.cassandra.statements import Prepared

GROUP_KEYS: Final = 50
"""Operations in a group; more gain nothing (measured), and cost more when one has to be repeated."""


_COUNT = struct.Struct(">i")
_UUID_BYTES = _COUNT.pack(16)
"""What stands before each value of a list."""


class Kind(Protocol):
    """One kind. Instances are compared by identity."""

    most: int
    """Operations in a group."""
    doing: str
    """What fails, for an error's text."""

    def statement(self, values: Sequence[Any]) -> tuple[Any, bytes | None]:
        """One statement for all, and where to continue."""
        ...

    def results(
        self, values: Sequence[Any], rows: Rows | None, paging_state: bytes | None
    ) -> Sequence[Any]:
        """The result of each."""
        ...


class Reads:
    """Statements by themselves; a value is (bound statement, paging state), a result (rows, state)."""

    most = 1
    doing = "reading from Cassandra"

    def statement(self, values: Sequence[Any]) -> tuple[Any, bytes | None]:
        statement: tuple[Any, bytes | None] = values[0]
        return statement

    def results(
        self, values: Sequence[Any], rows: Rows | None, paging_state: bytes | None
    ) -> Sequence[Any]:
        return [(rows or [], paging_state)] * len(values)


class Writes:
    """Bound statements that write, in unlogged batches; no results.

    A batch across partitions is several writes in one envelope, nothing more: it is not atomic, and
    nobody here relies on that. All of one batch have one timestamp, so no caller may put two writes to
    the same row into one turn.
    """

    most = GROUP_KEYS
    doing = "writing to Cassandra"

    def statement(self, values: Sequence[Any]) -> tuple[Any, bytes | None]:
        if len(values) == 1:
            return values[0], None
        batch = BatchStatement(batch_type=BatchType.UNLOGGED)
        batch.is_idempotent = True
        for bound in values:
            batch.add(bound)
        return batch, None

    def results(
        self, values: Sequence[Any], rows: Rows | None, paging_state: bytes | None
    ) -> Sequence[Any]:
        return [None] * len(values)


class Lookups:
    """Whether keys exist, by one ``IN ?``; a value is the bytes of a key, a result whether it has a row."""

    most = GROUP_KEYS
    doing = "reading from Cassandra"

    def __init__(self, prepared: Prepared) -> None:
        """
        :param prepared: ``SELECT key ... WHERE key IN ?`` on the one ``uuid`` of a partition key.
        """
        self._prepared = prepared

    def statement(self, values: Sequence[Any]) -> tuple[Any, bytes | None]:
        raw = _COUNT.pack(len(values)) + b"".join([_UUID_BYTES + value for value in values])
        # To where the first one is; the driver would take any node for an IN.
        return self._prepared.bound([raw], values[0]), None

    def results(
        self, values: Sequence[Any], rows: Rows | None, paging_state: bytes | None
    ) -> Sequence[Any]:
        if not rows:  # as good as always
            return [False] * len(values)
        found = {row[0].bytes for row in rows}
        return [value in found for value in values]


class TimesOf:
    """The rows of keys of one segment and kind, by one ``IN ?``.

    A value is a bound statement that reads one key, and the key; a result its rows, or None when all of
    them together were more than a page: then each reads its own.
    """

    most = GROUP_KEYS
    doing = "reading from Cassandra"

    def __init__(self, prepared: Prepared, segment: uuid.UUID, kind: int) -> None:
        """
        :param prepared: ``SELECT key, ... WHERE segment = ? AND key IN ? AND kind = ?``.
        """
        self._prepared = prepared
        self._segment = segment
        self._kind = kind

    def statement(self, values: Sequence[Any]) -> tuple[Any, bytes | None]:
        if len(values) == 1:
            return values[0][0], None
        bound = self._prepared.bind(self._segment, [key for _, key in values], self._kind)
        bound.routing_key = values[0][0].routing_key
        return bound, None

    def results(
        self, values: Sequence[Any], rows: Rows | None, paging_state: bytes | None
    ) -> Sequence[Any]:
        if paging_state is not None:
            return [None] * len(values)
        found: dict[str, Rows] = {key: [] for _, key in values}
        for key, *row in rows or ():
            if key in found:  # of somebody who has gone meanwhile it is not
                found[key].append(tuple(row))
        return [found[key] for _, key in values]
