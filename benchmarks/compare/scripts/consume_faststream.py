"""Consumes with FastStream: one subscriber, whose handler takes the decoded body.

And nothing else, if it can: to ask for the message too costs several times as much. So the key is taken
from the body.
"""

import asyncio
import logging
import time
from typing import Any

from checking import Check, job_of, report
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage


async def consume(job):
    options = job["options"]
    check = Check(job)
    check.starts()
    # Without its two log lines for each message, which are on by default: nobody else writes any.
    broker = KafkaBroker(job["kafka"], logger=None, **options.get("broker", {}))
    given = dict(options.get("subscriber", {}))
    if "ack_policy" in given:
        given["ack_policy"] = AckPolicy(given["ack_policy"])
    if options.get("decoder") == "msgspec":
        import msgspec

        decode = msgspec.json.Decoder().decode

        async def decoder(message):
            return decode(message.body)

        given["decoder"] = decoder
    subscriber = broker.subscriber(
        job["topic"], group_id=job["group"], auto_offset_reset="earliest", **given
    )
    if check.plain:

        async def handle(order: dict[str, Any]) -> None:
            key = order["key"]
            check.begin(key, order)
            check.end(key, order)

    elif check.log is None:

        async def handle(order: dict[str, Any]) -> None:
            await check.handle(order["key"], order)

    else:

        async def handle(order: dict[str, Any], message: KafkaMessage) -> None:
            await check.handle(order["key"], order, message.raw_message.partition)

    subscriber(handle)
    await broker.start()
    await check.wait()
    began_at = time.monotonic()
    await broker.stop()
    check.closed(began_at)
    return check


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    report(asyncio.run(consume(job_of())))
