"""What every store of deferred work does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from prosody.stores.hashing import key_hash
from prosody.stores.protocol import Deferred, DeferredKind, DeferredQueue
from tests.stores.support import deferred, hashes
from tests.stores.tables import TableStores
from tests.stores.test_contract_timers import KEYS

if TYPE_CHECKING:
    from prosody.stores.protocol import Segment, Stores
    from tests.stores.support import Place

MESSAGE, TIMER = DeferredKind


@pytest.fixture(autouse=True)
async def opened(stores: Stores, segment: Segment) -> None:
    await stores.timers.open(segment, 4)


def bare(queue: DeferredQueue | None) -> DeferredQueue | None:
    """Without the content, which only one of the stores keeps."""
    return queue and queue._replace(head=queue.head._replace(content=None))


async def test_a_queue_from_its_beginning_to_its_end(
    place: Place, stores: Stores, segment: Segment
) -> None:
    store = stores.deferred
    trace = {"traceparent": "00-1-2-01"}
    assert await store.queue(segment, MESSAGE, "k") is None
    await store.defer(segment, MESSAGE, "k", deferred(5, trace), "boom")
    await store.append(segment, MESSAGE, "k", deferred(9))
    await store.append(segment, MESSAGE, "k", deferred(7, trace))
    assert await store.queue(segment, MESSAGE, "k") == DeferredQueue(deferred(5, trace), 1, "boom")
    await store.failed(segment, MESSAGE, "k", 2, "again")
    again = (await place.stores()).deferred
    for each in (store, again):
        wanted = DeferredQueue(deferred(5, trace), 2, "again")
        assert await each.queue(segment, MESSAGE, "k") == wanted
        assert await each.positions(segment, MESSAGE, "k") == [5, 7, 9]
    left = await again.advance(segment, MESSAGE, "k", 5)
    assert left == DeferredQueue(deferred(7, trace), 0, "")
    assert await again.advance(segment, MESSAGE, "k", 7) == DeferredQueue(deferred(9), 0, "")
    assert await again.advance(segment, MESSAGE, "k", 9) is None
    assert await again.queue(segment, MESSAGE, "k") is None
    assert await again.positions(segment, MESSAGE, "k") == []
    assert await hashes(await place.stores(), segment, MESSAGE) == set()


async def test_every_key_with_a_queue_is_named(
    place: Place, stores: Stores, segment: Segment
) -> None:
    keys = [*KEYS, *(f"k{n}" for n in range(200))]
    await asyncio.gather(
        *(stores.deferred.defer(segment, MESSAGE, key, deferred(1), "e") for key in keys)
    )
    assert await hashes(await place.stores(), segment, MESSAGE) == {key_hash(key) for key in keys}
    assert await hashes(stores, segment, TIMER) == set()
    for key in keys[1:]:
        await stores.deferred.advance(segment, MESSAGE, key, 1)
    assert await hashes(stores, segment, MESSAGE) == {key_hash(keys[0])}


@pytest.mark.parametrize("key", KEYS)
async def test_any_key_can_have_a_queue(
    place: Place, stores: Stores, segment: Segment, key: str
) -> None:
    await stores.deferred.defer(segment, TIMER, key, deferred(3), "e")
    await stores.deferred.append(segment, TIMER, key, deferred(4))
    again = (await place.stores()).deferred
    assert await again.queue(segment, TIMER, key) == DeferredQueue(deferred(3), 1, "e")
    assert await again.queue(segment, MESSAGE, key) is None
    await again.drop(segment, TIMER, key)
    assert await (await place.stores()).deferred.queue(segment, TIMER, key) is None


async def test_an_entry_joins_a_queue_that_is_left_over(stores: Stores, segment: Segment) -> None:
    store = stores.deferred
    await store.defer(segment, MESSAGE, "k", deferred(5), "boom")
    await store.failed(segment, MESSAGE, "k", 7, "seventh")
    # The same again, and a later one: the head stays what it is.
    for position in (5, 6):
        await store.defer(segment, MESSAGE, "k", deferred(position), "later")
        wanted = DeferredQueue(deferred(5), 7, "seventh")
        assert await store.queue(segment, MESSAGE, "k") == wanted
    await store.defer(segment, MESSAGE, "k", deferred(3), "lower")
    assert await store.queue(segment, MESSAGE, "k") == DeferredQueue(deferred(3), 1, "lower")
    assert await store.positions(segment, MESSAGE, "k") == [3, 5, 6]


async def test_an_entry_below_the_head_becomes_the_head(stores: Stores, segment: Segment) -> None:
    store = stores.deferred
    await store.defer(segment, MESSAGE, "k", deferred(5), "boom")
    await store.append(segment, MESSAGE, "k", deferred(2))
    assert await store.queue(segment, MESSAGE, "k") == DeferredQueue(deferred(2), 0, "")
    assert await store.advance(segment, MESSAGE, "k", 2) == DeferredQueue(deferred(5), 0, "")


async def test_appending_where_there_is_no_queue_begins_one(
    place: Place, stores: Stores, segment: Segment
) -> None:
    await stores.deferred.append(segment, MESSAGE, "k", deferred(2))
    again = await place.stores()
    wanted = DeferredQueue(deferred(2), 0, "")
    assert await again.deferred.queue(segment, MESSAGE, "k") == wanted
    assert await hashes(again, segment, MESSAGE) == {key_hash("k")}


async def test_an_entry_in_the_middle_can_go(stores: Stores, segment: Segment) -> None:
    store = stores.deferred
    await store.defer(segment, TIMER, "k", deferred(1), "boom")
    for position in (2, 3):
        await store.append(segment, TIMER, "k", deferred(position))
    head = DeferredQueue(deferred(1), 1, "boom")
    assert await store.advance(segment, TIMER, "k", 2) == head
    assert await store.advance(segment, TIMER, "k", 99) == head
    assert await store.advance(segment, TIMER, "k", 0) == head
    assert await store.positions(segment, TIMER, "k") == [1, 3]
    assert await store.advance(segment, TIMER, "nobody", 1) is None


async def test_nothing_comes_back_after_a_queue_is_dropped(
    place: Place, stores: Stores, segment: Segment
) -> None:
    await stores.deferred.defer(segment, MESSAGE, "k", deferred(5), "boom")
    for position in (6, 7):
        await stores.deferred.append(segment, MESSAGE, "k", deferred(position))
    await stores.deferred.drop(segment, MESSAGE, "k")
    await stores.deferred.drop(segment, MESSAGE, "nobody")
    assert await stores.deferred.queue(segment, MESSAGE, "k") is None
    await stores.deferred.defer(segment, MESSAGE, "k", deferred(4), "new")
    again = (await place.stores()).deferred
    assert await again.positions(segment, MESSAGE, "k") == [4]
    await again.failed(segment, MESSAGE, "nobody", 3, "nothing to fail")
    assert await again.queue(segment, MESSAGE, "nobody") is None


async def test_the_text_of_an_error_is_cut(stores: Stores, segment: Segment) -> None:
    await stores.deferred.defer(segment, MESSAGE, "k", deferred(5), "é" * 10_000)
    found = await stores.deferred.queue(segment, MESSAGE, "k")
    assert found is not None
    assert len(found.error) == 500
    await stores.deferred.failed(segment, MESSAGE, "k", 2, "x" * 500)
    assert (await stores.deferred.queue(segment, MESSAGE, "k")) == DeferredQueue(
        deferred(5), 2, "x" * 500
    )


async def test_only_the_store_in_memory_keeps_the_record(
    place: Place, stores: Stores, segment: Segment
) -> None:
    record = object()
    entry = Deferred(1, 2, {}, record)
    await stores.deferred.defer(segment, MESSAGE, "k", entry, "e")
    found = await stores.deferred.queue(segment, MESSAGE, "k")
    assert found is not None
    assert found.head.content is (record if place.kind == "memory" else None)
    assert bare(found) == DeferredQueue(Deferred(1, 2, {}), 1, "e")


async def test_knowing_all_keys_saves_reading_and_hides_nothing(
    place: Place, stores: Stores, segment: Segment
) -> None:
    other = await place.stores()
    await other.deferred.defer(segment, MESSAGE, "there", deferred(5), "boom")
    await stores.timers.open(segment, 4)
    pages = aiter(stores.deferred.hashes(segment, MESSAGE))
    assert await anext(pages) == [key_hash("there")]
    # While they are still being read.
    await stores.deferred.defer(segment, MESSAGE, "meanwhile", deferred(1), "boom")
    assert [page async for page in pages if page] == []
    await stores.deferred.defer(segment, MESSAGE, "afterwards", deferred(2), "boom")
    stores.deferred._heads = {} if place.kind != "memory" else None  # type: ignore[attr-defined]
    wanted = {"there": 5, "meanwhile": 1, "afterwards": 2}
    for key, position in wanted.items():
        assert await stores.deferred.positions(segment, MESSAGE, key) == [position]
    assert await stores.deferred.queue(segment, MESSAGE, "nobody") is None
    if isinstance(stores, TableStores):
        asked = stores.tables.asked
        del asked[:]
        await stores.deferred.defer(segment, MESSAGE, "new", deferred(3), "boom")
        assert asked == []


async def test_another_owner_is_seen_after_opening(
    place: Place, stores: Stores, segment: Segment
) -> None:
    """What is remembered of a segment counts until it is opened again."""
    other = await place.stores()
    await stores.deferred.defer(segment, MESSAGE, "k", deferred(5), "boom")
    assert await stores.deferred.queue(segment, MESSAGE, "l") is None
    await other.timers.open(segment, 4)
    await other.deferred.advance(segment, MESSAGE, "k", 5)
    await other.deferred.defer(segment, MESSAGE, "l", deferred(6), "boom")
    await stores.timers.open(segment, 4)
    assert await stores.deferred.queue(segment, MESSAGE, "k") is None
    assert await stores.deferred.positions(segment, MESSAGE, "l") == [6]
