"""Who should own which partition: balanced, and sticky above all. A pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prosody.broker.protocol import TopicPartition

M = TypeVar("M")


def balance(
    partitions: Sequence[TopicPartition],
    subscribers: Mapping[str, Sequence[M]],
    before: Mapping[TopicPartition, M],
    holders: Mapping[TopicPartition, M],
) -> dict[TopicPartition, M]:
    """Give each partition to a subscriber of its topic.

    :param partitions: everything to be given.
    :param subscribers: the members that subscribe to each topic, in the order they joined.
    :param before: who was to own what until now: stays, unless balance needs it elsewhere.
    :param holders: who holds what now, which differs while a partition is handed over; a partition
        without an owner rather goes back to its holder than on to a third member.

    No two members differ by more than one partition if one could give the other a partition of a
    topic they both subscribe to. A member that joins takes only what that needs, one that leaves
    moves only its own partitions, and nothing moves when partitions are added to balanced topics
    except the new ones.
    """
    load: dict[M, int] = {member: 0 for members in subscribers.values() for member in members}
    rank = {member: n for n, member in enumerate(load)}
    target: dict[TopicPartition, M] = {}
    orphans: list[TopicPartition] = []
    for tp in partitions:
        owner = before.get(tp)
        if owner is not None and owner in subscribers[tp.topic]:
            target[tp] = owner
            load[owner] += 1
        elif subscribers[tp.topic]:
            orphans.append(tp)
    for tp in orphans:
        holder = holders.get(tp)
        taker = min(subscribers[tp.topic], key=lambda m: (load[m], m is not holder, rank[m]))
        target[tp] = taker
        load[taker] += 1
    _level(target, subscribers, load, rank)
    return target


def _level(
    target: dict[TopicPartition, M],
    subscribers: Mapping[str, Sequence[M]],
    load: dict[M, int],
    rank: Mapping[M, int],
) -> None:
    """Move single partitions from a member with more to one with at least two fewer, until none is left.

    Each move lowers the sum of the squared loads, so this ends.
    """
    owned: dict[M, dict[str, list[TopicPartition]]] = {member: {} for member in load}
    for tp, owner in target.items():
        owned[owner].setdefault(tp.topic, []).append(tp)
    moved = True
    while moved:
        moved = False
        for giver in sorted(load, key=lambda m: -load[m]):
            # From the topic it has most of, so that a topic's partitions spread over the members.
            for topic, stock in sorted(owned[giver].items(), key=lambda item: -len(item[1])):
                if not stock:
                    break
                taker = min(subscribers[topic], key=lambda m: (load[m], rank[m]))
                if load[giver] - load[taker] >= 2:
                    tp = stock.pop()
                    owned[taker].setdefault(topic, []).append(tp)
                    target[tp] = taker
                    load[giver] -= 1
                    load[taker] += 1
                    moved = True
                    break
            if moved:
                break
