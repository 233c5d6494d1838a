"""Fetch a server's jars with Maven, once per user and version."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.services.cache import cache_folder, locked
from tools.services.errors import MissingToolError, ServiceError

POM_FOLDER = Path(__file__).with_name("poms")
FETCH_TIMEOUT_S = 600.0
_PARTIAL_PREFIX = ".fetching-"
# Pinned: without a version Maven takes the newest, and the same pom could give other jars.
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def ensure_jars(name: str, server: str, variable: str) -> Path:
    """The folder with the jars of ``poms/<name>.xml``, fetched with Maven when not cached yet.

    Args:
        name: the pom, ``"kafka"`` or ``"cassandra"``.
        server: the server's full name, for error texts.
        variable: the environment variable that names a running server instead, for error texts.

    Raises:
        MissingToolError: the jars are not cached and ``mvn`` is missing.
        ServiceError: Maven failed or took longer than ``FETCH_TIMEOUT_S`` seconds.
    """
    pom = POM_FOLDER / f"{name}.xml"
    jars = cache_folder() / "jars"
    jars.mkdir(exist_ok=True)
    target = jars / f"{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}"
    if target.is_dir():
        return target
    # One lock for all poms: Maven's own local repository does not stand two writers at once.
    with locked(jars / ".lock", FETCH_TIMEOUT_S * 2):
        if not target.is_dir():
            _fetch(pom, target, server, variable)
    return target


def _fetch(pom: Path, target: Path, server: str, variable: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingToolError(
            f"Maven (mvn) is not on PATH; it fetches the jars of {server}.\n"
            "Install it (Debian, Ubuntu: apt install maven; macOS: brew install maven),\n"
            f"or set {variable}=host:port to use a server that already runs."
        )
    for leftover in target.parent.glob(f"{_PARTIAL_PREFIX}*"):
        # We hold the lock, so whoever made it is dead.
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL_PREFIX, dir=target.parent))
    print(f"fetching the jars of {server} into {target} (once)", file=sys.stderr, flush=True)
    try:
        _run_maven(maven, pom, partial, server)
        if not any(partial.glob("*.jar")):
            raise ServiceError(f"Maven fetched no jar of {server}; look at {pom}")
        # mkdtemp makes it private to the user; so it stays.
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run_maven(maven: str, pom: Path, output: Path, server: str) -> None:
    command = [
        maven,
        "-q",
        "-B",
        "-C",  # a checksum that does not match is an error, not a warning
        "-Dstyle.color=never",
        "-f",
        str(pom),
        _GOAL,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={output}",
    ]
    # A group of its own: a deadline or Ctrl-C must end the JVM behind the mvn script too.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ServiceError(
            f"Maven did not fetch the jars of {server} within {FETCH_TIMEOUT_S:.0f} s; "
            "look at the network, or at the mirrors in ~/.m2/settings.xml"
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        tail = "\n".join(out.strip().splitlines()[-20:])
        raise ServiceError(
            f"Maven could not fetch the jars of {server} (exit code {process.returncode}):\n{tail}"
        )
