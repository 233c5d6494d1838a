"""Rules of the library switched off in a member, to see the tests notice it."""

from __future__ import annotations

from typing import Any

from prosody.consume.partition import Partition

VARIABLE = "PROSODY_TEST_MUTANT"
"""The environment variable that names one."""

NO_DRAIN = "commit-without-drain"
"""What is given up is committed while its handlers go on."""
NO_METADATA = "forget-what-finished-ahead"
"""The notes of commits are ignored (``watched.py`` does it)."""
NO_CLAIM = "claim-nothing"
"""The member does not tell the others what it holds."""
LOST_GOES_ON = "lost-goes-on"
"""What is lost goes on, as if nobody had said so."""
DONE_WHEN_ADMITTED = "done-when-admitted"
"""A record counts as finished as soon as it is taken in."""


def apply(name: str) -> None:
    """Change the library in this process.

    :raises ValueError: there is no such mutant.
    """
    if name == NO_DRAIN:

        async def drain(self: Partition, *limits: Any, **named: Any) -> None:
            """Nothing is stopped and nothing waited for."""

        Partition.drain = drain  # type: ignore[method-assign]
    elif name == NO_CLAIM:
        from prosody.broker.kafka.handover import CooperativeAssignment

        right = CooperativeAssignment.claim

        def claim(self: CooperativeAssignment) -> Any:
            return right(self)._replace(partitions=frozenset())

        CooperativeAssignment.claim = claim  # type: ignore[method-assign]
    elif name in {LOST_GOES_ON, DONE_WHEN_ADMITTED}:
        import pytest

        from tests.simulation.mutants import done_when_admitted, lost_goes_on

        switch_off = lost_goes_on if name == LOST_GOES_ON else done_when_admitted
        switch_off(pytest.MonkeyPatch())  # never undone: it is for the life of this process
    elif name not in {"", NO_METADATA}:
        raise ValueError(f"no such mutant: {name!r}")
