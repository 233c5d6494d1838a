"""Messages with an ``id``: the second one of the same key is skipped, and nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from prosody import PermanentError
from tests.durable.support import Failing, Handler

if TYPE_CHECKING:
    from tests.durable.support import Place


def order(id_: Any, n: int) -> dict[str, Any]:
    return {"id": id_, "n": n}


def numbers(handler: Handler, key: str) -> list[int]:
    return [payload["n"] for payload in handler.handled(key)]


async def put(place: Place, *records: tuple[bytes, Any]) -> None:
    """Write raw records: no sender's cache skips anything."""
    await place.put_many(list(records))


async def until_last(place: Place, handler: Handler, *keys: str) -> None:
    """Send a last message of each key, and wait for it: what comes before was handled or skipped."""
    await put(place, *((key.encode(), order(f"last of {key}", -1)) for key in keys))
    await handler.until(lambda h: all(-1 in numbers(h, key) for key in keys))
    await place.nothing_left()


async def test_the_same_id_of_the_same_key_is_handled_once(place: Place) -> None:
    await place.create_topic()
    handler = Handler(place)
    await place.client().subscribe(handler)
    for n in range(2):
        await put(place, (b"a", order("x", n)), (b"a", order("y", n)), (b"b", order("x", n)))
        # Without an id, or with one that is no text: never skipped.
        await put(place, (b"c", {"n": n}), (b"c", order(7, n)), (b"c", order(None, n)))
    await put(place, (b"a", order("x", 2)))
    await until_last(place, handler, "a", "b", "c")
    assert numbers(handler, "a") == [0, 0, -1]
    assert numbers(handler, "b") == [0, -1]
    assert numbers(handler, "c") == [0, 0, 0, 1, 1, 1, -1]


async def test_copies_that_come_together_run_once(place: Place) -> None:
    """The look-up of the second begins before the first one is done."""
    await place.create_topic()
    handler = Handler(place, lambda *_: place.runtime.sleep(0.05))
    await place.client().subscribe(handler)
    await put(place, *((b"a", order(f"id-{n % 5}", n)) for n in range(20)))
    await until_last(place, handler, "a")
    assert numbers(handler, "a") == [0, 1, 2, 3, 4, -1]


@pytest.mark.parametrize(
    ("options", "runs_again"),
    [
        ({}, False),
        ({"idempotence_version": "2"}, True),
        ({"idempotence_cache_size": 0}, True),
    ],
    ids=["same", "version", "off"],
)
async def test_after_a_restart(place: Place, options: dict[str, Any], runs_again: bool) -> None:
    await place.create_topic()
    keys = [f"key-{n}" for n in range(8)]
    copies = [(key.encode(), order(f"{key} {n}", n)) for key in keys for n in range(4)]
    first, second = Handler(place), Handler(place)
    client = place.client()
    await client.subscribe(first)
    await put(place, *copies)
    await first.until_handled(len(copies))
    await client.shutdown()
    await put(place, *copies)
    # Another client: nothing is left of the first one's memory.
    await place.client(**options).subscribe(second)
    await until_last(place, second, *keys)
    assert all(numbers(first, key) == [0, 1, 2, 3] for key in keys)
    expected = [0, 1, 2, 3, -1] if runs_again else [-1]
    assert all(numbers(second, key) == expected for key in keys)


async def test_a_cache_of_size_0_skips_nothing(place: Place) -> None:
    await place.create_topic()
    handler = Handler(place)
    await place.client(idempotence_cache_size=0).subscribe(handler)
    await put(place, *((b"a", order("x", n)) for n in range(3)))
    await until_last(place, handler, "a")
    assert numbers(handler, "a") == [0, 1, 2, -1]


async def test_a_copy_behind_a_deferred_message_is_skipped_once_that_has_succeeded(
    place: Place,
) -> None:
    await place.create_topic()
    failing = Failing("a")
    handler = Handler(place, failing)
    await place.client().subscribe(handler)
    await put(place, (b"a", order("x", 0)), (b"a", order("x", 1)), (b"a", order("y", 2)))
    await place.nothing_left()
    await handler.until(lambda h: h.failures("a") >= 2)
    failing.keys.clear()
    await until_last(place, handler, "a")
    assert numbers(handler, "a") == [0, 2, -1]
    ran = {run.value["n"] for run in handler.of("message", "a", ok=None)}
    assert 1 not in ran, "a copy ran although the first had not failed for good"


async def test_a_message_that_was_only_deferred_is_not_taken_for_done(place: Place) -> None:
    await place.create_topic()
    failing = Failing("a")
    first, second = Handler(place, failing), Handler(place)
    client = place.client()
    await client.subscribe(first)
    await put(place, (b"a", order("x", 0)))
    await place.nothing_left()
    await client.shutdown()
    await place.client().subscribe(second)
    await until_last(place, second, "a")
    assert numbers(second, "a") == [0, -1]


async def test_what_failed_for_good_is_done(place: Place) -> None:
    await place.create_topic()
    failing = Failing("a", error=PermanentError("malformed"))
    handler = Handler(place, failing)
    await place.client().subscribe(handler)
    await put(place, (b"a", order("x", 0)))
    await handler.until(lambda h: h.failures("a") == 1)
    failing.keys.clear()
    await put(place, (b"a", order("x", 1)))
    await until_last(place, handler, "a")
    assert numbers(handler, "a") == [-1]
