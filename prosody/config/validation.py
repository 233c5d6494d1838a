"""Rules that span options: what is missing, what contradicts, what is legal but risky."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from prosody.config.durations import format_duration
from prosody.config.schema import named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prosody.config.config import Config

VIRTUAL_TIME_HALF_LIFE_S: Final = 120.0
MAX_VIRTUAL_TIME_S: Final = VIRTUAL_TIME_HALF_LIFE_S / math.log(2)
"""The most virtual time a key can have: one second a second, halved every 120 seconds."""
BROKER_SESSION_TIMEOUT_S: Final = (6.0, 1800.0)
"""What Kafka brokers accept unless ``group.{min,max}.session.timeout.ms`` say otherwise."""

_SASL: Final = ("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")
_KAFKA_TLS: Final = (
    "kafka_ssl_cafile",
    "kafka_ssl_certfile",
    "kafka_ssl_keyfile",
    "kafka_ssl_keypassword",
)
_CASSANDRA_TLS: Final = ("cassandra_ssl_cafile", "cassandra_ssl_certfile", "cassandra_ssl_keyfile")


class Finding(NamedTuple):
    """What a rule found; void when one of the options it looked at was refused by itself."""

    names: tuple[str, ...]
    text: str


def problems(config: Config) -> Iterator[Finding]:
    """What makes the configuration unusable, options that are wrong by themselves left out."""
    core, defer = config.core, config.defer
    if not core.bootstrap_servers and not core.mock:
        yield Finding(
            ("bootstrap_servers", "mock"),
            f'{named("bootstrap_servers")} is not set; give servers as "host:port", '
            f"or set {named('mock')} to use no Kafka at all",
        )
    if not core.source_system:
        yield Finding(
            ("source_system", "group_id"),
            f"neither {named('source_system')} nor {named('group_id')} is set; give the name of "
            "your application as group_id, or as source_system if it only sends",
        )
    if defer.defer_max_delay < defer.defer_base:
        yield Finding(
            ("defer_max_delay", "defer_base"),
            f"{named('defer_max_delay')} is {format_duration(defer.defer_max_delay)}, below "
            f"{named('defer_base')}, which is {format_duration(defer.defer_base)}; "
            "give at least that much",
        )
    yield from _kafka_security_problems(config)
    yield from _cassandra_security_problems(config)


def _kafka_security_problems(config: Config) -> Iterator[Finding]:
    extra = config.extra
    protocol = extra.kafka_security_protocol
    context = f"{named('kafka_security_protocol')} is {protocol!r}"
    for name in _SASL:
        given = getattr(extra, name) is not None
        if protocol.startswith("SASL_") and not given:
            yield Finding(
                (name, "kafka_security_protocol"),
                f"{named(name)} is not set, and {context}; give it",
            )
        elif given and not protocol.startswith("SASL_"):
            yield Finding(
                (name, "kafka_security_protocol"),
                f"{named(name)} is set, but {context} and does not use it; "
                "make the protocol 'SASL_SSL' or 'SASL_PLAINTEXT'",
            )
    for name in _KAFKA_TLS:
        if getattr(extra, name) is not None and not protocol.endswith("SSL"):
            yield Finding(
                (name, "kafka_security_protocol"),
                f"{named(name)} is set, but {context} and does not use it; "
                "make the protocol 'SSL' or 'SASL_SSL'",
            )
    for name in ("kafka_ssl_keyfile", "kafka_ssl_keypassword"):
        if getattr(extra, name) is not None and extra.kafka_ssl_certfile is None:
            yield _without_certificate(name, "kafka_ssl_certfile")


def _cassandra_security_problems(config: Config) -> Iterator[Finding]:
    extra = config.extra
    for name in _CASSANDRA_TLS:
        if getattr(extra, name) is not None and not extra.cassandra_ssl_enabled:
            yield Finding(
                (name, "cassandra_ssl_enabled"),
                f"{named(name)} is set, but {named('cassandra_ssl_enabled')} is False and does "
                "not use it; make that True",
            )
    if extra.cassandra_ssl_keyfile is not None and extra.cassandra_ssl_certfile is None:
        yield _without_certificate("cassandra_ssl_keyfile", "cassandra_ssl_certfile")


def _without_certificate(name: str, certificate: str) -> Finding:
    return Finding(
        (name, certificate),
        f"{named(name)} is set without {named(certificate)}; give the certificate too",
    )


def consumer_problems(config: Config) -> Iterator[str]:
    """What is missing for consuming; a client that only sends does not need it."""
    core = config.core
    if core.group_id is None:
        yield f"{named('group_id')} is not set; give the name of the consumer group"
    if not core.subscribed_topics:
        yield f"{named('subscribed_topics')} is not set; give the topics to read from"
    if config.mode == "low-latency" and config.consumer.failure_topic is None:
        yield (
            f"{named('failure_topic')} is not set, and {named('mode')} is 'low-latency'; "
            "give the topic for messages that cannot be processed"
        )


def warnings(config: Config) -> Iterator[str]:
    """What is legal and probably not meant, each with the reason."""
    yield from _consumer_warnings(config)
    yield from _scheduler_warnings(config)
    yield from _security_warnings(config)


def _consumer_warnings(config: Config) -> Iterator[str]:
    consumer, retry, extra = config.consumer, config.retry, config.extra
    if consumer.timeout >= consumer.stall_threshold:
        yield (
            f"{named('timeout')} is {format_duration(consumer.timeout)}, not below "
            f"{named('stall_threshold')}, which is {format_duration(consumer.stall_threshold)}: "
            "a slow handler is reported as stalled before it is cancelled"
        )
    if consumer.shutdown_timeout == 0:
        yield (
            f"{named('shutdown_timeout')} is 0: handlers that run at shutdown or rebalance are "
            "cancelled at once, and their messages run again"
        )
    if retry.max_retry_delay < retry.retry_base:
        yield (
            f"{named('max_retry_delay')} is {format_duration(retry.max_retry_delay)}, below "
            f"{named('retry_base')}, which is {format_duration(retry.retry_base)}: "
            "every retry waits no longer than the former"
        )
    least, most = BROKER_SESSION_TIMEOUT_S
    if not least <= extra.session_timeout <= most:
        yield (
            f"{named('session_timeout')} is {format_duration(extra.session_timeout)}: brokers "
            f"with default settings accept only {format_duration(least)} to "
            f"{format_duration(most)} and refuse the consumer"
        )


def _scheduler_warnings(config: Config) -> Iterator[str]:
    scheduler = config.scheduler
    if scheduler.scheduler_wait_weight <= MAX_VIRTUAL_TIME_S:
        yield (
            f"{named('scheduler_wait_weight')} is {scheduler.scheduler_wait_weight}, not above "
            f"{MAX_VIRTUAL_TIME_S:.1f} (120 s / ln 2, the most virtual time a key can have): "
            "waiting no longer outweighs it, so a key that was busy can starve"
        )
    if scheduler.scheduler_failure_weight in (0.0, 1.0):
        starved = "retries" if scheduler.scheduler_failure_weight == 0.0 else "fresh messages"
        yield (
            f"{named('scheduler_failure_weight')} is {scheduler.scheduler_failure_weight}: "
            f"{starved} run only when nothing else waits"
        )


def _security_warnings(config: Config) -> Iterator[str]:
    cassandra, extra = config.cassandra, config.extra
    if (cassandra.cassandra_user is None) != (cassandra.cassandra_password is None):
        yield (
            f"only one of {named('cassandra_user')} and {named('cassandra_password')} is set: "
            "no login is sent to Cassandra"
        )
    if cassandra.cassandra_rack is not None and cassandra.cassandra_datacenter is None:
        yield (
            f"{named('cassandra_rack')} is set without {named('cassandra_datacenter')}: "
            "a rack is only looked for in a preferred datacenter"
        )
    if extra.kafka_security_protocol == "SASL_PLAINTEXT" and extra.kafka_sasl_mechanism == "PLAIN":
        yield (
            f"{named('kafka_security_protocol')} is 'SASL_PLAINTEXT' and "
            f"{named('kafka_sasl_mechanism')} is 'PLAIN': the password travels unencrypted"
        )
    kafka_tls = extra.kafka_security_protocol.endswith("SSL")
    for name, used in (
        ("kafka_ssl_check_hostname", kafka_tls),
        ("cassandra_ssl_check_hostname", extra.cassandra_ssl_enabled),
    ):
        if used and not getattr(extra, name):
            yield (
                f"{named(name)} is False: any server with a certificate of a trusted signer "
                "is taken for the right one"
            )
