"""A place with stores, and a handler that writes down all its runs."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from prosody.model.times import seconds_from_utc, utc_from_seconds
from tests.client import support

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from prosody import Context, Message, ProsodyClient, Timer
    from prosody.broker.protocol import Broker
    from prosody.runtime import Runtime
    from tools.look import Look

DEADLINE_S = 30.0
MESSAGE, TIMER = "message", "timer"


class Place(support.Place):
    """A place whose clients have stores, and are in pipeline mode with short waits."""

    def __init__(
        self,
        broker: Broker,
        look: Callable[[str, str], Look],
        *,
        mock: bool,
        runtime: Runtime | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(broker, look, mock=mock, runtime=runtime)
        self._options = dict(options or {})

    def client(self, **options: Any) -> ProsodyClient:
        return super().client(
            **{
                "mode": "pipeline",
                "retry_base": 0.01,
                "max_retry_delay": 0.1,
                "defer_base": 0.1,
                "defer_max_delay": 0.5,
                **self._options,
                **options,
            }
        )

    def default_client(self, **options: Any) -> ProsodyClient:
        """A client at the library's own defaults of retry and deferral."""
        usual: dict[str, Any] = dict.fromkeys(
            (
                *("retry_base", "max_retry_delay", "defer_base", "defer_max_delay"),
                *("commit_interval", "shutdown_timeout", "session_timeout"),
            )
        )
        return self.client(**{**usual, **options})

    def without_stores(self, **options: Any) -> ProsodyClient:
        """A client that nobody has told of a store."""
        return self.client(**{**dict.fromkeys(self._options), **options})

    def seconds(self) -> int:
        """The whole second that it is."""
        return int(self.runtime.wall())

    def after(self, seconds: int) -> datetime:
        """So many whole seconds after the one that it is."""
        return utc_from_seconds(self.seconds() + seconds)

    async def until_past(self, when: datetime) -> None:
        """Wait until the wall clock has passed ``when``."""
        while (left_s := seconds_from_utc(when) - self.runtime.wall()) >= 0:
            await self.runtime.sleep(left_s + 0.001)


class Ran(NamedTuple):
    """One handler run that has ended."""

    kind: str
    key: str
    value: Any
    """The payload of a message, the second of a timer."""
    began: float
    """On the wall clock."""
    error: BaseException | None
    offset: tuple[int, int] | None = None
    """Partition and offset, of a message."""

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def late_s(self) -> float:
        """Of a timer: how long after its second it began."""
        return self.began - float(self.value)


class Handler:
    """Does what it was given to do for messages and timers, and writes down how it went."""

    def __init__(
        self,
        place: Place,
        message: Callable[[Context, Message], Awaitable[None]] | None = None,
        timer: Callable[[Context, Timer], Awaitable[None]] | None = None,
    ) -> None:
        self._runtime = place.runtime
        self._message = message
        self._timer = timer
        self.runs: list[Ran] = []
        self.done: Counter[str] = Counter()
        """How many runs succeeded: by kind, and by kind and family (what a key has before its "-")."""
        self._failed: Counter[str] = Counter()
        self.running: dict[str, int] = defaultdict(int)
        self.overlaps = 0
        """Runs of a key that began while another one of it ran."""
        self._changed = asyncio.Event()

    async def on_message(self, context: Context, message: Message) -> None:
        offset = message.partition, message.offset
        await self._run(MESSAGE, context, message, message.payload, self._message, offset)

    async def on_timer(self, context: Context, timer: Timer) -> None:
        await self._run(TIMER, context, timer, seconds_from_utc(timer.time), self._timer, None)

    async def _run(
        self,
        kind: str,
        context: Context,
        event: Any,
        value: Any,
        behave: Callable[[Context, Any], Awaitable[None]] | None,
        offset: tuple[int, int] | None,
    ) -> None:
        key, began, error = event.key, self._runtime.wall(), None
        self.overlaps += self.running[key] > 0
        self.running[key] += 1
        self._changed.set()
        try:
            if behave is not None:
                await behave(context, event)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.running[key] -= 1
            self.runs.append(Ran(kind, key, value, began, error, offset))
            if error is None:
                self.done[kind] += 1
                self.done[f"{kind} {key.partition('-')[0]}"] += 1
            else:
                self._failed[key] += 1
            self._changed.set()

    # -- what it wrote down ------------------------------------------------------------------------

    def of(self, kind: str, key: str | None = None, *, ok: bool | None = True) -> list[Ran]:
        """Runs of a kind (and key), in the order of their ends; ``ok`` None: whatever became of them."""
        return [
            run
            for run in self.runs
            if run.kind == kind and key in {None, run.key} and ok in {None, run.ok}
        ]

    def handled(self, key: str | None = None) -> list[Any]:
        """The payloads of the messages (of a key) that were handled."""
        return [run.value for run in self.of(MESSAGE, key)]

    def fired(self, key: str | None = None) -> list[int]:
        """The seconds of the timers (of a key) that were handled."""
        return [run.value for run in self.of(TIMER, key)]

    def failures(self, key: str) -> int:
        """Runs of a key that failed."""
        return self._failed[key]

    async def until(
        self, condition: Callable[[Handler], bool], deadline_s: float = DEADLINE_S
    ) -> None:
        """Wait for what the begin or the end of a run brings about."""
        try:
            async with asyncio.timeout(deadline_s):
                while not condition(self):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {deadline_s:g} s; the last runs: {self.runs[-5:]}"
            ) from None

    async def until_handled(self, count: int) -> None:
        await self.until(lambda h: h.done[MESSAGE] >= count)

    async def until_fired(self, count: int, key: str | None = None) -> None:
        if key is None:
            await self.until(lambda h: h.done[TIMER] >= count)
        else:
            await self.until(lambda h: len(h.fired(key)) >= count)


class Failing:
    """A behaviour: messages and timers of some keys fail, as long as they are named here."""

    def __init__(self, *keys: str, error: Exception | None = None) -> None:
        self.keys = set(keys)
        self.error = error or ValueError("the dependency is down")

    async def __call__(self, context: Context, event: Message | Timer) -> None:
        if event.key in self.keys:
            raise self.error
