"""Slabs, times-to-live, keys, addresses, the table of errors: what needs neither loop nor server."""

from __future__ import annotations

import inspect
import logging
import ssl
from types import SimpleNamespace
from typing import Any

import cassandra
import cassandra.cluster
import cassandra.connection
import cassandra.protocol
import pytest
from cassandra.cluster import NoHostAvailable
from hypothesis import given
from hypothesis import strategies as st

from prosody.errors import StoreError
from prosody.stores.cassandra.errors import RETRIABLE, store_error
from prosody.stores.cassandra.faults import connect_error
from prosody.stores.cassandra.keys import bucket, signed, stored_key, unsigned
from prosody.stores.cassandra.placement import PreferredRackPolicy
from prosody.stores.cassandra.queries import queries
from prosody.stores.cassandra.session import _address, _is_worth_a_line, _tls
from prosody.stores.cassandra.settings import (
    FOR_EVER,
    LAST_EXPIRY_S,
    TTL_MOST_S,
    CassandraSettings,
    expiry,
    time_to_live,
)
from prosody.stores.cassandra.slabs import Slab, Slabs
from prosody.stores.cassandra.tables import TABLES, create_table
from prosody.stores.cassandra.times import CHUNK, KeyTimes

NOW = 1_790_000_000.0


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([1, 3, 10, 60, 100])), max_size=30),
    st.integers(0, 200),
)
def test_slabs_never_overlap_and_cover_what_was_added(
    added: list[tuple[int, int]], passed: int
) -> None:
    slabs = Slabs()
    model: list[tuple[int, int]] = []
    homes: dict[int, int] = {}
    for time, size in added:
        found = slabs.covering(time)
        if found is None:
            start, end = slabs.new_around(time, size)
            assert start <= time < end
            assert all(end <= s or e <= start for s, e in model), "they overlap"
            slabs.put(Slab(start, end, 7))
            model.append((start, end))
            found = slabs.covering(time)
        assert found is not None
        assert homes.setdefault(time, found.start) == found.start, "a timer would have moved"
    for first in range(0, 210, 7):
        wanted = sorted(s for s, e in model if e > first and s <= first + 30)
        assert list(slabs.between(first, first + 30)) == wanted
    bound = slabs.forget_before(passed)
    gone = [(s, e) for s, e in model if e <= passed]
    assert (bound is None) == (not gone)
    assert len(slabs) == len(model) - len(gone)
    if bound is not None:
        assert {s for s, _ in model if s < bound} == {s for s, _ in gone}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=400))
def test_the_times_of_a_key_are_what_its_rows_hold(steps: list[tuple[bool, int]]) -> None:
    times, rows, model = KeyTimes(), dict[int, list[int]](), set[int]()
    for add, time in steps:
        if add and time not in times:
            chunk, listed = times.with_added(time)
        elif not add and time in times:
            chunk, listed = times.without(time)
        else:
            continue
        model ^= {time}
        times.put(chunk, listed)
        rows[chunk] = listed
        assert len(listed) <= CHUNK
        assert times.all() == sorted(model) == sorted(t for row in rows.values() for t in row)
    if model:
        for chunk, listed in times.only(max(model)):
            times.put(chunk, listed)
            rows[chunk] = listed
        assert times.all() == [max(model)] == [t for row in rows.values() for t in row]
    assert KeyTimes(rows.items()).all() == times.all()


@pytest.mark.parametrize(
    ("keep_s", "ttl"),
    [
        (0.0, 1),
        (0.2, 1),
        (60.0, 60),
        (86_400.5, 86_401),
        (LAST_EXPIRY_S - NOW, int(LAST_EXPIRY_S - NOW)),
        (LAST_EXPIRY_S - NOW + 1, FOR_EVER),
        (TTL_MOST_S, FOR_EVER),
        (1e12, FOR_EVER),
    ],
)
def test_times_to_live(keep_s: float, ttl: int) -> None:
    assert time_to_live(keep_s, NOW) == ttl


def test_a_time_to_live_is_at_most_what_cassandra_takes() -> None:
    assert time_to_live(TTL_MOST_S, 0.0) == TTL_MOST_S
    assert time_to_live(TTL_MOST_S + 1, 0.0) == FOR_EVER
    assert expiry(60, NOW) == NOW + 60
    assert expiry(FOR_EVER, NOW) > 2**60


@given(st.text(), st.text())
def test_two_keys_never_share_what_stands_for_them(one: str, other: str) -> None:
    assert (stored_key(one) == stored_key(other)) is (one == other)
    assert len(stored_key(one * 5000).encode()) <= 1024
    assert 0 <= bucket(one) < 64


def test_what_stands_for_a_long_key_is_no_key() -> None:
    stands = stored_key("long" * 1000)
    assert stored_key(stands) != stands
    assert stored_key("a" * 1024) == "a" * 1024


@given(st.integers(0, 2**64 - 1))
def test_hashes_fit_a_bigint(number: int) -> None:
    assert -(2**63) <= signed(number) < 2**63
    assert unsigned(signed(number)) == number


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("db", ("db", 9042)),
        ("db:9043", ("db", 9043)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:9043", ("::1", 9043)),
        ("::1", ("::1", 9042)),
        ("[::1]", ("::1", 9042)),
        ("fe80::1:9042", ("fe80::1:9042", 9042)),
    ],
)
def test_addresses(node: str, address: tuple[str, int]) -> None:
    assert _address(node) == address


DRIVER_ERRORS = [
    found
    for module in (cassandra, cassandra.cluster, cassandra.connection, cassandra.protocol)
    for found in vars(module).values()
    if inspect.isclass(found) and issubclass(found, Exception) and "cassandra" in found.__module__
]


@pytest.mark.parametrize("error", DRIVER_ERRORS, ids=lambda e: f"{e.__module__}.{e.__name__}")
def test_every_error_of_the_driver_is_in_the_table(error: type[Exception]) -> None:
    assert error in RETRIABLE


def test_errors_say_what_failed() -> None:
    error = store_error("reading", NoHostAvailable("x", {"n1": OSError("gone")}))
    assert (str(error), error.retriable) == (
        "reading: no node takes requests (n1: OSError: gone)", True,
    )  # fmt: skip
    assert not store_error("writing", cassandra.InvalidRequest("bad")).retriable
    assert store_error("writing", OSError("net")).retriable
    assert "no answer in time" in str(store_error("x", cassandra.OperationTimedOut()))


SETTINGS = CassandraSettings(nodes=("db:9042",), user="me", password="secret", datacenter="north")


@pytest.mark.parametrize(
    ("error", "found", "named", "retriable"),
    [
        (NoHostAvailable("x", {"db": cassandra.AuthenticationFailed("bad")}), set(),
         ("cassandra_user", "PROSODY_CASSANDRA_PASSWORD", "'me'"), False),
        (NoHostAvailable("x", {"db": ssl.SSLError("bad")}), set(),
         ("cassandra_ssl_cafile", "PROSODY_CASSANDRA_SSL_"), False),
        (NoHostAvailable("x", {}), {"south"},
         ("cassandra_datacenter", "PROSODY_CASSANDRA_DATACENTER", "south", "'north'"), False),
        (NoHostAvailable("x", ["10.0.0.1"]), {"south", "north"},
         ("cassandra_datacenter", "cannot be reached"), True),
        (NoHostAvailable("x", {"db": OSError("refused")}), set(),
         ("cassandra_nodes", "PROSODY_CASSANDRA_NODES", "db:9042", "refused"), True),
        (cassandra.UnresolvableContactPoints({}), set(), ("cassandra_nodes",), True),
        (cassandra.DriverException("odd"), set(), ("connecting", "odd"), False),
    ],
)  # fmt: skip
def test_a_failed_start_names_the_option(
    error: Exception, found: set[str], named: tuple[str, ...], retriable: bool
) -> None:
    raised = connect_error(SETTINGS, error, found)
    assert all(each in str(raised) for each in named)
    assert "secret" not in str(raised)
    assert "secret" not in repr(SETTINGS)
    assert raised.retriable is retriable


def test_tls(tmp_path: Any) -> None:
    assert _tls(SETTINGS) is None
    on = CassandraSettings(nodes=("db",), ssl_enabled=True)
    assert (context := _tls(on)) is not None
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    lax = CassandraSettings(nodes=("db",), ssl_enabled=True, ssl_check_hostname=False)
    assert (context := _tls(lax)) is not None
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_REQUIRED)
    empty = tmp_path / "ca.pem"
    empty.write_text("no certificate")
    with pytest.raises(StoreError, match="cassandra_ssl_cafile"):
        _tls(CassandraSettings(nodes=("db",), ssl_enabled=True, ssl_cafile=str(empty)))


def test_only_the_warning_about_our_batches_is_left_out() -> None:
    def worth(text: str) -> bool:
        return _is_worth_a_line(
            logging.LogRecord("x", logging.WARNING, "", 0, "Server warning: %s", (text,), None)
        )

    assert not worth("Unlogged batch covering 50 partitions detected against table [a.aio_dedup]")
    assert worth("Unlogged batch covering 50 partitions detected against table [a.other]")
    assert worth("Read 5000 live rows and 6000 tombstone cells for aio_timers")


class Host(SimpleNamespace):
    __hash__ = object.__hash__


def host(name: str, rack: str, datacenter: str = "north") -> Any:
    return Host(name=name, rack=rack, datacenter=datacenter, is_up=True)


def test_replicas_come_first_and_those_of_the_rack_before_them() -> None:
    a, b, c = host("a", "r1"), host("b", "r2"), host("c", "r1")
    spare, far = host("d", "r2"), host("e", "r1", "south")
    replicas = [b, a, far]
    policy = PreferredRackPolicy("north", "r1")
    cluster = SimpleNamespace(metadata=SimpleNamespace(get_replicas=lambda k, key: replicas))
    policy.populate(cluster, [a, b, c, spare, far])
    query = SimpleNamespace(keyspace="ks", routing_key=b"key")
    for _ in range(3):
        plan = list(policy.make_query_plan(None, query))
        assert [h.name for h in plan[:2]] == ["a", "b"]
        assert plan[2].name == "c"
        assert {h.name for h in plan} == {"a", "b", "c", "d"}, "no other datacentre"
    a.is_up = False
    assert next(policy.make_query_plan(None, query)) is b
    without = PreferredRackPolicy("north", None)
    without.populate(cluster, [a, b, c, spare, far])
    a.is_up = True
    firsts = {next(without.make_query_plan(None, query)).name for _ in range(4)}
    assert firsts == {"a", "b"}, "in turn"


REFERENCE_TABLES = """
    timer_segments timer_typed_slabs timer_typed_keys timer_slabs timer_keys deferred_segments
    deferred_offsets deferred_timers deduplication schema_migrations locks
""".split()  # noqa: SIM905


def test_tables_collide_with_nobody_and_every_statement_uses_them() -> None:
    names = {table.name for table in TABLES}
    assert all(name.startswith("aio_") for name in names)
    assert not names & set(REFERENCE_TABLES)
    text = " ".join(queries("ks").values())
    assert all(f"ks.{name} " in text for name in names - {"aio_schema"})
    for forbidden in ("ALLOW FILTERING", " IF ", "BATCH", "SELECT *"):
        assert forbidden not in text


def test_the_ddl_fits_the_version_of_the_cluster() -> None:
    for table in TABLES:
        assert "UnifiedCompactionStrategy" in create_table("Ks", table, unified=True)
        old = create_table("Ks", table, unified=False)
        assert "Unified" not in old
        assert old.startswith(f'CREATE TABLE IF NOT EXISTS "Ks".{table.name} (')
