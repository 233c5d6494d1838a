"""Find a Java that a server can run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.services.errors import MissingToolError

_VERSION_TIMEOUT_S = 30.0


def find_java(server: str, variable: str, *, lowest: int, highest: int | None) -> str:
    """The path of a ``java`` whose major version lies between ``lowest`` and ``highest``.

    Looked for in ``JAVA_HOME``, in the ``JAVA_HOME_<n>_*`` variables of CI machines, on ``PATH`` and
    in ``/usr/lib/jvm``, in this order; the first that fits is taken.

    Raises:
        MissingToolError: none fits; the text names those found and what to install.
    """
    seen: dict[str, str] = {}
    for candidate in _candidates(lowest):
        path = os.path.realpath(candidate)
        if path in seen:
            continue
        major = _major_version(path)
        if major is not None and lowest <= major and (highest is None or major <= highest):
            return path
        seen[path] = f"Java {major}" if major is not None else "does not run"
    wanted = f"Java {lowest}" if highest == lowest else f"Java {lowest} or later"
    found = "; ".join(f"{path} ({what})" for path, what in seen.items()) or "none"
    raise MissingToolError(
        f"{server} needs {wanted}. Found: {found}.\n"
        f"Install it (Debian, Ubuntu: apt install openjdk-{lowest}-jre-headless; "
        f"macOS: brew install openjdk@{lowest}) or point JAVA_HOME at one,\n"
        f"or set {variable}=host:port to use a server that already runs."
    )


def _candidates(lowest: int) -> Iterator[str]:
    homes = [os.environ.get("JAVA_HOME", "")]
    homes += [
        home for name, home in sorted(os.environ.items()) if name.startswith(f"JAVA_HOME_{lowest}_")
    ]
    for home in homes:
        if home and (java := Path(home) / "bin" / "java").is_file():
            yield str(java)
    if on_path := shutil.which("java"):
        yield on_path
    for java in sorted(Path("/usr/lib/jvm").glob("*/bin/java")):
        yield str(java)


def _major_version(java: str) -> int | None:
    try:
        answer = subprocess.run(
            [java, "-version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        # A broken installation is no reason to stop: another candidate may work.
        return None
    match = re.search(r'version "(\d+)(?:\.(\d+))?', answer.stderr + answer.stdout)
    if answer.returncode != 0 or match is None:
        return None
    # Up to Java 8 the version was written "1.8".
    return int(match[2]) if match[1] == "1" and match[2] else int(match[1])
