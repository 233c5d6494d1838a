"""``docs/observability.md`` says what the code has."""

from __future__ import annotations

import dataclasses
import re

import pytest

import prosody
from tests.readme.document import ROOT

DOCUMENT = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")

TYPES = [
    getattr(prosody, name)
    for name in prosody.__all__
    if getattr(getattr(prosody, name), "__module__", "") == "prosody.model.snapshot"
]


def below(heading: str) -> str:
    """The text under a heading, up to the next one of any depth."""
    (text,) = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return text


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_every_field_of_a_snapshot_is_there_with_its_type(kind: type) -> None:
    heading = kind.__name__
    if heading == "Snapshot":
        text = DOCUMENT.partition("#### Snapshot\n")[2].partition("\n#")[0]
    else:
        text = below(heading)
    rows = re.findall(r"^\| `(\w+): ([^`]+)` \| (.+) \|$", text, re.MULTILINE)
    assert [(name, shown.replace("\\|", "|")) for name, shown, _ in rows] == [
        (field.name, field.type) for field in dataclasses.fields(kind)
    ]
