"""The option tables of README.md are the ones the schema gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from prosody.config.schema import GROUPS
from prosody.config.tables import END_MARKER, sections, start_marker, table

README = Path(__file__).parents[2] / "README.md"
REMEDY = "Paste what `python -m prosody.config` prints."


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_readme_has_the_table(group):
    assert README.exists(), f"there is no {README.name} with the option tables. {REMEDY}"
    text = README.read_text(encoding="utf-8")
    block = re.search(
        re.escape(start_marker(group)) + r"\n(.*?)\n" + re.escape(END_MARKER), text, re.DOTALL
    )
    assert block, (
        f"{README.name} has no table of the {group.name} options: it stands between "
        f"{start_marker(group)} and {END_MARKER}. {REMEDY}"
    )
    assert block[1].strip() == table(group), (
        f"the table of the {group.name} options in {README.name} is not the schema's. {REMEDY}"
    )


def test_every_row_has_three_cells():
    for group in GROUPS:
        for line in table(group).splitlines():
            assert len(re.split(r"(?<!\\)\|", line)) == 5, line


def test_command_prints_the_sections():
    printed = subprocess.run(
        [sys.executable, "-m", "prosody.config"],
        capture_output=True, text=True, check=True, timeout=60, cwd=README.parent,
    ).stdout  # fmt: skip
    assert printed == "\n".join(sections())
    assert [printed.count(start_marker(group)) for group in GROUPS] == [1] * len(GROUPS)
