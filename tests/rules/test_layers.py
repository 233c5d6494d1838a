"""Imports point toward ``model/`` and ``_core/``, and only the edges know all the parts."""

from __future__ import annotations

import ast

import pytest

from tests.rules.source import SOURCES, Source

ANY = {"*"}
LAYERS: dict[str, set[str]] = {
    # part: what it may import of the library, its own part apart
    "errors": set(),
    "runtime": set(),
    "_core": set(),
    "config": {"errors"},
    "model": {"errors"},
    "observe": {"errors", "model", "runtime"},
    "broker": {"_core", "errors", "runtime", "model/fields"},
    "stores": {"errors", "runtime"},
    "timers": {"errors", "model", "runtime", "stores/protocol"},
    "deferral": {
        *("_core", "errors", "model", "runtime", "timers"),
        *("broker/protocol", "stores/protocol", "stores/hashing"),
    },
    "telemetry": {"_core", "errors", "model", "runtime", "broker/protocol", "stores/protocol"},
    "middleware": {
        *("_core", "deferral", "errors", "model", "runtime", "telemetry", "timers"),
        *("stores/answer", "stores/protocol", "stores/hashing"),
    },
    "consume": {
        *("_core", "deferral", "errors", "middleware", "model", "observe", "runtime", "telemetry"),
        *("timers", "broker/protocol", "stores/answer", "stores/protocol", "stores/hashing"),
    },
    "produce": {"errors", "model", "observe", "broker/protocol"},
    "broker/factory": ANY,
    "stores/factory": {"broker", "config", "runtime", "stores"},
    "client": ANY,
    "admin": ANY,
    "__init__": ANY,
    # Where programs written for the reference package import from.
    "prosody": {"admin", "client"},
    "context": {"model"},
    "handler": {"model"},
    "message": {"model"},
    "timer": {"model"},
}
EXACT = (
    *("broker/factory", "broker/protocol", "model/fields"),
    *("stores/answer", "stores/factory", "stores/hashing", "stores/protocol"),
)
"""Modules with rules of their own, or that others may import where the rest of their part stays hidden."""
TYPES_ONLY: dict[str, set[str]] = {
    # What may be imported for type checking besides.
    "config": {"runtime"},
    "model": {"broker/protocol", "deferral", "timers"},
    "observe": {"broker/protocol"},
    "telemetry": {"config"},
    "timers": {"observe"},
    "deferral": {"config", "observe"},
    "middleware": {"broker/protocol", "config", "observe"},
    "broker": set(),
    "consume": {"config", "produce"},
}


def part_of(module: str) -> str:
    """``consume/lanes.py`` or ``prosody.consume.lanes`` -> ``consume``."""
    path = module.removesuffix(".py") if module.endswith(".py") else module[len("prosody.") :]
    path = path.replace(".", "/")
    if path in EXACT:
        return path
    return path.partition("/")[0]


def imports(tree: ast.Module) -> list[tuple[int, str, bool]]:
    """(line, module of the library, whether for types only)."""
    found: list[tuple[int, str, bool]] = []

    def look(nodes: list[ast.stmt], types: bool) -> None:
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                assert not node.level, "imports of the library are absolute"
                if node.module == "prosody":
                    found.extend((node.lineno, f"prosody.{a.name}", types) for a in node.names)
                elif node.module and node.module.startswith("prosody."):
                    deep = node.module in {"prosody.broker", "prosody.stores", "prosody._core"}
                    found.extend(
                        (node.lineno, f"{node.module}.{a.name}" if deep else node.module, types)
                        for a in node.names
                    )
            elif isinstance(node, ast.Import):
                found.extend(
                    (node.lineno, a.name, types) for a in node.names if a.name.startswith("prosody")
                )
            for block in ("body", "orelse", "finalbody", "handlers"):
                inner = getattr(node, block, [])
                guarded = (
                    block == "body"
                    and isinstance(node, ast.If)
                    and isinstance(node.test, ast.Name)
                    and node.test.id == "TYPE_CHECKING"
                )
                look(inner, types or guarded)

    look(tree.body, types=False)
    return found


def violations(source: Source) -> list[str]:
    own = part_of(source.name)
    if own not in LAYERS:
        own = own.partition("/")[0]
    assert own in LAYERS, f"prosody/{source.name} is of no part that this rule knows: add it"
    bad = []
    for line, module, types in imports(source.tree):
        part = part_of(module)
        allowed = LAYERS[own] | (TYPES_ONLY.get(own, set()) if types else set())
        whole = part.partition("/")[0] if part not in LAYERS else part
        same = own in (part, whole)
        if not (same or {part, whole} & allowed or allowed == ANY or "*" in allowed):
            bad.append(f"{source.name}:{line} imports {module}{' for types' if types else ''}")
    return bad


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_imports_point_inwards(source: Source) -> None:
    assert violations(source) == []


@pytest.mark.parametrize(
    ("name", "code", "allowed"),
    [
        ("_core/x.py", "import prosody._core.protocols", True),
        ("_core/x.py", "from prosody.errors import BrokerError", False),
        ("model/x.py", "from prosody.consume.partition import Partition", False),
        (
            "model/x.py",
            "if TYPE_CHECKING:\n    from prosody.consume.partition import Partition",
            False,
        ),
        (
            "model/x.py",
            "if TYPE_CHECKING:\n    from prosody.broker.protocol import Record",
            True,
        ),
        ("broker/x.py", "from prosody.consume import poller", False),
        ("broker/x.py", "from prosody.broker.protocol import Record", True),
        ("broker/x.py", "from prosody.model.fields import fields_of", True),
        ("broker/x.py", "from prosody.model.message import Message", False),
        ("timers/x.py", "from prosody.model.fields import fields_of", True),
        ("broker/x.py", "if TYPE_CHECKING:\n    from prosody.client import ProsodyClient", False),
        ("broker/memory/x.py", "from prosody.broker.factory import make_broker", False),
        ("consume/x.py", "from prosody.broker.memory import MemoryBroker", False),
        ("consume/x.py", "from prosody.stores.protocol import Stores", True),
        ("consume/x.py", "from prosody.stores.memory import MemoryStores", False),
        ("stores/x.py", "from prosody.stores.factory import make_stores", False),
        ("stores/memory/x.py", "from prosody.stores.hashing import key_hash", True),
        ("stores/x.py", "from prosody.broker.memory import MemoryCluster", False),
        ("stores/factory.py", "from prosody.stores.memory import MemoryStores", True),
        ("consume/x.py", "def f():\n    from prosody.client import ProsodyClient", False),
        ("client.py", "from prosody.broker.factory import make_broker", True),
        ("config/x.py", "from prosody import client", False),
    ],
)
def test_the_rule(name: str, code: str, allowed: bool) -> None:
    assert (violations(Source(name, code, ast.parse(code))) == []) is allowed
