"""The demo as a whole, small: it passes when all is well, and notices each thing that is not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.__main__ import main
from demo.handler import OrderHandler
from demo.orders import make_orders
from demo.settings import FAILING_KEY, HOT_KEY, Settings
from demo.views import PlainScreen, RichScreen, make_screen
from prosody import BrokerError, Context, Message, PermanentError
from prosody.broker.memory import MemoryCluster
from prosody.broker.memory import producer as memory_producer
from prosody.broker.memory.producer import MemoryProducer
from tools.services import Server

ROOT = Path(__file__).parents[2]
SMALL = ["--plain", "--orders", "1000", "--rate", "0", "--outage", "0.2", "--stuck-after", "2"]


@pytest.fixture(autouse=True)
def _own_cluster() -> Iterator[None]:
    MemoryCluster.reset_shared()
    yield
    MemoryCluster.reset_shared()


def run(folder: Path, *more: str, **hooks: Any) -> tuple[int, dict[str, Any]]:
    """Exit code and measured table of a small run in this process."""
    file = folder / "table.json"
    code = main([*SMALL, "--json", str(file), *more], **hooks)
    return code, json.loads(file.read_text())


def test_a_person_runs_it(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--orders", "2000", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "All checks hold." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    table = json.loads(file.read_text())
    assert table["passed"] is True
    assert table["sent"] == table["handled"] == 2000
    assert table["retried"] >= 1
    assert [table[name] for name in ("out_of_order", "lost", "handled_twice", "overlapping")] == [
        0
    ] * 4
    assert sum(end for _, end in table["committed"].values()) == 2000
    assert all(committed == end for committed, end in table["committed"].values())
    assert table["messages_per_s"] > 0
    assert 0.002 <= table["latency_s"]["p50"] <= table["latency_s"]["p99"]


def test_small_run_passes(tmp_path: Path) -> None:
    code, table = run(tmp_path)
    assert code == 0
    assert table["failed_checks"] == []


@pytest.mark.real
def test_small_run_passes_on_a_real_kafka(
    tmp_path: Path, kafka_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kafka_server.variable, kafka_server.address)
    # A broker that begins answers late: nothing but the end of the test may count as stuck.
    code, table = run(tmp_path, "--kafka", "--stuck-after", "60")
    assert code == 0
    assert table["failed_checks"] == []
    assert kafka_server.address in table["broker"]
    assert sum(end for _, end in table["committed"].values()) == 1000


class Dropping(OrderHandler):
    """Gives one order up for good."""

    async def on_message(self, context: Context, message: Message) -> None:
        if message.payload["id"].endswith("000500"):
            raise PermanentError("dropped")
        await super().on_message(context, message)


def test_lost_order_fails_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, table = run(tmp_path, make_handler=Dropping)
    assert code == 1
    # The library logs what it drops, and commits it.
    assert table["failed_checks"] == ["handled", "lost", "errors_logged"]
    assert table["lost"] == 1
    assert "CHECK FAILED: lost: 1, must be 0" in capsys.readouterr().out


def test_key_in_several_partitions_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    monkeypatch.setattr(
        memory_producer, "partition_for", lambda _p, _key, count, _random: rng.randrange(count)
    )
    code, table = run(tmp_path)
    assert code == 1
    assert {"out_of_order", "overlapping"} <= set(table["failed_checks"])


def test_record_written_twice_fails_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = MemoryProducer.send
    calls = Counter[str]()

    async def send(self: MemoryProducer, topic: str, **record: Any) -> Any:
        calls["send"] += 1
        if calls["send"] == 700:
            await once(self, topic, **record)
        return await once(self, topic, **record)

    monkeypatch.setattr(MemoryProducer, "send", send)
    code, table = run(tmp_path)
    assert code == 1
    assert table["failed_checks"] == ["sent", "handled_twice"]


def test_commits_refused_fail_it(tmp_path: Path) -> None:
    def refuse(call: str, _client: str) -> None:
        if call == "commit":
            raise BrokerError("refused by a test", retriable=False)

    MemoryCluster.shared().on_call = refuse
    code, table = run(tmp_path)
    assert code == 1
    # The library says so too.
    assert table["failed_checks"] == ["committed", "errors_logged"]


def test_dependency_that_never_fails_fails_it(tmp_path: Path) -> None:
    code, table = run(tmp_path, "--outage", "0")
    assert code == 1
    assert table["failed_checks"] == ["retried"]


def test_broker_that_refuses_sends_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(call: str, _client: str) -> None:
        if call == "send":
            raise BrokerError("refused by a test", retriable=False)

    MemoryCluster.shared().on_call = refuse
    assert main(SMALL) == 1
    assert "refused by a test" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_in_order(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "--plain"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                if line.strip().startswith("1."):  # the line of the first second
                    break
            process.send_signal(number)
            rest = process.stdout.read()
            errors = process.stderr.read()
            code = process.wait(30)
        finally:
            process.kill()
    assert code == 130, rest + errors
    assert errors == ""
    assert "Stopped before the end" in rest
    assert "the group was left" in rest


def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--orders", "5"])
    assert ended.value.code == 2
    assert "--orders is 5, below 100" in capsys.readouterr().err


def test_orders_repeat_with_the_seed_and_number_each_key() -> None:
    orders = make_orders(Settings(orders=3000))
    assert orders == make_orders(Settings(orders=3000))
    assert orders != make_orders(Settings(orders=3000, seed=2))
    seen = Counter[str]()
    for order in orders:
        seen[order.key] += 1
        assert order.seq == seen[order.key]
    assert len({order.payload["id"] for order in orders}) == 3000
    assert seen.most_common(1)[0][0] == HOT_KEY
    assert seen[FAILING_KEY] > 0


def test_live_display_draws_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    file = (tmp_path / "screen.txt").open("w+", encoding="utf-8")
    with file:
        console = Console(file=file, force_terminal=True, width=100, color_system=None)
        monkeypatch.setattr("demo.__main__.make_screen", lambda _plain: RichScreen(console))
        assert main([option for option in SMALL if option != "--plain"]) == 0
        file.seek(0)
        text = file.read()
    for expected in (HOT_KEY, FAILING_KEY, "other customers", "its service is back", "1,000"):
        assert expected in text
    assert "All checks hold." in text


@pytest.mark.parametrize(
    ("plain", "terminal", "term", "rich", "kind"),
    [
        (False, True, "xterm", True, RichScreen),
        (True, True, "xterm", True, PlainScreen),
        (False, False, "xterm", True, PlainScreen),
        (False, True, "dumb", True, PlainScreen),
        (False, True, "xterm", False, PlainScreen),
    ],
)
def test_display_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, plain: bool, terminal: bool, term: str, rich: bool, kind: type
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("TERM", term)
    if not rich:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert type(make_screen(plain)) is kind
