"""A module of the library with one place changed, for tests that prove they can fail."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


def mutant(name: str, old: str, new: str) -> ModuleType:
    """A fresh copy of ``prosody.<name>`` in which ``old``, which stands there once, is ``new``."""
    original = importlib.import_module(f"prosody.{name}")
    source = Path(str(original.__file__)).read_text()
    module = ModuleType(original.__name__)
    exec(compile(_changed(source, old, new), f"mutant of {name}", "exec"), vars(module))
    return module


def put_copies(
    modules: Sequence[ModuleType],
    changed: ModuleType,
    old: str,
    new: str,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[ModuleType, Any]:
    """Put fresh copies in the places of modules, one of them changed as by ``mutant``; by original.

    :param modules: in the order in which they import each other.
    """
    copies: dict[ModuleType, Any] = {}
    for original in modules:
        source = Path(str(original.__file__)).read_text()
        if original is changed:
            source = _changed(source, old, new)
        copies[original] = copy = ModuleType(original.__name__)
        monkeypatch.setitem(sys.modules, original.__name__, copy)
        exec(compile(source, f"mutant of {original.__name__}", "exec"), vars(copy))
    return copies


def _changed(source: str, old: str, new: str) -> str:
    assert source.count(old) == 1, f"{source.count(old)} places to put the mutation: {old!r}"
    return source.replace(old, new)
