"""What records of log lines carry, in runs that provoke each sort of line; and that payloads do not."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from prosody import PermanentError
from prosody.model.fields import cut
from prosody.observe.storm import BURST, QUIET_S
from prosody.stores.memory import MemoryStoreState
from tests.client.scene import Scene, played

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prosody import Context, Message, Timer

SECRET = "a very secret payload"
NAMES = ("topic", "partition", "offset", "key", "attempt")


class Lines(logging.Handler):
    """All lines of the library."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def one(self, text: str) -> dict[str, Any]:
        """What the first line with this text is about."""
        found = [r for r in self.records if text in r.getMessage()]
        assert found, f"no line has {text!r}: {[r.getMessage() for r in self.records]}"
        return {name: getattr(found[0], name) for name in NAMES if hasattr(found[0], name)}


@pytest.fixture
def logged() -> Iterator[Lines]:
    lines, log = Lines(), logging.getLogger("prosody")
    before = log.level
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(lines)
    log.setLevel(before)
    for record in lines.records:
        text = logging.Formatter().format(record)  # with its traceback
        assert SECRET not in text
        assert not any(SECRET in str(value) for value in vars(record).values())


def about(scene: Scene, **others: Any) -> dict[str, Any]:
    return {"topic": scene.place.topic, "partition": 0, **others}


async def put(scene: Scene, key: bytes = b"a", value: Any = None) -> None:
    await scene.place.put({"text": SECRET} if value is None else value, key=key)
    await asyncio.sleep(1.0)


def test_assignment_and_revoke(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.open.set()
        await scene.begin(b"a")
        await scene.client.unsubscribe()
        await scene.client.subscribe(scene)
        await asyncio.sleep(1.0)
        assert logged.one("assigned topic") == about(scene, offset=0)
        consumer = scene.client._consumer
        assert consumer is not None
        (partition,) = consumer.inside.assignment.partitions()
        consumer.inside.assignment.on_lost(frozenset([partition.topic_partition]))
        assert logged.one("lost topic") == about(scene)
        other = scene.place.client()
        await other.subscribe(scene)
        await asyncio.sleep(1.0)

    played(main)


def test_a_retry(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin()
        await put(scene)
        assert logged.one("attempt 1 failed, trying again in") == about(
            scene, offset=0, key="a", attempt=1
        )
        scene.failing = False

    played(main, defer_enabled=False, retry_base=10.0)


def test_a_deferral_and_its_failures(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin()
        await put(scene)
        expected = about(scene, offset=0, key="a", attempt=1)
        assert logged.one("attempt 1 failed, deferred for") == expected
        await asyncio.sleep(30.0)
        assert logged.one("deferred message failed for the 2. time") == expected

    played(main, defer_base=10.0)


def test_a_refusal(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.takes_s = 60.0
        await scene.begin()
        await put(scene)
        await put(scene)
        await asyncio.sleep(61.0)
        assert logged.one("key held back for") == about(scene, offset=1, key="a", attempt=0)
        scene.takes_s = 0.0

    played(main, defer_enabled=False, monopolization_threshold=0.5, monopolization_window=100.0)


def test_a_timeout_and_a_stall(logged: Lines) -> None:
    class Stubborn(Scene):
        async def on_message(self, context: Context, message: Message) -> None:
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                await self.open.wait()

    async def main(scene: Scene) -> None:
        stubborn = Stubborn(scene.place, timeout=5.0, stall_threshold=20.0)
        await stubborn.begin()
        await put(stubborn)
        await asyncio.sleep(30.0)
        expected = about(scene, offset=0, key="a", attempt=1)
        assert logged.one("handler timed out after 5 s") == expected
        assert logged.one("handler still runs") == expected
        assert logged.one("stalled: topic") == expected
        stubborn.open.set()
        await asyncio.sleep(1.0)
        assert logged.one("moves again")["topic"] == scene.place.topic

    played(main)


def test_a_dead_letter_and_what_cannot_be_decoded(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.place.create_topic("failed")
        await scene.begin()
        await put(scene)
        await put(scene, b"b", SECRET.encode())
        await asyncio.sleep(5.0)
        assert logged.one("gave up after 2 attempts") == about(scene, offset=0, key="a", attempt=2)
        assert logged.one("message failed, sent to 'failed'") == about(
            scene, offset=0, key="a", attempt=2
        )
        assert logged.one("record cannot be decoded") == about(scene, offset=1)

    played(main, mode="low-latency", failure_topic="failed", max_retries=1, retry_base=0.1)


def test_best_effort_loses_every_message_in_a_line_of_its_own(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin()
        await scene.place.put_many([(b"k%d" % n, {"t": SECRET}) for n in range(3 * BURST)])
        await asyncio.sleep(1.0)
        found = [r for r in logged.records if "message lost" in r.getMessage()]
        assert len(found) == 3 * BURST
        assert {getattr(r, "key") for r in found} == {f"k{n}" for n in range(3 * BURST)}  # noqa: B009

    played(main, mode="best-effort")


def test_a_permanent_failure_and_a_record_without_a_value(logged: Lines) -> None:
    class Fails(Scene):
        async def on_message(self, context: Context, message: Message) -> None:
            raise PermanentError("no")

    async def main(scene: Scene) -> None:
        fails = Fails(scene.place)
        await fails.begin()
        await put(fails)
        assert logged.one("failed permanently, dropped") == about(
            scene, offset=0, key="a", attempt=1
        )
        with scene.place.cluster.lock:
            scene.place.cluster.logs(scene.place.topic)[0].append(0, b"b", None, ())
        await asyncio.sleep(1.0)
        assert logged.one("record without a value skipped") == about(scene, offset=1, key="b")

    played(main)


def test_a_timer_has_no_offset(logged: Lines) -> None:
    class Sets(Scene):
        async def on_message(self, context: Context, message: Message) -> None:
            when = self.place.runtime.wall() + 2.0
            await context.schedule(datetime.fromtimestamp(when, UTC))

        async def on_timer(self, context: Context, timer: Timer) -> None:
            if self.failing:
                raise ValueError("a bug of the handler")

    async def main(scene: Scene) -> None:
        sets = Sets(scene.place, defer_enabled=False, retry_base=10.0)
        sets.failing = True
        await sets.begin()
        await put(sets)
        await asyncio.sleep(3.0)
        assert logged.one("attempt 1 failed, trying again") == about(scene, key="a", attempt=1)
        store = scene.place.cluster.attached(MemoryStoreState)
        store.outage("no node answers")
        sets.failing = False
        await asyncio.sleep(30.0)
        assert logged.one("a timer that has fired cannot be removed") == about(scene, key="a")
        store.restore()
        await asyncio.sleep(30.0)

    played(main)


def test_a_store_that_is_away(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        store = scene.place.cluster.attached(MemoryStoreState)
        store.outage("no node answers")
        await scene.begin()
        assert logged.one("waits for its store") == about(scene)
        store.restore()
        await asyncio.sleep(30.0)
        assert logged.one("its store works again") == about(scene)
        scene.failing = True
        store.outage("no node answers")
        await put(scene)
        assert logged.one("cannot be deferred, is tried again in place") == about(
            scene, offset=0, key="a", attempt=1
        )
        store.restore()

    played(main)


def test_the_end_of_a_storm_is_about_the_last_that_was_left_out(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.place.create_topic("failed")
        await scene.begin()
        await scene.place.put_many([(b"k%d" % n, {"t": SECRET}) for n in range(BURST + 5)])
        await asyncio.sleep(QUIET_S + 2.0)
        (line,) = [
            r
            for r in logged.records
            if r.name == "prosody.retry" and r.getMessage().startswith("until ")
        ]
        assert getattr(line, "left_out") == 5  # noqa: B009
        named = {name: getattr(line, name) for name in NAMES}
        assert named == about(scene, offset=BURST + 4, key=f"k{BURST + 4}", attempt=1)

    played(main, mode="low-latency", failure_topic="failed", max_retries=0)


def test_a_store_that_cannot_say_what_was_handled(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.open.set()
        await scene.begin()
        scene.place.cluster.attached(MemoryStoreState).outage("no node answers")
        await put(scene, value={"id": "1", "text": SECRET})
        assert logged.one("handled before, taken as new") == about(
            scene, offset=0, key="a", attempt=0
        )
        assert logged.one("not recorded in the store") == about(scene, offset=0, key="a", attempt=1)

    played(main)


def test_a_key_is_cut_as_in_the_text(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        scene.failing = True
        await scene.begin(b"x" * 500)
        assert logged.one("attempt 1 failed")["key"] == "x" * 80 + "... (500 characters)"

    played(main, defer_base=1000.0)
    assert cut("short") == "short"


def test_a_send_that_is_skipped(logged: Lines) -> None:
    async def main(scene: Scene) -> None:
        await scene.begin()
        for _ in range(2):
            await scene.client.send(scene.place.topic, "a", {"id": "1", "text": SECRET})
        assert logged.one("send skipped") == {"topic": scene.place.topic, "key": "a"}

    played(main)
