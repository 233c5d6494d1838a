"""Prepared statements, bound faster than the driver does it.

Binding happens for every operation. The driver looks up encryption and names for each value, which takes
longer than all the rest of an operation; here the types are looked up once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from cassandra.query import UNSET_VALUE, BoundStatement

from prosody.stores.cassandra.errors import store_error

if TYPE_CHECKING:
    from collections.abc import Sequence

_LENGTH = struct.Struct(">H")


class Bound(BoundStatement):  # type: ignore[misc]  # the driver has no types
    """A statement with its values. What the driver's class looks up each time stands in the class."""

    retry_policy = None
    consistency_level = None
    serial_consistency_level = None
    custom_payload = None
    is_idempotent = True
    routing_key: bytes | None = None

    def __init__(
        self, prepared: Any, keyspace: str, values: list[Any], routing_key: bytes | None
    ) -> None:
        self.prepared_statement = prepared
        self.keyspace = keyspace
        self.values = values
        self.raw_values = values
        self.routing_key = routing_key


class Prepared:
    """One prepared statement."""

    def __init__(self, name: str, prepared: Any) -> None:
        self.name = name
        self._prepared = prepared
        self._version = prepared.protocol_version
        self._keyspace: str = prepared.column_metadata[0].keyspace_name
        self._types = [column.type for column in prepared.column_metadata]
        self._key_at: Sequence[int] = prepared.routing_key_indexes or ()

    def bind(self, *values: Any) -> Bound:
        """The statement with these values, by position.

        :raises StoreError: one of them cannot be written.
        """
        version = self._version
        try:
            raw = [
                value if value is UNSET_VALUE else kind.serialize(value, version)
                for kind, value in zip(self._types, values, strict=True)
            ]
        except (TypeError, ValueError, OverflowError, AttributeError, struct.error) as error:
            raise store_error(f"Cassandra cannot take a value ({self.name})", error) from error
        return Bound(self._prepared, self._keyspace, raw, self._routing_key(raw))

    def bound(self, raw: list[Any], routing_key: bytes) -> Bound:
        """The statement with values that are written already, as Cassandra reads them."""
        return Bound(self._prepared, self._keyspace, raw, routing_key)

    def _routing_key(self, raw: list[Any]) -> bytes | None:
        if len(self._key_at) == 1:
            key: bytes = raw[self._key_at[0]]
            return key
        if not self._key_at:
            return None
        parts = [raw[at] for at in self._key_at]
        return b"".join(b"%b%b\0" % (_LENGTH.pack(len(part)), part) for part in parts)
