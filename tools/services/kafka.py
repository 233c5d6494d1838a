"""A real Apache Kafka: one KRaft node that is broker and controller."""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from tools.services.errors import ServiceError
from tools.services.ports import free_port
from tools.services.process import START_TIMEOUT_S, Server
from tools.services.wire import receive_exactly

_FORMAT_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 2.0
_METADATA = 3
_METADATA_VERSION = 1  # the first whose answer names the controller
# No log of the JVM's counters in the shared temporary folder; an out-of-memory server ends and says so.
_JVM = ("-Djava.net.preferIPv4Stack=true", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError")
_LOGGER = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)


class KafkaServer(Server):
    """A Kafka broker on this machine.

    Args:
        properties: lines of ``server.properties`` that replace or extend the usual ones.
        jvm_options: passed to Java, by default a heap of 256 to 512 MB.
        start_timeout_s: seconds from launch to the first answer.
    """

    name = "kafka"
    title = "Apache Kafka"
    variable = "PROSODY_TEST_KAFKA"

    def __init__(
        self,
        *,
        properties: Mapping[str, str | int | bool] | None = None,
        jvm_options: tuple[str, ...] = ("-Xms256m", "-Xmx512m"),
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        super().__init__(start_timeout_s=start_timeout_s)
        self.controller_port = free_port()
        self.jvm_options = jvm_options
        self._overrides = dict(properties or {})

    def properties(self, folder: Path) -> dict[str, str | int | bool]:
        """What stands in ``server.properties`` of a server in ``folder``."""
        listener = f"PLAINTEXT://{self.address}"
        usual: dict[str, str | int | bool] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@localhost:{self.controller_port}",
            "listeners": f"{listener},CONTROLLER://localhost:{self.controller_port}",
            "advertised.listeners": listener,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(folder / "data"),
            # A topic with a wrong name must fail a test, not appear.
            "auto.create.topics.enable": False,
            "offsets.topic.replication.factor": 1,
            # The default of 50 makes the first join of a group slow.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 2,
            # Otherwise each first join of a group waits 3 s for others.
            "group.initial.rebalance.delay.ms": 0,
            # Tests that kill members use short sessions.
            "group.min.session.timeout.ms": 1000,
            # After a crash the node is let back in once its former session has passed: by default 9 s.
            "broker.session.timeout.ms": 4000,
            "broker.heartbeat.interval.ms": 500,
        }
        return usual | self._overrides

    def _prepare(self, folder: Path, java: str, jars: Path) -> None:
        (folder / "tmp").mkdir()
        lines = []
        for key, value in self.properties(folder).items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            # In a properties file a backslash begins an escape.
            lines.append(f"{key}={text}".replace("\\", "\\\\"))
        config = folder / "server.properties"
        config.write_text("\n".join(lines) + "\n")
        with (folder / "server.log").open("ab") as log:
            code = subprocess.run(
                [
                    *(java, *_JVM, *_LOGGER, "-cp", f"{jars}/*", "kafka.tools.StorageTool"),
                    *("format", "-t", _cluster_id(), "-c", str(config)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_FORMAT_TIMEOUT_S,
                check=False,
            ).returncode
        if code != 0:
            raise ServiceError(
                f"{self.title}: formatting the data folder failed (exit code {code}):\n{self.log_tail()}"
            )

    def _command(self, folder: Path, java: str, jars: Path) -> list[str]:
        return [
            *(java, *self.jvm_options, *_JVM, *_LOGGER, f"-Djava.io.tmpdir={folder / 'tmp'}"),
            *("-cp", f"{jars}/*", "kafka.Kafka", str(folder / "server.properties")),
        ]

    def answers(self) -> bool:
        """Whether the node lists itself as a live broker and knows a controller."""
        return kafka_answers(self.host, self.port)


def kafka_answers(host: str, port: int) -> bool:
    """Ask a broker for the cluster's metadata; True when a broker is live and a controller is known.

    An open port is not enough: the listener opens before the node is part of the cluster.
    """
    client = b"prosody-services"
    # No topics asked for. Header version 1: api, version, correlation id, client id.
    body = struct.pack(">hhih", _METADATA, _METADATA_VERSION, 1, len(client)) + client
    body += struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", receive_exactly(connection, 4))
            answer = receive_exactly(connection, size)
        return _has_controller(answer)
    except (OSError, struct.error):
        # Refused, cut off or too slow: it does not answer, which is what was asked.
        return False


def _has_controller(answer: bytes) -> bool:
    _correlation, brokers = struct.unpack_from(">ii", answer, 0)
    at = 8
    for _ in range(brokers):
        at += 4  # node id
        (length,) = struct.unpack_from(">h", answer, at)
        at += 2 + length + 4  # host, port
        (length,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(0, length)  # rack; -1 when there is none
    (controller,) = struct.unpack_from(">i", answer, at)
    return bool(brokers > 0 and controller >= 0)


def _cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # The tool would take it for an option.
        if not text.startswith("-"):
            return text
