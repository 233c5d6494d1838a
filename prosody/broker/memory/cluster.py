"""The embedded cluster: topics, their logs, and groups, shared by the clients of one process.

Plain state under one lock. Its clients may live on different event loops and threads; each one is
woken on its own loop.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from prosody.broker.memory.faults import Faults
from prosody.broker.memory.log import PartitionLog
from prosody.broker.protocol import TopicPartition
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from prosody.broker.memory.group import Group, Member

DEFAULT_PARTITIONS = 4
"""Partitions of a topic made without a number, as librdkafka's mock cluster has it."""
MAX_RECORD_BYTES = 1_048_576
"""Key, value and headers of a record together; Kafka's default, rounded."""
MAX_METADATA_CHARS = 4096
"""The longest note of a commit; Kafka's default."""

T = TypeVar("T")

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class MemoryCluster(Faults):
    """A cluster inside the process. Each one made is on its own; ``shared()`` is the common one."""

    _shared: ClassVar[MemoryCluster | None] = None
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        *,
        default_partitions: int = DEFAULT_PARTITIONS,
        max_record_bytes: int = MAX_RECORD_BYTES,
        max_metadata_chars: int = MAX_METADATA_CHARS,
    ) -> None:
        super().__init__()
        self.default_partitions = default_partitions
        self.max_record_bytes = max_record_bytes
        self.max_metadata_chars = max_metadata_chars
        self._topics: dict[str, list[PartitionLog]] = {}
        self._attached: dict[type[Any], Any] = {}

    def attached(self, kind: type[T]) -> T:
        """The cluster's one object of a class, made at first use: state that lives as long as it does."""
        with self.lock:
            if kind not in self._attached:
                self._attached[kind] = kind()
            found: T = self._attached[kind]
            return found

    @classmethod
    def shared(cls) -> MemoryCluster:
        """The cluster all clients of this process share in mock mode; made at first use."""
        with cls._shared_lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    @classmethod
    def reset_shared(cls) -> None:
        """Let the next ``shared()`` make an empty one. Clients of the old one keep it."""
        with cls._shared_lock:
            cls._shared = None

    @classmethod
    def _forget_shared_after_fork(cls) -> None:
        cls._shared_lock = threading.Lock()
        cls._shared = None

    # -- topics -------------------------------------------------------------------------------

    def topics(self) -> frozenset[str]:
        """The names of all topics."""
        with self.lock:
            return frozenset(self._topics)

    def logs(self, topic: str) -> Sequence[PartitionLog]:
        """The logs of a topic by partition number; empty when it does not exist."""
        return self._topics.get(topic, ())

    def log(self, tp: TopicPartition) -> PartitionLog | None:
        """The log of a partition; None when it does not exist."""
        logs = self._topics.get(tp[0], ())
        return logs[tp[1]] if 0 <= tp[1] < len(logs) else None

    def create_topic(
        self, name: str, partitions: int | None = None, keep: int | None = None
    ) -> None:
        """Create a topic; ``partitions`` None takes ``default_partitions``.

        :param keep: so many records of each partition stay, of those written many at a time.
        :raises BrokerError: it exists, or name or number are not possible.
        """
        count = self.default_partitions if partitions is None else partitions
        if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
            raise BrokerError(
                f"topic {name!r} cannot be created: a name has 1 to 249 of the characters "
                "a-z, A-Z, 0-9, '.', '_' and '-'",
                retriable=False,
            )
        if count < 1:
            raise BrokerError(
                f"topic {name!r} cannot be created with {count} partitions: it needs at least 1",
                retriable=False,
            )
        with self.lock:
            if name in self._topics:
                raise BrokerError(f"topic {name!r} already exists", retriable=False)
            self._topics[name] = [PartitionLog(name, n, keep) for n in range(count)]
            self._rebalance_groups(name)

    def ensure_topics(self, names: Collection[str]) -> None:
        """Create those that do not exist."""
        with self.lock:
            for name in names:
                if name not in self._topics:
                    self.create_topic(name)

    def delete_topic(self, name: str) -> None:
        """Delete a topic, its records and what groups committed of it.

        :raises BrokerError: there is no such topic.
        """
        with self.lock:
            for log in self._existing(name):
                log.clear()
            del self._topics[name]
            for group in self._groups.values():
                group.forget_topic(name)
            self._rebalance_groups(name)

    def add_partitions(self, topic: str, count: int) -> None:
        """Raise the number of partitions of a topic to ``count``; members get the new ones at once.

        :raises BrokerError: there is no such topic, or it has as many already.
        """
        with self.lock:
            logs = self._existing(topic)
            if count <= len(logs):
                raise BrokerError(
                    f"topic {topic!r} has {len(logs)} partitions already; {count} is not more",
                    retriable=False,
                )
            logs.extend(PartitionLog(topic, n) for n in range(len(logs), count))
            self._rebalance_groups(topic)

    def truncate(self, topic: str, partition: int, before_offset: int) -> None:
        """Forget the records of a partition before an offset, as retention does.

        :raises BrokerError: there is no such partition.
        """
        with self.lock:
            self._log(topic, partition).truncate(before_offset)

    def forget(self, topic: str, partition: int, *offsets: int) -> None:
        """Forget single records of a partition: what compaction leaves, or an aborted transaction.

        :raises BrokerError: there is no such partition.
        """
        with self.lock:
            self._log(topic, partition).forget(offsets)

    def compact(self, topic: str, partition: int) -> None:
        """Forget the records of a partition whose key has a later one.

        :raises BrokerError: there is no such partition.
        """
        with self.lock:
            self._log(topic, partition).compact()

    def cut_off(self, topic: str, partition: int, after_offset: int) -> None:
        """Forget the records of a partition from an offset on, as a broker does that lost its disk.

        The next record gets that offset. Members that have read beyond it lose the partition and are
        assigned it again.

        :raises BrokerError: there is no such partition.
        """
        with self.lock:
            self._log(topic, partition).cut_off(after_offset)
            for group in self._groups.values():
                group.tell_all()

    def partition_count(self, topic: str) -> int:
        """How many partitions a topic has.

        :raises BrokerError: there is no such topic.
        """
        if not (logs := self.logs(topic)):
            raise BrokerError(f"topic {topic!r} does not exist", retriable=True)
        return len(logs)

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset the next record of each partition gets.

        :raises BrokerError: one of them does not exist.
        """
        ends: dict[TopicPartition, int] = {}
        with self.lock:
            for tp in partitions:
                if (log := self.log(tp)) is None:
                    raise BrokerError(f"partition {tp[0]}:{tp[1]} does not exist", retriable=True)
                ends[TopicPartition(*tp)] = log.end
        return ends

    def _log(self, topic: str, partition: int) -> PartitionLog:
        if (log := self.log(TopicPartition(topic, partition))) is None:
            raise BrokerError(f"partition {topic}:{partition} does not exist", retriable=False)
        return log

    def _existing(self, topic: str) -> list[PartitionLog]:
        if (logs := self._topics.get(topic)) is None:
            raise BrokerError(f"topic {topic!r} does not exist", retriable=False)
        return logs

    # -- groups -------------------------------------------------------------------------------

    def join(self, group: Group, member: Member) -> None:
        """Take a member into a group; ends the memberships of loops that are closed."""
        with self.lock:
            group.join(member, self._counts())

    def leave(self, group: Group, member: Member) -> None:
        """A member leaves."""
        with self.lock:
            group.leave(member, self._counts())

    def leave_soon(self, group: Group, member: Member) -> None:
        """A member is to be given nothing more."""
        with self.lock:
            group.leave_soon(member, self._counts())

    def expel_overdue(self, group: Group) -> None:
        """Throw out the members whose time to give up partitions is over."""
        with self.lock:
            if late := group.overdue():
                group.remove(late, self._counts())

    def _rebalance_groups(self, topic: str) -> None:
        counts = self._counts()
        for group in self._groups.values():
            if any(member.subscribes(topic) for member in group.members):
                group.rebalance(counts)

    def _counts(self) -> Mapping[str, int]:
        return {topic: len(logs) for topic, logs in self._topics.items()}


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    # A child would inherit members that nobody runs there, and perhaps a lock that nobody opens.
    os.register_at_fork(after_in_child=MemoryCluster._forget_shared_after_fork)
