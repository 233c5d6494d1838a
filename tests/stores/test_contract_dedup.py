"""What every store of identities does, and every bundle of stores."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from prosody.stores.hashing import message_identity

if TYPE_CHECKING:
    from prosody.stores.protocol import Stores
    from tests.stores.support import Place


async def test_what_is_recorded_is_seen_by_everybody(place: Place, stores: Stores) -> None:
    version = uuid.uuid4().hex
    ids = [message_identity(version, "g", "t", 0, "k", str(n)) for n in range(200)]
    assert not any(await asyncio.gather(*(stores.dedup.seen(each) for each in ids)))
    await asyncio.gather(*(stores.dedup.record(each) for each in ids[::2]))
    other = await place.stores()
    for each in (stores, other):
        found = await asyncio.gather(*(each.dedup.seen(identity) for identity in ids))
        assert found == [True, False] * 100
    await stores.dedup.record(ids[0])
    assert await stores.dedup.seen(ids[0])


async def test_stopping_twice_and_nothing_is_wrong(place: Place) -> None:
    stores = await place.stores()
    assert stores.problem is None
    await stores.stop()
    await stores.stop()
    assert stores.problem is None
