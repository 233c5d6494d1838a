"""The assignors a consumer can be given, by name."""

from __future__ import annotations

import logging
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from aiokafka.coordinator.assignors.abstract import (
    AbstractPartitionAssignor,
)
from aiokafka.coordinator.assignors.range import (
    RangePartitionAssignor,
)
from aiokafka.coordinator.assignors.roundrobin import (
    RoundRobinPartitionAssignor,
)
from aiokafka.coordinator.assignors.sticky.sticky_assignor import (
    StickyPartitionAssignor,
)
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

from prosody.broker.kafka.claims import (
    ForeignMemberError,
    decode_claim,
    decode_release,
    encode_claim,
    encode_release,
)
from prosody.broker.kafka.cooperative import Applicant, share_out
from prosody.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prosody.broker.kafka.claims import Voice
    from prosody.broker.kafka.cooperative import Share

log = logging.getLogger(__name__)

COOPERATIVE = "cooperative"
_LOWER: dict[str, Any] = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "sticky": StickyPartitionAssignor,
}

ASSIGNORS = (COOPERATIVE, *sorted(_LOWER))
"""The names ``make_assignor`` knows."""

_PROTOCOL_VERSION = 0
"""Of Kafka's own part of the messages between members; the one aiokafka reads and writes."""


def make_assignor(name: str, voice: Voice | None = None) -> Any:
    """A new assignor class of that name.

    One per client, because aiokafka uses the classes themselves and the sticky one keeps its memory
    there: two clients of a process would claim each other's partitions.

    :param voice: speaks for the client; the cooperative assignor needs it, the others do not.
    :raises ConfigurationError: when there is no such assignor.
    """
    if name == COOPERATIVE:
        if voice is None:
            raise TypeError("the cooperative assignor needs a voice")
        return _cooperative(voice)
    base = _LOWER.get(name)
    if base is None:
        raise ConfigurationError(
            [f"assignor: {name!r} is not known; use one of {', '.join(ASSIGNORS)}"]
        )
    return type(base.__name__, (base,), {})


def _cooperative(voice: Voice) -> Any:
    class CooperativeAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # the base has no types
        """Our own assignor, in the shape aiokafka asks for."""

        name = "prosody-cooperative"
        """What the group knows it by: members with another one cannot be in it."""

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> Any:
            """What this member joins with."""
            claim = encode_claim(voice.claim())
            return ConsumerProtocolMemberMetadata(_PROTOCOL_VERSION, sorted(topics), claim)

        @classmethod
        def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
            """Decide for the group. What this raises would keep the whole group from its work."""
            applicants = {member: _applicant(member, said) for member, said in members.items()}
            topics = {topic for applicant in applicants.values() for topic in applicant.topics}
            shares = share_out({topic: _count(cluster, topic) for topic in topics}, applicants)
            return {member: _assignment(share) for member, share in shares.items()}

        @classmethod
        def on_assignment(cls, assignment: Any) -> None:
            """What the leader decided for this member."""
            try:
                release = decode_release(assignment.user_data)
            except ForeignMemberError as error:
                # The leader has another version. Keeping everything is right until it says otherwise.
                log.warning(
                    "the leader's assignment cannot be read, nothing is released: %s", error
                )
                release = frozenset()
            voice.asked_to_release(release)

    return CooperativeAssignor


def _applicant(member: str, said: Any) -> Applicant:
    topics = frozenset(said.subscription)
    try:
        return Applicant(topics, decode_claim(said.user_data))
    except ForeignMemberError as error:
        # One member that speaks otherwise must not stop the group.
        log.warning(
            "group member %s is given no partitions, because what it claims cannot be read: %s; "
            "is its version of this library another one?",
            member,
            error,
        )
        return Applicant(topics, None)


def _count(cluster: Any, topic: str) -> int | None:
    found = cluster.partitions_for_topic(topic)
    return None if found is None else len(found)


def _assignment(share: Share) -> Any:
    topics = [
        (topic, [tp.partition for tp in tps])
        for topic, tps in groupby(sorted(share.assigned), attrgetter("topic"))
    ]
    return ConsumerProtocolMemberAssignment(
        _PROTOCOL_VERSION, topics, encode_release(share.release)
    )
