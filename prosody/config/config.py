"""The whole configuration of a client, checked once, when the client is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from prosody.config import validation
from prosody.config.environment import Reading, misnamed_variables, read
from prosody.config.options import TIMEOUT_SHARE
from prosody.config.schema import GROUP_CLASSES, GROUPS, OPTIONS
from prosody.errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prosody.config.options import (
        CassandraOptions,
        ConsumerOptions,
        CoreOptions,
        ProducerOptions,
        RetryOptions,
        TelemetryOptions,
    )
    from prosody.config.options_own import ExtraOptions
    from prosody.config.options_qos import DeferOptions, MonopolizationOptions, SchedulerOptions

ADMIN_OPTIONS: Final = (
    "bootstrap_servers",
    "mock",
    *(name for name in OPTIONS if name.startswith("kafka_")),
)
"""The options an admin client has: how to reach the brokers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every option's value, in the groups of the README's tables; durations are seconds.

    Made by :meth:`load`. ``repr`` leaves passwords out.
    """

    mode: str
    core: CoreOptions
    consumer: ConsumerOptions
    producer: ProducerOptions
    retry: RetryOptions
    defer: DeferOptions
    monopolization: MonopolizationOptions
    scheduler: SchedulerOptions
    telemetry: TelemetryOptions
    cassandra: CassandraOptions
    extra: ExtraOptions
    consumer_problems: tuple[str, ...] = ()
    """What is missing for consuming; ``subscribe`` raises it, sending does without."""
    warnings: tuple[str, ...] = ()
    """What is legal but risky, with the reason; the client logs it."""

    @staticmethod
    def load(options: Mapping[str, object], environ: Mapping[str, str]) -> Config:
        """The configuration from the options a program gave and, where unset, from variables.

        :param options: by option name. None means unset; for ``probe_port`` and ``send_timeout`` it
            means "off".
        :param environ: environment variables, by name; only those of unset options are looked at.
        :raises prosody.errors.ConfigurationError: naming every problem there is;
            a ``ConfigurationTypeError`` when a value has a wrong type or an option is unknown.
        """
        reading = read(options, environ, OPTIONS.values())
        config = _checked(reading, frozenset(OPTIONS))
        return replace(
            config,
            consumer_problems=tuple(validation.consumer_problems(config)),
            warnings=(*validation.warnings(config), *misnamed_variables(environ)),
        )

    @staticmethod
    def load_admin(options: Mapping[str, object], environ: Mapping[str, str]) -> Config:
        """As :meth:`load`, for an admin client: only :data:`ADMIN_OPTIONS` exist and are read.

        :raises prosody.errors.ConfigurationError: naming every problem there is.
        """
        reading = read(options, environ, [OPTIONS[name] for name in ADMIN_OPTIONS])
        return _checked(reading, frozenset(ADMIN_OPTIONS))


load = Config.load


def _checked(reading: Reading, judged: frozenset[str]) -> Config:
    """The configuration, if nothing was refused and no rule over ``judged`` options is broken."""
    config = _assembled(reading.values)
    problems = list(reading.problems)
    for names, text in validation.problems(config):
        if judged.issuperset(names) and reading.refused.isdisjoint(names):
            problems.append(text)
    if problems:
        error = ConfigurationTypeError if reading.has_wrong_type else ConfigurationError
        raise error(problems)
    return config


def _assembled(values: Mapping[str, Any]) -> Config:
    values = dict(values)
    if values["timeout"] is None:
        values["timeout"] = TIMEOUT_SHARE * values["stall_threshold"]
    if values["source_system"] is None:
        # Both may be missing; a rule says so, and the empty text never leaves this package.
        values["source_system"] = values["group_id"] or ""
    groups: dict[str, Any] = {}
    for group in GROUPS:
        options_class = GROUP_CLASSES[group.name][1]
        held = {o.name: values[o.name] for o in group.options if o.name != "mode"}
        groups[group.name] = options_class(**held)
    return Config(mode=values["mode"], **groups)
