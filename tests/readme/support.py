"""What runs an example in this process, and what watches it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prosody import Context, Message, ProsodyClient
from prosody.broker.memory import MemoryCluster
from tests.readme.document import Block

DEADLINE_S = 30.0


async def execute(block: Block, **names: Any) -> dict[str, Any]:
    """Run a block's statements; returns the names they leave."""
    code = compile(block.placed, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace = {"__name__": "readme", **names}
    async with asyncio.timeout(DEADLINE_S):
        running = eval(code, namespace)
        if inspect.iscoroutine(running):
            await running
    return namespace


class Watched:
    """A handler around a handler: passes everything through, and tells how each call ended."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner
        self.calls: asyncio.Queue[tuple[Message, BaseException | None]] = asyncio.Queue()

    async def on_message(self, context: Context, message: Message) -> None:
        try:
            if self.inner is not None:
                await self.inner.on_message(context, message)
        except BaseException as error:
            self.calls.put_nowait((message, error))
            raise
        self.calls.put_nowait((message, None))

    async def next_call(self) -> tuple[Message, BaseException | None]:
        async with asyncio.timeout(DEADLINE_S):
            return await self.calls.get()


@asynccontextmanager
async def subscribed(handler: Any, **options: Any) -> AsyncIterator[ProsodyClient]:
    """A client that gives the topic ``orders`` to ``handler``, and hears what it sends itself."""
    values = {
        "group_id": "order-service",
        "subscribed_topics": "orders",
        "source_system": "the-test",
        "retry_base": "1ms",
        "shutdown_timeout": "1s",
    }
    async with ProsodyClient(**{**values, **options}) as client:
        await client.subscribe(handler)
        yield client


def sent(topic: str) -> list[tuple[str, Any, dict[str, bytes | None]]]:
    """Key, payload and headers of what the embedded broker holds of a topic."""
    cluster = MemoryCluster.shared()
    return [
        (record.key.decode(), json.loads(record.value), dict(record.headers))
        for log in cluster.logs(topic)
        for record in log.read(0, 1000)
        if record.key is not None and record.value is not None
    ]
