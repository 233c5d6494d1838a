"""What was measured: seconds for one operation, by case and side, and how a run is stored.

A benchmark says what it measures by its file, name and ids: ``bench_key_queue.py::test_clear[64-cython]``
is the structure "key queue", the operation "clear", n = 64 and the side ``cython``. An id ``scan`` makes
it the full scan of that half; what names no half is shared by both. Its ``extra_info`` holds
``operations`` when one round is not 1,000 of them, and ``each`` when those are entries or the like that
one call goes through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

OPERATIONS = 1_000
"""Operations in one round, unless the benchmark says otherwise."""

STATISTIC = "ld15iqr"
"""The least time of a round that lies within 1.5 interquartile ranges of the first quartile."""

COMPILED, PURE, COMPILED_SCAN, PURE_SCAN = "cython", "python", "cython scan", "python scan"
SHARED = "shared"
SIDES = {
    COMPILED: "compiled",
    PURE: "pure",
    COMPILED_SCAN: "compiled scan",
    PURE_SCAN: "pure scan",
    SHARED: "shared by both",
}

RATIOS = {
    "pure / compiled": (PURE, COMPILED),
    "compiled scan / compiled": (COMPILED_SCAN, COMPILED),
    "pure scan / pure": (PURE_SCAN, PURE),
}
"""Name -> the side that is divided, the side it is divided by: how many times faster the second is."""


class Case(NamedTuple):
    """One operation of one structure at one size."""

    structure: str
    operation: str
    n: int | None
    """None: the operation has no size."""

    def __str__(self) -> str:
        size = "" if self.n is None else f", n = {self.n:,}"
        return f"{self.structure}: {self.operation}{size}"


Document = Mapping[str, Any]
"""What ``--benchmark-json`` writes."""
Seconds = dict[Case, dict[str, float]]
Ratios = dict[tuple[Case, str], float]


@dataclass
class Measured:
    """The least seconds seen for each side of each case, over all the documents added."""

    seconds: Seconds = field(default_factory=dict)
    nodes: dict[Case, set[str]] = field(default_factory=dict)
    """The pytest ids that measure a case, to run them again."""
    last: Document = field(default_factory=dict)
    """The document added last, for what it says of the machine."""

    def add(self, document: Document) -> None:
        """Take in one more document.

        The least that is no outlier is kept: noise adds time, all but always. (A virtual machine now and
        then counts too little CPU time for a round, which is why it is not the very least.)

        :raises ValueError: when a benchmark names no side, or two of one document are the same.
        """
        seen, self.last = set(), document
        for benchmark in document["benchmarks"]:
            case, side = what_it_measures(benchmark)
            if (case, side) in seen:
                raise ValueError(f"{benchmark['fullname']}: {case} has two for {side}; rename one")
            seen.add((case, side))
            operations = benchmark["extra_info"].get("operations", OPERATIONS)
            took = benchmark["stats"][STATISTIC] / operations
            sides = self.seconds.setdefault(case, {})
            sides[side] = min(took, sides.get(side, took))
            self.nodes.setdefault(case, set()).add(benchmark["fullname"])


def what_it_measures(benchmark: Mapping[str, Any]) -> tuple[Case, str]:
    """The case and side of one benchmark of a document.

    :raises ValueError: when its ids name both halves, or a scan of neither.
    """
    path, _, name = benchmark["fullname"].partition("::")
    name, _, ids = name.removesuffix("]").partition("[")
    size = (benchmark["params"] or {}).get("size")
    words = [word for word in re.split("[-_ ]", ids) if word not in {"", str(size)}]
    side = " ".join(word for word in words if word in {COMPILED, PURE, "scan"}) or SHARED
    if side not in SIDES:
        raise ValueError(
            f"{benchmark['fullname']}: its ids must make one of {', '.join(SIDES)}, not {side}"
        )
    operation = name.removeprefix("test_").replace("_", " ")
    if variant := " ".join(word for word in words if word not in side.split()):
        operation += f" ({variant})"
    if each := benchmark["extra_info"].get("each"):
        operation += f", each {each}"
    return Case(structure_of(path), operation, size), side


def structure_of(path: str) -> str:
    """The structure that a file of benchmarks measures."""
    name = PurePosixPath(path).stem.removeprefix("bench_").replace("_", " ")
    return name.replace("vtime", "virtual-time")


def benchmark_of(case: Case, half: str) -> str:
    """The benchmark that measures a case of one half: ``what_it_measures`` the other way round, for an
    operation without variants."""
    name = case.structure.replace("virtual-time", "vtime").replace(" ", "_")
    size = "" if case.n is None else f"{case.n}-"
    return f"benchmarks/bench_{name}.py::test_{case.operation.replace(' ', '_')}[{size}{half}]"


def ratios(seconds: Seconds) -> Ratios:
    """Each ratio of each case that has both sides of it."""
    return {
        (case, name): sides[divided] / sides[by]
        for case, sides in seconds.items()
        for name, (divided, by) in RATIOS.items()
        if divided in sides and by in sides
    }


@dataclass(frozen=True)
class Run:
    """A run as it is stored."""

    about: dict[str, str]
    """Date, machine, versions: for the reader; nothing is computed from them."""
    seconds: Seconds

    def to_json(self) -> str:
        """One line for a case, so that a diff can be read."""
        lines = [
            json.dumps(
                {
                    **case._asdict(),
                    "seconds": {side: float(f"{took:.4g}") for side, took in s.items()},
                }
            )
            for case, s in in_order(self.seconds)
        ]
        about = json.dumps(self.about, indent=1)
        return f'{{"about": {about},\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"

    @classmethod
    def from_json(cls, text: str) -> Run:
        """:raises KeyError: when it is not what ``to_json`` writes."""
        found = json.loads(text)
        seconds = {
            Case(case["structure"], case["operation"], case["n"]): case["seconds"]
            for case in found["cases"]
        }
        return cls(found["about"], seconds)


def order(case: Case) -> tuple[str, str, int]:
    """Sorts cases: by structure, operation, size."""
    return case.structure, case.operation, case.n or 0


def in_order(seconds: Seconds) -> Iterable[tuple[Case, dict[str, float]]]:
    """The cases in order; sides in the order of ``SIDES``."""
    for case in sorted(seconds, key=order):
        yield case, {side: seconds[case][side] for side in SIDES if side in seconds[case]}
