"""README.md taken apart: headings, paragraphs, code blocks and how each is to be run.

A ``python`` block is a complete program, unless the line before it says how to run it::

    <!-- example: client -->                makes a client, nothing else
    <!-- example: await a-name -->          statements with ``client`` at hand, awaits allowed
    <!-- example: handler a-name -->        defines a handler
    <!-- example: program a-name -->        a complete program that needs its own treatment
    <!-- example: pytest -->                defines a test

A name leads to the check written for the example. A ``text`` block that follows a program is what
the program prints.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
NOT_YET = "> Not in this version yet: "

_FENCE = re.compile(r"```(\w*)$")
_HEADING = re.compile(r"(#{1,6}) (.+)$")
_MARKER = re.compile(r"<!-- example: (\w+)(?: ([\w-]+))? -->$")


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    language: str
    code: str
    line: int
    """The number of its first line of code in the README."""
    wrapper: str
    """How to run it: ``program`` unless a marker says otherwise."""
    name: str | None
    output: str | None
    """The ``text`` block that follows, if one does."""

    @property
    def placed(self) -> str:
        """The code on the lines it has in the README, so that tracebacks show those."""
        return "\n" * (self.line - 1) + self.code

    @property
    def id(self) -> str:
        return f"{self.wrapper}-{self.name or f'line-{self.line}'}"


@dataclass(frozen=True)
class Section:
    """A heading and the text up to the next one, code left out."""

    title: str
    level: int
    anchor: str
    text: str
    parents: tuple[str, ...]
    """The headings above it, outermost first."""

    @property
    def not_yet(self) -> str | None:
        """What the section says is missing, in one line; None when nothing is."""
        lines = iter(self.text.splitlines())
        for line in lines:
            if line.startswith(NOT_YET):
                rest = itertools.takewhile(lambda more: more.startswith("> "), lines)
                return " ".join([line.removeprefix(NOT_YET), *(more[2:].strip() for more in rest)])
        return None


def read() -> str:
    """The README's text."""
    return README.read_text(encoding="utf-8")


def blocks(language: str) -> list[Block]:
    """All code blocks of a language."""
    return [block for block in _parsed(read())[0] if block.language == language]


def sections() -> list[Section]:
    """All sections, in order."""
    return _parsed(read())[1]


def section(title: str, *, within: str | None = None) -> Section:
    """The section with that heading, case ignored."""
    found = [
        s
        for s in sections()
        if s.title.lower() == title.lower() and (within is None or within in s.parents)
    ]
    assert found, f"README.md has no heading {title!r}" + (f" below {within!r}" if within else "")
    return found[0]


def _parsed(text: str) -> tuple[list[Block], list[Section]]:
    found: list[Block] = []
    headings: list[tuple[int, str, list[str]]] = [(0, "", [])]
    lines = text.splitlines()
    number = 0
    # Where the last block ended, to tell whether a text block belongs to it.
    last_end = -10
    while number < len(lines):
        line = lines[number]
        fence = _FENCE.match(line)
        if fence is None:
            heading = _HEADING.match(line)
            if heading is not None:
                headings.append((len(heading[1]), heading[2], []))
            else:
                headings[-1][2].append(line)
            number += 1
            continue
        end = lines.index("```", number + 1)
        code = "\n".join(lines[number + 1 : end]) + "\n"
        between = [w for w in lines[last_end + 1 : number] if w.strip()]
        if fence[1] == "text" and found and len(between) <= 1 and last_end > 0:
            last = found[-1]
            found[-1] = Block(last.language, last.code, last.line, last.wrapper, last.name, code)
        marker = _MARKER.match(lines[number - 1])
        wrapper, name = (marker[1], marker[2]) if marker else ("program", None)
        found.append(Block(fence[1], code, number + 2, wrapper, name, None))
        last_end = end
        number = end + 1
    return found, _with_anchors(headings[1:])


def _with_anchors(headings: list[tuple[int, str, list[str]]]) -> list[Section]:
    """Sections with the anchors that GitHub gives their headings."""
    seen: dict[str, int] = {}
    path: list[tuple[int, str]] = []
    result = []
    for level, title, lines in headings:
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        path = [(above, name) for above, name in path if above < level]
        parents = tuple(name for _, name in path)
        path.append((level, title))
        result.append(
            Section(
                title, level, f"{anchor}-{count}" if count else anchor, "\n".join(lines), parents
            )
        )
    return result
