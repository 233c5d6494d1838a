"""A member of a consumer group in a process of its own: ``python -m tests.processes.member OPTIONS``.

OPTIONS is the JSON of :class:`Options`. It subscribes, and writes every handler run, every change of its
assignment and every commit into its history file. SIGTERM unsubscribes and ends it with 0. It ends at
once when its standard input closes, so that it does not outlive who started it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prosody import Context, EventHandler, Message, ProsodyClient
from prosody.broker.factory import make_broker
from prosody.config import Config
from prosody.runtime import SystemRuntime
from tests.processes import mutants
from tests.processes.history import Writer
from tests.processes.watched import WatchedBroker

ORPHANED = 3
"""Exit code when standard input has closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a member is told."""

    history: str
    """Path of its file."""
    client: dict[str, Any]
    """Options of its ``ProsodyClient``."""
    seed: int = 0
    work_s_max: float = 0.03
    """A handler takes a random time from 0 to this, drawn from seed, partition and offset; seconds."""
    slow_keys: dict[str, float] = field(default_factory=dict)
    """Seconds for every record of these keys."""
    slow_partitions: dict[str, float] = field(default_factory=dict)
    """Seconds for every record of these partitions."""
    stubborn_keys: dict[str, float] = field(default_factory=dict)
    """Seconds for every record of these keys, whatever is cancelled meanwhile."""
    blocking_keys: dict[str, float] = field(default_factory=dict)
    """Seconds for every record of these keys, in which nothing else runs in the whole process."""

    def text(self) -> str:
        """As the program's argument."""
        return json.dumps(asdict(self))


class Handler(EventHandler):
    """Works for a while and writes down when."""

    def __init__(self, options: Options, writer: Writer) -> None:
        self._options = options
        self._writer = writer

    async def on_message(self, context: Context, message: Message) -> None:
        facts = {
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "key": message.key,
            "seq": message.payload["seq"],
        }
        self._writer.write("start", **facts)
        cancelled = True
        try:
            await self._work(context, message)
            cancelled = False
        finally:
            self._writer.write("end", **facts, cancelled=cancelled)

    async def _work(self, context: Context, message: Message) -> None:
        options = self._options
        if message.key in options.blocking_keys:
            time.sleep(options.blocking_keys[message.key])  # noqa: ASYNC251  # what it is here for
        elif message.key in options.stubborn_keys:
            await self._be_stubborn(message, options.stubborn_keys[message.key])
        else:
            await asyncio.sleep(self._work_s(message))

    async def _be_stubborn(self, message: Message, length_s: float) -> None:
        until = time.monotonic() + length_s
        while (left_s := until - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left_s)
            except asyncio.CancelledError:
                # The bad manners that this key is here for.
                self._writer.write("told", offsets={message.partition: [message.offset, ""]})

    def _work_s(self, message: Message) -> float:
        options = self._options
        if message.key in options.slow_keys:
            return options.slow_keys[message.key]
        if (partition := str(message.partition)) in options.slow_partitions:
            return options.slow_partitions[partition]
        chance = random.Random(f"{options.seed} {message.partition} {message.offset}")
        return chance.random() * options.work_s_max


async def main(options: Options, handler: type[Handler]) -> None:
    writer = Writer(Path(options.history))
    runtime = SystemRuntime()
    config = Config.load(options.client, {})
    mutant = os.environ.get(mutants.VARIABLE, "")
    mutants.apply(mutant)
    broker = WatchedBroker(
        make_broker(config, runtime), writer, forgetful=mutant == mutants.NO_METADATA
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), os._exit, ORPHANED)
    async with ProsodyClient.from_parts(config, broker, runtime) as client:
        await client.subscribe(handler(options, writer))
        writer.write("up")
        await stop.wait()
        writer.write("stopping")
        await client.unsubscribe()
        writer.write("stopped")
    loop.remove_reader(sys.stdin.fileno())


def run(handler: type[Handler]) -> None:
    """The program; ``handler`` does the work."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03d %(name)s %(message)s",
        datefmt="%H:%M:%S",
    )
    asyncio.run(main(Options(**json.loads(sys.argv[1])), handler))


if __name__ == "__main__":
    run(Handler)
