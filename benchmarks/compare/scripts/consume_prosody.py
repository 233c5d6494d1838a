"""Consumes with the package ``prosody`` of the interpreter that runs this: ours or prosody-events."""

import asyncio
import logging
import time

from checking import Check, job_of, report

from prosody import EventHandler, ProsodyClient


class Handler(EventHandler):
    def __init__(self, check):
        self.check = check

    async def on_message(self, context, message):
        await self.check.handle(message.key, message.payload, message.partition)

    async def on_timer(self, context, timer):
        raise AssertionError("no timer was set")

    async def on_excise(self, context, message):
        raise AssertionError("nothing was excised")


class NoOp(Handler):
    """Where nothing waits or fails, without the second coroutine: both packages get the same."""

    async def on_message(self, context, message):
        key, order = message.key, message.payload
        self.check.begin(key, order)
        self.check.end(key, order)


async def consume(job):
    check = Check(job)
    check.starts()
    client = await ProsodyClient.create(
        bootstrap_servers=job["kafka"], group_id=job["group"], subscribed_topics=job["topic"],
        source_system="bench", mode="pipeline", cassandra_nodes=job["cassandra"],
        cassandra_keyspace=job["keyspace"], **job["options"],
    )  # fmt: skip
    await client.subscribe(NoOp(check) if check.plain else Handler(check))
    await check.wait()
    await asyncio.sleep(job["settle_s"])
    began_at = time.monotonic()
    await client.unsubscribe()
    check.closed(began_at)
    await client.shutdown()
    return check


if __name__ == "__main__":
    # Failing keys are meant to fail; a line for each would be measured too.
    logging.disable(logging.CRITICAL)
    report(asyncio.run(consume(job_of())))
