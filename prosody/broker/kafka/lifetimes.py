"""Starting and ending aiokafka's clients so that no task and no connection is left; private parts of it.

As for ``internals.py``, a test fails when a new aiokafka renames any of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import errors as lower

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

START_GRACE_S = 1.0


async def start_client(client: Any, limit_s: float) -> None:
    """Start a consumer, producer or admin client within ``limit_s``; see ``start_within``."""
    await start_within(client.start(), limit_s)


async def start_within(start: Coroutine[Any, Any, None], limit_s: float) -> None:
    """Run the start of a client of aiokafka within ``limit_s``.

    aiokafka forgets its first connection, with a running task, when it is cancelled between opening
    and using it. So a start that is given up is left ``START_GRACE_S`` to come to its end, a few
    milliseconds with a broker that answers; the caller then closes the client as a whole.
    """
    starting = asyncio.ensure_future(start)
    try:
        async with asyncio.timeout(limit_s):
            await asyncio.shield(starting)
    except BaseException:
        # Cancelled or too late: both go on to the caller once the start has ended.
        await asyncio.wait([starting], timeout=START_GRACE_S)
        await cancel_all([starting], START_GRACE_S)
        raise


async def stop_consumer(consumer: Any, limit_s: float, grace_s: float) -> None:
    """Leave the group and end everything in order; what that leaves behind is abandoned.

    :raises LowerError: it could not be done in order, or not within ``limit_s``.
    """
    try:
        async with asyncio.timeout(limit_s):
            await consumer.stop()
        _settle(consumer)
    except BaseException as error:
        # Whatever it was, nothing may be left running.
        await abandon_consumer(consumer, grace_s)
        # aiokafka ends its tasks by cancelling them. A fetch that failed and waits to be sent again
        # passes that on, and ``stop`` ends as if it had been cancelled itself.
        if not isinstance(error, asyncio.CancelledError) or is_cancelled():
            raise


def is_cancelled() -> bool:
    """Whether the task that asks was cancelled; a ``CancelledError`` may be of what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _settle(consumer: Any) -> None:
    """Take note of how a stopped consumer's main task ended, or asyncio complains about it."""
    coordinator = consumer._coordinator
    if coordinator is not None:
        task = coordinator._coordination_task
        if task.done() and not task.cancelled():
            task.exception()


async def abandon_consumer(consumer: Any, grace_s: float) -> None:
    """End every task of a consumer that does not stop by itself. Takes at most 3 x ``grace_s``."""
    consumer._closed = True  # or its finaliser complains
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    tasks: list[asyncio.Task[Any]] = []
    if coordinator is not None:
        if not coordinator._closing.done():
            coordinator._closing.set_result(None)
        tasks += [
            coordinator._coordination_task,
            coordinator._heartbeat_task,
            coordinator._commit_refresh_task,
        ]
    if fetcher is not None:
        fetcher._closed = True
        tasks += [fetcher._fetch_task, *fetcher._pending_tasks]
    await cancel_all(tasks, grace_s)
    if coordinator is not None:
        await _within(grace_s, coordinator._maybe_leave_group())
    await _within(grace_s, consumer._client.close())


def sender_is_dead(producer: Any) -> bool:
    """Whether the producer's background task has ended: nothing is ever sent again then."""
    task = producer._sender.sender_task
    return task is not None and task.done()


def freeze_producer(producer: Any) -> None:
    """From now on the producer starts no request; those under way still end. Does not wait.

    The public ``stop`` would first send the batches queued behind a failed one.
    """
    task = producer._sender.sender_task
    # Once only: a second cancellation would hit it while it waits for the requests under way.
    if task is not None and not task.cancelling():
        task.cancel()


def track_requests(producer: Any) -> None:
    """Note the tasks of a producer that send to brokers: its own task alone knows them, and forgets them
    when it is cancelled for the second time."""
    sender = producer._sender
    sender.prosody_requests = requests = set()

    async def send(*args: Any) -> None:
        task = asyncio.current_task()
        requests.add(task)
        try:
            await type(sender)._send_produce_req(sender, *args)
        finally:
            requests.discard(task)

    sender._send_produce_req = send


async def abandon_producer(producer: Any, grace_s: float) -> None:
    """Freeze, give requests under way ``grace_s`` to end, close. Takes at most 3 x ``grace_s``."""
    producer._closed = True  # or its finaliser complains; what is queued is no longer this one's
    freeze_producer(producer)
    task = producer._sender.sender_task
    if task is not None:
        await asyncio.wait([task], timeout=grace_s)
    # Closing the connections fails the requests that are still open, and with them the task ends.
    await _within(grace_s, producer.client.close())
    # Or not: with another broker that does not answer, the records are about to be sent once more.
    await cancel_all([task, *getattr(producer._sender, "prosody_requests", ())], grace_s)


async def close_connections(client: Any, grace_s: float) -> None:
    """Close an ``AIOKafkaClient`` that no consumer or producer owns. Takes at most ``grace_s``."""
    await _within(grace_s, client.close())


async def cancel_all(tasks: Collection[asyncio.Task[Any] | None], grace_s: float) -> None:
    """Cancel, wait a little, and take note of the results so that asyncio does not complain."""
    alive = [task for task in tasks if task is not None]
    for task in alive:
        task.cancel()
    if alive:
        await asyncio.wait(alive, timeout=grace_s)
    for task in alive:
        if task.done() and not task.cancelled():
            task.exception()


async def _within(grace_s: float, closing: Any) -> None:
    try:
        async with asyncio.timeout(grace_s):
            await closing
    except (lower.KafkaError, OSError, TimeoutError):
        return  # closing what is already broken: nobody is left to tell
