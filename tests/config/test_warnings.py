"""What is legal and probably not meant is warned about, with the reason."""

from __future__ import annotations

import pytest

from tests.config.support import LOGIN, load

WARNED = [
    ({"scheduler_wait_weight": 173.1}, "scheduler_wait_weight", "starve"),
    ({"scheduler_wait_weight": 0}, "scheduler_wait_weight", "starve"),
    ({"scheduler_failure_weight": 0}, "scheduler_failure_weight", "retries run only when"),
    ({"scheduler_failure_weight": 1}, "scheduler_failure_weight", "fresh messages run only when"),
    ({"timeout": 300}, "timeout", "stalled before it is cancelled"),
    ({"timeout": "6m"}, "timeout", "stalled before it is cancelled"),
    ({"shutdown_timeout": 0}, "shutdown_timeout", "cancelled at once"),
    ({"retry_base": 2, "max_retry_delay": 1}, "max_retry_delay", "waits no longer"),
    ({"session_timeout": 5}, "session_timeout", "6s to 30m"),
    ({"session_timeout": "31m"}, "session_timeout", "6s to 30m"),
    ({"cassandra_user": "u"}, "only one of cassandra_user", "no login"),
    ({"cassandra_password": "hush-hush"}, "only one of cassandra_user", "no login"),
    ({"cassandra_rack": "r"}, "cassandra_rack", "datacenter"),
    ({"kafka_security_protocol": "SASL_PLAINTEXT", **LOGIN}, "kafka_security_protocol", "unencrypted"),
    (
        {"kafka_security_protocol": "SSL", "kafka_ssl_check_hostname": False},
        "kafka_ssl_check_hostname", "trusted signer",
    ),
    (
        {"cassandra_ssl_enabled": True, "cassandra_ssl_check_hostname": False},
        "cassandra_ssl_check_hostname", "trusted signer",
    ),
]  # fmt: skip
QUIET = [
    {"scheduler_wait_weight": 173.2},
    {"scheduler_failure_weight": 0.01},
    {"scheduler_failure_weight": 0.99},
    {"timeout": 299.9},
    {"shutdown_timeout": 0.1},
    {"retry_base": 0, "max_retry_delay": 0},
    {"session_timeout": 6},
    {"session_timeout": "30m"},
    {"telemetry_topic": "t", "subscribed_topics": "t"},
    {"cassandra_user": "u", "cassandra_password": "p"},
    {"cassandra_rack": "r", "cassandra_datacenter": "d"},
    {"kafka_security_protocol": "SASL_SSL", **LOGIN},
    {"kafka_ssl_check_hostname": False, "cassandra_ssl_check_hostname": False},
    {},
]


@pytest.mark.parametrize(("options", "start", "reason"), WARNED)
def test_warned_with_the_reason(options, start, reason):
    (warning,) = load(**options).warnings
    assert warning.startswith(start)
    assert reason in warning
    assert "PROSODY_" in warning
    assert "hush" not in warning


@pytest.mark.parametrize("options", QUIET)
def test_not_warned(options):
    assert load(**options).warnings == ()


def test_warned_of_the_variable_that_is_not_called_after_its_option():
    (warning,) = load({"PROSODY_MAX_RETRY_DELAY": "1s", "PROSODY_LOG": "info"}).warnings
    assert "PROSODY_MAX_RETRY_DELAY is not read" in warning
    assert "PROSODY_RETRY_MAX_DELAY" in warning
