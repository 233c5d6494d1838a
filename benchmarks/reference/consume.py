"""Consumes a topic with the package ``prosody`` of the interpreter that runs this: either one.

A script by itself: the other package's interpreter runs it, so it must not import this project. Prints
one JSON object: seconds and CPU seconds since the first message, and what was wrong.
"""

import argparse
import asyncio
import json
import sys
import time

from prosody import EventHandler, ProsodyClient


class Counting(EventHandler):
    """Counts what comes, and what comes twice or out of order."""

    def __init__(self, expected):
        self.expected = expected
        self.handled = self.repeated = self.order_faults = 0
        self.next_seq = {}
        self.began = None
        self.done = asyncio.Event()

    async def on_message(self, context, message):
        if self.began is None:
            self.began = time.perf_counter(), time.process_time()
        key, seq = message.key, message.payload["seq"]
        due = self.next_seq.get(key, 0)
        if seq < due:
            self.repeated += 1
            return
        self.order_faults += seq > due
        self.next_seq[key] = seq + 1
        self.handled += 1
        if self.handled == self.expected:
            self.done.set()

    async def on_timer(self, context, timer):
        raise AssertionError("no timer was set")

    async def on_excise(self, context, message):
        raise AssertionError("nothing was excised")


async def consume(arguments):
    handler = Counting(arguments.expected)
    options = json.loads(arguments.options)
    client = await ProsodyClient.create(**options)
    await client.subscribe(handler)
    async with asyncio.timeout(arguments.deadline):
        await handler.done.wait()
    seconds = time.perf_counter() - handler.began[0]
    cpu_seconds = time.process_time() - handler.began[1]
    await client.unsubscribe()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "order_faults": handler.order_faults,
        "repeated": handler.repeated,
        "lost": arguments.expected - handler.handled,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--options", required=True, help="of the client, as JSON")
    parser.add_argument("--expected", type=int, required=True)
    parser.add_argument("--deadline", type=float, default=300.0)
    print(json.dumps(asyncio.run(consume(parser.parse_args()))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
