"""Whatever is given: a configuration or a ConfigurationError, never another error."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from prosody.config import Config
from prosody.config.schema import OPTIONS
from prosody.errors import ConfigurationError
from tests.config.support import ENOUGH, value_of


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.timedeltas()
    | st.complex_numbers()
    | st.decimals()
    | st.integers(4000, 5000).map(lambda digits: 10**digits)
    | st.builds(Unprintable)
    | st.builds(object)
    | st.sampled_from(["", "none", "true", "child", "a:1", "15s", "^(", "\udcff", "1" * 400 + "s"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        | st.frozensets(st.text(max_size=3), max_size=2)
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted(OPTIONS))
VARIABLES = st.sampled_from(sorted(option.variable for option in OPTIONS.values()))


def attempt(options, environ):
    """The configuration, or None and the problems."""
    try:
        return Config.load(options, environ), ()
    except ConfigurationError as error:
        return None, error.problems


@given(
    st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=6),
    st.dictionaries(
        VARIABLES, st.text() | SCALARS.filter(lambda v: isinstance(v, str)), max_size=4
    ),
)
def test_only_configuration_errors(options, environ):
    config, problems = attempt(options, environ)
    if config is None:
        assert problems
        assert all(problem.strip() for problem in problems)
    else:
        assert repr(config)
        assert config.core.source_system


@given(NAMES, VALUES)
def test_what_is_taken_is_of_the_default_s_type(name, value):
    default = value_of(Config.load({**ENOUGH, "group_id": "g"}, {}), name)
    config, problems = attempt({**ENOUGH, "group_id": "g", name: value}, {})
    assert all(OPTIONS[name].variable in problem for problem in problems)
    if config is not None:
        used = value_of(config, name)
        allowed = (type(default), type(None)) if default is not None else (str, tuple, type(None))
        assert isinstance(used, allowed)
        assert not (isinstance(used, float) and not math.isfinite(used))
