"""Habits of aiokafka that do harm while a topic or its leader is away, changed here.

Private parts of aiokafka, like those of ``internals``; a test fails when a new version renames them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prosody.runtime import Runtime

METADATA_PAUSE_S = 0.1
"""Least time between two questions of one client for the cluster's metadata."""


def pace_metadata(client: Any, runtime: Runtime) -> None:
    """Have a client ask for metadata at most once in ``METADATA_PAUSE_S``.

    While a partition has no leader (its topic was deleted, its brokers are down) the loops of both the
    producer and the consumer ask for metadata, look, and ask again without any pause: thousands of
    requests a second from each client, to a cluster that has trouble already.

    :param client: the ``AIOKafkaClient`` of a producer or consumer.
    """
    update = client._metadata_update
    next_at = float("-inf")

    async def paced(*args: Any) -> Any:
        nonlocal next_at
        wait_s = next_at - runtime.monotonic()
        if wait_s > 0:
            await runtime.sleep(wait_s)
        next_at = runtime.monotonic() + METADATA_PAUSE_S
        return await update(*args)

    # Whoever forces an update waits for the one under way, so all of them keep this pace.
    client._metadata_update = paced


def keep_batches(producer: Any, limit_s: float) -> None:
    """Have a producer keep what it was given for ``limit_s``.

    It gives up a batch that finds no leader after its request timeout, 40 s: in a longer outage those
    batches would fail at its very end, when brokers are back and leaders about to be elected.
    """
    producer._message_accumulator._batch_ttl = limit_s


def serve_the_others(producer: Any) -> None:
    """Have a producer that waits for the leader of one partition go on with the others meanwhile.

    Its loop waits for metadata alone then, not for records: with the metadata at a pace, each send to a
    healthy topic would wait for the next answer.
    """
    producer._sender.client = _SenderClient(producer.client, producer._message_accumulator)


class _SenderClient:
    """The client as the producer's loop sees it; an update of the metadata ends early for new records."""

    def __init__(self, client: Any, accumulator: Any) -> None:
        self._client = client
        self._accumulator = accumulator
        self._asked: asyncio.Future[Any] | None = None
        self._records: asyncio.Future[Any] | None = None
        self._either: asyncio.Future[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def force_metadata_update(self) -> asyncio.Future[None]:
        """What the loop waits for; it looks at everything again afterwards, so no result is needed.

        An update can take long, and the loop turns at each send meanwhile: it hangs on to each future once.
        """
        if self._either is None or self._either.done():
            self._either = asyncio.get_running_loop().create_future()
        if self._asked is None or self._asked.done():
            self._asked = self._client.force_metadata_update()
            self._asked.add_done_callback(self._wake)
        records: asyncio.Future[Any] = self._accumulator.waiter()
        if records is not self._records or records.done():
            self._records = records
            records.add_done_callback(self._wake)
        return self._either

    def _wake(self, _: object) -> None:
        if self._either is not None and not self._either.done():
            self._either.set_result(None)
