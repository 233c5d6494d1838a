"""The kinds of value an option can have: what is taken, what is refused and why.

A kind turns what the program gave (an *option*) or what stands in the environment (a *variable*,
always text) into the value the library uses. Nothing is coerced: a number written as text is right
in a variable and wrong in an option.

This is not pydantic-settings (nor environs, dynaconf): the contract is that all problems are
reported at once, each with option, variable, value and remedy, that a bad variable is not even read
when its option is set, that ``None`` means "unset" for most options and "off" for two, and that
variables have the grammar of the other Prosody languages (``true`` and ``false`` only, ``none``,
humantime durations). Each point would be a custom validator or source there, so only the library's
shell would be left.
"""

from __future__ import annotations

import difflib
import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Final

from prosody.config.durations import MAX_DURATION_S, format_duration, to_seconds

MAX_COUNT: Final = 2**31 - 1
"""No count is larger: the compiled core and Cassandra keep 32-bit signed integers."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class RefusedError(Exception):
    """A value is refused; the text says why. It never contains a secret option's value."""

    def __init__(self, why: str, *, wrong_type: bool = False) -> None:
        super().__init__(why)
        self.wrong_type = wrong_type


def wrong_type(value: object, wanted: str) -> RefusedError:
    """The refusal of a value that is not even of the right type."""
    return RefusedError(
        f"{type(value).__name__} is the wrong type, {wanted} is meant", wrong_type=True
    )


def as_text(value: object) -> str:
    """``value`` as a plain ``str`` (a string enum gives its value), or a refusal."""
    if not isinstance(value, str):
        raise wrong_type(value, "text")
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # Kafka and Cassandra take UTF-8 only.
        raise RefusedError("it is not valid Unicode") from error
    return text


class Kind(ABC):
    """One kind of value."""

    none_means_no_value: ClassVar[bool] = True
    """Whether ``none`` in the variable of an optional option means "no value"."""
    allows_empty: bool = False
    """Whether the empty text is a value."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What would be right, for error texts."""

    @abstractmethod
    def from_option(self, value: object) -> object:
        """The value to use for what the program gave; :class:`RefusedError` when it is wrong."""

    @abstractmethod
    def from_variable(self, text: str) -> object:
        """The value to use for a variable's text; :class:`RefusedError` when it is wrong."""


@dataclass(frozen=True)
class Text(Kind):
    """Text, taken as it is, not trimmed."""

    allows_empty: bool = False
    pattern: str | None = None
    """A regular expression the whole text must match, or None for any text."""
    wanted: str = "text that is not empty"

    @property
    def expected(self) -> str:
        return "text" if self.allows_empty else self.wanted

    def from_option(self, value: object) -> str:
        text = as_text(value)
        if not text and not self.allows_empty:
            raise RefusedError("it is empty")
        if self.pattern is not None and not re.fullmatch(self.pattern, text):
            raise RefusedError("it has characters that are not allowed, or too many")
        return text

    def from_variable(self, text: str) -> str:
        return self.from_option(text)


@dataclass(frozen=True)
class Flag(Kind):
    """``True`` or ``False``; in a variable exactly ``true`` or ``false``."""

    @property
    def expected(self) -> str:
        return "True or False (in the variable: true or false)"

    def from_option(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise wrong_type(value, "a bool")
        return value

    def from_variable(self, text: str) -> bool:
        if text not in ("true", "false"):
            raise RefusedError("only true and false, in lower case, are understood")
        return text == "true"


@dataclass(frozen=True)
class Count(Kind):
    """A whole number from ``least`` to ``most``."""

    least: int = 0
    most: int = MAX_COUNT

    @property
    def expected(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def from_option(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(value, "a whole number")
        return self._within(int(value))

    def from_variable(self, text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise RefusedError("it is not a whole number in plain digits")
        return self._within(int(text))

    def _within(self, value: int) -> int:
        if not self.least <= value <= self.most:
            raise RefusedError("it is too small" if value < self.least else "it is too large")
        return value


@dataclass(frozen=True)
class Number(Kind):
    """A finite number from ``least`` to ``most``."""

    least: float = 0.0
    most: float = math.inf

    @property
    def expected(self) -> str:
        if self.most == math.inf:
            return f"a number of at least {self.least}"
        return f"a number from {self.least} to {self.most}"

    def from_option(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(value, "a number")
        try:
            number = float(value)
        except OverflowError as error:  # an int beyond what a float holds
            raise RefusedError("it is too large") from error
        return self._within(number)

    def from_variable(self, text: str) -> float:
        if not _DECIMAL.fullmatch(text):
            raise RefusedError("it is not a number in plain digits")
        return self._within(float(text))

    def _within(self, number: float) -> float:
        if not math.isfinite(number):
            raise RefusedError("it is not a finite number")
        if not self.least <= number <= self.most:
            raise RefusedError("it is too small" if number < self.least else "it is too large")
        return number


@dataclass(frozen=True)
class Duration(Kind):
    """A length of time in seconds, from ``least_s`` to ``most_s``; ``positive`` excludes 0."""

    least_s: float = 0.0
    most_s: float = MAX_DURATION_S
    positive: bool = False

    @property
    def expected(self) -> str:
        least = "more than 0" if self.positive else f"at least {format_duration(self.least_s)}"
        most = "100 years" if self.most_s == MAX_DURATION_S else format_duration(self.most_s)
        return (
            f"a duration of {least} and at most {most}: "
            'a timedelta, seconds, or text such as "15s" or "1m 30s"'
        )

    def from_option(self, value: object) -> float:
        try:
            seconds = to_seconds(value)
        except TypeError as error:
            raise RefusedError(str(error), wrong_type=True) from error
        except ValueError as error:
            raise RefusedError(str(error)) from error
        if seconds < self.least_s or (self.positive and seconds == 0):
            raise RefusedError("it is too short")
        if seconds > self.most_s:
            raise RefusedError("it is too long")
        return seconds

    def from_variable(self, text: str) -> float:
        return self.from_option(text)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words, in exactly this case. ``no_value`` is the word that stands for None."""

    words: tuple[str, ...]
    no_value: str | None = None

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(repr(word) for word in self.words)

    def from_option(self, value: object) -> str | None:
        text = as_text(value)
        if text not in self.words:
            near = [word for word in self.words if word.lower() == text.lower()]
            if near:
                raise RefusedError(f"its case is wrong; write {near[0]!r}")
            near = difflib.get_close_matches(text, self.words, n=1)
            raise RefusedError(
                f"it is unknown; perhaps {near[0]!r} is meant" if near else "it is unknown"
            )
        return None if text == self.no_value else text

    def from_variable(self, text: str) -> str | None:
        return self.from_option(text)
