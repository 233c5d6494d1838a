"""The eager assignment: with aiokafka's own assignors each join gives up everything."""

from __future__ import annotations

import asyncio

import pytest

from prosody.errors import BrokerError
from tests.broker.kafka.stage import ONE, TWO, Stage
from tests.support import run_virtual, settle


def test_assigned_then_revoked_then_assigned_again() -> None:
    async def main() -> None:
        stage = Stage(cooperative=False)
        await stage.revoke()
        assert stage.listener.events == []  # the first revoke of nothing is no news
        await stage.assign(ONE, TWO)
        both = frozenset({ONE, TWO})
        seen = []

        async def commit(partitions: frozenset[object]) -> None:
            stage.assignment.require(partitions, "commit")
            seen.append(set(stage.assignment.pollable))

        stage.listener.revoke = commit
        await stage.join(ONE)
        assert stage.listener.events == [
            ("assigned", both), ("revoked", both), ("assigned", frozenset({ONE})),
        ]  # fmt: skip
        assert seen == [set()]
        await stage.assignment.close()

    run_virtual(main())


@pytest.mark.parametrize("new_id", ["", "me again"])
def test_a_reset_membership_means_lost(new_id: str) -> None:
    async def main() -> None:
        stage = Stage(cooperative=False)
        await stage.join(ONE)
        stage.reset(new_id)
        with pytest.raises(BrokerError, match="thrown this member out"):
            stage.assignment.require([ONE], "commit")
        await stage.revoke()
        assert stage.listener.names() == ["assigned", "lost"]
        await stage.assignment.close()

    run_virtual(main())


def test_nothing_is_committed_after_the_revoke_and_before_the_next_assignment() -> None:
    async def main() -> None:
        stage = Stage(cooperative=False)
        await stage.join(ONE)
        commit = stage.assignment.commit_begins()
        revoking = asyncio.create_task(stage.revoke())
        await settle()
        assert not revoking.done()
        commit.set_result(None)
        await revoking
        with pytest.raises(BrokerError):
            stage.assignment.require([ONE], "commit")
        await stage.assignment.close()

    run_virtual(main())


@pytest.mark.parametrize("how", ["raises", "never ends"])
def test_a_faulty_listener_does_not_hold_up_the_group(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        stage = Stage(cooperative=False)

        async def fail(_: object) -> None:
            if how == "never ends":
                await asyncio.get_running_loop().create_future()
            raise RuntimeError("our fault")

        await stage.join(ONE)
        stage.listener.revoke = fail
        await stage.revoke()
        assert not stage.assignment.held
        await stage.assignment.close()

    run_virtual(main())
    assert ("our fault" in caplog.text) == (how == "raises")
    assert ("gave up waiting" in caplog.text) == (how == "never ends")


def test_a_revoke_in_the_middle_of_a_beginning() -> None:
    async def main() -> None:
        stage = Stage(cooperative=False)
        await stage.assignment.on_partitions_revoked(set())
        stage.failures = [TimeoutError()]
        await stage.assign(ONE)
        await stage.join(ONE)
        await asyncio.sleep(2.0)
        assert stage.listener.names() == ["assigned"]  # once, by the second
        await stage.assignment.close()

    run_virtual(main())
