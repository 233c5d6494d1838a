"""What a consumer subscribes to: plain names and regular expressions, as one aiokafka subscription."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from prosody.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Subscription(NamedTuple):
    """``names`` must exist. With a ``pattern`` that is what counts; it matches the names too."""

    names: tuple[str, ...]
    pattern: str | None


def subscription_for(topics: Sequence[str]) -> Subscription:
    """Sort out ``topics``; one that begins with ``^`` is a regular expression.

    As in librdkafka an expression is bound to the beginning of a topic's name, not to its end:
    ``^order`` matches ``orders``. A plain name matches only itself. aiokafka takes a list or one
    pattern, so with any expression all become one pattern, for its ``match``.

    :raises ConfigurationError: naming every expression that is not valid.
    """
    names = tuple(dict.fromkeys(topic for topic in topics if not topic.startswith("^")))
    expressions = tuple(dict.fromkeys(topic for topic in topics if topic.startswith("^")))
    if not expressions:
        return Subscription(names, None)
    problems = []
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            # Collected: the caller learns of all of them at once.
            problems.append(f"topic {expression!r} is no valid regular expression: {error}")
    if problems:
        raise ConfigurationError(problems)
    pattern = "|".join([*(rf"{re.escape(name)}\Z" for name in names), *expressions])
    try:
        re.compile(pattern)
    except re.error as error:
        # Each alone is valid: two of them use a group of the same name.
        raise ConfigurationError(
            [f"topics {', '.join(expressions)} cannot be combined: {error}; rename the group"]
        ) from error
    return Subscription(names, pattern)
