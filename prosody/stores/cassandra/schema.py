"""Keyspace and tables: made, brought up to date, or only verified.

Runs on a thread of its own, with the driver's blocking calls. Several processes may do it at once. Nodes
that are told at the same time to create one table can end up with two of the same name; so everybody tells
the same node, which does one after the other, and then all nodes must agree before anybody goes on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from cassandra import InvalidRequest, Unauthorized

from prosody.errors import StoreError
from prosody.stores.cassandra.errors import store_error
from prosody.stores.cassandra.settings import CONNECT_TIMEOUT_S, SCHEMA_TIMEOUT_S
from prosody.stores.cassandra.tables import (
    MIGRATIONS,
    SCHEMA,
    TABLES,
    VERSION,
    create_keyspace,
    create_table,
    quoted,
    record_version,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.stores.cassandra.settings import CassandraSettings

_log = logging.getLogger("prosody.stores")

TRIES: Final = 20
"""How often the schema is looked at until it is complete."""
MOST_COPIES: Final = 3
UNIFIED_SINCE: Final = 5
"""The first major version of Cassandra with the unified compaction strategy."""


class SchemaKeeper:
    """The schema of one keyspace, through one session."""

    def __init__(
        self,
        cluster: Any,
        session: Any,
        settings: CassandraSettings,
        pause: Callable[[float], object],
    ) -> None:
        """
        :param pause: waits for some seconds, on this thread.
        """
        self._cluster = cluster
        self._session = session
        self._settings = settings
        self._pause = pause
        self._keyspace = settings.keyspace

    def prepare(self) -> None:
        """Make what is missing, or with ``schema_check_only`` say what it is.

        :raises StoreError: it cannot be made, or may not be.
        """
        statements = self._missing()
        if not statements:
            return
        if self._settings.schema_check_only:
            raise StoreError(
                f"keyspace {self._keyspace!r} is not as it has to be, and cassandra_schema_check_only "
                "(PROSODY_CASSANDRA_SCHEMA_CHECK_ONLY) forbids to change it. Run:\n"
                + "".join(f"{statement};\n" for statement in statements),
                retriable=False,
            )
        self._tell_about_keyspace()
        for attempt in range(TRIES):
            for statement in statements:
                self._run(statement)
            self._cluster.refresh_schema_metadata(max_schema_agreement_wait=SCHEMA_TIMEOUT_S)
            if not (statements := self._missing()):
                return
            # Others are at it too, and not all nodes know of it yet.
            self._pause(min(0.1 * 2**attempt, 2.0))
        raise StoreError(
            f"the nodes of Cassandra do not agree about the tables of keyspace {self._keyspace!r}; "
            f"missing are still: {'; '.join(statements)}",
            retriable=True,
        )

    def _missing(self) -> list[str]:
        """What has to be run, in order."""
        keyspace = self._cluster.metadata.keyspaces.get(self._keyspace)
        statements = []
        if keyspace is None:
            statements.append(create_keyspace(self._keyspace, self._replication()))
        known = {} if keyspace is None else keyspace.tables
        for table in TABLES:
            if table.name not in known:
                statements.append(
                    create_table(self._keyspace, table, unified=self._knows_unified())
                )
            elif bad := _differences(table.columns, known[table.name]):
                raise StoreError(
                    f"table {self._keyspace}.{table.name} is not ours: {bad}; set cassandra_keyspace "
                    "(PROSODY_CASSANDRA_KEYSPACE) to another keyspace",
                    retriable=False,
                )
        recorded = 0 if statements else self._recorded()
        if recorded < VERSION:
            for version in range(recorded + 1, VERSION + 1):
                ks = quoted(self._keyspace)
                statements += [s.format(ks) for s in MIGRATIONS.get(version, ())]
            statements.append(record_version(self._keyspace))
        return statements

    def _recorded(self) -> int:
        """The version that the schema has by its own record; 0 when there is none."""
        table = f"{quoted(self._keyspace)}.{SCHEMA.name}"
        query = f"SELECT version FROM {table} WHERE name = 'prosody'"  # noqa: S608  # a checked name
        try:
            row = self._session.execute(query, timeout=CONNECT_TIMEOUT_S).one()
        except Unauthorized as error:
            raise self._forbidden(error, "SELECT and MODIFY") from error
        except InvalidRequest:
            return 0  # this node does not know the table yet
        except Exception as error:
            raise store_error("reading the version of the schema", error) from error
        return int(row[0]) if row else 0

    def _run(self, statement: str) -> None:
        try:
            self._session.execute(statement, timeout=SCHEMA_TIMEOUT_S, host=self._coordinator())
        except Unauthorized as error:
            rights = "MODIFY" if statement.startswith("INSERT") else "CREATE"
            raise self._forbidden(error, rights) from error
        except InvalidRequest as error:
            # Not seen by this node yet, though another one has it: looked at again, for a while.
            _log.debug("%s: %s", statement, error)
        except Exception as error:
            if "AlreadyExists" in type(error).__name__:
                return
            raise store_error("making the schema", error) from error

    def _forbidden(self, error: Exception, rights: str) -> StoreError:
        user = self._settings.user
        who = f"cassandra_user {user!r}" if user else "an anonymous user"
        create = "".join(f"{s};\n" for s in self._statements_of_a_fresh_keyspace())
        return StoreError(
            f"{who} (PROSODY_CASSANDRA_USER) lacks the right to {rights} in keyspace "
            f"{self._keyspace!r}: {error}. Grant it, or let somebody who may run the following and set "
            f"cassandra_schema_check_only (PROSODY_CASSANDRA_SCHEMA_CHECK_ONLY):\n{create}"
            f"GRANT SELECT ON KEYSPACE {quoted(self._keyspace)} TO {user or '...'};\n"
            f"GRANT MODIFY ON KEYSPACE {quoted(self._keyspace)} TO {user or '...'};\n",
            retriable=False,
        )

    def _statements_of_a_fresh_keyspace(self) -> list[str]:
        unified = self._knows_unified()
        return [
            create_keyspace(self._keyspace, self._replication()),
            *(create_table(self._keyspace, table, unified=unified) for table in TABLES),
        ]

    def _coordinator(self) -> Any:
        """The node that everybody tells: of those that are up, the one with the lowest identifier."""
        return min(self._session.get_pools(), key=lambda pool: str(pool.host.host_id)).host

    def _hosts(self) -> list[Any]:
        """The nodes of our datacentre."""
        hosts = list(self._cluster.metadata.all_hosts())
        datacenter = self._settings.datacenter or self._coordinator().datacenter
        return [host for host in hosts if host.datacenter == datacenter] or hosts

    def _replication(self) -> dict[str, int]:
        hosts = self._hosts()
        return {str(hosts[0].datacenter): min(MOST_COPIES, len(hosts))}

    def _knows_unified(self) -> bool:
        versions = [str(host.release_version or "0") for host in self._hosts()]
        return all(int(version.partition(".")[0]) >= UNIFIED_SINCE for version in versions)

    def _tell_about_keyspace(self) -> None:
        if self._keyspace in self._cluster.metadata.keyspaces:
            return
        (datacenter, copies), *_ = self._replication().items()
        _log.warning(
            "creating keyspace %s with %d %s in datacenter %s; for more, create it beforehand or use "
            "ALTER KEYSPACE and repair",
            self._keyspace, copies, "copy" if copies == 1 else "copies", datacenter,
        )  # fmt: skip


def _differences(wanted: Any, table: Any) -> str:
    """What is wrong with a table's columns; empty when nothing is."""
    found = {name: column.cql_type for name, column in table.columns.items()}
    wrong = [
        f"column {name} is {found.get(name, 'missing')} and not {kind}"
        for name, kind in wanted.items()
        if found.get(name) != kind
    ]
    return ", ".join(wrong)
