"""One pending call, whoever asks for it and how often."""

from __future__ import annotations

import asyncio
import contextvars

from prosody.runtime import OneCall
from tests.support import run_virtual


def test_only_what_was_asked_for_last_is_called() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        called: list[float] = []
        call = OneCall(lambda: called.append(loop.time() - began_at), contextvars.Context())
        began_at = loop.time()
        call.later(loop, 1.0)
        call.soon(loop)
        call.soon(loop)
        assert call.pending
        await asyncio.sleep(2.0)
        assert called == [0.0]
        assert not call.pending
        call.soon(loop)
        call.later(loop, 3.0)
        call.later(loop, 1.0)
        await asyncio.sleep(5.0)
        assert called == [0.0, 3.0]
        call.later(loop, 1.0)
        call.cancel()
        assert not call.pending
        await asyncio.sleep(5.0)
        assert called == [0.0, 3.0]

    run_virtual(main())
