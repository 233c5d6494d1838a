"""Time, chance and identity come from ``runtime.py`` and from nowhere else."""

from __future__ import annotations

import ast

import pytest

from tests.rules.source import SOURCES

FORBIDDEN_MODULES = {"time", "random", "secrets"}
FORBIDDEN = {
    ("asyncio", "sleep"),
    ("uuid", "uuid1"), ("uuid", "uuid4"), ("uuid", "uuid7"),
    ("os", "urandom"), ("os", "getrandom"), ("os", "times"),
    ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"),
    ("date", "today"),
}  # fmt: skip
ALLOWED_FILES = {"runtime.py"}
ALLOWED_USES: dict[tuple[str, str], str] = {}
"""(file, use) -> why it is right there."""


def uses(tree: ast.Module) -> list[tuple[int, str]]:
    """Every forbidden use in a module: where, and what."""
    names: dict[str, tuple[str, ...]] = {}
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = (top,)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = (node.module, alias.name)
                if node.module in FORBIDDEN_MODULES or (node.module, alias.name) in FORBIDDEN:
                    found.append((node.lineno, f"{node.module}.{alias.name}"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        path = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            path.insert(0, value.attr)
            value = value.value
        if not isinstance(value, ast.Name) or value.id not in names:
            continue
        path = [*names[value.id], *path]
        if path[0] in FORBIDDEN_MODULES or tuple(path[-2:]) in FORBIDDEN:
            found.append((node.lineno, ".".join(path)))
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_only_the_runtime_knows_time_and_chance(source: object) -> None:
    name, _, tree = source  # type: ignore[misc]
    if name in ALLOWED_FILES:
        return
    bad = [f"{name}:{line} {use}" for line, use in uses(tree) if (name, use) not in ALLOWED_USES]
    assert not bad, f"take it from the Runtime instead: {bad}"


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.monotonic()",
        "import time as clock\nclock.time()",
        "from time import monotonic",
        "import asyncio\nawait_ = asyncio.sleep(0)",
        "from asyncio import sleep as nap",
        "import asyncio as aio\nx = aio.sleep",
        "import random\nrandom.random()",
        "from random import choice",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.now(tz=None)",
        "import datetime as dt\ndt.datetime.utcnow()",
        "from datetime import date\ndate.today()",
        "import os\nos.urandom(8)",
    ],
)
def test_the_rule_sees(code: str) -> None:
    assert uses(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nasyncio.timeout(1)",
        "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)",
        "from uuid import UUID",
        "runtime.sleep(1)",
        "def time(): ...\ntime()",
    ],
)
def test_the_rule_lets_pass(code: str) -> None:
    assert not uses(ast.parse(code))
