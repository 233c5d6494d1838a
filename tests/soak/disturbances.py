"""What happens to members and servers, one after the other or at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.processes.histories import Zombie
from tests.processes.scene import CLIENT

if TYPE_CHECKING:
    import random

    from tests.processes.fleet import Member
    from tests.soak.member import SoakFleet
    from tools.services import Server

MEMBERS_MAX = 4
END_S_MAX = 120.0
"""In which a member has to end in order, whatever is away meanwhile."""
_LEARN_S_MAX: float = CLIENT["session_timeout"]
"""How long a member that was frozen may believe that it has what others have."""
_FROZEN_S_MAX, _DEAD_S = 12.0, (0.0, 0.0, 5.0, 15.0)


class Disturbances:
    """Each by its name in ``NAMES``; the more often it stands there, the likelier it is."""

    NAMES = (
        *("member_dies",) * 3,
        *("member_ends",) * 3,
        *("member_comes",) * 2,
        *("member_freezes",) * 3,
        *("kafka_freezes",) * 2,
        *("kafka_dies",) * 2,
        *("cassandra_freezes",) * 2,
        *("cassandra_dies",) * 1,
    )

    def __init__(
        self, chance: random.Random, fleet: SoakFleet, kafka: Server, cassandra: Server
    ) -> None:
        self._chance = chance
        self._fleet = fleet
        self._kafka, self._cassandra = kafka, cassandra
        # A server is disturbed by one at a time.
        self._turn = {kafka: asyncio.Lock(), cassandra: asyncio.Lock()}
        self._frozen: set[Member] = set()
        self._count = 0
        self.zombies: list[Zombie] = []

    async def happens(self, name: str) -> None:
        """Do it, and wait until it is over."""
        await getattr(self, name)()

    async def member_comes(self) -> None:
        if len(self._fleet.wanted()) < MEMBERS_MAX:
            self.launch()

    def launch(self) -> None:
        """Start one more member, and wait for nothing."""
        self._count += 1
        self._fleet.launch(f"member-{self._count}")

    async def member_dies(self) -> None:
        if member := self._any():
            await self._fleet.kill(member)
            self.launch()

    async def member_ends(self) -> None:
        if member := self._any():
            self.launch()
            await self._fleet.stop(member, deadline_s=END_S_MAX)

    async def member_freezes(self) -> None:
        if member := self._any():
            self._frozen.add(member)
            since = self._fleet.freeze(member)
            await asyncio.sleep(self._chance.uniform(0.5, _FROZEN_S_MAX))
            until = self._fleet.thaw(member) + _LEARN_S_MAX
            self._frozen.remove(member)
            self.zombies.append(Zombie(member.name, since, until))

    async def kafka_freezes(self) -> None:
        await self._freeze(self._kafka)

    async def kafka_dies(self) -> None:
        await self._kill(self._kafka)

    async def cassandra_freezes(self) -> None:
        await self._freeze(self._cassandra)

    async def cassandra_dies(self) -> None:
        await self._kill(self._cassandra)

    def _any(self) -> Member | None:
        """One that is at work; None when there is none."""
        members = [
            member
            for member in self._fleet.wanted()
            if member.history.told("up") and not member.gone and member not in self._frozen
        ]
        return self._chance.choice(members) if members else None

    async def _freeze(self, server: Server) -> None:
        async with self._turn[server]:
            await asyncio.to_thread(server.pause)
            await asyncio.sleep(self._chance.uniform(0.5, _FROZEN_S_MAX))
            await asyncio.to_thread(server.resume)

    async def _kill(self, server: Server) -> None:
        async with self._turn[server]:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(self._chance.choice(_DEAD_S))
            await asyncio.to_thread(server.start)
