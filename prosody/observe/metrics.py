"""The metrics of one client: what is counted here, what its consumer tells, and who wants to know.

::

    handlers, sends, commits, loop ──▶ Histograms (own buckets) ───────────────┐
    counts that the parts keep ──▶ Source.read, in the event loop ──▶ latest ──┴─▶ /metrics, OpenTelemetry

Somebody wants metrics while ``/metrics`` is served or the program has a meter provider. Otherwise ``on`` is
False and nothing is measured or read; counts that parts keep anyway on rare paths go on.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import NoOpMeter

from prosody.observe.buckets import Histogram
from prosody.observe.metric_table import (
    COMMIT,
    LOOP_LAG,
    OPERATION_DURATION,
    PROCESS_DURATION,
    SENT,
    TABLE,
    TELEMETRY_DROPPED,
    Kind,
)
from prosody.observe.spans import KAFKA, SEND, error_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from opentelemetry.metrics import Meter, MeterProvider

    from prosody.broker.protocol import SentRecord
    from prosody.observe.buckets import Series
    from prosody.observe.instruments import Instruments
    from prosody.observe.metric_table import Metric
    from prosody.runtime import Runtime

_log = logging.getLogger("prosody.metrics")

Numbers = dict[str, dict["Series", float]]
"""Counters and gauges by name, each by its series."""

HAND_OVER_S: Final = 0.5
"""Between two times at which sends are handed over to a provider."""

_SENDS_PER_LOOK: Final = 64
"""A meter provider that comes late is noticed after so many sends; with a subscription, much sooner."""


class Source(Protocol):
    """A consumer, as metrics see it."""

    def read(self) -> Numbers:
        """All numbers of now; called in its event loop."""
        ...


class Dropping(Protocol):
    """What counts what it had to drop."""

    dropped: int


class Metrics:
    """What a client measures. Values survive its subscriptions, so counters only grow.

    All is written in the event loop. ``latest`` is replaced as a whole and never changed, so exporters may
    read it in threads of their own, also while the loop stands still.
    """

    def __init__(self, runtime: Runtime, group_id: str | None, *, scraped: bool = False) -> None:
        """:param scraped: whether ``/metrics`` may be asked for."""
        self.group = group_id or ""
        self.scraped = scraped
        self.histograms = {
            metric.name: Histogram() for metric in TABLE if metric.kind is Kind.HISTOGRAM
        }
        self.handled = self.histograms[PROCESS_DURATION.name]
        self.operations = self.histograms[OPERATION_DURATION.name]
        self.loop_lag = self.histograms[LOOP_LAG.name]
        self.monotonic = runtime.monotonic
        self.latest: Numbers = {}
        """What the consumer told last, ages as times; counters include those of earlier subscriptions."""
        self.events: Dropping | None = None
        """Where telemetry events wait; None where there are none."""
        self.meter: Meter | None = None
        """That of the program's provider; None while it has none."""
        self.export: Callable[[Metrics], None] | None = None
        """Hands histograms over to the provider; None where each value goes there by itself."""
        self._due: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None
        """When sends are handed over next, where there is no subscription to see to it."""
        self._instruments: Instruments | None = None
        self._source: Source | None = None
        self._before: Numbers = {}
        """The counters of subscriptions that have ended."""
        self._seen: MeterProvider | None = None
        self._broken = False
        self._sends = 0

    @property
    def on(self) -> bool:
        """Whether somebody wants metrics."""
        return self.scraped or self.meter is not None

    def look(self) -> None:
        """Has a meter provider come, or changed? Asked from time to time."""
        if self._broken:
            return
        try:
            provider = metrics.get_meter_provider()
            if provider is not self._seen:
                self._seen = provider
                self._use(provider)
        except Exception:  # noqa: BLE001  # whatever was configured
            # The API loads what OTEL_PYTHON_METER_PROVIDER names, and fails each time if it cannot.
            self._broken = True
            _log.error("no metrics are exported: the meter provider cannot be used", exc_info=True)

    def _use(self, provider: MeterProvider) -> None:
        from prosody.observe.instruments import instruments_of

        former, self._instruments = self._instruments, None
        self.meter = self.export = None
        if former is not None:
            former.drop(self)
        # What the API itself provides until a program sets one comes to nothing.
        if type(provider).__module__.startswith("opentelemetry.metrics"):
            return
        meter = provider.get_meter("prosody", importlib.metadata.version("prosody-asyncio"))
        # Not the provider is asked but what it makes: OTEL_SDK_DISABLED turns a real one off.
        if type(meter) is not NoOpMeter:
            self._instruments = instruments_of(provider, meter)
            self._instruments.add(self)
            self.meter = meter

    # -- the consumer -----------------------------------------------------------------------------

    def begin(self, source: Source) -> None:
        """A subscription begins."""
        self._source = source

    def end(self, source: Source) -> None:
        """A subscription has ended: what it counted stays, what it held is gone."""
        if source is not self._source:
            return
        last = self.read()
        self.hand_over()
        self._source = None
        self._before = {name: last.get(name, {}) for name in _COUNTERS}
        self.latest = self._before

    def read(self) -> Numbers:
        """Take the numbers of now; in the event loop."""
        if self._source is not None:
            found = self._source.read()
            for name, before in self._before.items():
                series = found.setdefault(name, {})
                for known, value in before.items():
                    series[known] = series.get(known, 0) + value
            self.latest = found
        return self.latest

    def numbers_of(self, metric: Metric) -> Mapping[Series, float]:
        """A counter or gauge, by series; ages as of now. In any thread."""
        if metric is SENT:
            return self._sent()
        if metric is TELEMETRY_DROPPED:
            return {} if self.events is None else {(self.group,): self.events.dropped}
        found = self.latest.get(metric.name, {})
        if not metric.is_age:
            return found
        now = self.monotonic()
        return {series: max(now - since, 0.0) for series, since in found.items()}

    def _sent(self) -> dict[Series, float]:
        """Sends are counted where they are timed."""
        return {
            (system, operation, topic, error): count
            for (system, operation, topic, _, error), count in self.operations.counts().items()
            if operation != COMMIT
        }

    def hand_over(self) -> None:
        """Give the provider what the histograms have taken up; in the event loop, from time to time."""
        due, self._due = self._due, None
        if due is not None:
            due[1].cancel()
        if self.export is None:
            return
        try:
            self.export(self)
        except Exception:  # noqa: BLE001
            # Of the provider's; messages go on, and what is measured is still to be had by /metrics.
            self.export = None
            _log.exception("handler and send durations are not exported: the meter provider failed")

    def close(self) -> None:
        """The client is shut down: what it has counted goes on to count for its program."""
        self.hand_over()
        instruments, self._instruments = self._instruments, None
        if instruments is not None:
            instruments.retire(self)

    # -- what is measured -------------------------------------------------------------------------

    def committed(self, began: float, error: BaseException | None) -> None:
        """A commit that began at ``began`` has ended."""
        if self.on:
            failed = "" if error is None else error_type(error)
            series = (KAFKA, COMMIT, "", self.group, failed)
            self.operations.add(series, self.monotonic() - began)

    def late(self, late_s: float) -> None:
        """How late the event loop was."""
        if self.on:
            self.loop_lag.add((self.group,), max(late_s, 0.0))

    @property
    def sends(self) -> bool:
        """Whether sends are to be measured. Cheap enough for each send."""
        if not self._sends:
            self._sends = _SENDS_PER_LOOK
            self.look()
        self._sends -= 1
        return self.on

    async def sending(self, topic: str, sending: Awaitable[SentRecord]) -> SentRecord:
        """Measure a send."""
        began = self.monotonic()
        failed = ""
        try:
            return await sending
        except BaseException as error:
            failed = error_type(error)
            raise
        finally:
            self.operations.add((KAFKA, SEND, topic, "", failed), self.monotonic() - began)
            if self.export is not None and self._source is None:
                loop = asyncio.get_running_loop()
                # A loop that was closed meanwhile took its timer with it.
                if self._due is None or self._due[0] is not loop:
                    self._due = loop, loop.call_later(HAND_OVER_S, self.hand_over)


_COUNTERS = frozenset(metric.name for metric in TABLE if metric.kind is Kind.COUNTER)


def can_be_scraped() -> bool:
    """Whether what ``/metrics`` needs is installed (the extra ``prometheus``)."""
    return importlib.util.find_spec("prometheus_client") is not None
