"""What every timer store does."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from prosody.stores.protocol import Segment, TimerKind
from tests.stores.support import APP, FAR, load_all, timer

if TYPE_CHECKING:
    from prosody.stores.protocol import Stores
    from tests.stores.support import Place

NOW = int(time.time())
LONG = "long " * 20_000
KEYS = ["", "k", "clé", "\0", "\0mark", "x" * 1024, "x" * 1025, LONG, LONG + "!", "𐍈" * 400]


@pytest.fixture(autouse=True)
async def opened(stores: Stores, segment: Segment) -> None:
    assert await stores.timers.open(segment, 4) is None


async def test_opening_answers_how_many_partitions_there_were(place: Place) -> None:
    stores = await place.stores()
    segment = Segment("of its own", f"t{time.time()}", 0)
    assert await stores.timers.open(segment, 4) is None
    assert await stores.timers.open(segment, 4) == 4
    assert await stores.timers.open(segment, 6) == 4
    later = await place.stores()
    assert await later.timers.open(segment, 6) == 6
    assert await later.timers.open(segment._replace(partition=1), 6) is None
    assert await later.timers.open(segment._replace(group_id="other"), 6) is None


async def test_timers_are_loaded_in_order_of_time_in_pages(
    stores: Stores, segment: Segment
) -> None:
    times = [NOW + n * 1000 for n in (5, 1, 3, 9, 4, 0, 40)]
    for each in times:
        await stores.timers.add(segment, timer(each))
    assert [t.time for t in await load_all(stores, segment)] == sorted(times)
    assert [t.time for t in await load_all(stores, segment, until=NOW + 3000)] == [
        NOW, NOW + 1000, NOW + 3000,
    ]  # fmt: skip


@pytest.mark.parametrize("page", [1, 2, 7, 100])
async def test_no_border_of_a_page_loses_a_timer(
    stores: Stores, segment: Segment, page: int
) -> None:
    wanted = [
        timer(NOW + second, f"k{n}", kind)
        for second in (0, 1, 3600)
        for n in range(4)
        for kind in TimerKind
    ]
    await asyncio.gather(*(stores.timers.add(segment, each) for each in wanted))
    found = await load_all(stores, segment, page=page)
    assert {t.place for t in found} == {t.place for t in wanted}


async def test_a_timer_comes_back_as_it_was(place: Place, stores: Stores, segment: Segment) -> None:
    trace = {"traceparent": "00-1-2-01", "baggage": "a=b,c=d"}
    wanted = [timer(NOW + n, key, trace=trace if n % 2 else {}) for n, key in enumerate(KEYS)]
    for each in wanted:
        await stores.timers.add(segment, each)
    for other in (stores, await place.stores()):
        assert await load_all(other, segment) == wanted
        for n, key in enumerate(KEYS):
            assert await other.timers.times(segment, key, APP) == [NOW + n]


@pytest.mark.parametrize("at", [0, 1, NOW - 10**6, NOW, 2**31 - 1, 2**31, FAR])
async def test_every_second_can_have_a_timer(
    place: Place, stores: Stores, segment: Segment, at: int
) -> None:
    await stores.timers.add(segment, timer(at))
    again = await place.stores()
    assert await load_all(again, segment) == [timer(at)]
    assert await load_all(again, segment, until=at - 1) == []
    await again.timers.remove(segment, timer(at).place)
    assert await load_all(again, segment) == []
    assert await again.timers.times(segment, "k", APP) == []


async def test_the_same_timer_again_is_no_second_one(stores: Stores, segment: Segment) -> None:
    await stores.timers.add(segment, timer(NOW, trace={"a": "1"}))
    await stores.timers.add(segment, timer(NOW, trace={"b": "2"}))
    assert await load_all(stores, segment) == [timer(NOW, trace={"b": "2"})]
    await stores.timers.add(segment, timer(NOW))
    assert await load_all(stores, segment) == [timer(NOW)]
    assert await stores.timers.times(segment, "k", APP) == [NOW]


async def test_kinds_and_keys_do_not_see_each_other(stores: Stores, segment: Segment) -> None:
    for kind in TimerKind:
        for key in ("k", "l"):
            await stores.timers.add(segment, timer(NOW, key, kind))
    await stores.timers.remove(segment, timer(NOW, "k", APP).place)
    assert await stores.timers.clear(segment, "l", TimerKind.DEFERRED_TIMER) == [NOW]
    left = {(t.key, t.kind) for t in await load_all(stores, segment)}
    assert left == {
        ("k", TimerKind.DEFERRED_MESSAGE), ("k", TimerKind.DEFERRED_TIMER),
        ("l", TimerKind.APPLICATION), ("l", TimerKind.DEFERRED_MESSAGE),
    }  # fmt: skip
    assert await stores.timers.times(segment, "k", APP) == []


async def test_segments_do_not_see_each_other(stores: Stores, segment: Segment) -> None:
    for other in (
        segment._replace(group_id="other"),
        segment._replace(topic="other"),
        segment._replace(partition=segment.partition + 10_000),
    ):
        await stores.timers.open(other, 4)
        await stores.timers.clear(other, "k", APP)
        assert await load_all(stores, other) == []
        await stores.timers.add(other, timer(NOW))
    assert await load_all(stores, segment) == []


async def test_a_timer_that_is_not_there_can_be_removed(stores: Stores, segment: Segment) -> None:
    await stores.timers.remove(segment, timer(NOW).place)
    await stores.timers.add(segment, timer(NOW))
    await stores.timers.remove(segment, timer(NOW + 1).place)
    assert await load_all(stores, segment) == [timer(NOW)]
    assert await stores.timers.clear(segment, "nobody", APP) == []


async def test_replacing_removes_all_others_of_the_key(stores: Stores, segment: Segment) -> None:
    assert await stores.timers.replace(segment, timer(NOW + 5)) == []
    await stores.timers.add(segment, timer(NOW + 9000))
    await stores.timers.add(segment, timer(NOW + 1))
    await stores.timers.add(segment, timer(NOW + 1, "other"))
    assert await stores.timers.replace(segment, timer(NOW + 7)) == [NOW + 1, NOW + 5, NOW + 9000]
    assert await stores.timers.times(segment, "k", APP) == [NOW + 7]
    assert await load_all(stores, segment) == [timer(NOW + 1, "other"), timer(NOW + 7)]
    # By one that is there already.
    await stores.timers.add(segment, timer(NOW + 8))
    assert await stores.timers.replace(segment, timer(NOW + 8, trace={"a": "b"})) == [NOW + 7]
    assert (await load_all(stores, segment))[1:] == [timer(NOW + 8, trace={"a": "b"})]


async def test_a_key_with_many_timers(place: Place, stores: Stores, segment: Segment) -> None:
    times = list(range(NOW, NOW + 200_000, 1000))
    for each in times:
        await stores.timers.add(segment, timer(each))
    assert await stores.timers.times(segment, "k", APP) == times
    for each in times[::2]:
        await stores.timers.remove(segment, timer(each).place)
    again = await place.stores()
    assert await again.timers.times(segment, "k", APP) == times[1::2]
    assert [t.time for t in await load_all(again, segment, page=50)] == times[1::2]
    assert await again.timers.replace(segment, timer(NOW)) == times[1::2]
    assert await again.timers.times(segment, "k", APP) == [NOW]
    once_more = await place.stores()
    assert await once_more.timers.times(segment, "k", APP) == [NOW]
    assert await once_more.timers.clear(segment, "k", APP) == [NOW]
    assert await load_all(once_more, segment) == []


async def test_what_has_passed_is_not_looked_at_and_what_comes_late_is(
    place: Place, stores: Stores, segment: Segment
) -> None:
    for each in (NOW - 9000, NOW - 5000, NOW + 5):
        await stores.timers.add(segment, timer(each))
    for each in (NOW - 9000, NOW - 5000):
        await stores.timers.remove(segment, timer(each).place)
    await stores.timers.passed(segment, NOW)
    await stores.timers.passed(segment, NOW - 3000)
    again = await place.stores()
    assert await load_all(again, segment) == [timer(NOW + 5)]
    for each in (NOW - 5000, NOW - 1, 7):
        await stores.timers.add(segment, timer(each))
    once_more = await place.stores()
    assert [t.time for t in await load_all(once_more, segment)] == [
        7, NOW - 5000, NOW - 1, NOW + 5,
    ]  # fmt: skip
    # The owner that added them has them, too.
    assert [t.time for t in await load_all(stores, segment)] == [7, NOW - 5000, NOW - 1, NOW + 5]


async def test_another_slab_size_loses_nothing(place: Place, segment: Segment) -> None:
    base = 10_000_000
    wanted = []
    for size in (3600.0, 5000.0, 60.0, 86_400.0, 1.0):
        stores = await place.stores(slab_size_s=size)
        await stores.timers.open(segment, 4)
        for n in range(0, 20_000, 1700):
            each = timer(base + n + int(size) % 97, f"k{size}")
            await stores.timers.add(segment, each)
            wanted.append(each)
        assert {t.place for t in await load_all(stores, segment)} == {t.place for t in wanted}
    stores = await place.stores()
    for each in wanted:
        await stores.timers.remove(segment, each.place)
    assert await load_all(stores, segment) == []


async def test_adds_of_many_keys_at_once(place: Place, stores: Stores, segment: Segment) -> None:
    wanted = [timer(NOW + n % 7 * 3600, f"k{n}") for n in range(300)]
    await asyncio.gather(*(stores.timers.add(segment, each) for each in wanted))
    again = await place.stores()
    assert {t.place for t in await load_all(again, segment, page=100)} == {t.place for t in wanted}
    await asyncio.gather(*(again.timers.remove(segment, each.place) for each in wanted))
    assert await load_all(await place.stores(), segment) == []


async def test_adding_while_what_is_before_passes(stores: Stores, segment: Segment) -> None:
    await asyncio.gather(
        *(stores.timers.add(segment, timer(NOW - n * 1000, f"k{n}")) for n in range(9)),
        *(stores.timers.passed(segment, NOW - n * 500) for n in range(9)),
        *(stores.timers.add(segment, timer(NOW - n * 1000, f"l{n}")) for n in range(9)),
    )
    await stores.timers.open(segment, 4)
    assert len(await load_all(stores, segment)) == 18
