"""For every option: values that are right, in the option and in the variable, and values that are not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

FILE = __file__
"""A file that exists."""


class Mode(StrEnum):
    """A program's own enum, as people write."""

    BEST_EFFORT = "best-effort"


@dataclass(frozen=True)
class Case:
    """One option. Each good pair is what is given and what is used."""

    good: list[tuple[Any, Any]]
    good_text: list[tuple[str, Any]]
    bad: list[Any]
    """Values of a right type, and wrong."""
    bad_type: list[Any]
    bad_text: list[str]
    needs: dict[str, Any] = field(default_factory=dict)
    """Other options without which this one is refused."""


def count(least: int = 0, most: int = 2**31 - 1) -> Case:
    below = [least - 1, -1]
    return Case(
        good=[(least, least), (1 if least < 1 else least + 1,) * 2, (most, most)],
        good_text=[(str(least), least), (f"+{most}", most), ("0" + str(most), most)],
        bad=[*below, most + 1, 10**5000],
        bad_type=[True, False, 7.5, 7.0, math.nan, "7", b"7", [7], {}],
        bad_text=["", " ", "seven", "7.5", " 7", "7_0", "1e3", "nan", "\u0667", "9" * 5000,
                  *map(str, below), str(most + 1)],
    )  # fmt: skip


def number(most: float | None) -> Case:
    beyond: list[Any] = [] if most is None else [most + 0.01, most + 1]
    return Case(
        good=[(0, 0.0), (0.25, 0.25), (1, 1.0), (most or 1e9, most or 1e9)],
        good_text=[("0", 0.0), ("0.25", 0.25), (".5", 0.5), ("1.", 1.0), ("2.5e-1", 0.25)],
        bad=[-0.01, -1, math.nan, math.inf, -math.inf, 10**400, *beyond],
        bad_type=[True, False, "0.5", b"0.5", [0.5], timedelta(seconds=1)],
        bad_text=["", " ", "half", "nan", "inf", "-inf", "-0.1", " 0.5", "0_1", "0x1", "1e400",
                  "0,5", *map(str, beyond)],
    )  # fmt: skip


def duration(least: float = 0, most: float = 3_155_760_000, *, positive: bool = False) -> Case:
    some = max(least, 90)
    edges: list[Any] = (
        [(most, float(most))] if positive else [(least, float(least)), (most, float(most))]
    )
    refused = [0, 0.0, "0", timedelta(0)] if positive else [least - 0.5]
    return Case(
        good=[*edges, (some, float(some)), (some + 0.5, some + 0.5), (f"{some}s", float(some)),
              ("1m 30s", 90.0), (timedelta(seconds=some), float(some))],
        good_text=[(f"{some}s", float(some)), ("2m", 120.0), ("1m 30s", 90.0), ("1.5h", 5400.0)],
        bad=[-1, -0.001, "-1s", "90", "1.5", "", " ", "soon", "15S", timedelta(seconds=-1),
             math.nan, math.inf, -math.inf, most + 1, 10**400, f"{int(most) + 1}s", "9" * 300,
             "9" * 150 + "y", timedelta.max, *refused],
        bad_type=[True, False, b"15s", [15], {}],
        bad_text=["", " ", "90", "1.5", "-1s", "soon", "15S", "inf", "nan", f"{int(most) + 1}s",
                  "1000000y", *(["0"] if positive or least else [])],
    )  # fmt: skip


def flag(**needs: Any) -> Case:
    return Case(
        good=[(True, True), (False, False)],
        good_text=[("true", True), ("false", False)],
        bad=[],
        bad_type=[0, 1, "true", "false", "", 1.0, [True]],
        bad_text=["", "True", "TRUE", "yes", "1", "0", " true", "none"],
        needs=needs,
    )


def text(*, optional: bool = True, **needs: Any) -> Case:
    return Case(
        good=[("some text", "some text"), (" as is ", " as is "), ("none", "none"), ("ü", "ü")],
        good_text=[("some text", "some text"), (" as is ", " as is "), ("a,b", "a,b")],
        bad=["", "\udcff"],
        bad_type=[0, 1, True, b"text", ["text"], 1.5],
        bad_text=["", "\udcff"],
        needs=needs,
    )


def texts(good: str = "some text", also: str = "more") -> Case:
    return Case(
        good=[(good, (good,)), ([good], (good,)), ((good, also), (good, also))],
        good_text=[(good, (good,)), (f"{good}, {also}", (good, also)), (f" {good} ", (good,))],
        bad=["", [], (), [""], [good, ""], [good, "\udcff"]],
        bad_type=[1, True, b"text", {good}, {good: 1}, [1], [good, None], [[good]], [b"x"]],
        bad_text=["", " ", ",", f"{good},", f",{good}", f"{good}, ,{also}"],
    )


def servers() -> Case:
    case = texts("kafka-1:9092", "kafka-2:9093")
    wrong = ["host:port", "host:", "host:65536", "host:-1", "host:1e3", "host:\u0669", ":9092", "a b:1",
             "host:1:2", "[::1]9092", "[::1]:x", "[::1", "[nohost]:9092", "kafka://host:9092",
             "host:123456"]  # fmt: skip
    right = ["host", "host:0", "host:65535", "10.0.0.1:9092", "[::1]:9092", "[::1]", "::1"]
    return Case(
        good=[*case.good, *((r, (r,)) for r in right), ("a:1, b:2", ("a:1", "b:2"))],
        good_text=[*case.good_text, *((r, (r,)) for r in right), ("none", ("none",))],
        bad=[*case.bad, *wrong, ["a:1", "b:x"], "a:1,"],
        bad_type=case.bad_type,
        bad_text=[*case.bad_text, *wrong, "a:1,b:x"],
    )


def choice(*words: str, none: str | None = None, **needs: Any) -> Case:
    pairs: list[tuple[Any, Any]] = [(w, None if w == none else w) for w in words]
    return Case(
        good=pairs,
        good_text=pairs,
        bad=["", "other", f" {words[0]}", words[0].swapcase(), "\udcff"],
        bad_type=[0, True, words[0].encode(), [words[0]]],
        bad_text=["", "other", f" {words[0]}", words[0].swapcase()],
        needs=needs,
    )


def file(**needs: Any) -> Case:
    return Case(
        good=[(FILE, FILE)],
        good_text=[(FILE, FILE)],
        bad=["", "/no/such/file.pem", "/", "nul\0byte", "x" * 5000, "\udcff"],
        bad_type=[1, True, b"/", ["/"]],
        bad_text=["", "/no/such/file.pem", "/"],
        needs=needs,
    )


def plus(case: Case, **added: Any) -> Case:
    """A case with more of something."""
    merged = {name: [*getattr(case, name), *values] for name, values in added.items()}
    return Case(**{**{n: getattr(case, n) for n in case.__dataclass_fields__}, **merged})


SASL = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "PLAIN",
    "kafka_sasl_username": "u",
    "kafka_sasl_password": "p",
}
TLS = {"kafka_security_protocol": "SSL"}
CERTIFIED = {**TLS, "kafka_ssl_certfile": FILE}
CASSANDRA_TLS = {"cassandra_ssl_enabled": True}
NONE = [("none", None), ("NONE", None), (" None ", None)]

CASES: dict[str, Case] = {
    "mode": plus(
        choice("pipeline", "low-latency", "best-effort"), good=[(Mode.BEST_EFFORT, "best-effort")]
    ),
    "bootstrap_servers": servers(),
    "group_id": plus(text(), good_text=NONE),
    "subscribed_topics": plus(
        texts("orders"), good=[("^orders-.{1,2}$", ("^orders-.{1,2}$",))], bad=["^orders-(", "^*"]
    ),
    "allowed_events": plus(
        texts("user."), good=[("a,b", ("a,b",))], good_text=[("none", ("none",))]
    ),
    "source_system": text(),
    "mock": flag(),
    "max_concurrency": count(1),
    "max_uncommitted": count(1),
    "timeout": plus(
        duration(positive=True), good_text=[("none", 240.0), ("NONE", 240.0), ("12345s", 12345.0)]
    ),
    "commit_interval": plus(duration(), good=[("0", 0.0)], good_text=[("0", 0.0)]),
    "poll_interval": duration(positive=True),
    "shutdown_timeout": plus(duration(0, 1_987_200), good=[(0, 0.0)], good_text=[("0", 0.0)]),
    "stall_threshold": duration(positive=True),
    "probe_port": plus(count(0, 65_535), good=[(None, None)], good_text=NONE),
    "failure_topic": plus(text(), good_text=NONE),
    "idempotence_cache_size": count(0),
    "idempotence_version": Case(
        good=[("2", "2"), ("", ""), (" ", " ")],
        good_text=[("2", "2"), ("", ""), ("none", "none")],
        bad=["\udcff"],
        bad_type=[2, True, b"2"],
        bad_text=["\udcff"],
    ),
    "idempotence_ttl": plus(duration(60, 630_720_000), bad=["59s"], bad_text=["59s"]),
    "slab_size": plus(duration(1, 630_720_000), bad=["999ms"], bad_text=["999ms"]),
    "message_spans": choice("child", "follows_from"),
    "timer_spans": choice("child", "follows_from"),
    "send_timeout": plus(duration(positive=True), good=[(None, None)], good_text=NONE),
    "max_retries": count(0),
    "retry_base": plus(duration(), good=[(0, 0.0)], good_text=[("0", 0.0)]),
    "max_retry_delay": plus(duration(), good=[(0, 0.0)], good_text=[("0", 0.0)]),
    "defer_enabled": flag(),
    "defer_base": plus(duration(), bad=[]),
    "defer_max_delay": duration(),
    "defer_failure_threshold": number(1.0),
    "defer_failure_window": duration(1),
    "defer_cache_size": count(1),
    "defer_store_cache_size": count(1),
    "defer_seek_timeout": duration(positive=True),
    "defer_discard_threshold": count(0),
    "monopolization_enabled": flag(),
    "monopolization_threshold": number(1.0),
    "monopolization_window": duration(1),
    "monopolization_cache_size": count(1),
    "scheduler_failure_weight": number(1.0),
    "scheduler_max_wait": duration(positive=True),
    "scheduler_wait_weight": number(None),
    "scheduler_cache_size": count(1),
    "telemetry_enabled": flag(),
    "telemetry_topic": plus(text(), good_text=[("none", "none")]),
    "cassandra_nodes": servers(),
    "cassandra_keyspace": Case(
        good=[("shop_1", "shop_1"), ("a" * 48, "a" * 48)],
        good_text=[("shop_1", "shop_1"), ("none", "none")],
        bad=["", "a" * 49, "my-shop", "shop;drop", 'a"b', "ü", "a\n"],
        bad_type=[1, True, b"shop"],
        bad_text=["", "my-shop"],
    ),
    "cassandra_user": plus(text(), good_text=NONE),
    "cassandra_password": plus(text(), good_text=NONE),
    "cassandra_datacenter": plus(text(), good_text=NONE),
    "cassandra_rack": plus(text(), good_text=NONE),
    "cassandra_retention": plus(duration(1, 630_720_000), bad=[0], bad_text=["20y 1M"]),
    "assignor": choice("cooperative", "roundrobin", "range", "sticky"),
    "session_timeout": duration(1, 1_987_200),
    "fetch_bytes": count(2**20),
    "metadata_max_age": duration(positive=True),
    "compression": choice("none", "gzip", "snappy", "lz4", "zstd", none="none"),
    "partitioner": choice("crc32", "murmur2"),
    "send_cache_enabled": flag(),
    "kafka_security_protocol": Case(
        good=[(p, p) for p in ("SASL_PLAINTEXT", "SASL_SSL")],
        good_text=[("SASL_SSL", "SASL_SSL")],
        bad=["", "ssl", "TLS", "sasl_ssl"],
        bad_type=[True, 1, b"SSL"],
        bad_text=["", "ssl"],
        needs={name: value for name, value in SASL.items() if name != "kafka_security_protocol"},
    ),
    "kafka_sasl_mechanism": choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", **SASL),
    "kafka_sasl_username": text(**SASL),
    "kafka_sasl_password": text(**SASL),
    "kafka_ssl_cafile": file(**TLS),
    "kafka_ssl_certfile": file(**TLS),
    "kafka_ssl_keyfile": file(**CERTIFIED),
    "kafka_ssl_keypassword": text(**CERTIFIED),
    "kafka_ssl_check_hostname": flag(**TLS),
    "cassandra_ssl_enabled": flag(),
    "cassandra_ssl_cafile": file(**CASSANDRA_TLS),
    "cassandra_ssl_certfile": file(**CASSANDRA_TLS),
    "cassandra_ssl_keyfile": file(**CASSANDRA_TLS, cassandra_ssl_certfile=FILE),
    "cassandra_ssl_check_hostname": flag(**CASSANDRA_TLS),
    "cassandra_schema_check_only": flag(),
    "debug_endpoint": flag(),
}
