"""Consumes with quixstreams: one stream whose step is the handler."""

import logging
import threading
import time

from checking import Check, job_of, report
from quixstreams import Application, message_context


def consume(job):
    options = job["options"]
    check = Check(job)
    app = Application(
        broker_address=job["kafka"], consumer_group=job["group"], auto_offset_reset="earliest",
        loglevel=None, **options.get("application", {}),
    )  # fmt: skip
    check.starts()
    stream = app.dataframe(app.topic(job["topic"], **options.get("topic", {})))
    plain = check.plain
    ended_at = None

    def step(order, key, timestamp, headers):
        check.handle_here(key.decode(), order, None if plain else message_context().partition)

    def stop_when_over():
        nonlocal ended_at
        while not check.over:
            time.sleep(0.02)
        ended_at = time.monotonic()
        app.stop()

    stream.update(step, metadata=True)
    threading.Thread(target=stop_when_over, daemon=True).start()
    app.run()
    check.closed(ended_at)
    return check


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    report(consume(job_of()))
