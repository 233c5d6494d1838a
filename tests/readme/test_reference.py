"""The README's API reference is the library's public surface."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

import prosody
from tests.readme.document import read, section, sections


def reference() -> str:
    return "\n".join(s.text for s in sections() if "API reference" in s.parents)


@pytest.mark.parametrize("name", prosody.__all__)
def test_every_public_name_is_there(name: str) -> None:
    headings = {s.title for s in sections() if "API reference" in s.parents}
    assert name in headings or re.search(rf"`{name}\b", reference())


def signature(function: Any) -> str:
    """As the README writes it: no self, no quotes around types."""
    shown = inspect.signature(function)
    parameters = [p for name, p in shown.parameters.items() if name not in ("self", "cls")]
    return str(shown.replace(parameters=parameters)).replace("'", "")


METHODS = [
    (cls, name)
    for cls in (prosody.ProsodyClient, prosody.AdminClient, prosody.EventHandler, prosody.Context)
    for name, _ in inspect.getmembers(cls, inspect.isroutine)
    # from_parts is for the library's own tests: it takes inner parts.
    if not name.startswith("_") and name != "from_parts"
]


@pytest.mark.parametrize(("cls", "name"), METHODS, ids=lambda v: getattr(v, "__name__", v))
def test_every_method_is_there_with_its_signature(cls: type, name: str) -> None:
    function = inspect.getattr_static(cls, name)
    function = getattr(function, "__func__", function)
    text = " ".join(section(cls.__name__, within="API reference").text.split())
    described = f"`{name}{signature(function)}`"
    assert described in text
    marked = "(*async*" in text.split(described, 1)[1][:20]
    assert marked == inspect.iscoroutinefunction(function)


@pytest.mark.parametrize("cls", [prosody.Message, prosody.Timer])
def test_every_field_is_there_with_its_type(cls: Any) -> None:
    text = section(cls.__name__, within="API reference").text
    for field in dataclasses.fields(cls):
        shown = "JSONValue" if field.name == "payload" else field.type
        assert f"- `{field.name}: {shown}`" in text


def test_excise_message_has_the_fields_of_a_message_but_the_payload() -> None:
    fields = [field.name for field in dataclasses.fields(prosody.Message)]
    excise = [field.name for field in dataclasses.fields(prosody.ExciseMessage)]
    assert excise == [name for name in fields if name != "payload"]


ERRORS = [
    getattr(prosody, name)
    for name in prosody.__all__
    if isinstance(getattr(prosody, name), type) and issubclass(getattr(prosody, name), Exception)
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_there_with_its_bases(error: type[Exception]) -> None:
    bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__ if base.__name__ != "ABC")
    assert f"| `{error.__name__}` | {bases} |" in section("Errors", within="API reference").text


def test_states_are_those_of_the_client() -> None:
    source = inspect.getsource(prosody.ProsodyClient._state)
    states = set(re.findall(r'"(\w+)"', source))
    rows = re.findall(
        r"^\| `(\w+)` \|", section("ProsodyClient", within="API reference").text, re.MULTILINE
    )
    assert set(rows) == states


def test_no_sentence_is_left_half_done() -> None:
    assert not re.findall(r"TODO|FIXME|XXX|@@|lorem", read())
