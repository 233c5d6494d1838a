"""Every connection of a session is known, so that none of them outlives it.

The driver closes those that its pools hold. A pool that is made or mended on one thread while another one
closes it keeps a connection that nobody closes any more: a socket here and a connection of the server, for
the rest of the process. It takes a node that comes back just then.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from cassandra.io.libevreactor import LibevConnection

if TYPE_CHECKING:
    from collections.abc import MutableSet


class _Known(LibevConnection):  # type: ignore[misc]  # the driver ships no types
    opened: ClassVar[MutableSet[_Known]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened.add(self)


def connection_class() -> type[_Known]:
    """For one cluster object: it knows the connections of that one alone."""
    return type("Connection", (_Known,), {"opened": weakref.WeakSet()})


def close(cluster: Any) -> None:
    """Close all connections and end the driver's threads; blocks."""
    cluster.shutdown()
    # Its threads have ended: none is opened any more.
    for connection in tuple(cluster.connection_class.opened):
        connection.close()
