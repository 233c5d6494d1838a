"""Maven and Java missing or failing; the command line; the pytest plugin. Nothing real is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.services import MissingToolError, ServiceError
from tools.services.jars import ensure_jars
from tools.services.java import find_java

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="servers are started on Linux and macOS only"
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a PATH with one empty folder, which is returned."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tools))
    for name in list(os.environ):
        if name.startswith(("JAVA_HOME", "PROSODY_TEST_")):
            monkeypatch.delenv(name)
    return tools


def write_tool(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def jar_folders() -> list[Path]:
    jars = Path(os.environ["XDG_CACHE_HOME"]) / "prosody-asyncio" / "jars"
    return [entry for entry in jars.iterdir() if entry.is_dir()]


# The value of -DoutputDirectory, as the real mvn would read it; then one line per call.
FAKE_MAVEN = """
for argument; do case $argument in -DoutputDirectory=*) out=${argument#*=};; esac; done
echo called >> "$0.calls"
sleep 0.3
touch "$out/a.jar"
"""


def test_missing_maven_names_what_to_install(bare: Path) -> None:
    with pytest.raises(MissingToolError, match=r"(?s)mvn.*apt install maven.*PROSODY_TEST_KAFKA"):
        ensure_jars("kafka", "Apache Kafka", "PROSODY_TEST_KAFKA")
    assert jar_folders() == []


def test_the_command_line_says_it_without_a_traceback(bare: Path) -> None:
    write_tool(bare / "java", """echo 'openjdk version "17.0.1"' >&2""")
    for arguments in (["start", "kafka"], ["run", "kafka", "--", "true"]):
        answer = run_command_line(arguments)
        assert answer.returncode == 1
        assert "apt install maven" in answer.stderr
        assert "Traceback" not in answer.stderr
        assert answer.stdout == ""


def test_failing_maven_leaves_nothing_behind(bare: Path) -> None:
    write_tool(bare / "mvn", "echo 'cannot reach the mirror'; exit 1")
    with pytest.raises(ServiceError, match=r"(?s)exit code 1.*cannot reach the mirror"):
        ensure_jars("kafka", "Apache Kafka", "PROSODY_TEST_KAFKA")
    assert jar_folders() == []


def test_processes_that_want_the_same_jars_fetch_them_once(bare: Path) -> None:
    write_tool(bare / "mvn", FAKE_MAVEN)
    script = "from tools.services.jars import ensure_jars; print(ensure_jars('kafka', 'K', 'V'))"
    fetchers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(3)
    ]
    answers = {fetcher.communicate(timeout=30)[0].decode().strip() for fetcher in fetchers}
    assert len(answers) == 1
    assert [entry.name for entry in Path(answers.pop()).iterdir()] == ["a.jar"]
    assert (bare / "mvn.calls").read_text().count("called") == 1
    assert len(jar_folders()) == 1


def test_a_wrong_java_is_named_with_its_version(bare: Path) -> None:
    write_tool(bare / "java", """echo 'openjdk version "1.8.0_392"' >&2""")
    # No machine has this one, whatever else is installed.
    with pytest.raises(
        MissingToolError, match=r"needs Java 99\. Found: .*\(Java 8\).*\n.*openjdk-99"
    ):
        find_java("Apache Cassandra", "PROSODY_TEST_CASSANDRA", lowest=99, highest=99)


def test_java_home_comes_before_the_path(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "jdk"
    (home / "bin").mkdir(parents=True)
    write_tool(home / "bin" / "java", """echo 'openjdk version "97.0.1"' >&2""")
    write_tool(bare / "java", """echo 'openjdk version "98"' >&2""")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java("K", "V", lowest=97, highest=None) == str((home / "bin" / "java").resolve())
    assert find_java("K", "V", lowest=98, highest=None) == str((bare / "java").resolve())


def run_command_line(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.services", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )


def test_run_hands_on_a_server_that_runs_already_and_the_exit_code(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROSODY_TEST_KAFKA", "localhost:9")
    script = "import os, sys; print(os.environ['PROSODY_TEST_KAFKA']); sys.exit(7)"
    answer = run_command_line(["run", "kafka", "--", sys.executable, "-c", script])
    assert (answer.returncode, answer.stdout) == (7, "localhost:9\n")
    missing = run_command_line(["run", "kafka", "--", "no-such-command"])
    assert missing.returncode == 127
    assert "no-such-command" in missing.stderr


@pytest.mark.parametrize("arguments", [["run"], ["start", "postgres"], ["stop", "--", "true"], []])
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    answer = run_command_line(arguments)
    assert answer.returncode == 2
    assert "usage:" in answer.stderr


@pytest.mark.parametrize(
    ("address", "text"),
    [("localhost:1", "does not answer on localhost:1"), ("nonsense", "is not host:port")],
)
def test_a_server_that_cannot_be_had_fails_tests_and_never_skips(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, text: str
) -> None:
    monkeypatch.setenv("PROSODY_TEST_KAFKA", address)
    answer = run_pytest_inside(tmp_path)
    assert answer.returncode == 1
    assert text in answer.stdout
    assert "skipped" not in answer.stdout


def test_missing_maven_fails_tests_and_never_skips(bare: Path, tmp_path: Path) -> None:
    write_tool(bare / "java", """echo 'openjdk version "17.0.1"' >&2""")
    answer = run_pytest_inside(tmp_path)
    assert answer.returncode == 1
    assert "apt install maven" in answer.stdout
    assert "skipped" not in answer.stdout


def run_pytest_inside(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "test_inside.py").write_text("def test_it(kafka_bootstrap): pass\n")
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "tests.real_services",
                "-p",
                "no:cacheprovider",
            ),
            *("-c", os.devnull, "--rootdir", str(folder), str(folder / "test_inside.py")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
