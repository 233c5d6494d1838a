"""The end: handlers are let end, then told to, then left; what finished is committed; nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prosody import ClientClosedError, Context, Message
from prosody.consume import assignment
from tests.client.support import DEADLINE_S, Place, Recorder, run_simulated, unique

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT_S = 10.0


class Timeline:
    """A handler behaviour for one key each: ends by itself, when told to, or not at all."""

    def __init__(self) -> None:
        self.told_at: dict[str, float] = {}
        self.given_up = asyncio.Event()

    async def __call__(self, context: Context, message: Message) -> None:
        now = asyncio.get_running_loop().time
        if message.key in ("early", "earlier"):
            await asyncio.sleep(3.0 if message.key == "early" else 2.0)
        elif message.key == "obeys":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                assert context.should_cancel()
                self.told_at[message.key] = now()
                raise
        elif message.key == "cleans up":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.told_at[message.key] = now()
                await asyncio.sleep(1.0)
        elif message.key == "deaf":
            while not self.given_up.is_set():
                try:
                    await self.given_up.wait()
                except asyncio.CancelledError:
                    self.told_at[message.key] = now()


async def shut_down_with(place: Place, *keys: str) -> tuple[float, Timeline, Recorder]:
    """Run one handler for each key, then unsubscribe; how long that took by the clock."""
    timeline = Timeline()
    recorder = Recorder(timeline)
    await place.create_topic(partitions=1)
    # Queued behind each running one is another, which must not start any more.
    await place.put_many([(key.encode(), {"i": i}) for i in range(2) for key in keys])
    client = place.client(shutdown_timeout=LIMIT_S, commit_interval=3600.0)
    await client.subscribe(recorder)
    await recorder.until(lambda r: len(r.attempts) == len(keys))
    began = place.runtime.monotonic()
    await client.unsubscribe()
    took = place.runtime.monotonic() - began
    timeline.told_at = {key: at - began for key, at in timeline.told_at.items()}
    assert len(recorder.attempts) == len(keys), "nothing starts once the end has begun"
    assert await client.consumer_state() == "configured"
    assert await client.assigned_partition_count() == 0
    assert not place.cluster.group(place.group).members
    return took, timeline, recorder


def simulated(check: Callable[[Place], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        run_simulated(check)

    return test


async def ends_as_soon_as_nothing_runs(place: Place) -> None:
    took, timeline, recorder = await shut_down_with(place, "earlier", "early")
    assert took == pytest.approx(3.0)
    assert timeline.told_at == {}
    assert {m.key for m in recorder.handled} == {"earlier", "early"}
    assert await place.lag() == 2, "both are committed, those queued behind them are not"


async def cancels_at_four_fifths(place: Place) -> None:
    took, timeline, recorder = await shut_down_with(place, "obeys", "early")
    assert timeline.told_at == {"obeys": pytest.approx(0.8 * LIMIT_S)}
    assert took == pytest.approx(0.8 * LIMIT_S)
    assert [m.key for m in recorder.handled] == ["early"]
    assert await place.lag() == 4, "what was told to stop, and all behind it, runs again"


async def waits_for_the_clean_up_of_a_cancelled_handler(place: Place) -> None:
    took, timeline, recorder = await shut_down_with(place, "cleans up")
    assert timeline.told_at == {"cleans up": pytest.approx(0.8 * LIMIT_S)}
    assert took == pytest.approx(0.8 * LIMIT_S + 1.0)
    assert len(recorder.handled) == 1
    assert await place.lag() == 1, "it succeeded in the end, so it is committed"


async def abandons_at_the_limit(place: Place) -> None:
    took, timeline, recorder = await shut_down_with(place, "early", "deaf")
    assert timeline.told_at == {"deaf": pytest.approx(0.8 * LIMIT_S)}
    assert took == pytest.approx(LIMIT_S)
    assert [m.key for m in recorder.handled] == ["early"]
    assert await place.lag() == 3, "the first is committed, the one left behind is not"
    timeline.given_up.set()
    await recorder.until_handled(2)
    assert await place.lag() == 3, "nothing that ends now counts any more"


test_it_ends_as_soon_as_nothing_runs = simulated(ends_as_soon_as_nothing_runs)
test_handlers_are_cancelled_at_four_fifths = simulated(cancels_at_four_fifths)
test_a_cancelled_handler_may_clean_up = simulated(waits_for_the_clean_up_of_a_cancelled_handler)
test_handlers_are_abandoned_at_the_limit = simulated(abandons_at_the_limit)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_another_share_is_seen(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "CANCEL_AT", share)
    with pytest.raises(AssertionError):
        run_simulated(cancels_at_four_fifths)


def test_a_limit_of_zero_waits_for_nobody() -> None:
    async def main(place: Place) -> None:
        timeline = Timeline()
        recorder = Recorder(timeline)
        await place.create_topic(partitions=1)
        await place.put({"i": 0}, key=b"deaf")
        client = place.client(shutdown_timeout=0.0)
        await client.subscribe(recorder)
        await recorder.until(lambda r: bool(r.attempts))
        began = place.runtime.monotonic()
        await client.unsubscribe()
        assert place.runtime.monotonic() == began
        assert await place.lag() == 1
        timeline.given_up.set()
        await recorder.until_handled(1)

    run_simulated(main)


# -- over both brokers ---------------------------------------------------------------------------


async def test_the_context_manager_drains_commits_and_leaves(place: Place) -> None:
    """The next member has the partitions at once, and nothing that ended runs again."""
    await place.create_topic()
    await place.put_many([(b"key-%d" % i, {"i": i}) for i in range(20)])
    release = asyncio.Event()

    async def wait(context: Context, message: Message) -> None:
        await release.wait()

    recorder = Recorder(wait)
    # A member that did not say good-bye would be waited for longer than a test may take.
    client = place.client(commit_interval=3600.0, session_timeout=60.0)
    async with client:
        await client.subscribe(recorder)
        await recorder.until(lambda r: len(r.attempts) == 20)
        asyncio.get_running_loop().call_later(0.05, release.set)
    assert await client.consumer_state() == "shut_down"
    assert len(recorder.handled) == 20
    assert await place.lag() == 0
    second = Recorder()
    await place.client().subscribe(second)
    await place.put({"i": 99})
    await second.until_handled(1)
    assert [m.payload["i"] for m in second.handled] == [99]


async def test_an_error_in_the_block_shuts_down_too_and_comes_through(place: Place) -> None:
    await place.create_topic()
    client = place.client()

    async def program() -> None:
        async with client:
            await client.subscribe(Recorder())
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await program()
    assert await client.consumer_state() == "shut_down"


async def test_unsubscribing_twice_at_once_and_cancelled(place: Place) -> None:
    await place.create_topic()
    await place.put_many([(b"key-%d" % i, {"i": i}) for i in range(8)])
    release = asyncio.Event()

    async def wait(context: Context, message: Message) -> None:
        await release.wait()

    recorder = Recorder(wait)
    client = place.client()
    await client.subscribe(recorder)
    await recorder.until(lambda r: len(r.attempts) == 8)
    calls = [asyncio.create_task(client.unsubscribe()) for _ in range(4)]
    await asyncio.sleep(0)
    assert await client.consumer_state() == "running", "until the end is over"
    calls[0].cancel()  # the one that began it
    calls[2].cancel()  # one that waits for its turn
    await asyncio.sleep(0)
    release.set()
    ends = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), DEADLINE_S)
    assert [type(end) for end in ends] == [
        asyncio.CancelledError, type(None), asyncio.CancelledError, type(None),
    ]  # fmt: skip
    assert await client.consumer_state() == "configured"
    assert await place.lag() == 0
    await client.unsubscribe()

    again = Recorder()
    await client.subscribe(again)
    await place.put({"i": 99})
    await again.until_handled(1)
    assert [m.payload["i"] for m in again.handled] == [99]
    assert len(recorder.attempts) == 8, "the first handler hears nothing more"


async def test_subscribing_and_unsubscribing_many_times(place: Place) -> None:
    await place.create_topic(partitions=1)
    client = place.client()
    for i in range(5):
        recorder = Recorder()
        await client.subscribe(recorder)
        await place.put({"i": i})
        await recorder.until_handled(1)
        await client.unsubscribe()
        assert [m.payload["i"] for m in recorder.handled] == [i]
    for _ in range(3):  # before there is an assignment
        await client.subscribe(Recorder())
        await client.unsubscribe()


async def test_a_cancelled_subscribe_leaves_nothing(place: Place) -> None:
    await place.create_topic()
    client = place.client()
    for turns in range(6):
        subscribing = asyncio.create_task(client.subscribe(Recorder()))
        for _ in range(turns):
            await asyncio.sleep(0)
        subscribing.cancel()
        await asyncio.wait([subscribing])
        await client.unsubscribe()
        assert await client.consumer_state() == "configured"
    recorder = Recorder()
    await client.subscribe(recorder)
    await place.put({"i": 1})
    await recorder.until_handled(1)


async def test_shutdown_while_subscribing(place: Place) -> None:
    await place.create_topic()
    client = place.client()
    subscribing = asyncio.create_task(client.subscribe(Recorder()))
    await asyncio.sleep(0)
    await client.shutdown()
    await subscribing
    assert await client.consumer_state() == "shut_down"


# -- programs ------------------------------------------------------------------------------------

UNSUBSCRIBES = """
import asyncio, signal
from prosody import ProsodyClient

class Handler:
    async def on_message(self, context, message):
        print("begun", message.key, flush=True)
        try:
            await asyncio.sleep({"quick": 0.3}.get(message.key, 3600))
        except asyncio.CancelledError:
            print("told", message.key, context.should_cancel(), flush=True)
            raise
        print("ended", message.key, flush=True)

async def main():
    client = ProsodyClient(
        mock=True, group_id="g", subscribed_topics="t", source_system="s", shutdown_timeout=LIMIT
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await client.subscribe(Handler())
    for key in KEYS:
        await client.send("t", key, 1)
    await stop.wait()
    await client.unsubscribe()
    print(await client.consumer_state(), flush=True)
    await client.shutdown()
    print("left", len(asyncio.all_tasks()) - 1, flush=True)

asyncio.run(main(), debug=True)
"""

LEAVES_THE_BLOCK = """
import asyncio
from prosody import ProsodyClient

class Handler:
    async def on_message(self, context, message):
        print("begun", message.key, flush=True)
        await asyncio.sleep(0.3)
        print("ended", message.key, flush=True)

async def main():
    options = dict(mock=True, group_id="g", subscribed_topics="t", source_system="s")
    try:
        async with ProsodyClient(shutdown_timeout=LIMIT, **options) as client:
            await client.subscribe(Handler())
            for key in KEYS:
                await client.send("t", key, 1)
            await asyncio.Event().wait()
    finally:
        print(await client.consumer_state(), flush=True)
        print("left", len(asyncio.all_tasks()) - 1, flush=True)

try:
    asyncio.run(main(), debug=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
"""What ``asyncio.run`` does by itself: Ctrl-C cancels the main task."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signalled_program_ends_in_order(number: int) -> None:
    code, out, err = signalled(UNSUBSCRIBES, number, keys=["quick"], limit_s=20.0)
    assert out == ["begun quick", "ended quick", "configured", "left 0"]
    assert (code, err) == (0, "")


def test_a_signalled_program_with_a_handler_that_does_not_end() -> None:
    code, out, err = signalled(UNSUBSCRIBES, signal.SIGTERM, keys=["quick", "slow"], limit_s=1.0)
    assert sorted(out[:2]) == ["begun quick", "begun slow"]
    assert out[2:] == ["ended quick", "told slow True", "configured", "left 0"]
    assert (code, err) == (0, "")


def test_ctrl_c_in_a_program_that_handles_no_signals() -> None:
    code, out, err = signalled(LEAVES_THE_BLOCK, signal.SIGINT, keys=["quick"], limit_s=20.0)
    assert out == ["begun quick", "ended quick", "shut_down", "left 0", "interrupted"]
    assert (code, err) == (0, "")


def signalled(
    program: str, number: int, *, keys: list[str], limit_s: float
) -> tuple[int, list[str], str]:
    """Run a program, signal it when all its handlers have begun; exit code, output lines, errors."""
    text = program.replace("LIMIT", str(limit_s)).replace("KEYS", repr(keys))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            begun = [process.stdout.readline().strip() for _ in keys]
            process.send_signal(number)
            out, err = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    return process.returncode, begun + out.splitlines(), err


# -- sends of handlers that drain ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["pipeline", "best-effort"])
async def test_a_handler_that_drains_can_still_send(place: Place, mode: str) -> None:
    await place.create_topic(partitions=1)
    audit = await place.create_topic(unique("audit"), partitions=1)
    goes_on = asyncio.Event()
    client = place.client(mode=mode)

    async def sends_at_its_end(context: Context, message: Message) -> None:
        await goes_on.wait()
        await client.send(audit, message.key, {"of": message.payload})

    recorder = Recorder(sends_at_its_end)
    await client.subscribe(recorder)
    await place.put({"i": 0})
    await recorder.until(lambda r: len(r.attempts) == 1)
    ending = asyncio.create_task(client.shutdown())
    await asyncio.sleep(0)
    assert await client.consumer_state() == "shut_down"
    goes_on.set()
    await ending
    assert len(recorder.handled) == 1
    assert await place.lag() == 0
    with pytest.raises(ClientClosedError):
        await client.send(audit, "k", {})


async def test_a_shutdown_whose_wait_is_cancelled_is_ended_by_the_next(place: Place) -> None:
    await place.create_topic(partitions=1)
    goes_on = asyncio.Event()
    client = place.client()

    async def waits(context: Context, message: Message) -> None:
        await goes_on.wait()
        await client.send(place.topic, "other", {"i": 1})

    recorder = Recorder(waits)
    await client.subscribe(recorder)
    await place.put({"i": 0})
    await recorder.until(lambda r: len(r.attempts) == 1)
    ending = asyncio.create_task(client.shutdown())
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    goes_on.set()
    await client.shutdown()
    assert len(recorder.handled) == 1
