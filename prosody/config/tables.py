"""The README's option tables, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.config.kinds import Choice
from prosody.config.option import NOTHING_SHOWN
from prosody.config.schema import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prosody.config.option import Option
    from prosody.config.schema import Group

HEADER = "| Option / variable | Meaning | Default |\n|---|---|---|"
END_MARKER = "<!-- /options -->"


def start_marker(group: Group) -> str:
    """The line before a group's table in the README."""
    return f"<!-- options:{group.name} -->"


def table(group: Group) -> str:
    """A group's table, one row per option, without a final line break."""
    return "\n".join((HEADER, *(_row(option) for option in group.options)))


def _row(option: Option) -> str:
    meaning = option.meaning
    if isinstance(option.kind, Choice):
        meaning += ": " + ", ".join(f"`{word}`" for word in option.kind.words)
    shown = option.shown_default
    # Words about the default are no value that could be written.
    is_value = shown != NOTHING_SHOWN and not shown.startswith("(") and " " not in shown
    default = f"`{shown}`" if is_value else shown
    cells = (f"`{option.name}` / `{option.variable}`", meaning, default)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def sections() -> Iterator[str]:
    """For each group a heading and, between its markers, its table."""
    for group in GROUPS:
        yield f"### {group.title}\n\n{start_marker(group)}\n{table(group)}\n{END_MARKER}\n"
