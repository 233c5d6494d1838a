"""How long handlers took: told by the scheduler, which has both times at hand."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prosody.model.message import Timer
from prosody.model.outcome import SUCCESS
from prosody.observe.metric_table import BOUNDS_S
from prosody.observe.spans import KAFKA, PROCESS, TIMER, error_type

if TYPE_CHECKING:
    from prosody.model.outcome import Outcome
    from prosody.model.run import Run
    from prosody.observe.buckets import Buckets, Histogram


class Handling:
    """Notes one attempt after the other. Called for each message, so success is written out."""

    def __init__(self, histogram: Histogram, group_id: str) -> None:
        self._histogram = histogram
        self._group_id = group_id
        self._messages: dict[str, Buckets] = {}
        self._timers: dict[str, Buckets] = {}
        """Of successes, by topic."""

    def __call__(self, run: Run, used_s: float, outcome: Outcome | None) -> None:
        """An attempt of ``run`` has ended.

        :param outcome: None when it was cut short, by the end of the loop or a fault of ours.
        """
        event = run.event
        if event is None or outcome is None:
            return  # no handler was called for what cannot be decoded
        topic = run.partition.topic_partition.topic
        of_timer = type(event) is Timer
        histogram = self._histogram
        if outcome is SUCCESS and histogram.each is None:
            known = self._timers if of_timer else self._messages
            found = known.get(topic)
            if found is None:
                found = known[topic] = histogram.of(self._series(topic, of_timer, ""))
            found.counts[bisect_left(BOUNDS_S, used_s)] += 1
            found.total += used_s
            if used_s < found.low:  # noqa: PLR1730  # a call of min or max would cost as much as all else
                found.low = used_s
            if used_s > found.high:  # noqa: PLR1730
                found.high = used_s
            return
        error = "" if outcome.error is None else error_type(outcome.error)
        histogram.add(self._series(topic, of_timer, error), used_s)

    def _series(self, topic: str, of_timer: bool, error: str) -> tuple[str, ...]:
        return (KAFKA, TIMER if of_timer else PROCESS, topic, self._group_id, error)
