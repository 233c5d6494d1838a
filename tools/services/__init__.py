"""Real Apache Kafka and Apache Cassandra for tests, demos and benchmarks, started without containers.

``python -m tools.services --help`` says what the command line offers; ``KafkaServer`` and
``CassandraServer`` are the same from Python. Standard library only; Linux and macOS. Needs Java 17
and Maven.
"""

from __future__ import annotations

from tools.services.cassandra import CassandraServer
from tools.services.errors import MissingToolError, ServiceError
from tools.services.kafka import KafkaServer
from tools.services.ports import free_port
from tools.services.process import QUICK_JVM, Server

# In the order in which they are best launched: the slower one first.
SERVERS: dict[str, type[Server]] = {"cassandra": CassandraServer, "kafka": KafkaServer}

__all__ = [
    "QUICK_JVM",
    "SERVERS",
    "CassandraServer",
    "KafkaServer",
    "MissingToolError",
    "Server",
    "ServiceError",
    "free_port",
]
