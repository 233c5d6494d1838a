"""Reads what the program gave, and ``PROSODY_*`` where it gave nothing."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from prosody.config.kinds import RefusedError
from prosody.config.option import VARIABLE_PREFIX
from prosody.config.schema import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prosody.config.option import Option

MAX_SHOWN_LENGTH: Final = 80
"""Longer values are cut in error texts."""
HIDDEN: Final = "***"
"""Shown in place of a secret option's value."""
NO_VALUE: Final = "none"
_PREFIX: Final = VARIABLE_PREFIX.lower()


@dataclass(slots=True)
class Reading:
    """What was read: a value for every option, and what was wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    """By option; the default where the option was not set or was refused."""
    refused: set[str] = field(default_factory=set)
    """Options whose value was refused, so that no further rule judges them."""
    problems: list[str] = field(default_factory=list)
    has_wrong_type: bool = False
    """Whether a problem is a wrong type or an unknown option, which Python calls TypeError."""


def read(
    options: Mapping[str, object], environ: Mapping[str, str], wanted: Iterable[Option]
) -> Reading:
    """Read the ``wanted`` options. An option given as None is unset, unless None turns it off."""
    reading = Reading({option.name: option.default for option in OPTIONS.values()})
    known = [option.name for option in wanted]
    for name in options:
        if name not in known:
            reading.problems.append(_unknown(name, known))
            reading.has_wrong_type = True
    for name in known:
        _read_one(OPTIONS[name], options, environ, reading)
    return reading


def _read_one(
    option: Option, options: Mapping[str, object], environ: Mapping[str, str], reading: Reading
) -> None:
    value = options.get(option.name)
    text = environ.get(option.variable)
    try:
        if value is not None:
            shown = f"{option.name}={_shown(value, option)} (variable {option.variable})"
            reading.values[option.name] = option.kind.from_option(value)
        elif option.none_disables and option.name in options:
            reading.values[option.name] = None
        elif text is not None:
            shown = f"{option.variable}={_shown(text, option)} (option {option.name})"
            reading.values[option.name] = _from_variable(option, text)
    except RefusedError as refusal:
        reading.refused.add(option.name)
        reading.has_wrong_type |= refusal.wrong_type
        reading.problems.append(f"{shown} is refused: {refusal}. Give {option.kind.expected}.")


def _from_variable(option: Option, text: str) -> object:
    if not text and not option.kind.allows_empty:
        raise RefusedError("it is empty; unset the variable if no value is meant")
    if option.is_optional and text.strip().lower() == NO_VALUE:
        # Where None turns the option off, "no value" is that; elsewhere it is the default.
        return None if option.none_disables else option.default
    return option.kind.from_variable(text)


def _shown(value: object, option: Option) -> str:
    if option.secret:
        return HIDDEN
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a broken __repr__ must not hide the problem it belongs to
        text = f"<{type(value).__name__}>"
    return text if len(text) <= MAX_SHOWN_LENGTH else text[: MAX_SHOWN_LENGTH - 3] + "..."


def _unknown(name: str, known: list[str]) -> str:
    # The value is not shown: the option may be a password with its name misspelt.
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().removeprefix(_PREFIX)
    spellings = {OPTIONS[option].variable.lower().removeprefix(_PREFIX): option for option in known}
    spellings |= {option: option for option in known}
    near = difflib.get_close_matches(snake, spellings, n=1)
    hint = f"did you mean {OPTIONS[spellings[near[0]]].names}?" if near else "see the README"
    return f"{name} is no option; {hint}"


def misnamed_variables(environ: Mapping[str, str]) -> list[str]:
    """Warnings for variables named after an option whose variable has another name."""
    return [
        f"the variable {guess} is not read; the variable of {option.name} is {option.variable}"
        for option in OPTIONS.values()
        if (guess := VARIABLE_PREFIX + option.name.upper()) != option.variable and guess in environ
    ]
