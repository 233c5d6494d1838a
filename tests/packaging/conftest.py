"""Distributions built once per run for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.builds import build, only_file


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sdist")
    done = build("sdist", target)
    assert done.code == 0, done.output
    return only_file(target, "*.tar.gz")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a clone with a compiler gives it."""
    target = tmp_path_factory.mktemp("wheel")
    done = build("wheel", target, PROSODY_REQUIRE_EXTENSIONS="1")
    assert done.code == 0, done.output
    return only_file(target, "*.whl")
