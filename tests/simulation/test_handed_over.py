"""The seeds again, with a broker client that hands over what a waiting poll would have brought."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from prosody.consume.poller import Poller
from tests.simulation.members import ConsumerSeen
from tests.simulation.run import simulate
from tests.simulation.test_seeds import told

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from prosody.broker.protocol import Receiver, TopicPartition

SEEDS = range(60)


async def poll(
    self: Any, partitions: Collection[TopicPartition], *, max_records: int, timeout_s: float
) -> Mapping[TopicPartition, Sequence[Any]]:
    """Gives its taker all that it wants, and returns what is left."""
    polled = await self._consumer.poll(partitions, max_records=max_records, timeout_s=timeout_s)
    loop = asyncio.get_running_loop()
    left: asyncio.Future[dict[TopicPartition, Sequence[Any]]] = loop.create_future()

    def received() -> None:
        kept, brought = {}, []
        for partition, records in polled.items():
            receiver = self.taker.wants(partition)
            if receiver is None:
                kept[partition] = records
            else:
                brought.append((receiver, records))
        self.taker.take(brought)
        if not left.cancelled():
            left.set_result(kept)

    # As from a socket: where no task runs, so that a handler may begin at once.
    loop.call_soon(received)
    return await left


@pytest.fixture(autouse=True)
def handing_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConsumerSeen, "poll", poll, raising=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_fault(seed: int, tmp_path: Path) -> None:
    verdict = simulate(seed)
    if verdict.faults:
        pytest.fail(told(seed, verdict, tmp_path), pytrace=False)


def test_a_record_that_is_not_handed_on_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes that way, and the oracle sees it."""
    take = Poller.take

    def forgetful(self: Poller, brought: Sequence[tuple[Receiver, Sequence[Any]]]) -> None:
        take(self, [(receiver, records[:-1]) for receiver, records in brought])

    monkeypatch.setattr(Poller, "take", forgetful)
    assert any(simulate(seed).faults for seed in SEEDS[:5])
