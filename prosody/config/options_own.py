"""The options this library adds to the specification's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from prosody.config.kinds import Choice, Count, Duration, Flag, Text
from prosody.config.list_kinds import File
from prosody.config.option import describe
from prosody.config.options import MAX_KAFKA_DURATION_S

ASSIGNORS: Final = ("cooperative", "roundrobin", "range", "sticky")
DEFAULT_ASSIGNOR: Final = "cooperative"
DEFAULT_SESSION_TIMEOUT_S: Final = 45.0
MIN_SESSION_TIMEOUT_S: Final = 1.0
DEFAULT_FETCH_BYTES: Final = 64 * 1024 * 1024
MIN_FETCH_BYTES: Final = 1024 * 1024
DEFAULT_METADATA_MAX_AGE_S: Final = 300.0

NO_COMPRESSION: Final = "none"
COMPRESSIONS: Final = (NO_COMPRESSION, "gzip", "snappy", "lz4", "zstd")
DEFAULT_COMPRESSION: Final = "lz4"
PARTITIONERS: Final = ("crc32", "murmur2")
DEFAULT_PARTITIONER: Final = "crc32"
DEFAULT_SEND_CACHE_ENABLED: Final = True

SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
DEFAULT_SECURITY_PROTOCOL: Final = "PLAINTEXT"
SASL_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
DEFAULT_SSL_CHECK_HOSTNAME: Final = True

DEFAULT_CASSANDRA_SSL_ENABLED: Final = False
DEFAULT_CASSANDRA_SCHEMA_CHECK_ONLY: Final = False
DEFAULT_DEBUG_ENDPOINT: Final = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraOptions:
    """Group membership, fetching, sending, security and diagnosis."""

    assignor: str = field(
        default=DEFAULT_ASSIGNOR,
        metadata=describe(Choice(ASSIGNORS), "How partitions are shared out in the group"),
    )
    session_timeout: float = field(
        default=DEFAULT_SESSION_TIMEOUT_S,
        metadata=describe(
            Duration(least_s=MIN_SESSION_TIMEOUT_S, most_s=MAX_KAFKA_DURATION_S),
            "The group drops a member that was silent for this long",
        ),
    )
    fetch_bytes: int = field(
        default=DEFAULT_FETCH_BYTES,
        metadata=describe(
            Count(least=MIN_FETCH_BYTES),
            "Budget for bytes fetched and not yet processed (64 MiB; at least 1 MiB)",
        ),
    )
    metadata_max_age: float = field(
        default=DEFAULT_METADATA_MAX_AGE_S,
        metadata=describe(Duration(positive=True), "Look for new partitions and topics this often"),
    )
    compression: str | None = field(
        default=DEFAULT_COMPRESSION,
        metadata=describe(
            Choice(COMPRESSIONS, no_value=NO_COMPRESSION), "Compression of sent messages"
        ),
    )
    partitioner: str = field(
        default=DEFAULT_PARTITIONER,
        metadata=describe(
            Choice(PARTITIONERS),
            "How a key finds its partition: as with librdkafka's producers or as with Java's",
        ),
    )
    send_cache_enabled: bool = field(
        default=DEFAULT_SEND_CACHE_ENABLED,
        metadata=describe(
            Flag(),
            "Skip sending an `id` again that was sent before with the same topic and key "
            "(as many as `idempotence_cache_size`)",
        ),
    )
    kafka_security_protocol: str = field(
        default=DEFAULT_SECURITY_PROTOCOL,
        metadata=describe(Choice(SECURITY_PROTOCOLS), "How to talk to Kafka"),
    )
    kafka_sasl_mechanism: str | None = field(
        default=None, metadata=describe(Choice(SASL_MECHANISMS), "How to log in to Kafka")
    )
    kafka_sasl_username: str | None = field(
        default=None, metadata=describe(Text(), "Username for Kafka")
    )
    kafka_sasl_password: str | None = field(
        default=None, repr=False, metadata=describe(Text(), "Password for Kafka", secret=True)
    )
    kafka_ssl_cafile: str | None = field(
        default=None,
        metadata=describe(File(), "Certificates that sign Kafka's", shown="(the system's)"),
    )
    kafka_ssl_certfile: str | None = field(
        default=None, metadata=describe(File(), "Our certificate for Kafka")
    )
    kafka_ssl_keyfile: str | None = field(
        default=None, metadata=describe(File(), "The key of our certificate for Kafka")
    )
    kafka_ssl_keypassword: str | None = field(
        default=None,
        repr=False,
        metadata=describe(Text(), "Password of the key file for Kafka", secret=True),
    )
    kafka_ssl_check_hostname: bool = field(
        default=DEFAULT_SSL_CHECK_HOSTNAME,
        metadata=describe(Flag(), "Kafka's certificate must carry the server's name"),
    )
    cassandra_ssl_enabled: bool = field(
        default=DEFAULT_CASSANDRA_SSL_ENABLED,
        metadata=describe(Flag(), "Talk to Cassandra over TLS"),
    )
    cassandra_ssl_cafile: str | None = field(
        default=None,
        metadata=describe(File(), "Certificates that sign Cassandra's", shown="(the system's)"),
    )
    cassandra_ssl_certfile: str | None = field(
        default=None, metadata=describe(File(), "Our certificate for Cassandra")
    )
    cassandra_ssl_keyfile: str | None = field(
        default=None, metadata=describe(File(), "The key of our certificate for Cassandra")
    )
    cassandra_ssl_check_hostname: bool = field(
        default=DEFAULT_SSL_CHECK_HOSTNAME,
        metadata=describe(Flag(), "Cassandra's certificate must carry the server's name"),
    )
    cassandra_schema_check_only: bool = field(
        default=DEFAULT_CASSANDRA_SCHEMA_CHECK_ONLY,
        metadata=describe(
            Flag(), "Create nothing: only verify the schema, and print the CQL that is missing"
        ),
    )
    debug_endpoint: bool = field(
        default=DEFAULT_DEBUG_ENDPOINT,
        metadata=describe(Flag(), "Serve the consumer's inner state beside the health checks"),
    )
