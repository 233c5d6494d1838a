"""The library's source files, parsed once."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "prosody"


class Source(NamedTuple):
    name: str
    """Path below ``prosody/``, with slashes."""
    text: str
    tree: ast.Module


def sources() -> list[Source]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Source(path.relative_to(PACKAGE).as_posix(), text, ast.parse(text)))
    assert len(found) > 50, f"hardly any source files under {PACKAGE}"
    return found


SOURCES = sources()
