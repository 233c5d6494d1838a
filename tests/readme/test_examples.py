"""Every Python example of the README runs, and does what the text around it says."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prosody import ProsodyClient
from prosody.config import Config
from prosody.config.schema import OPTIONS
from tests.readme.checks import CHECKS
from tests.readme.document import ROOT, Block, blocks
from tests.readme.support import DEADLINE_S, Watched, execute

DRIVER = Path(__file__).with_name("program.py")
SIGNALS = "shutdown-on-signals"
PYTHON = blocks("python")


def of(*wrappers: str, named: bool | None = None) -> pytest.MarkDecorator:
    chosen = [
        block
        for block in PYTHON
        if block.wrapper in wrappers and named in (None, block.name is not None)
    ]
    assert chosen, f"README.md has no example for {wrappers}"
    return pytest.mark.parametrize("block", chosen, ids=lambda block: block.id)


def start(block: Block, folder: Path) -> subprocess.Popen[str]:
    file = folder / "example.py"
    file.write_text(block.placed, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What a program still prints. It must end well, and have nothing to complain about."""
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert (process.returncode, err) == (0, "")
    return out


@of("program", named=False)
def test_programs_run_and_print_what_the_readme_says(block: Block, tmp_path: Path) -> None:
    out = finish(start(block, tmp_path))
    if block.output is not None:
        assert out == block.output
    if "OTLPSpanExporter" in block.code:
        assert out == "exported: start\n"


@pytest.mark.skipif(os.name == "nt", reason="the README says that this program is not for Windows")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@of("program", named=True)
def test_the_service_stops_in_order_on_signals(
    block: Block, number: signal.Signals, tmp_path: Path
) -> None:
    assert block.name == SIGNALS
    process = start(block, tmp_path)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
    except BaseException:
        process.kill()
        raise
    finally:
        out = finish(process)
    assert out == "stopping\nstopped\n"


@of("client")
async def test_clients_can_be_made_and_used(block: Block, caplog: pytest.LogCaptureFixture) -> None:
    client = (await execute(block, ProsodyClient=ProsodyClient))["client"]
    assert not caplog.records, "the README's options should need no warning"
    assert await client.consumer_state() == "configured"
    handler = Watched()
    async with client, ProsodyClient(source_system="elsewhere") as sender:
        await client.subscribe(handler)
        await sender.send("orders", "customer-7", {"total": 30})
        message, error = await handler.next_call()
        assert (message.payload, error) == ({"total": 30}, None)


@of("client")
def test_what_is_said_to_be_the_default_is_the_default(block: Block) -> None:
    for name, value in re.findall(r"^ +(\w+)=(.+),  # the default$", block.code, re.MULTILINE):
        assert OPTIONS[name].default == OPTIONS[name].kind.from_variable(
            value.strip('"').replace("True", "true").replace("False", "false")
        )


@of("await", "handler")
async def test_fragments_do_what_the_readme_says(
    block: Block, capsys: pytest.CaptureFixture[str]
) -> None:
    assert block.name in CHECKS, f"README.md line {block.line}: no check {block.name!r}"
    async with asyncio.timeout(2 * DEADLINE_S):
        await CHECKS[block.name](block, capsys)


@of("pytest")
async def test_tests_pass(block: Block) -> None:
    names = await execute(block)
    tests = [function for name, function in names.items() if name.startswith("test_")]
    assert tests
    for function in tests:
        assert inspect.iscoroutinefunction(function)
        await function()


def test_every_check_belongs_to_an_example() -> None:
    named = [block.name for block in PYTHON if block.name is not None]
    assert sorted(named) == sorted([*CHECKS, SIGNALS])


VARIABLE = re.compile(r"(PROSODY_\w+)=(\S+)(?:\s+#.*)?$")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        m.groups()
        for b in blocks("bash")
        for line in b.code.splitlines()
        if (m := VARIABLE.match(line))
    ],
)
def test_variables_are_understood(variable: str, value: str) -> None:
    assert variable in {option.variable for option in OPTIONS.values()}
    Config.load({"mock": True, "group_id": "g"}, {variable: value})


def test_make_targets_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    # In backquotes or at the start of a line: elsewhere "make" is a verb.
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets
