"""What goes wrong in an embedded cluster when a test or a simulation says so.

======================================  =====================================================
``on_call``                             one call fails
``outage``, ``restore``                 all calls fail, nobody is told anything
``expel``                               the group throws a member out
``hold_news``, ``release_news``         a member hears nothing and goes on (a zombie)
``hold_reads``, ``release_reads``       the reads of a reader get no answer
``crash``                               a member vanishes, and its group does not know
``unsettle``, ``settle``                a group is between two assignments
``truncate``, ``cut_off`` (cluster)     retention; a log that lost its end
``forget``, ``compact`` (cluster)       gaps: aborted transactions, compaction
======================================  =====================================================
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from prosody.broker.memory.group import Group
from prosody.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prosody.broker.memory.group import Member
    from prosody.broker.memory.log import Watcher

UNREACHABLE = "the broker cannot be reached"


class Faults:
    """The groups of a cluster, and the ways to disturb them. All of it from any thread.

    ``on_call`` is for injecting faults: when set, it is called as ``on_call(name, client_id)`` at the
    beginning of each call of the seam (``start``, ``poll``, ``commit``, ``committed``,
    ``end_offsets``, ``partition_count``, ``read``, ``send``, ``create_topic``, ``delete_topic``,
    ``topics``; ``client_id`` is ``"admin"`` for the last three), outside the lock, and may raise
    ``BrokerError`` or ``SendTimeoutError``. The call then has no effect. During an outage it is not
    called. ``stop`` never fails.
    """

    def __init__(self) -> None:
        self.on_call: Callable[[str, str], None] | None = None
        self.lock = threading.RLock()
        """Held while any state is read or written; its holder never waits and runs no foreign code."""
        self.down = False
        """Whether there is an outage; changed by ``outage`` and ``restore``."""
        self._groups: dict[str, Group] = {}
        self._silent: dict[str, list[Member]] = {}
        """Whose news is held back, by client id."""
        self._mute: set[str] = set()
        """The client ids of readers that get no answers."""
        self._unanswered: set[Watcher] = set()

    def enter(self, name: str, client_id: str) -> None:
        """Called at the beginning of each call of the seam.

        :raises BrokerError: retriable, during an outage; and what ``on_call`` raises.
        """
        if self.down:
            raise BrokerError(f"{name}: {UNREACHABLE}", retriable=True)
        if self.on_call is not None:
            self.on_call(name, client_id)

    def _counts(self) -> Mapping[str, int]:
        """All topics with their partition counts."""
        raise NotImplementedError

    # -- the whole cluster --------------------------------------------------------------------

    def outage(self) -> None:
        """From now on no call succeeds, and no member is told anything of its group.

        Polls that wait fail at once. Nobody is thrown out but by ``expel``.
        """
        with self.lock:
            self.down = True
            for group in self._groups.values():
                group.tell_all()

    def restore(self) -> None:
        """End the outage. What members are to give up they have their whole time for again."""
        with self.lock:
            self.down = False
            for group in self._groups.values():
                group.restored()

    # -- members ------------------------------------------------------------------------------

    def expel(self, group_id: str, client_id: str) -> None:
        """Throw the members with this client id out of a group, as a broker does with one that is silent.

        They are told ``on_lost`` and join again, as new members.

        :raises BrokerError: no member of the group has this client id.
        """
        with self.lock:
            group = self.group(group_id)
            members = [m for m in group.members if m.client_id == client_id]
            if not members:
                raise self._unknown(group_id, client_id)
            group.remove(members, self._counts())

    def crash(self, group_id: str, client_id: str) -> None:
        """Let the consumers with this client id vanish: no listener call, no leaving, every call fails.

        The group goes on counting them as members, with all they hold, until ``expel``. One that was
        thrown out and has not heard of it (``hold_news``) vanishes too.

        :raises BrokerError: no member of the group has this client id.
        """
        with self.lock:
            group = self.group(group_id)
            members = [m for m in (*group.members, *group.gone) if m.client_id == client_id]
            if not members:
                raise self._unknown(group_id, client_id)
            for member in members:
                member.vanish()

    def hold_news(self, client_id: str) -> None:
        """Tell the present members with this client id nothing of their groups until ``release_news``.

        They go on reading what they hold, also after they were thrown out; then their commits are
        refused. It is what a process sees that was stopped for a while, or cut off from the network.
        """
        with self.lock:
            for group in self._groups.values():
                for member in group.members:
                    if member.client_id == client_id and not member.news_held:
                        member.news_held = True
                        self._silent.setdefault(client_id, []).append(member)
                        member.notify()  # so that it does not go on waiting for a step

    def release_news(self, client_id: str) -> None:
        """Tell them at once all that happened since ``hold_news``."""
        with self.lock:
            for member in self._silent.pop(client_id, ()):
                member.news_held = False
                member.notify()

    # -- readers ------------------------------------------------------------------------------

    def hold_reads(self, client_id: str) -> None:
        """Give readers with this client id no answer until ``release_reads``, as a silent broker does.

        Their reads wait, each until its timeout.
        """
        with self.lock:
            self._mute.add(client_id)

    def release_reads(self, client_id: str) -> None:
        """Answer the reads that wait, and all later ones."""
        with self.lock:
            self._mute.discard(client_id)
            woken, self._unanswered = self._unanswered, set()
            for watcher in woken:
                watcher.wake_from_anywhere()

    def unanswered(self, client_id: str, watcher: Watcher) -> bool:
        """Whether a reader gets no answer; then ``watcher`` is woken when that may have changed."""
        with self.lock:
            if client_id in self._mute:
                self._unanswered.add(watcher)
                return True
            return False

    def _unknown(self, group_id: str, client_id: str) -> BrokerError:
        return BrokerError(
            f"group {group_id!r} has no member with client id {client_id!r}", retriable=False
        )

    # -- groups -------------------------------------------------------------------------------

    def group(self, group_id: str) -> Group:
        """A group, made at first use. The caller holds the lock while it uses it."""
        with self.lock:
            if (group := self._groups.get(group_id)) is None:
                group = self._groups[group_id] = Group(group_id)
            return group

    def unsettle(self, group_id: str) -> None:
        """From now on the group counts as between two assignments: it refuses commits, retriably."""
        with self.lock:
            self.group(group_id).unsettled = True

    def settle(self, group_id: str) -> None:
        """End that; members in ``settled`` go on."""
        with self.lock:
            group = self.group(group_id)
            group.unsettled = False
            group.tell_all()
