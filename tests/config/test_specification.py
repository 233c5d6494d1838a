"""The schema against the option tables of the specification, written out by hand.

Names are the Python ones (``retryBaseMs`` is ``retry_base``), and so are units: where the specification
counts seconds in the option's name (``idempotenceTtlS``, 604800) the duration is written as one (7d).
"""

from __future__ import annotations

import pytest

from prosody.config import Config
from prosody.config.option import NOTHING_SHOWN
from prosody.config.schema import GROUPS, OPTIONS
from tests.config.support import ENOUGH, load, value_of

# (option, variable, default as the specification shows it, default as the library uses it)
SPECIFICATION: dict[str, list[tuple[str, str, str, object]]] = {
    "core": [
        ("bootstrap_servers", "PROSODY_BOOTSTRAP_SERVERS", "-", ()),
        ("group_id", "PROSODY_GROUP_ID", "-", None),
        ("subscribed_topics", "PROSODY_SUBSCRIBED_TOPICS", "-", ()),
        ("allowed_events", "PROSODY_ALLOWED_EVENTS", "(all)", None),
        ("source_system", "PROSODY_SOURCE_SYSTEM", "<group_id>", "the-group"),
        ("mock", "PROSODY_MOCK", "false", False),
    ],
    "consumer": [
        ("max_concurrency", "PROSODY_MAX_CONCURRENCY", "32", 32),
        ("max_uncommitted", "PROSODY_MAX_UNCOMMITTED", "64", 64),
        ("timeout", "PROSODY_TIMEOUT", "80% of stall threshold", 240.0),
        ("commit_interval", "PROSODY_COMMIT_INTERVAL", "1s", 1.0),
        ("poll_interval", "PROSODY_POLL_INTERVAL", "100ms", 0.1),
        ("shutdown_timeout", "PROSODY_SHUTDOWN_TIMEOUT", "30s", 30.0),
        ("stall_threshold", "PROSODY_STALL_THRESHOLD", "5m", 300.0),
        ("probe_port", "PROSODY_PROBE_PORT", "8000", 8000),
        ("failure_topic", "PROSODY_FAILURE_TOPIC", "-", None),
        ("idempotence_cache_size", "PROSODY_IDEMPOTENCE_CACHE_SIZE", "8192", 8192),
        ("idempotence_version", "PROSODY_IDEMPOTENCE_VERSION", '"1"', "1"),
        ("idempotence_ttl", "PROSODY_IDEMPOTENCE_TTL", "7d", 604_800.0),
        ("slab_size", "PROSODY_SLAB_SIZE", "1h", 3600.0),
        ("message_spans", "PROSODY_MESSAGE_SPANS", "child", "child"),
        ("timer_spans", "PROSODY_TIMER_SPANS", "follows_from", "follows_from"),
    ],
    "producer": [("send_timeout", "PROSODY_SEND_TIMEOUT", "1s", 1.0)],
    "retry": [
        ("max_retries", "PROSODY_MAX_RETRIES", "3", 3),
        ("retry_base", "PROSODY_RETRY_BASE", "20ms", 0.02),
        ("max_retry_delay", "PROSODY_RETRY_MAX_DELAY", "5m", 300.0),
    ],
    "defer": [
        ("defer_enabled", "PROSODY_DEFER_ENABLED", "true", True),
        ("defer_base", "PROSODY_DEFER_BASE", "1s", 1.0),
        ("defer_max_delay", "PROSODY_DEFER_MAX_DELAY", "24h", 86_400.0),
        ("defer_failure_threshold", "PROSODY_DEFER_FAILURE_THRESHOLD", "0.9", 0.9),
        ("defer_failure_window", "PROSODY_DEFER_FAILURE_WINDOW", "5m", 300.0),
        ("defer_cache_size", "PROSODY_DEFER_CACHE_SIZE", "1024", 1024),
        ("defer_store_cache_size", "PROSODY_DEFER_STORE_CACHE_SIZE", "8192", 8192),
        ("defer_seek_timeout", "PROSODY_DEFER_SEEK_TIMEOUT", "30s", 30.0),
        ("defer_discard_threshold", "PROSODY_DEFER_DISCARD_THRESHOLD", "100", 100),
    ],
    "monopolization": [
        ("monopolization_enabled", "PROSODY_MONOPOLIZATION_ENABLED", "true", True),
        ("monopolization_threshold", "PROSODY_MONOPOLIZATION_THRESHOLD", "0.9", 0.9),
        ("monopolization_window", "PROSODY_MONOPOLIZATION_WINDOW", "5m", 300.0),
        ("monopolization_cache_size", "PROSODY_MONOPOLIZATION_CACHE_SIZE", "8192", 8192),
    ],
    "scheduler": [
        ("scheduler_failure_weight", "PROSODY_SCHEDULER_FAILURE_WEIGHT", "0.3", 0.3),
        ("scheduler_max_wait", "PROSODY_SCHEDULER_MAX_WAIT", "2m", 120.0),
        ("scheduler_wait_weight", "PROSODY_SCHEDULER_WAIT_WEIGHT", "200.0", 200.0),
        ("scheduler_cache_size", "PROSODY_SCHEDULER_CACHE_SIZE", "8192", 8192),
    ],
    "telemetry": [
        ("telemetry_enabled", "PROSODY_TELEMETRY_ENABLED", "true", True),
        (
            "telemetry_topic",
            "PROSODY_TELEMETRY_TOPIC",
            "prosody.telemetry-events",
            "prosody.telemetry-events",
        ),
    ],
    "cassandra": [
        ("cassandra_nodes", "PROSODY_CASSANDRA_NODES", "-", ()),
        ("cassandra_keyspace", "PROSODY_CASSANDRA_KEYSPACE", "prosody", "prosody"),
        ("cassandra_user", "PROSODY_CASSANDRA_USER", "-", None),
        ("cassandra_password", "PROSODY_CASSANDRA_PASSWORD", "-", None),
        ("cassandra_datacenter", "PROSODY_CASSANDRA_DATACENTER", "-", None),
        ("cassandra_rack", "PROSODY_CASSANDRA_RACK", "-", None),
        ("cassandra_retention", "PROSODY_CASSANDRA_RETENTION", "1y", 31_536_000.0),
    ],
}

# What this library adds: (option, variable, default shown, default used)
OWN = [
    ("assignor", "PROSODY_ASSIGNOR", "cooperative", "cooperative"),
    ("session_timeout", "PROSODY_SESSION_TIMEOUT", "45s", 45.0),
    ("fetch_bytes", "PROSODY_FETCH_BYTES", "67108864", 64 * 2**20),
    ("metadata_max_age", "PROSODY_METADATA_MAX_AGE", "5m", 300.0),
    ("compression", "PROSODY_COMPRESSION", "lz4", "lz4"),
    ("partitioner", "PROSODY_PARTITIONER", "crc32", "crc32"),
    ("send_cache_enabled", "PROSODY_SEND_CACHE_ENABLED", "true", True),
    ("kafka_security_protocol", "PROSODY_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT", "PLAINTEXT"),
    ("kafka_sasl_mechanism", "PROSODY_KAFKA_SASL_MECHANISM", "-", None),
    ("kafka_sasl_username", "PROSODY_KAFKA_SASL_USERNAME", "-", None),
    ("kafka_sasl_password", "PROSODY_KAFKA_SASL_PASSWORD", "-", None),
    ("kafka_ssl_cafile", "PROSODY_KAFKA_SSL_CAFILE", "(the system's)", None),
    ("kafka_ssl_certfile", "PROSODY_KAFKA_SSL_CERTFILE", "-", None),
    ("kafka_ssl_keyfile", "PROSODY_KAFKA_SSL_KEYFILE", "-", None),
    ("kafka_ssl_keypassword", "PROSODY_KAFKA_SSL_KEYPASSWORD", "-", None),
    ("kafka_ssl_check_hostname", "PROSODY_KAFKA_SSL_CHECK_HOSTNAME", "true", True),
    ("cassandra_ssl_enabled", "PROSODY_CASSANDRA_SSL_ENABLED", "false", False),
    ("cassandra_ssl_cafile", "PROSODY_CASSANDRA_SSL_CAFILE", "(the system's)", None),
    ("cassandra_ssl_certfile", "PROSODY_CASSANDRA_SSL_CERTFILE", "-", None),
    ("cassandra_ssl_keyfile", "PROSODY_CASSANDRA_SSL_KEYFILE", "-", None),
    ("cassandra_ssl_check_hostname", "PROSODY_CASSANDRA_SSL_CHECK_HOSTNAME", "true", True),
    ("cassandra_schema_check_only", "PROSODY_CASSANDRA_SCHEMA_CHECK_ONLY", "false", False),
    ("debug_endpoint", "PROSODY_DEBUG_ENDPOINT", "false", False),
]

EXPECTED = {**SPECIFICATION, "extra": OWN}
ROWS = [row for rows in EXPECTED.values() for row in rows]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_table_has_the_specified_rows_in_order(group):
    # The specification writes about the mode in its text and has no row for it.
    shown = [(o.name, o.variable, o.shown_default) for o in group.options if o.name != "mode"]
    assert shown == [row[:3] for row in EXPECTED[group.name]]


def test_tables_are_the_specified_ones():
    assert [group.name for group in GROUPS] == list(EXPECTED)


def test_mode_has_a_variable():
    assert (OPTIONS["mode"].variable, load().mode) == ("PROSODY_MODE", "pipeline")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_default(row):
    name, *_, default = row
    # Nothing is given but what a client cannot do without, and not even that where it is the matter.
    config = Config.load({"group_id": "the-group", "mock": True}, {})
    if name == "group_id":
        config = Config.load({"source_system": "shop", "mock": True}, {})
    elif name == "mock":
        config = Config.load(ENOUGH, {})
    used = value_of(config, name)
    assert (used, type(used)) == (default, type(default))


def test_every_option_says_what_it_is_for():
    for option in OPTIONS.values():
        assert option.meaning
        assert option.shown_default
        assert (option.shown_default == NOTHING_SHOWN) <= (option.default in (None, ()))
