"""The command line: ``python -m tools.services``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tools.services import SERVERS, ServiceError
from tools.services.detached import Entry, list_detached, start_detached, stop_detached
from tools.services.run import run

_DESCRIPTION = """\
Real Apache Kafka and Apache Cassandra on free ports of this machine, with their data in temporary folders.

  start [kafka] [cassandra]               start them (both by default); they stay until stopped.
                                          Prints the variables: eval "$(python -m tools.services start)"
  stop [kafka] [cassandra]                end what start has started
  status                                  what runs; exit code 0 when something does and all of it answers
  run [kafka] [cassandra] -- command ...  start them, run the command with the variables set, end them
"""


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code (1: a server could not be had, 2: wrong usage)."""
    options, command = _parse(arguments)
    names = list(dict.fromkeys(options.names)) or sorted(SERVERS, reverse=True)
    try:
        match options.action:
            case "start":
                for entry in start_detached(names):
                    print(f"export {SERVERS[entry.name].variable}={entry.address}")
            case "stop":
                for entry in stop_detached(names):
                    print(
                        f"{entry.name} on {entry.address} (process {entry.pid}) ended",
                        file=sys.stderr,
                    )
            case "status":
                return _status(list_detached())
            case _:
                return run(names, command)
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Servers that were coming up have been ended on the way here.
        return 130
    return 0


def _status(entries: Sequence[Entry]) -> int:
    all_answer = bool(entries)
    for entry in entries:
        state = "answers" if entry.answering else "does not answer" if entry.alive else "has ended"
        all_answer = all_answer and state == "answers"
        print(
            f"{entry.name} on {entry.address} {state} (process {entry.pid}, folder {entry.folder})"
        )
    if not entries:
        print("no server was started")
    return 0 if all_answer else 1


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m tools.services",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s {start,stop,status,run} [kafka] [cassandra] [-- command ...]",
    )
    parser.add_argument("action", choices=["start", "stop", "status", "run"])
    parser.add_argument("names", nargs="*", metavar="server", help=" or ".join(SERVERS))
    own = list(arguments)
    command: list[str] = []
    if "--" in own:
        cut = own.index("--")
        own, command = own[:cut], own[cut + 1 :]
    options = parser.parse_args(own)
    for name in options.names:
        if name not in SERVERS:
            parser.error(f"unknown server {name!r}; there are {' and '.join(SERVERS)}")
    if (options.action == "run") != bool(command):
        parser.error("'run' needs a command after --, and nothing else takes one")
    return options, command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
