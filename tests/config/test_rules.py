"""Rules that span options, and how problems and warnings are told."""

from __future__ import annotations

import dataclasses

import pytest

from prosody.config import Config
from prosody.config.schema import OPTIONS
from prosody.errors import ConfigurationError, ConfigurationTypeError
from tests.config.support import ENOUGH, LOGIN, load, problems_of


def test_all_problems_are_told_together():
    options = {
        "source_system": "shop", "retry_base": "20", "max_retries": True, "bootstrap": "kafka:9092",
        "defer_base": 10, "defer_max_delay": 5, "mode": "Pipeline",
    }  # fmt: skip
    environ = {"PROSODY_MOCK": "yes", "PROSODY_MAX_CONCURRENCY": "0", "PROSODY_MAX_RETRIES": "x"}
    with pytest.raises(ConfigurationTypeError) as caught:
        Config.load(options, environ)
    text = str(caught.value)
    assert [p.split("=")[0].split(" ")[0] for p in caught.value.problems] == [
        "bootstrap", "mode", "PROSODY_MOCK", "PROSODY_MAX_CONCURRENCY", "max_retries", "retry_base",
        "defer_max_delay",
    ]  # fmt: skip
    assert all(problem in text for problem in caught.value.problems)


def test_problem_text():
    assert problems_of({**ENOUGH, "retry_base": "20"}, {}) == (
        "retry_base='20' (variable PROSODY_RETRY_BASE) is refused: a number alone has no unit; "
        'write "20s" if seconds are meant. Give a duration of at least 0 and at most 100 years: '
        'a timedelta, seconds, or text such as "15s" or "1m 30s".',
    )
    assert problems_of(ENOUGH, {"PROSODY_PROBE_PORT": "80000"}) == (
        "PROSODY_PROBE_PORT='80000' (option probe_port) is refused: it is too large. "
        "Give a whole number from 0 to 65535.",
    )


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("bootstrap_server", "bootstrap_servers (PROSODY_BOOTSTRAP_SERVERS)"),
        ("bootstrapServers", "bootstrap_servers"),
        ("groupId", "group_id"),
        ("timeoutMs", "timeout"),
        ("retry_max_delay", "max_retry_delay (PROSODY_RETRY_MAX_DELAY)"),
        ("PROSODY_MOCK", "mock (PROSODY_MOCK)"),
        ("cassandra_pasword", "cassandra_password"),
    ],
)
def test_unknown_option_suggests_the_nearest(given, suggested):
    with pytest.raises(ConfigurationTypeError) as caught:
        Config.load({**ENOUGH, given: "s3cret-value"}, {})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{given} is no option; did you mean {suggested}")
    assert "s3cret-value" not in problem


def test_unknown_option_without_anything_near_and_even_when_none():
    (problem,) = problems_of({**ENOUGH, "zzz": None}, {})
    assert problem == "zzz is no option; see the README"


class TestSourceSystem:
    SOURCES = ("source_system", "PROSODY_SOURCE_SYSTEM", "group_id", "PROSODY_GROUP_ID")

    @pytest.mark.parametrize("first", range(4))
    def test_precedence(self, first):
        given = self.SOURCES[first:]
        options = {name: f"from {name}" for name in given if name.islower()}
        environ = {name: f"from {name}" for name in given if name.isupper()}
        config = Config.load({"mock": True, **options}, environ)
        assert config.core.source_system == f"from {given[0]}"

    def test_group_id_is_not_made_up(self):
        assert load(source_system="shop").core.group_id is None

    def test_neither(self):
        (problem,) = problems_of({"mock": True}, {"PROSODY_GROUP_ID": "none"})
        assert "source_system (PROSODY_SOURCE_SYSTEM)" in problem
        assert "group_id (PROSODY_GROUP_ID)" in problem

    @pytest.mark.parametrize("wrong", [{"group_id": ""}, {"source_system": 5}])
    def test_no_second_problem_when_one_is_wrong(self, wrong):
        assert len(problems_of({"mock": True, **wrong}, {})) == 1


class TestServers:
    def test_missing(self):
        (problem,) = problems_of({"group_id": "shop"}, {})
        assert problem.startswith("bootstrap_servers (PROSODY_BOOTSTRAP_SERVERS) is not set")

    def test_not_needed_by_mock_and_kept_if_given(self):
        assert Config.load({"group_id": "g", "mock": True}, {}).core.bootstrap_servers == ()
        assert load(mock=True).core.bootstrap_servers == ("kafka:9092",)

    def test_no_second_problem_when_mock_is_wrong(self):
        assert len(problems_of({"group_id": "g", "mock": 1}, {})) == 1


class TestConsumer:
    def test_producer_only_is_legal(self):
        config = load()
        assert [problem.split()[0] for problem in config.consumer_problems] == [
            "group_id",
            "subscribed_topics",
        ]
        assert all(OPTIONS[p.split()[0]].variable in p for p in config.consumer_problems)

    def test_cassandra_is_not_needed(self):
        assert load(group_id="g", subscribed_topics="t").consumer_problems == ()

    def test_low_latency_needs_the_failure_topic(self):
        consuming = {"group_id": "g", "subscribed_topics": ["t"], "mode": "low-latency"}
        (problem,) = load(**consuming).consumer_problems
        assert problem.startswith("failure_topic (PROSODY_FAILURE_TOPIC) is not set")
        assert load(**consuming, failure_topic="f").consumer_problems == ()
        assert load(**{**consuming, "mode": "best-effort"}).consumer_problems == ()

    def test_mode_from_the_variable(self):
        config = load({"PROSODY_MODE": "low-latency"}, group_id="g", subscribed_topics="t")
        assert (config.mode, len(config.consumer_problems)) == ("low-latency", 1)


def test_timeout_follows_the_stall_threshold():
    assert load(stall_threshold="10s").consumer.timeout == 8.0
    assert load({"PROSODY_TIMEOUT": "3s"}, stall_threshold="10s").consumer.timeout == 3.0
    environ = {"PROSODY_TIMEOUT": "none", "PROSODY_STALL_THRESHOLD": "20s"}
    assert load(environ).consumer.timeout == 16.0


def test_defer_delays():
    (problem,) = problems_of({**ENOUGH, "defer_base": "2m", "defer_max_delay": "90s"}, {})
    assert problem == (
        "defer_max_delay (PROSODY_DEFER_MAX_DELAY) is 90s, below defer_base (PROSODY_DEFER_BASE), "
        "which is 2m; give at least that much"
    )
    assert load(defer_base=5, defer_max_delay=5).defer.defer_max_delay == 5
    # A default can be too short as well.
    (problem,) = problems_of({**ENOUGH, "defer_base": "25h"}, {})
    assert problem.startswith("defer_max_delay (PROSODY_DEFER_MAX_DELAY) is 24h, below")
    # And a wrong value is told once only.
    assert len(problems_of({**ENOUGH, "defer_base": "25h", "defer_max_delay": -1}, {})) == 1


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
@pytest.mark.parametrize("name", LOGIN)
def test_login_needs_a_sasl_protocol(name, protocol):
    options = {**ENOUGH, "kafka_security_protocol": protocol, name: LOGIN[name]}
    (problem,) = problems_of(options, {})
    assert problem.startswith(f"{OPTIONS[name].names} is set, but kafka_security_protocol")
    assert "hush" not in problem


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("name", LOGIN)
def test_sasl_protocol_needs_the_whole_login(name, protocol):
    rest = {other: value for other, value in LOGIN.items() if other != name}
    options = {**ENOUGH, "kafka_security_protocol": protocol, **rest}
    (problem,) = problems_of(options, {})
    assert problem.startswith(f"{OPTIONS[name].names} is not set")


FILES = [
    ("kafka_ssl_cafile", {}),
    ("kafka_ssl_certfile", {}),
    ("kafka_ssl_keyfile", {"kafka_ssl_certfile": __file__}),
    ("cassandra_ssl_cafile", {}),
    ("cassandra_ssl_certfile", {}),
    ("cassandra_ssl_keyfile", {"cassandra_ssl_certfile": __file__}),
]
ON = {
    "kafka": [{"kafka_security_protocol": "SSL"}, {"kafka_security_protocol": "SASL_SSL", **LOGIN}],
    "cassandra": [{"cassandra_ssl_enabled": True}],
}


@pytest.mark.parametrize(("name", "needs"), FILES, ids=[name for name, _ in FILES])
def test_certificates_need_tls(name, needs):
    given = {**ENOUGH, **needs, name: __file__}
    for problem in problems_of(given, {}):
        assert "is set, but" in problem
    assert len(problems_of(given, {})) == 1 + len(needs)
    for tls in ON[name.split("_")[0]]:
        assert load(**{**given, **tls}).extra is not None
        if needs:
            (problem,) = problems_of({**ENOUGH, **tls, name: __file__}, {})
            assert problem.startswith(f"{OPTIONS[name].names} is set without {name[:-7]}certfile")


def test_key_password_needs_a_certificate():
    given = {**ENOUGH, "kafka_security_protocol": "SSL", "kafka_ssl_keypassword": "hush-hush"}
    (problem,) = problems_of(given, {})
    assert problem.startswith(
        "kafka_ssl_keypassword (PROSODY_KAFKA_SSL_KEYPASSWORD) is set without"
    )


def test_repr_hides_passwords():
    config = load(
        cassandra_user="u", cassandra_password="hush-1", kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="PLAIN", kafka_sasl_username="u", kafka_sasl_password="hush-2",
        kafka_ssl_certfile=__file__, kafka_ssl_keypassword="hush-3",
    )  # fmt: skip
    assert config.cassandra.cassandra_password == "hush-1"
    assert "hush" not in repr(config)
    assert "hush" not in str(config)
    assert "hush" not in f"{config.extra}{config.cassandra}"
    assert "kafka_sasl_username='u'" in repr(config)


def test_configuration_cannot_be_changed():
    config = load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.retry.max_retries = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.mode = "best-effort"


class TestAdmin:
    def test_needs_servers_only_and_reads_nothing_else(self):
        environ = {"PROSODY_BOOTSTRAP_SERVERS": "a:1, b:2", "PROSODY_RETRY_BASE": "wrong"}
        assert Config.load_admin({}, environ).core.bootstrap_servers == ("a:1", "b:2")

    def test_knows_how_to_log_in(self):
        options = {**ENOUGH, "kafka_security_protocol": "SASL_SSL", **LOGIN}
        options.pop("source_system")
        assert Config.load_admin(options, {}).extra.kafka_sasl_password == "hush-hush"

    def test_refuses(self):
        with pytest.raises(ConfigurationError, match="bootstrap_servers"):
            Config.load_admin({}, {})
        with pytest.raises(ConfigurationTypeError, match="group_id is no option"):
            Config.load_admin({"bootstrap_servers": "a:1", "group_id": "g"}, {})
