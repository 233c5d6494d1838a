"""As much of PromQL as a dashboard uses: which series and which labels an expression names."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>"(?:[^"\\]|\\.)*")
  | (?P<range>\[[^\]]*\])
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<name>[a-zA-Z_:][\w:]*)
  | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/^%(){},=<>])
)""",
    re.VERBOSE,
)
FUNCTIONS = {
    "rate", "increase", "histogram_quantile", "sum", "min", "max", "avg", "count", "topk", "clamp_min",
}  # fmt: skip
GROUPINGS = {"by", "without", "on", "ignoring"}


class Selector(NamedTuple):
    """One series selector, and the functions it stands in, the innermost last."""

    name: str
    matchers: dict[str, tuple[str, str]]
    """Operator and text, by label."""
    inside: tuple[str, ...]
    ranged: bool


class Expression(NamedTuple):
    selectors: list[Selector]
    groupings: list[set[str]]
    """The labels of each ``by`` or ``without``."""


def tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"no PromQL from {text[at:]!r} on")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def parse(text: str) -> Expression:
    """
    :raises ValueError: it is no PromQL, or of a kind that is not known here.
    """
    found = tokens(text)
    found.append(("end", ""))
    selectors: list[Selector] = []
    groupings: list[set[str]] = []
    open_calls: list[str] = []
    at = 0
    pending = ""
    while found[at][0] != "end":
        kind, value = found[at]
        after = found[at + 1][1]
        if kind == "name" and value in GROUPINGS:
            names, at = _names(found, at + 1)
            groupings.append(names)
            continue
        if kind == "name" and (after == "(" or after in GROUPINGS):
            if value not in FUNCTIONS:
                raise ValueError(f"unknown function {value}")
            pending = value
        elif kind == "name":
            selector, at = _selector(found, at, tuple(open_calls))
            selectors.append(selector)
            continue
        elif value == "(":
            open_calls.append(pending)
            pending = ""
        elif value == ")":
            if not open_calls:
                raise ValueError("a bracket too many")
            open_calls.pop()
        at += 1
    if open_calls or not selectors:
        raise ValueError(f"not complete: {text}")
    return Expression(selectors, groupings)


def _names(found: list[tuple[str, str]], at: int) -> tuple[set[str], int]:
    if found[at][1] != "(":
        raise ValueError("labels are missing")
    names, at = set(), at + 1
    while found[at][1] != ")":
        if found[at][0] == "name":
            names.add(found[at][1])
        elif found[at][1] != ",":
            raise ValueError(f"no label: {found[at][1]!r}")
        at += 1
    return names, at + 1


def _selector(
    found: list[tuple[str, str]], at: int, inside: tuple[str, ...]
) -> tuple[Selector, int]:
    name, at = found[at][1], at + 1
    matchers: dict[str, tuple[str, str]] = {}
    if found[at][1] == "{":
        at += 1
        while found[at][1] != "}":
            (kind, label), (_, operator), (text_kind, text) = found[at : at + 3]
            if kind != "name" or text_kind != "text" or operator not in {"=", "=~", "!=", "!~"}:
                raise ValueError(f"no matcher: {label}{operator}{text}")
            matchers[label] = (operator, text[1:-1])
            at += 3
            if found[at][1] == ",":
                at += 1
        at += 1
    ranged = found[at][0] == "range"
    return Selector(name, matchers, inside, ranged), at + ranged
