"""Every log line that is about a message, a key or a partition says so in its record as well."""

from __future__ import annotations

import ast
import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.rules.source import SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
LOGGERS = {"_log", "log", "self._log"}

ABOUT_NONE = {
    # file: the beginnings of its lines that are about no message, key or partition
    "broker/kafka/assignors.py": ("group member %s", "the leader's assignment"),
    "broker/kafka/chain.py": ("internal fault in the answer",),
    "broker/kafka/consumer.py": ("consumer of group",),
    "broker/kafka/foreign.py": ("cannot look at group",),
    "broker/kafka/producer.py": ("the producer %r is wedged", "replacing the producer"),
    "broker/kafka/rebalance.py": ("internal fault in %s",),
    "client.py": ("%s",),  # a warning about the options
    "consume/committer.py": ("the broker refuses commit metadata", "commits succeed again"),
    "consume/consumer.py": ("no cassandra_nodes", "internal fault in the %s"),
    "consume/lanes.py": ("internal fault in a lane",),
    "consume/metering.py": ("the ends of the logs",),
    "consume/poller.py": ("polling succeeds again", "polling fails"),
    "consume/probes.py": ("health checks are answered",),
    "consume/watch.py": ("connection to Kafka",),
    "deferral/gate.py": ("deferral stops", "deferral goes on"),
    "observe/http.py": ("internal fault in the answer",),
    "observe/instruments.py": ("the meter provider takes", "%s is not exported"),
    "observe/metrics.py": ("no metrics are exported", "handler and send durations"),
    "observe/otlp.py": ("no spans are exported", "spans were not exported"),
    "observe/sdk_histograms.py": ("histograms are recorded", "a metric reader gets no"),
    "observe/tracing.py": ("a span is missing", "no spans are made"),
    "produce.py": ("the producer cannot connect",),
    "stores/cassandra/breaker.py": ("Cassandra answers again", "%s; calls fail at once"),
    "stores/cassandra/schema.py": ("creating keyspace", "%s: %s"),
    "telemetry/telling.py": (
        *("telemetry events cannot", "telemetry events are written again"),
        *("%d telemetry events were dropped", "internal fault in telemetry"),
    ),
}


def lines(tree: ast.AST) -> Iterator[tuple[int, str, set[str | None]]]:
    """The number, text and named arguments of each log line."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and ast.unparse(node.func.value) in LOGGERS
        ):
            text = node.args[node.func.attr == "log"]
            shown = ast.literal_eval(text) if isinstance(text, ast.Constant) else ast.unparse(text)
            yield node.lineno, shown, {each.arg for each in node.keywords}


def test_what_a_line_is_about_stands_in_its_record() -> None:
    bad, used = [], set()
    for source in SOURCES:
        about_none = ABOUT_NONE.get(source.name, ())
        for number, text, named in lines(source.tree):
            beginning = next((each for each in about_none if text.startswith(each)), None)
            used.add((source.name, beginning))
            if ("extra" in named) is (beginning is not None):
                bad.append(f"{source.name}:{number}: {text[:60]}")
    assert not bad
    listed = {(name, each) for name, all_of in ABOUT_NONE.items() for each in all_of}
    assert listed <= used, f"there are no such lines: {listed - used}"


def test_the_rule_sees_log_lines() -> None:
    tree = ast.parse("def f():\n    _log.error('x %s', 1, extra=y)\n    self._log.log(1, 'z')")
    assert list(lines(tree)) == [(2, "x %s", {"extra"}), (3, "z", set())]


def logger_names() -> set[str]:
    """The names of the library's loggers; those named after their modules by their common parent."""
    found: set[str] = set()
    for source in SOURCES:
        found |= set(re.findall(r'getLogger\("(prosody\.[\w.]+)"\)', source.text))
        if "getLogger(__name__)" in source.text:
            found.add("prosody." + source.name.partition("/")[0])
    return found


def test_the_readme_names_all_loggers_and_what_records_have() -> None:
    from tests.readme.document import section

    text = section("Logs").text
    rows = re.findall(r"^\| `(prosody\.\w+)` \| .+ \|$", text, re.MULTILINE)
    assert set(rows) == logger_names()
    assert len(rows) == len(set(rows))
    fields = re.findall(r"^\| `(\w+): \w+` \| .+ \|$", text, re.MULTILINE)
    assert fields == ["topic", "partition", "offset", "key", "attempt", "left_out"]


def test_an_import_attaches_and_says_nothing() -> None:
    code = (
        "import logging, prosody, prosody.broker.kafka, prosody.broker.memory, prosody.consume.consumer\n"
        "names = [n for n in logging.Logger.manager.loggerDict if n.partition('.')[0] == 'prosody']\n"
        "assert len(names) > 10\n"
        "for name in [*names, None, 'aiokafka']:\n"
        "    found = logging.getLogger(name)\n"
        "    assert not found.handlers and not found.filters and found.propagate, name\n"
        "    assert found.level == (logging.WARNING if name is None else logging.NOTSET), name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["topic", "partition", "offset", "key", "attempt", "left_out"])
def test_a_record_has_room_for_the_names(name: str) -> None:
    record = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None)
    assert not hasattr(record, name)
    assert name not in {"message", "asctime"}
