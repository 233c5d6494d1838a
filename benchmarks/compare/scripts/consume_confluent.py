"""Consumes with confluent-kafka itself, one message after the other."""

import time

import msgspec
from checking import Check, job_of, report
from confluent_kafka import Consumer

POLL_S = 0.2


def consume(job):
    options = job["options"]
    check = Check(job)
    check.starts()
    consumer = Consumer(
        {
            "bootstrap.servers": job["kafka"],
            "group.id": job["group"],
            "auto.offset.reset": "earliest",
            **options.get("consumer", {}),
        }
    )
    consumer.subscribe([job["topic"]])
    decode = msgspec.json.Decoder().decode
    batch = options.get("batch")
    handle = check.handle_here
    while not check.over:
        if batch:
            messages = consumer.consume(batch, POLL_S)
        else:
            message = consumer.poll(POLL_S)
            messages = [] if message is None else [message]
        for message in messages:
            if message.error() is None:
                handle(message.key().decode(), decode(message.value()), message.partition())
    began_at = time.monotonic()
    consumer.commit(asynchronous=False)
    consumer.close()
    check.closed(began_at)
    return check


if __name__ == "__main__":
    report(consume(job_of()))
