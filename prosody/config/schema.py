"""Every option there is, in the order and groups of the README's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from prosody.config.kinds import Choice
from prosody.config.option import Option, declared_options
from prosody.config.options import (
    DEFAULT_MODE,
    MODES,
    CassandraOptions,
    ConsumerOptions,
    CoreOptions,
    ProducerOptions,
    RetryOptions,
    TelemetryOptions,
)
from prosody.config.options_own import ExtraOptions
from prosody.config.options_qos import DeferOptions, MonopolizationOptions, SchedulerOptions


@dataclass(frozen=True, slots=True)
class Group:
    """One table: ``name`` is the field of :class:`prosody.config.Config` that holds its values."""

    name: str
    title: str
    options: tuple[Option, ...]


# The mode belongs to no group of values: it decides which of the others are read at all.
MODE: Final = Option(
    name="mode",
    variable="PROSODY_MODE",
    kind=Choice(MODES),
    default=DEFAULT_MODE,
    meaning="What happens to messages that fail",
    shown_default=DEFAULT_MODE,
    group="core",
    none_disables=False,
    secret=False,
)

GROUP_CLASSES: Final[dict[str, tuple[str, Any]]] = {
    "core": ("Core", CoreOptions),
    "consumer": ("Consumer", ConsumerOptions),
    "producer": ("Producer", ProducerOptions),
    "retry": ("Retry", RetryOptions),
    "defer": ("Deferral (pipeline mode)", DeferOptions),
    "monopolization": ("Monopolization detection (pipeline mode)", MonopolizationOptions),
    "scheduler": ("Fair scheduling (all modes)", SchedulerOptions),
    "telemetry": ("Telemetry emitter", TelemetryOptions),
    "cassandra": ("Cassandra", CassandraOptions),
    "extra": ("Options of this library alone", ExtraOptions),
}
"""Title and dataclass of each group of :class:`prosody.config.Config`."""


def _group(name: str, title: str, options_class: Any) -> Group:
    declared = declared_options(name, options_class)
    return Group(name, title, (MODE, *declared) if name == MODE.group else declared)


GROUPS: Final = tuple(
    _group(name, title, options_class) for name, (title, options_class) in GROUP_CLASSES.items()
)
OPTIONS: Final[dict[str, Option]] = {
    option.name: option for group in GROUPS for option in group.options
}
"""Every option by its name."""


def named(name: str) -> str:
    """Option and variable of the option ``name``, as error texts name them."""
    return OPTIONS[name].names
