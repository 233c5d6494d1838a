"""The command line: ``python -m tests.soak``."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prosody.errors import ProsodyError
from tests.servers import mortal_cassandra, small_kafka
from tests.soak.episode import play

if TYPE_CHECKING:
    from tools.services import CassandraServer, KafkaServer


def main() -> int:
    """Play episodes; the exit code is 1 when one had a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*", help="play these and end")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED")
    parser.add_argument("--minutes", type=float, default=10.0, help="begin none after so long")
    options = parser.parse_args()
    seeds = options.seeds or itertools.count(options.first)
    until = float("inf") if options.seeds else time.monotonic() + 60.0 * options.minutes
    with small_kafka() as kafka, mortal_cassandra() as cassandra:
        faulty = []
        for seed in seeds:
            if time.monotonic() > until:
                break
            if not _episode(seed, kafka, cassandra):
                faulty.append(seed)
    print(f"seeds with a fault: {faulty}" if faulty else "no fault", flush=True)
    return 1 if faulty else 0


def _episode(seed: int, kafka: KafkaServer, cassandra: CassandraServer) -> bool:
    folder = Path(tempfile.mkdtemp(prefix=f"prosody-soak-{seed}-"))

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {seed}: {text}", flush=True)

    for server in (kafka, cassandra):
        # The episode before may have ended in the middle.
        server.resume()
        if not server.running:
            server.start()
    try:
        found = asyncio.run(play(seed, kafka, cassandra, folder, say))
    except (AssertionError, ExceptionGroup, OSError, ProsodyError) as error:
        say(f"FAULT: {error!r}\nfiles of its members: {folder}")
        return False
    say(found.text)
    for fault in found.faults:
        say(f"FAULT: {fault}")
    if found.faults:
        say(f"files of its members: {folder}")
        return False
    shutil.rmtree(folder)
    return True


if __name__ == "__main__":
    sys.exit(main())
