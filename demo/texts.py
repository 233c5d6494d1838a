"""What the demo says before and after."""

from __future__ import annotations

from collections.abc import Mapping

from demo.measure import Facts
from demo.orders import WORK_MS_MAX, WORK_MS_MIN
from demo.report import duration
from demo.settings import FAILING_KEYS, HOT_KEY, MAX_CONCURRENCY, Settings
from tools.look import Offsets


def introduction(settings: Settings, hot_orders: int) -> str:
    """What a person is about to see."""
    pace = f"{settings.rate:,.0f} a second" if settings.rate else "as fast as they are taken"
    share = 100 * hot_orders / settings.orders
    failing = f"{min(FAILING_KEYS)} to {max(FAILING_KEYS)[-4:]}"
    down = f"{settings.outage_s:g} s"
    work = f"{WORK_MS_MIN:.0f} to {WORK_MS_MAX:.0f} ms"
    return f"""\
prosody demo: an order service

{settings.orders:,} orders of {settings.keys:,} customers are sent, {pace},
to a topic of {settings.broker_name}. One handler works them off, {work} each:
up to {MAX_CONCURRENCY} at the same time, but those of one customer one after the other, in their order.

Some customers make trouble, on purpose:
  {HOT_KEY}  is hot: {share:.0f} % of all orders, coming faster than one after the other is done.
  {failing}  need a service that is down for {down}: their orders are deferred
      (kept in {settings.stores_name}) and handled in their order afterwards.
Some orders are sent twice, and must be handled once. Some set a reminder for a second soon to come,
or move or cancel their customer's: a timer.

Watch the other customers: they should notice nothing. Ctrl-C ends the demo in order.
"""


def conclusion(facts: Facts, hot_queue_max: int) -> str:
    """What was to be seen; only numbers that were measured."""
    others = facts.latency_others
    deferred, timers, _ = facts.durable
    if others is None:
        return ""
    return (
        f"Up to {hot_queue_max:,} orders queued behind the hot key; {deferred.orders:,} were put by while "
        f"their service failed,\nat the cost of {facts.failed_attempts:,} failed attempts; "
        f"{timers.fired:,} reminders came within {duration(timers.late_max_s)} of their second.\n"
        f"Of the other customers' orders half were done within {duration(others.p50)} of being sent, "
        f"99 % within {duration(others.p99)}."
    )


def interruption(sent: int, handled: int, offsets: Mapping[int, Offsets]) -> str:
    """What a run that was cut short leaves."""
    text = f"Stopped before the end: {sent:,} orders were sent and {handled:,} handled."
    if offsets:
        committed = sum(o.committed for o in offsets.values())
        text += (
            f"\nRunning handlers were let end, {committed:,} orders are committed (in each partition"
            "\nup to the oldest unfinished one), and the group was left. Nothing was checked."
        )
    return text
