"""What is known about one option, and how a dataclass field declares it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prosody.config.durations import format_duration
from prosody.config.kinds import Choice, Duration, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE_PREFIX: Final = "PROSODY_"
NOTHING_SHOWN: Final = "-"
_METADATA_KEY: Final = "prosody.option"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: a row of the README's tables."""

    name: str
    variable: str
    kind: Kind
    default: Any
    """Used when neither option nor variable is set; None when there is none or it is derived."""
    meaning: str
    shown_default: str
    group: str
    none_disables: bool
    """Whether the option's ``None`` is a value ("off") and does not mean "unset"."""
    secret: bool
    """Whether the value is never shown."""

    @property
    def is_optional(self) -> bool:
        """Whether "no value" is legal: then ``none`` in the variable says so."""
        return self.kind.none_means_no_value and (self.none_disables or self.default is None)

    @property
    def names(self) -> str:
        """Option and variable, as error texts name them."""
        return f"{self.name} ({self.variable})"


def describe(
    kind: Kind,
    meaning: str,
    *,
    variable: str | None = None,
    shown: str | None = None,
    none_disables: bool = False,
    secret: bool = False,
) -> Mapping[str, object]:
    """Metadata for the dataclass field of an option.

    :param variable: the environment variable, where it is not ``PROSODY_`` and the option's name.
    :param shown: the default as the README shows it, where it is not the value itself.
    """
    return {
        _METADATA_KEY: {
            "kind": kind,
            "meaning": meaning,
            "variable": variable,
            "shown": shown,
            "none_disables": none_disables,
            "secret": secret,
        }
    }


def declared_options(group: str, options_class: Any) -> tuple[Option, ...]:
    """The options that a dataclass declares, in order."""
    return tuple(_option(group, field) for field in dataclasses.fields(options_class))


def _option(group: str, field: dataclasses.Field[Any]) -> Option:
    declared = field.metadata[_METADATA_KEY]
    default = None if field.default is dataclasses.MISSING else field.default
    shown = declared["shown"]
    return Option(
        name=field.name,
        variable=declared["variable"] or VARIABLE_PREFIX + field.name.upper(),
        kind=declared["kind"],
        default=default,
        meaning=declared["meaning"],
        shown_default=_shown(declared["kind"], default) if shown is None else shown,
        group=group,
        none_disables=declared["none_disables"],
        secret=declared["secret"],
    )


def _shown(kind: Kind, default: object) -> str:
    if isinstance(kind, Choice) and default is None:
        return kind.no_value or NOTHING_SHOWN
    if default is None or default == ():
        return NOTHING_SHOWN
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(kind, Duration) and isinstance(default, float):
        return format_duration(default)
    return str(default)
