"""A real Apache Cassandra: one node, no passwords."""

from __future__ import annotations

import json
import shutil
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.services.errors import ServiceError
from tools.services.ports import free_port
from tools.services.process import START_TIMEOUT_S, Server
from tools.services.wire import receive_exactly

_ANSWER_TIMEOUT_S = 5.0
_TEMPLATES = Path(__file__).with_name("templates")
_DATA_FOLDERS = ("data", "commitlog", "saved_caches", "hints", "cdc_raw")
_VERSION = 4
_STARTUP, _READY, _AUTHENTICATE, _QUERY, _RESULT = 0x01, 0x02, 0x03, 0x07, 0x08
_LOCAL_ONE = 0x0A

# What Java 17 hides and Cassandra reaches into.
_EXPORTS = {
    "java.base": ("jdk.internal.misc", "jdk.internal.ref", "sun.nio.ch"),
    "java.management.rmi": ("com.sun.jmx.remote.internal.rmi",),
    "java.rmi": ("sun.rmi.registry", "sun.rmi.server"),
    "java.sql": ("java.sql",),
}
_OPENS = {
    "java.base": (
        *("java.io", "java.lang", "java.lang.module", "java.lang.reflect", "java.net", "java.nio"),
        *("java.util", "java.util.concurrent", "java.util.concurrent.atomic"),
        *("jdk.internal.loader", "jdk.internal.math", "jdk.internal.module", "jdk.internal.ref"),
        *("jdk.internal.reflect", "jdk.internal.util.jar", "sun.nio.ch"),
    ),
    "jdk.management": ("com.sun.management.internal",),
}


class CassandraServer(Server):
    """A Cassandra node on this machine.

    Args:
        settings: entries of ``cassandra.yaml`` that replace or extend the usual ones.
        jvm_options: passed to Java, by default a heap of 512 MB.
        start_timeout_s: seconds from launch to the first answer.
    """

    name = "cassandra"
    title = "Apache Cassandra"
    variable = "PROSODY_TEST_CASSANDRA"
    java_highest = 17  # later ones have no security manager, which it installs

    def __init__(
        self,
        *,
        settings: Mapping[str, Any] | None = None,
        jvm_options: tuple[str, ...] = ("-Xms512m", "-Xmx512m"),
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        super().__init__(start_timeout_s=start_timeout_s)
        self.storage_port = free_port()
        self.jvm_options = jvm_options
        self._overrides = dict(settings or {})

    def settings(self, folder: Path) -> dict[str, Any]:
        """What stands in ``cassandra.yaml`` of a server in ``folder``."""
        seeds = {"seeds": f"127.0.0.1:{self.storage_port}"}
        usual: dict[str, Any] = {
            "cluster_name": "prosody",
            "num_tokens": 1,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "authenticator": "AllowAllAuthenticator",
            "authorizer": "AllowAllAuthorizer",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [seeds],
                }
            ],
            "listen_address": "127.0.0.1",
            "rpc_address": "127.0.0.1",
            "native_transport_port": self.port,
            "storage_port": self.storage_port,
            "commitlog_sync": "periodic",
            "commitlog_sync_period": "10000ms",
            # A drop or truncate would otherwise copy the table first.
            "auto_snapshot": False,
            "data_file_directories": [str(folder / "data")],
            "commitlog_directory": str(folder / "commitlog"),
            "saved_caches_directory": str(folder / "saved_caches"),
            "hints_directory": str(folder / "hints"),
            "cdc_raw_directory": str(folder / "cdc_raw"),
        }
        return usual | self._overrides

    def _prepare(self, folder: Path, java: str, jars: Path) -> None:
        for name in (*_DATA_FOLDERS, "tmp"):
            (folder / name).mkdir()
        # Every JSON text is YAML, so no YAML library is needed.
        (folder / "cassandra.yaml").write_text(json.dumps(self.settings(folder), indent=2) + "\n")
        shutil.copyfile(_TEMPLATES / "logback.xml", folder / "logback.xml")

    def _command(self, folder: Path, java: str, jars: Path) -> list[str]:
        agents = sorted(jars.glob("jamm-*.jar"))
        if not agents:
            raise ServiceError(f"no jamm-*.jar in {jars}; remove that folder, it is fetched again")
        return [
            *(java, *self.jvm_options, "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"),
            f"-javaagent:{agents[0]}",
            "-Djava.net.preferIPv4Stack=true",
            f"-Djava.io.tmpdir={folder / 'tmp'}",
            "-Djdk.attach.allowAttachSelf=true",
            f"-Dlogback.configurationFile={folder / 'logback.xml'}",
            f"-Dcassandra.config={(folder / 'cassandra.yaml').as_uri()}",
            f"-Dcassandra.storagedir={folder}",
            "-Dcassandra-foreground=yes",
            # One node: nobody to wait for.
            "-Dcassandra.ring_delay_ms=0",
            "-Dcassandra.skip_wait_for_gossip_to_settle=0",
            "-Dcassandra.superuser_setup_delay_ms=0",
            *_module_flags("--add-exports", _EXPORTS),
            *_module_flags("--add-opens", _OPENS),
            *("-cp", f"{folder}:{jars}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]

    def answers(self) -> bool:
        """Whether the node runs a query."""
        return cassandra_answers(self.host, self.port)


def cassandra_answers(host: str, port: int) -> bool:
    """Run one query over the native protocol; True when a result comes back.

    A node that asks for a password answers the first frame with another one: that counts as running.
    """
    options = struct.pack(">H", 1) + _text("CQL_VERSION") + _text("3.0.0")
    query = b"SELECT release_version FROM system.local"
    statement = struct.pack(">i", len(query)) + query + struct.pack(">HB", _LOCAL_ONE, 0)
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_TIMEOUT_S) as connection:
            answer = _exchange(connection, _STARTUP, options)
            if answer != _READY:
                return answer == _AUTHENTICATE
            return _exchange(connection, _QUERY, statement) == _RESULT
    except (OSError, struct.error):
        # Refused, cut off or too slow: it does not answer, which is what was asked.
        return False


def _exchange(connection: socket.socket, opcode: int, body: bytes) -> int:
    connection.sendall(struct.pack(">BBhBi", _VERSION, 0, 0, opcode, len(body)) + body)
    _version, _flags, _stream, answer, size = struct.unpack(
        ">BBhBi", receive_exactly(connection, 9)
    )
    receive_exactly(connection, size)
    return int(answer)


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def _module_flags(option: str, packages: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [
        f"{option}={module}/{package}=ALL-UNNAMED"
        for module, names in packages.items()
        for package in names
    ]
