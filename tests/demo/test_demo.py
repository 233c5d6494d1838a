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
from demo.settings import FAILING_KEYS, HOT_KEY, Settings
from demo.views import PlainScreen, RichScreen, make_screen
from prosody import BrokerError, Context, Message, PermanentError, Timer
from prosody.broker.memory import MemoryCluster
from prosody.broker.memory import producer as memory_producer
from prosody.broker.memory.producer import MemoryProducer
from prosody.runtime import SystemRuntime
from tools.services import Server

ROOT = Path(__file__).parents[2]
SMALL = ["--plain", "--orders", "1000", "--rate", "0", "--outage", "0.2", "--stuck-after", "4"]
SMALL += ["--reminder", "1"]
SEEN = ["--rate", "500", "--outage", "2"]
"""An outage long enough that the report insists on orders seen deferred."""


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
    assert table["timers_set"] - table["timers_cancelled"] == table["timers_fired"] > 0
    assert table["timers_cancelled"] > 0
    assert table["deferred"] == table["deferred_finished"] > 0
    assert table["duplicates_skipped"] > 0
    stored = 2000 + table["duplicates_skipped"]
    assert sum(end for _, end in table["committed"].values()) == stored
    assert all(committed == end for committed, end in table["committed"].values())
    assert table["messages_per_s"] > 0
    assert 0.002 <= table["latency_s"]["p50"] <= table["latency_s"]["p99"]


def test_small_run_passes(tmp_path: Path) -> None:
    code, table = run(tmp_path)
    assert code == 0
    assert table["failed_checks"] == []


@pytest.mark.real
@pytest.mark.timeout(300)  # both services may begin for it, on a busy machine
def test_small_run_passes_on_the_real_services(
    tmp_path: Path,
    kafka_server: Server,
    cassandra_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(kafka_server.variable, kafka_server.address)
    monkeypatch.setenv(cassandra_server.variable, cassandra_server.address)
    # A broker that begins answers late: nothing but the end of the test may count as stuck.
    code, table = run(tmp_path, *SEEN, "--kafka", "--stuck-after", "60")
    assert code == 0
    assert table["failed_checks"] == []
    assert kafka_server.address in table["broker"]
    assert cassandra_server.address in table["stores"]
    assert table["deferred"] > 0
    stored = 1000 + table["duplicates_skipped"]
    assert sum(end for _, end in table["committed"].values()) == stored


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
    # It has the same id, so it is skipped; the topic shows it.
    assert table["failed_checks"] == ["sent"]


def test_copies_that_are_handled_fail_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROSODY_IDEMPOTENCE_CACHE_SIZE", "0")
    code, table = run(tmp_path)
    assert code == 1
    assert table["failed_checks"] == ["handled_twice", "duplicates_skipped"]


def test_small_run_sees_orders_deferred(tmp_path: Path) -> None:
    code, table = run(tmp_path, *SEEN)
    assert code == 0
    assert table["deferred"] == table["deferred_finished"] > 0


def test_order_that_is_retried_in_place_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROSODY_DEFER_ENABLED", "false")
    code, table = run(tmp_path, *SEEN)
    assert code == 1
    assert table["failed_checks"] == ["deferred"]


class Forgetting(OrderHandler):
    """Loses one reminder."""

    lost = False

    async def on_timer(self, context: Context, timer: Timer) -> None:
        if self.lost:
            await super().on_timer(context, timer)
        self.lost = True


def test_timer_that_does_not_fire_fails_it(tmp_path: Path) -> None:
    code, table = run(tmp_path, make_handler=Forgetting)
    assert code == 1
    assert table["failed_checks"] == ["timers_fired"]
    assert table["timers_fired"] == table["timers_set"] - table["timers_cancelled"] - 1


def test_timers_that_fire_early_fail_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = SystemRuntime.wall
    # The library believes that it is later than it is.
    monkeypatch.setattr(SystemRuntime, "wall", staticmethod(lambda: wall() + 0.3))
    code, table = run(tmp_path)
    assert code == 1
    assert table["failed_checks"] == ["timers_early"]


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
    everything = make_orders(Settings(orders=3000))
    assert everything == make_orders(Settings(orders=3000))
    assert everything != make_orders(Settings(orders=3000, seed=2))
    orders = [order for order in everything if not order.copy]
    seen = Counter[str]()
    for order in orders:
        seen[order.key] += 1
        assert order.seq == seen[order.key]
    assert len(orders) == len({order.payload["id"] for order in orders}) == 3000
    assert seen.most_common(1)[0][0] == HOT_KEY
    assert all(seen[key] > 0 for key in FAILING_KEYS)


def test_a_copy_is_word_for_word_and_comes_later() -> None:
    sent: dict[str, dict[str, Any]] = {}
    copies = 0
    for order in make_orders(Settings(orders=3000)):
        if order.copy:
            copies += 1
            assert sent[order.payload["id"]] == order.payload
        sent[order.payload["id"]] = order.payload
    assert copies > 30


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
    for expected in (
        *(HOT_KEY, "5 failing keys", "other customers", "their service is back", "1,000"),
        *("reminders", "for their second", "duplicates"),
    ):
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
