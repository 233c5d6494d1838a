"""Every option by itself: option, variable, which of them wins, and what each refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from prosody.config import Config
from prosody.config.schema import OPTIONS
from prosody.errors import ConfigurationError, ConfigurationTypeError
from tests.config.cases import CASES, FILE
from tests.config.support import ENOUGH, value_of

NAMES = list(OPTIONS)
SECRETS = {"cassandra_password", "kafka_sasl_password", "kafka_ssl_keypassword"}


def pairs(kind):
    """Parameters ``name, value`` for every value of a kind, with short names."""
    return [
        pytest.param(name, value, id=f"{name}-{place}")
        for name in NAMES
        for place, value in enumerate(getattr(CASES[name], kind))
    ]


def load(name, options, environ):
    """A configuration in which the option ``name`` has all it needs beside it."""
    needs = {**ENOUGH, "group_id": "shop", **CASES[name].needs}
    if name == "defer_base":
        needs["defer_max_delay"] = 3_155_760_000
    if name == "defer_max_delay":
        needs["defer_base"] = 0
    needs.pop(name, None)
    return Config.load({**needs, **options}, environ)


def test_every_option_has_a_case():
    assert list(CASES) == NAMES


@pytest.mark.parametrize(("name", "pair"), pairs("good"))
def test_option(name, pair):
    given, used = pair
    value = value_of(load(name, {name: given}, {}), name)
    assert (value, type(value)) == (used, type(used))


@pytest.mark.parametrize(("name", "pair"), pairs("good_text"))
def test_variable(name, pair):
    given, used = pair
    value = value_of(load(name, {}, {OPTIONS[name].variable: given}), name)
    assert (value, type(value)) == (used, type(used))


@pytest.mark.parametrize("name", NAMES)
def test_option_beats_variable(name):
    (given, used), *_ = CASES[name].good
    wrong = CASES[name].bad_text[0]
    for text in (CASES[name].good_text[-1][0], wrong):  # not even looked at
        config = load(name, {name: given}, {OPTIONS[name].variable: text})
        assert value_of(config, name) == used


@pytest.mark.parametrize("name", NAMES)
def test_none_is_unset_or_off(name):
    given, used = CASES[name].good_text[0]
    config = load(name, {name: None}, {OPTIONS[name].variable: given})
    off = name in ("probe_port", "send_timeout")
    assert value_of(config, name) == (None if off else used)


def assert_named(problem, name, value):
    """The problem has the option, the variable, the value unless secret, and a remedy."""
    assert name in problem
    assert OPTIONS[name].variable in problem
    assert " is refused: " in problem
    assert " Give " in problem
    if name in SECRETS:
        assert "***" in problem
        assert not value or repr(value) not in problem
    elif value != 10**5000:  # whose digits Python does not even write
        assert repr(value)[:60] in problem


@pytest.mark.parametrize(("name", "value"), pairs("bad"))
def test_option_refused(name, value):
    with pytest.raises(ConfigurationError) as caught:
        load(name, {name: value}, {})
    assert not isinstance(caught.value, TypeError)
    (problem,) = caught.value.problems
    assert_named(problem, name, value)


@pytest.mark.parametrize(("name", "value"), pairs("bad_type"))
def test_option_of_wrong_type_refused(name, value):
    with pytest.raises(ConfigurationTypeError) as caught:
        load(name, {name: value}, {})
    (problem,) = caught.value.problems
    assert_named(problem, name, value)


@pytest.mark.parametrize(("name", "text"), pairs("bad_text"))
def test_variable_refused(name, text):
    with pytest.raises(ConfigurationError) as caught:
        load(name, {}, {OPTIONS[name].variable: text})
    assert not isinstance(caught.value, TypeError)
    (problem,) = caught.value.problems
    assert_named(problem, name, text)


def test_secrets_are_the_passwords():
    assert {name for name in NAMES if OPTIONS[name].secret} == SECRETS


def test_file_as_path():
    config = load("kafka_ssl_cafile", {"kafka_ssl_cafile": Path(FILE)}, {})
    assert config.extra.kafka_ssl_cafile == FILE


@pytest.mark.parametrize("name", [n for n in NAMES if n != "idempotence_version"])
def test_empty_variable_refused_with_the_remedy(name):
    with pytest.raises(ConfigurationError, match="it is empty; unset the variable"):
        load(name, {}, {OPTIONS[name].variable: ""})
