"""What the demo says before and after."""

from __future__ import annotations

from collections.abc import Mapping

from demo.measure import Facts
from demo.orders import WORK_MS_MAX, WORK_MS_MIN
from demo.report import duration
from demo.settings import FAILING_KEY, HOT_KEY, MAX_CONCURRENCY, Settings
from tools.look import Offsets


def introduction(settings: Settings, hot_orders: int) -> str:
    """What a person is about to see."""
    pace = f"{settings.rate:,.0f} a second" if settings.rate else "as fast as they are taken"
    share = 100 * hot_orders / settings.orders
    down = f"{settings.outage_s:g} s"
    work = f"{WORK_MS_MIN:.0f} to {WORK_MS_MAX:.0f} ms"
    return f"""\
prosody demo: an order service

{settings.orders:,} orders of {settings.keys:,} customers are sent, {pace},
to a topic of {settings.broker_name}. One handler works them off, {work} each:
up to {MAX_CONCURRENCY} at the same time, but those of one customer one after the other, in their order.

Two customers make trouble, on purpose:
  {HOT_KEY}  is hot: {share:.0f} % of all orders, coming faster than one after the other is done.
  {FAILING_KEY}  needs a service that is down for {down}: its order is retried, others wait.

Watch the other customers: they should notice neither. Ctrl-C ends the demo in order.
"""


def conclusion(facts: Facts, hot_queue_max: int) -> str:
    """What was to be seen; only numbers that were measured."""
    others = facts.latency_others
    if others is None:
        return ""
    return (
        f"Up to {hot_queue_max:,} orders queued behind the hot key, and the failing key was retried "
        f"{facts.failed_attempts:,} times.\n"
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
