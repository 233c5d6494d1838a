"""A partition and a client whose handlers do as they are told, over virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.client.support import Place, run_simulated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prosody import Context, Message, ProsodyClient, Timer


class Scene:
    """One partition and one client, whose handlers hang, fail or take their time as they are told."""

    def __init__(self, place: Place, **options: Any) -> None:
        self.place = place
        self.failing = False
        self.takes_s = 0.0
        self.open = asyncio.Event()
        defaults = {"mode": "pipeline", "timeout": 1000.0, "stall_threshold": 2000.0}
        self.client: ProsodyClient = place.client(**{**defaults, **options})

    async def on_message(self, context: Context, message: Message) -> None:
        if self.takes_s:
            await asyncio.sleep(self.takes_s)
        elif self.failing:
            raise ValueError("a bug of the handler")
        else:
            await self.open.wait()

    async def on_timer(self, context: Context, timer: Timer) -> None:
        await self.open.wait()

    async def begin(self, *keys: bytes) -> None:
        await self.place.create_topic(partitions=1)
        await self.client.subscribe(self)
        await asyncio.sleep(1.0)
        await self.put(*keys)

    async def put(self, *keys: bytes) -> None:
        for key in keys:
            await self.place.put({}, key=key)
        await asyncio.sleep(1.0)

    async def why(self, key: str) -> str:
        text = await self.client.why(self.place.topic, key)
        assert "\n" not in text
        return text.replace(self.place.topic, "orders")


def played(main: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    async def with_scene(place: Place) -> None:
        scene = Scene(place, **options)
        try:
            await main(scene)
        finally:
            scene.open.set()
            place.cluster.restore()

    run_simulated(with_scene)
