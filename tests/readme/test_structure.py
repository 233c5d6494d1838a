"""The README has a place for every heading of the specification, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prosody.config.schema import GROUPS, OPTIONS
from tests.readme.document import NOT_YET, ROOT, Section, read, section, sections

# The specification's headings, in its order, each with the heading above it where that matters.
SPECIFICATION = [
    ("Features", None),
    ("Installation", None),
    ("Quick Start", None),
    ("Architecture", None),
    ("Quality of Service", None),
    ("Fair Scheduling (All Modes)", "Quality of service"),
    ("Deferred Retry (Pipeline Mode)", "Quality of service"),
    ("Monopolization Detection (Pipeline Mode)", "Quality of service"),
    ("Handler Timeout", "Quality of service"),
    ("Configuration", None),
    ("Core", "Configuration"),
    ("Consumer", "Configuration"),
    ("Producer", "Configuration"),
    ("Retry", "Configuration"),
    ("Deferral (Pipeline Mode)", "Configuration"),
    ("Monopolization Detection (Pipeline Mode)", "Configuration"),
    ("Fair Scheduling (All Modes)", "Configuration"),
    ("Telemetry Emitter", "Configuration"),
    ("Cassandra", "Configuration"),
    ("Liveness and Readiness Probes", None),
    ("Important Notes", "Liveness and readiness probes"),
    ("Advanced Usage", None),
    ("Pipeline Mode", "Advanced usage"),
    ("Low-Latency Mode", "Advanced usage"),
    ("Best-Effort Mode", "Advanced usage"),
    ("Event Type Filtering", None),
    ("Matching Behavior", "Event type filtering"),
    ("Source System Deduplication", None),
    ("How It Works", "Source system deduplication"),
    ("Message Deduplication", None),
    ("Timer Functionality", None),
    ("Timer Methods", "Timer functionality"),
    ("Timer Object", "Timer functionality"),
    ("Timer Configuration", "Timer functionality"),
    ("Error Handling", None),
    ("Using Decorators", "Error handling"),
    ("Without Decorators", "Error handling"),
    ("Best Practices for Error Handling", "Error handling"),
    ("OpenTelemetry Tracing", None),
    ("Required Packages", "OpenTelemetry tracing"),
    ("Initializing Tracing", "OpenTelemetry tracing"),
    ("Setting OpenTelemetry Environment Variables", "OpenTelemetry tracing"),
    ("Using Tracing in Your Application", "OpenTelemetry tracing"),
    ("Span Linking", "OpenTelemetry tracing"),
    ("Best Practices", None),
    ("Ensuring Idempotent Message Handlers", "Best practices"),
    ("Proper Shutdown", "Best practices"),
    ("Handling Task Cancellation", "Best practices"),
    ("Release Process", None),
    ("Contributing to Releases", "Release process"),
    ("Manual Releases", "Release process"),
    ("API Reference", None),
    ("ProsodyClient", "API reference"),
    ("EventHandler", "API reference"),
    ("Message", "API reference"),
    ("Context", "API reference"),
    ("Timer", "API reference"),
    ("License", None),
]


@pytest.mark.parametrize(("title", "within"), SPECIFICATION)
def test_headings_of_the_specification_have_a_place(title: str, within: str | None) -> None:
    found = section(title, within=within)
    below = [s for s in sections() if found.title in s.parents]
    assert found.text.strip() or below, f"there is nothing below {title!r}"


def test_links_lead_somewhere() -> None:
    anchors = {s.anchor for s in sections()}
    for label, target in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", read()):
        if target.startswith("#"):
            assert target[1:] in anchors, f"[{label}]({target})"
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), f"[{label}]({target})"


def features() -> dict[str, str]:
    """Anchor -> "yes", "partly" or "not yet", of the table of features."""
    rows = re.findall(
        r"^\| \[[^\]]+\]\(#([^)]+)\) \| ([^|]+) \|$", section("Features").text, re.MULTILINE
    )
    assert len(rows) > 10
    return dict(rows)


def test_the_table_of_features_agrees_with_the_sections() -> None:
    by_anchor = {s.anchor: s for s in sections()}
    table = features()
    assert set(table.values()) <= {"yes", "partly", "not yet"}
    for anchor, state in table.items():
        says = by_anchor[anchor].not_yet is not None
        assert says == (state != "yes"), f"{by_anchor[anchor].title}: {state!r} in the table"


def test_what_is_missing_is_said_in_one_form() -> None:
    table = features()
    for s in sections():
        if s.not_yet is None:
            continue
        assert s.text.count(NOT_YET) == 1
        inside = {t.anchor for t in sections() if t.title in s.parents} | {s.anchor}
        assert inside & set(table) or "Configuration" in s.parents, f"{s.title}: not in the table"


def without_effect(options: Section, every: list[str]) -> set[str]:
    """The options that a section of the configuration says have no effect yet."""
    says = options.not_yet
    if says is None:
        return set()
    if says.startswith("no option of this table has an effect"):
        return set(every)
    named, *ends = re.split(r" ha(?:s|ve) no effect", says)
    assert ends, f"{options.title}: say which options have no effect"
    return set(re.findall(r"`(\w+)`", named))


def test_options_without_effect_are_named() -> None:
    """An option that no code outside the configuration reads can have no effect."""
    package = ROOT / "prosody"
    texts = {
        file.relative_to(package).as_posix(): file.read_text(encoding="utf-8")
        for file in package.rglob("*.py")
        if Path("config") not in file.relative_to(package).parents
    }
    factory = texts.pop("stores/factory.py")
    # What only a factory reads that nobody calls has no effect.
    called = any("make_stores(" in text for text in texts.values())
    code = "\n".join([*texts.values(), factory if called else ""])
    read_somewhere = {name for name in OPTIONS if re.search(rf"\.{name}\b", code)}
    said = set()
    for group in GROUPS:
        names = [option.name for option in group.options]
        said |= without_effect(section(group.title, within="Configuration"), names)
    assert said == set(OPTIONS) - read_somewhere
