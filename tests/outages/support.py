"""What the tests of outages share: all that is logged, and a stream of numbered messages."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Self

from prosody.errors import SendError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from prosody import ProsodyClient
    from tests.client.support import Recorder

DEADLINE_S = 60.0
"""For what has to happen after an outage: aiokafka looks for lost brokers again at its own pace."""

LINES_OF_A_CHANGE_MAX = 25
"""Warnings and errors about a topic that comes or goes: it is told, and not over and over."""


class Log(logging.Handler):
    """Takes down what all loggers say."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        root = logging.getLogger()
        root.addHandler(self)
        # Not on aiokafka's: whoever sets a level there asks for all its lines.
        logger = logging.getLogger("prosody")
        self._level = logger.level
        logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self)
        logging.getLogger("prosody").setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._changed.set()

    def lines(self, *parts: str, level: int = logging.INFO, logger: str = "") -> list[str]:
        """The texts in which all ``parts`` occur."""
        found = [
            f"{r.levelname} {r.name}: {r.getMessage()}"
            for r in self.records
            if r.levelno >= level and r.name.startswith(logger)
        ]
        return [line for line in found if all(part in line for part in parts)]

    def troubles(self) -> list[str]:
        """Every line at ``WARNING`` and above."""
        return self.lines(level=logging.WARNING)

    async def until(self, *parts: str, count: int = 1) -> None:
        """Wait for a line, or for as many."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.lines(*parts)) < count:
                self._changed.clear()
                await self._changed.wait()


class Stream:
    """Numbered messages of some keys, ``abreast`` of each key at a time, for as long as it is asked to.

    A message is numbered by the order of the calls for its key. Its ``id`` makes it one that the id cache
    knows.
    """

    def __init__(
        self, client: ProsodyClient, topic: str, keys: Sequence[str], *, abreast: int = 3
    ) -> None:
        self._client = client
        self._topic = topic
        self._keys = keys
        self._abreast = abreast
        self._ending = False
        self._changed = asyncio.Event()
        self.called: dict[str, int] = dict.fromkeys(keys, 0)
        """How many sends of a key have begun."""
        self.taken: dict[str, list[int]] = {key: [] for key in keys}
        """The numbers that were acknowledged."""
        self.failures: list[SendError] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Stream]:
        """Send for as long as the block runs; the sends under way at its end are waited for."""
        tasks = [asyncio.create_task(self._run(key)) for key in self._keys]
        try:
            yield self
            self._ending = True
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _run(self, key: str) -> None:
        while not self._ending:
            await asyncio.gather(*(self._send(key) for _ in range(self._abreast)))
            await asyncio.sleep(0.02)  # a modest load: the machine has other things to do

    async def _send(self, key: str) -> None:
        self.called[key] += 1
        number = self.called[key]
        try:
            await self._client.send(self._topic, key, {"id": f"{key}-{number}", "n": number})
        except SendError as error:
            # What a program does about it is its own; here it is counted.
            self.failures.append(error)
        else:
            self.taken[key].append(number)
        self._changed.set()

    async def until(self, condition: Callable[[Stream], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def until_taken(self, more: int) -> None:
        """Wait for ``more`` acknowledgements of each key."""
        before = {key: len(numbers) for key, numbers in self.taken.items()}
        await self.until(lambda s: all(len(s.taken[k]) >= before[k] + more for k in self._keys))

    async def until_handled(self, recorder: Recorder) -> None:
        """Wait until everything that was acknowledged has been handled."""
        wanted = {(key, n) for key, numbers in self.taken.items() for n in numbers}
        async with asyncio.timeout(DEADLINE_S):
            await recorder.until(
                lambda r: wanted <= {(m.key, number(m.payload)) for m in r.handled}
            )

    def check(self, recorder: Recorder) -> None:
        """Nothing acknowledged is lost, nothing written twice, and the order of the sends is kept.

        Runs may repeat: at least once is what is promised.
        """
        firsts: dict[str, dict[int, int]] = collections.defaultdict(dict)
        for message in recorder.handled:
            n = number(message.payload)
            offset = firsts[message.key].setdefault(n, message.offset)
            assert offset == message.offset, f"{message.key}: {n} was written twice"
        for key, taken in self.taken.items():
            handled = list(firsts[key])
            assert not set(taken) - set(handled), f"{key}: lost"
            assert handled == sorted(handled), f"{key}: out of order"
        assert recorder.overlaps == 0


def number(payload: Any) -> int:
    """The number in a message of a stream."""
    found: int = payload["n"]
    return found
