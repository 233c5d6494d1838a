"""The command line: ``python -m demo``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from demo import settings as defaults
from demo.handler import OrderHandler
from demo.logs import LogWatch
from demo.measure import Facts
from demo.report import as_json, failures, rows
from demo.run import DemoError, HandlerFactory, Run
from demo.settings import HOT_KEY, Settings
from demo.texts import conclusion, interruption, introduction
from demo.views import Screen, make_screen

_FAILED = 1
_INTERRUPTED = 130


def main(arguments: Sequence[str], make_handler: HandlerFactory = OrderHandler) -> int:
    """Run the demo; returns the exit code.

    0: all checks hold. 1: one does not, or the run failed. 2: wrong usage. 130: ended by Ctrl-C, SIGTERM
    or SIGHUP.

    :param make_handler: a test can put a wrong handler here.
    """
    options = _parse(arguments)
    screen = make_screen(options.plain)
    settings = Settings(
        orders=options.orders,
        keys=options.keys,
        seed=options.seed,
        rate=options.rate,
        outage_s=options.outage,
        reminder_s=options.reminder,
        stuck_after_s=options.stuck_after,
    )
    if not options.kafka:
        return _demo(settings, screen, options.json, make_handler)
    # Only here: without --kafka the demo needs neither Java nor the project's tools.
    from dataclasses import replace

    from demo.services import real_services
    from tools.services import ServiceError

    try:
        with real_services(screen.say) as at:
            settings = replace(settings, bootstrap_servers=at.kafka, cassandra=at.cassandra)
            return _demo(settings, screen, options.json, make_handler)
    except ServiceError as error:
        print(f"demo: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        # While they were starting; they were ended on the way here.
        return _INTERRUPTED


def _demo(
    settings: Settings, screen: Screen, json_file: Path | None, make_handler: HandlerFactory
) -> int:
    with LogWatch() as logs:
        run = Run(settings, screen, logs, make_handler)
        screen.say(introduction(settings, run.count[HOT_KEY]))
        try:
            with screen:
                facts = asyncio.run(_until_signal(run))
        except (KeyboardInterrupt, asyncio.CancelledError):
            screen.say(interruption(run.history.sent, run.history.handled, run.offsets))
            return _INTERRUPTED
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return _FAILED
    if run.left_behind:
        screen.say(run.left_behind)
    table = rows(facts)
    screen.table(table)
    if json_file is not None:
        text = json.dumps(as_json(table, settings.broker_name, settings.stores_name), indent=2)
        json_file.write_text(text + "\n", encoding="utf-8")
    failed = failures(table)
    if not failed:
        screen.say(conclusion(facts, run.watcher.hot_queue_max))
        screen.say("All checks hold.", "bold green")
        return 0
    for failure in failed:
        screen.say(f"CHECK FAILED: {failure}", "bold red")
    for line in logs.kept:
        screen.say(line)
    return _FAILED


async def _until_signal(run: Run) -> Facts:
    """The run; SIGTERM and SIGHUP end it in order, as asyncio already does for Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    # Windows has neither such handlers nor SIGHUP.
    with contextlib.suppress(NotImplementedError, AttributeError):
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run.carry_out()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="An order service over prosody, with a hot key, keys whose dependency fails, "
        "orders that are sent twice, and reminders.",
    )
    add = parser.add_argument
    add(
        *("--kafka",),
        action="store_true",
        help="on a real Apache Kafka and Apache Cassandra, started here",
    )
    add("--plain", action="store_true", help="plain lines instead of a live display")
    add("--orders", type=int, default=defaults.ORDERS, help="default: %(default)s")
    add("--keys", type=int, default=defaults.KEYS, help="customers; default: %(default)s")
    add("--seed", type=int, default=defaults.SEED, help="default: %(default)s")
    add(
        *("--rate",),
        type=float,
        default=defaults.RATE,
        help="orders sent per second, 0 for as fast as possible; default: %(default)s",
    )
    add(
        *("--outage",),
        type=float,
        default=defaults.OUTAGE_S,
        help="seconds the failing keys' service is down; default: %(default)s",
    )
    add(
        *("--reminder",),
        type=float,
        default=defaults.REMINDER_S,
        help="seconds after which a reminder comes, at most; default: %(default)s",
    )
    add("--stuck-after", type=float, default=defaults.STUCK_AFTER_S, help=argparse.SUPPRESS)
    add("--json", type=Path, metavar="FILE", help="write the measured table to FILE")
    options = parser.parse_args(arguments)
    if options.orders < defaults.ORDERS_MIN:
        parser.error(f"--orders is {options.orders}, below {defaults.ORDERS_MIN}")
    if options.keys < defaults.KEYS_MIN:
        parser.error(f"--keys is {options.keys}, below {defaults.KEYS_MIN}")
    if min(options.rate, options.outage, options.reminder) < 0:
        parser.error("--rate, --outage and --reminder cannot be negative")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
