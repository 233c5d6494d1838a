"""Keys that fail for a while, at the library's default options, on real services."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.durable.support import Failing, Handler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.durable.support import Place
    from tests.outages.support import Log

pytestmark = pytest.mark.real

GOOD = [f"good-{n}" for n in range(180)]
BAD = [f"bad-{n}" for n in range(20)]
ROUNDS, BATCH = 30, 5
PATIENCE_S = 60.0


async def put_rounds(place: Place, first: int, count: int, keys: Sequence[str]) -> None:
    """Numbered messages that say when they were sent."""
    await place.put_many(
        [
            (key.encode(), {"n": n, "sent": place.runtime.wall()})
            for n in range(first, first + count)
            for key in keys
        ]
    )


def exactly_once_in_order(handler: Handler, keys: Sequence[str], count: int) -> None:
    """Each message was handled once, and none was begun before the one ahead of it was done with."""
    for key in keys:
        runs = [(run.value["n"], run.ok) for run in handler.of("message", key, ok=None)]
        assert [n for n, ok in runs if ok] == list(range(count)), key
        assert [n for n, _ in runs] == sorted(n for n, _ in runs), key
    assert not handler.overlaps
    assert not [p for p, n in Counter(r.offset for r in handler.of("message")).items() if n > 1]


@pytest.mark.parametrize("options", ["default", "quick"])
async def test_healthy_keys_do_not_notice_and_failing_ones_catch_up(
    services: Place, options: str, report: Callable[[str, object], None]
) -> None:
    """More messages of failing keys than a partition takes in unfinished: none may block it."""
    await services.create_topic()
    failing = Failing(*BAD)
    handler = Handler(services, failing)
    make = services.default_client if options == "default" else services.client
    await make().subscribe(handler)
    for first in range(0, ROUNDS, BATCH):
        await put_rounds(services, first, BATCH, GOOD + BAD)
        done = (first + BATCH) * len(GOOD)
        await handler.until(lambda h, done=done: h.done["message"] >= done, PATIENCE_S)  # type: ignore[misc]
    await handler.until(lambda h: all(h.failures(key) >= 3 for key in BAD), PATIENCE_S)
    await services.nothing_left()
    assert not [run for run in handler.of("message") if run.key in failing.keys]
    failing.keys.clear()
    recovered = services.runtime.wall()
    await handler.until(lambda h: h.done["message"] >= ROUNDS * 200, PATIENCE_S)
    exactly_once_in_order(handler, GOOD + BAD, ROUNDS)
    waits = sorted(r.began - r.value["sent"] for r in handler.of("message") if r.key in set(GOOD))
    report(
        "healthy: sent to begun, p50, p99 (s)", [waits[len(waits) // 2], waits[-len(waits) // 100]]
    )
    last = max(run.began for run in handler.of("message"))
    report("failing keys caught up after (s)", round(last - recovered, 2))


async def test_with_nearly_all_keys_failing_the_gate_closes_and_opens_again(
    services: Place, log: Log, report: Callable[[str, object], None]
) -> None:
    """More keys of each partition fail than it may take in: closed, it blocks, as it is meant to."""
    keys = [f"good-{n}" if n % 20 == 0 else f"bad-{n}" for n in range(400)]
    bad = {key for key in keys if key.startswith("bad")}
    await services.create_topic()
    failing = Failing(*bad)
    handler = Handler(services, failing)
    await services.default_client(retry_base=0.05, max_retry_delay=1.0).subscribe(handler)
    await put_rounds(services, 0, 1, keys)
    await log.until("prosody.deferral", "deferral stops")
    await handler.until(lambda h: sum(h.failures(key) for key in bad) >= 1500, PATIENCE_S)
    # Its first attempts may be those of one partition: 19 of 20 have failed and it closes, 25 of 28 have
    # and it opens for a moment. With those of all it is closed.
    opened = len(log.lines("prosody.deferral", "deferral goes on"))
    is_closed = len(log.lines("prosody.deferral", "deferral stops")) == opened + 1
    blocked = await services.lag()
    failing.keys.clear()
    recovered = services.runtime.wall()
    await log.until("prosody.deferral", "deferral goes on", count=opened + 1)
    report("gate open again after (s)", round(services.runtime.wall() - recovered, 2))
    await put_rounds(services, 1, 2, keys)
    await handler.until(lambda h: h.done["message"] >= 3 * len(keys), PATIENCE_S)
    report("everything done after (s)", round(services.runtime.wall() - recovered, 2))
    exactly_once_in_order(handler, keys, 3)
    await services.nothing_left()
    assert is_closed, log.lines("prosody.deferral", "deferral ")
    assert opened <= 2, "it is not open and closed all the time"
    assert blocked > 0, "nothing was held back"
    # It is really open: one key that fails holds nothing up.
    one = min(bad)
    failing.keys.add(one)
    await put_rounds(services, 3, 1, [one])
    await services.nothing_left()
    failing.keys.clear()
    await handler.until(lambda h: len(h.handled(one)) == 4, PATIENCE_S)
