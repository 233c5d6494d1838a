"""A module of the library with one place changed, for tests that prove they can fail."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


def mutant(name: str, old: str, new: str) -> ModuleType:
    """A fresh copy of ``prosody.<name>`` in which ``old``, which stands there once, is ``new``."""
    original = importlib.import_module(f"prosody.{name}")
    source = Path(str(original.__file__)).read_text()
    assert source.count(old) == 1, f"{source.count(old)} places to put the mutation: {old!r}"
    module = ModuleType(original.__name__)
    exec(compile(source.replace(old, new), f"mutant of {name}", "exec"), vars(module))
    return module
