"""What the tests of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prosody.config import Config
from prosody.config.schema import OPTIONS
from prosody.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENOUGH = {"bootstrap_servers": "kafka:9092", "source_system": "shop"}
"""The least a client needs."""
LOGIN = {
    "kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "u", "kafka_sasl_password": "hush-hush",
}  # fmt: skip
"""All that a SASL protocol needs."""


def load(environ: Mapping[str, str] | None = None, /, **options: object) -> Config:
    """A configuration that has all it needs besides what the test is about."""
    return Config.load({**ENOUGH, **options}, environ or {})


def value_of(config: Config, name: str) -> Any:
    """The value of the option ``name``, wherever it stands."""
    return config.mode if name == "mode" else getattr(getattr(config, OPTIONS[name].group), name)


def problems_of(options: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The problems of a configuration that must have some."""
    with pytest.raises(ConfigurationError) as caught:
        Config.load(options, environ)
    return caught.value.problems
