"""Consumes with aiokafka itself: one message after the other, or a task for each."""

import asyncio
import time

import msgspec
from aiokafka import AIOKafkaConsumer
from checking import Check, job_of, report

POLL_MS = 200
MAX_RECORDS = 1000
"""Of a poll. aiokafka unpacks a whole fetch before it returns, and the clock starts with the first
message: without a limit most of the unpacking would not be counted."""


async def one_by_one(consumer, check, options):
    """In order. Commits of its own every second, or aiokafka's own every five."""
    decode = msgspec.json.Decoder().decode
    commits = not options.get("auto_commit", True)
    due = time.monotonic() + 1.0
    while not check.over:
        polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        for records in polled.values():
            if check.plain:
                for record in records:
                    key, order = record.key.decode(), decode(record.value)
                    check.begin(key, order)
                    check.end(key, order)
            else:
                for record in records:
                    await check.handle(record.key.decode(), decode(record.value), record.partition)
        if commits and time.monotonic() > due:
            due = time.monotonic() + 1.0
            await consumer.commit()


async def tasks(consumer, check, options):
    """A task for each, a number of them at a time; no order for a key."""
    decode = msgspec.json.Decoder().decode
    slots = asyncio.Semaphore(options["limit"])
    running = set()

    async def one(record):
        try:
            await check.handle(record.key.decode(), decode(record.value), record.partition)
        finally:
            slots.release()

    while not check.over:
        polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        for records in polled.values():
            for record in records:
                await slots.acquire()
                task = asyncio.create_task(one(record))
                running.add(task)
                task.add_done_callback(running.discard)


async def consume(job):
    options = job["options"]
    check = Check(job)
    check.starts()
    consumer = AIOKafkaConsumer(
        job["topic"], bootstrap_servers=job["kafka"], group_id=job["group"],
        auto_offset_reset="earliest", enable_auto_commit=options.get("auto_commit", True),
        **options.get("consumer", {}),
    )  # fmt: skip
    await consumer.start()
    loop = tasks if "limit" in options else one_by_one
    await loop(consumer, check, options)
    began_at = time.monotonic()
    await consumer.commit()
    await consumer.stop()
    check.closed(began_at)
    return check


if __name__ == "__main__":
    report(asyncio.run(consume(job_of())))
