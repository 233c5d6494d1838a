"""What the scripts of all rivals share: the job, the checks of the very run, the figures.

The standard library alone, because every rival's interpreter imports it. A script reads one job, an object
of JSON, from its arguments and prints lines of JSON: ``{"event": "first"}`` when the first message is
handled, and the result at the end. Seconds everywhere, memory in MiB.
"""

import argparse
import asyncio
import json
import math
import os
import resource
import sys
import threading
import time
from pathlib import Path

PARENT_LOOK_S = 0.5


class Failing(Exception):  # noqa: N818  (what the handler of a failing key raises, a word in reports)
    """A dependency of this key is down."""


def job_of(arguments=None):
    """The job that the command line gives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", help="an object of JSON")
    return json.loads(parser.parse_args(arguments).job)


def peak_mib():
    """The most memory that was resident in this process.

    Not ``ru_maxrss`` where it can be helped: that one starts with the memory of the process that started
    this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def percentile(ordered, share):
    """The value that ``share`` of the ascending ``ordered`` do not exceed; None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def end_with(parent):
    """End when the process that started this one has ended: a comparison that was killed must not leave
    behind what disturbs the next one."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK_S)
    os._exit(1)


class Check:
    """Counts what is handled, by key, and takes the time.

    A handler calls `begin`, waits for as long as that says, and calls `end`. A message's number ``i`` is
    its own, ``seq`` counts those of its key. Order faults are messages that come after a later one of
    their key, and those that begin while another one of their key runs. One that never comes is lost.
    """

    def __init__(self, job):
        self.expected = job["expected"]
        self.failing = job.get("failing", 0)
        self.delay_s = job.get("delay_s", 0.0)
        self.hot_delay_s = job.get("hot_delay_s", 0.0)
        self.deadline_s = job["deadline_s"]
        self.heal_s = job.get("heal_s", 0.0)
        self.until_told = job.get("until_told", False)
        self.log = [] if job.get("log") else None
        self.plain = not (
            self.delay_s
            or self.hot_delay_s
            or self.failing
            or job.get("live")
            or self.log is not None
        )
        self.seen = bytearray(self.expected)
        self.next_seq = {}
        self.running = set()
        self.handled = self.healthy = self.order_faults = self.repeated = self.failures = 0
        self.healed = not self.failing
        self.began = None
        self.made_at = time.monotonic()
        self.first_s = self.close_s = self.seconds = self.cpu_seconds = None
        self.latencies = []
        self.over = False
        self._wake = None

    # ------------------------------------------------------------------------------ the handler

    def begin(self, key, order):
        """The seconds for which this message's handler has to wait.

        :raises Failing: the message is one that fails, for now.
        """
        if self.began is None:
            self._first()
        if self.seen[order["i"]]:
            self.repeated += 1
        elif order["seq"] < self.next_seq.get(key, 0):
            self.order_faults += 1
        if self.plain:
            return 0.0
        if key in self.running:
            self.order_faults += 1
        if "at" in order and not order.get("hot"):
            self.latencies.append(time.monotonic() - order["at"])
        if not self.healed and order.get("fails"):
            self.failures += 1
            raise Failing(key)
        return self.hot_delay_s if order.get("hot") else self.delay_s

    def end(self, key, order, partition=None):
        """This message is done."""
        i = order["i"]
        if self.log is not None:
            self.log.append((partition, time.monotonic(), i))
        if self.seen[i]:
            return
        self.seen[i] = 1
        if order["seq"] >= self.next_seq.get(key, 0):
            self.next_seq[key] = order["seq"] + 1
        self.handled += 1
        if self.failing and order.get("fails"):
            if self.handled == self.expected:
                self.finish()
            return
        self.healthy += 1
        if self.healthy == self.expected - self.failing:
            self._measure()
            self.healed = True
            if self.handled == self.expected:
                self.finish()

    async def handle(self, key, order, partition=None):
        """The whole of a handler of coroutines."""
        delay_s = self.begin(key, order)
        if delay_s:
            first = key not in self.running
            self.running.add(key)
            try:
                await asyncio.sleep(delay_s)
            finally:
                if first:
                    self.running.discard(key)
        self.end(key, order, partition)

    def handle_here(self, key, order, partition=None):
        """The whole of a handler of a thread."""
        delay_s = self.begin(key, order)
        if delay_s:
            time.sleep(delay_s)
        self.end(key, order, partition)

    def _first(self):
        self.first_s = time.monotonic() - self.made_at
        print(json.dumps({"event": "first"}), flush=True)
        self.began = time.perf_counter(), time.process_time()

    def _measure(self):
        self.seconds = time.perf_counter() - self.began[0]
        self.cpu_seconds = time.process_time() - self.began[1]

    # ------------------------------------------------------------------------------- the waiting

    def starts(self):
        """From here on the time until the first message counts; imports are over."""
        self.made_at = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()

    def _watch(self):
        """Ends the run at its deadline, or when told to by the end of the standard input."""
        if self.until_told:
            sys.stdin.read()
            self.finish()
            return
        ends_at = self.made_at + self.deadline_s
        healthy_at = None
        while not self.over and time.monotonic() < ends_at:
            time.sleep(0.05)
            if self.failing and self.seconds is not None:
                healthy_at = healthy_at or time.monotonic()
                # Who drops what fails would wait for it for ever.
                if time.monotonic() > healthy_at + self.heal_s:
                    break
        self.finish()

    def finish(self):
        """Whoever waits goes on; from any thread."""
        self.over = True
        wake = self._wake
        if wake is not None:
            loop, event = wake
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def wait(self):
        """Until all is handled, or the time is up."""
        event = asyncio.Event()
        self._wake = asyncio.get_running_loop(), event
        if not self.over:
            await event.wait()

    def closed(self, began_at):
        """Leaving the group began at this moment of the monotonic clock and is over now."""
        self.close_s = time.monotonic() - began_at

    # ------------------------------------------------------------------------------- the result

    def result(self):
        """Everything, as an object of JSON."""
        if self.seconds is None and self.began is not None:
            self._measure()
        ordered = sorted(self.latencies)
        return {
            "handled": self.handled,
            "healthy": self.healthy,
            "distinct_keys": len(self.next_seq),
            "order_faults": self.order_faults,
            "repeated": self.repeated,
            "lost": 0 if self.until_told else self.expected - self.handled,
            "failures": self.failures,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "first_s": self.first_s,
            "close_s": self.close_s,
            "peak_mib": peak_mib(),
            "p50_s": percentile(ordered, 0.5),
            "p99_s": percentile(ordered, 0.99),
            "p999_s": percentile(ordered, 0.999),
            "log": self.log,
        }


def report(check):
    """Print the result and end at once: a rival's leftover threads must not keep the harness waiting."""
    print(json.dumps({"event": "result", **check.result()}), flush=True)
    os._exit(0)
