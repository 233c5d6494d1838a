"""How a reader reaches the cluster: what it asks, how it reads the answers, when it connects anew."""

from __future__ import annotations

import asyncio
import io
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaClient
from aiokafka import errors as lower
from aiokafka.cluster import ClusterMetadata
from aiokafka.protocol import fetch
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest, MetadataRequest_v4, MetadataResponse_v0

from prosody.broker.kafka import link as module
from prosody.broker.kafka.link import Link, ask_for, request_limit_s
from prosody.broker.kafka.security import KafkaSecurity
from prosody.broker.protocol import ReaderSettings, TopicPartition
from prosody.errors import BrokerError
from tests.broker.kafka.fetched import batch
from tests.support import FakeRuntime, run_virtual

TP = TopicPartition("t", 0)
SETTINGS = ReaderSettings("me", seek_timeout_s=30.0, discard_threshold=100, fetch_bytes=4096)


def metadata(*leaders: int, topic: str = "t", error: int = 0) -> Any:
    """Who leads the partitions of a topic."""
    partitions = [(0, n, leader, [1], [1]) for n, leader in enumerate(leaders)]
    return MetadataResponse_v0([(1, "one", 9092), (2, "two", 9092)], [(error, topic, partitions)])


class Cluster:
    """Stands for aiokafka's client: a cluster that answers as the test says."""

    instances: list[Cluster]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.cluster = ClusterMetadata()
        self.requests: list[tuple[int, Any]] = []
        self.answers: dict[type, Any] = {MetadataRequest: metadata(1)}
        self.closed = False
        self.bootstraps = 0
        Cluster.instances.append(self)

    async def bootstrap(self) -> None:
        self.bootstraps += 1
        await asyncio.sleep(0.01)
        self.cluster.update_metadata(metadata(topic="other"))

    async def force_metadata_update(self) -> bool:
        found: bool = await self._metadata_update(self.cluster, None)
        return found

    _metadata_update: Any = None

    async def send(self, node: int, request: Any) -> Any:
        self.requests.append((node, request))
        await asyncio.sleep(0.001)
        answer = self.answers[type(request)]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed = True

    def kinds(self) -> list[str]:
        return [type(request).__name__ for _, request in self.requests]


@pytest.fixture(autouse=True)
def clusters(monkeypatch: pytest.MonkeyPatch) -> list[Cluster]:
    Cluster.instances = []
    monkeypatch.setattr(module, "AIOKafkaClient", Cluster)
    return Cluster.instances


def make_link() -> Link:
    return Link(
        ("a:1", "b:2"), SETTINGS, runtime=FakeRuntime(), security=KafkaSecurity(),
        topics=lambda: {"t", "b"},
    )  # fmt: skip


def answer_of(version: int, code: int = 0, data: bytes | None = b"") -> Any:
    """The answer to a fetch as a broker writes it and aiokafka reads it."""
    kind = getattr(fetch, f"FetchResponse_v{version}")
    stable_end, more = 50, ((7,) if version >= 5 else ())
    preferred = (-1,) if version >= 11 else ()
    partition = (0, code, 60, stable_end, *more, [(9, 3)], *preferred, data)
    head = (0, 0, 0) if version >= 7 else (0,)
    written = kind(*head, [("t", [partition])]).encode()
    return kind.decode(io.BytesIO(written))


# -- questions and answers -----------------------------------------------------------------------


@pytest.mark.parametrize("version", range(4, 12))
def test_the_answer_to_a_fetch_in_each_version(version: int, clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        await link.refresh()
        [cluster] = clusters
        cluster.answers[FetchRequest] = answer_of(version, data=batch(3, 4))
        chunk = await link.fetch(TP, 3, 0)
        assert (chunk.position, chunk.stable_end) == (3, 50)
        assert chunk._aborted == [(9, 3)]
        found = chunk.find(4)
        assert found is not None
        assert found.record is not None
        assert found.record.offset == 4
        cluster.answers[FetchRequest] = answer_of(version, code=1, data=None)
        with pytest.raises(lower.OffsetOutOfRangeError):
            await link.fetch(TP, 3, 0)
        cluster.answers[FetchRequest] = answer_of(version, code=78, data=None)
        with pytest.raises(lower.UnknownError):  # aiokafka does not know this one
            await link.fetch(TP, 3, 0)
        await link.close()

    run_virtual(run())


def test_what_a_fetch_asks_for(clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        await link.refresh()
        [cluster] = clusters
        cluster.answers[FetchRequest] = answer_of(11)
        cluster.answers[MetadataRequest] = metadata(2)
        await link.refresh()
        assert (await link.fetch(TP, 3, 250)).find(3) is None
        node, request = cluster.requests[-1]
        assert node == 2
        wire = request.build(fetch.FetchRequest_v11)
        assert wire.isolation_level == 1  # read committed
        assert (wire.max_wait_time, wire.min_bytes, wire.max_bytes) == (250, 1, 4096)
        assert wire.topics == [("t", [(0, -1, 3, -1, 4096)])]
        await link.close()

    run_virtual(run())


def test_an_answer_about_nothing_is_a_quota(clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        await link.refresh()
        clusters[0].answers[FetchRequest] = fetch.FetchResponse_v11(5_000, 0, 0, [])
        with pytest.raises(lower.QuotaViolationError):
            await link.fetch(TP, 3, 0)
        clusters[0].answers[FetchRequest] = fetch.FetchResponse_v11(0, 70, 0, [])
        with pytest.raises(lower.KafkaError):
            await link.fetch(TP, 3, 0)
        await link.close()

    run_virtual(run())


def test_the_bounds_are_those_of_the_log_not_of_transactions(clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        await link.refresh()
        clusters[0].answers[module.OffsetRequest] = [
            SimpleNamespace(topics=[("t", [(0, 0, -1, 7)])]),
            SimpleNamespace(topics=[("t", [(0, 0, -1, 60)])]),
            SimpleNamespace(topics=[("t", [(0, 6, -1, -1)])]),
        ]
        assert await link.bounds(TP) == (7, 60)
        first, second = (request for _, request in clusters[0].requests[-2:])
        assert (first._topics, second._topics) == ([("t", [(0, -2)])], [("t", [(0, -1)])])
        assert (first._isolation_level, second._isolation_level) == (0, 0)
        with pytest.raises(lower.NotLeaderForPartitionError):
            await link.bounds(TP)
        await link.close()

    run_virtual(run())


def test_the_leader_is_asked_for_when_it_is_not_known(clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        for answer, error in (
            (metadata(1, -1), None),
            (metadata(-1), lower.LeaderNotAvailableError),
            (metadata(topic="other"), lower.UnknownTopicOrPartitionError),
            (metadata(error=3), lower.UnknownTopicOrPartitionError),
            (metadata(error=29), lower.TopicAuthorizationFailedError),
        ):
            await link.refresh()
            [cluster] = clusters
            cluster.cluster.update_metadata(metadata(topic="nothing of it"))
            cluster.answers |= {MetadataRequest: answer, FetchRequest: answer_of(11)}
            if error is None:
                await link.fetch(TP, 0, 0)
            else:
                with pytest.raises(error):
                    await link.fetch(TP, 0, 0)
        await link.close()

    run_virtual(run())


async def test_metadata_is_asked_for_these_topics_and_makes_none(clusters: list[Cluster]) -> None:
    client = Cluster()
    client.cluster.update_metadata(metadata())
    topics = {"t", "b"}
    ask_for(client, lambda: topics)
    client.answers[MetadataRequest] = [lower.RequestTimedOutError(), metadata(1)]
    assert await client._metadata_update(client.cluster, {"ignored"})
    assert {node for node, _ in client.requests} == {1, 2}  # one after the other, until one answers
    for _, request in client.requests:
        assert request._topics == ["b", "t"]
        assert request._allow_auto_topic_creation is False
    topics.clear()
    client.answers[MetadataRequest] = [TimeoutError(), lower.NodeNotReadyError()]
    assert not await client._metadata_update(client.cluster, None)
    assert client.requests[-1][1]._topics == []  # none, not all


# -- connecting ----------------------------------------------------------------------------------


def test_it_connects_with_the_first_request_and_once(clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        assert clusters == []
        await asyncio.gather(*(link.refresh() for _ in range(5)))
        [cluster] = clusters
        assert cluster.bootstraps == 1
        assert cluster.options["bootstrap_servers"] == ["a:1", "b:2"]
        assert cluster.options["client_id"] == "me"
        assert cluster.options["request_timeout_ms"] == 10_000
        assert cluster.options["security_protocol"] == "PLAINTEXT"
        await link.close()
        assert cluster.closed
        with pytest.raises(BrokerError, match="stopped"):
            await link.refresh()

    run_virtual(run())


def test_a_connection_that_fails_is_tried_again(
    clusters: list[Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Cluster) -> None:
        await asyncio.sleep(0.01)
        raise lower.KafkaConnectionError("nobody")

    async def run() -> None:
        link = make_link()
        with monkeypatch.context() as patched:
            patched.setattr(Cluster, "bootstrap", fails)
            results = await asyncio.gather(
                *(link.refresh() for _ in range(3)), return_exceptions=True
            )
            assert [type(r) for r in results] == [lower.KafkaConnectionError] * 3
        [first] = clusters
        assert first.closed
        await link.refresh()
        assert len(clusters) == 2
        await link.close()

    run_virtual(run())


def test_when_no_known_broker_answers_it_begins_anew(clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        await link.refresh()
        clusters[0].answers[MetadataRequest] = lower.NodeNotReadyError()
        with pytest.raises(lower.KafkaConnectionError):
            await link.refresh()
        await link.refresh()
        link.suspect()
        link.suspect()
        await link.refresh()
        assert [cluster.closed for cluster in clusters] == [True, True, False]
        await link.close()
        assert clusters[2].closed

    run_virtual(run())


def test_a_cancelled_request_leaves_the_connecting_to_the_others(clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        requests = [asyncio.create_task(link.refresh()) for _ in range(2)]
        await asyncio.sleep(0.005)
        requests[0].cancel()
        await requests[1]
        assert len(clusters) == 1
        await link.close()

    run_virtual(run())


@pytest.mark.parametrize("turns", range(8))
def test_a_close_while_it_connects_leaves_nothing(turns: int, clusters: list[Cluster]) -> None:
    async def run() -> None:
        link = make_link()
        request = asyncio.create_task(link.refresh())
        for _ in range(turns):
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.wait((request,))
        await link.close()
        assert all(cluster.closed for cluster in clusters)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(run())


def test_limits() -> None:
    assert [request_limit_s(s) for s in (0.1, 30.0, 1e6)] == [1.0, 10.0, 40.0]


# -- aiokafka ------------------------------------------------------------------------------------


async def test_aiokafka_has_what_is_used() -> None:
    client = AIOKafkaClient()
    for name in ("_metadata_update", "bootstrap", "close", "send"):
        assert asyncio.iscoroutinefunction(getattr(client, name))
    assert callable(client.force_metadata_update)
    assert client.cluster.leader_for_partition(TP) is None
    assert client.cluster.unauthorized_topics == set()
    ask_for(client, set)
    assert not await client._metadata_update(client.cluster, None)  # no broker is known
    request = MetadataRequest([], allow_auto_topic_creation=False)
    assert request.build(MetadataRequest_v4).encode() == struct.pack(">ib", 0, 0)
    await client.close()
