"""Passes over messages that were handled before: their ``id`` says which.

::

    admitted ──▶ store asked, unless the memory tier knows ──▶ ... the message waits for its turn ...
    its turn ──▶ memory tier, the store's answer, memory tier ──┬─ done with ──▶ success, no handler
                                                                └─ new ──▶ the rest of the stack
    success or permanent failure ──▶ memory tier, and the store behind the run's back

Best effort: a store that cannot be read has seen nothing, and a record that cannot be written is missing.
Neither lets a handler that has succeeded run again, and neither stops anything.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from prosody.middleware.base import Begin, whole
from prosody.model.fields import fields
from prosody.model.message import Message
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from prosody.stores.hashing import MessageIdentities

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from prosody.broker.protocol import TopicPartition
    from prosody.model.fields import Fields
    from prosody.model.run import Run
    from prosody.observe.storm import Storms
    from prosody.stores.answer import StoreAnswer
    from prosody.stores.protocol import DedupStore

_log = logging.getLogger("prosody.deduplication")

PARTITIONS_MOST: Final = 10_000
"""Of so many partitions the beginnings of the hashes are remembered."""


class Recent:
    """The identities of the messages that were finished last, without those finished longest ago."""

    def __init__(self, most: int) -> None:
        """:param most: how many are remembered; at least one."""
        self._most = most
        self._identities: OrderedDict[bytes, None] = OrderedDict()
        self.knows = self._identities.__contains__
        """Whether an identity is remembered."""

    def __len__(self) -> int:
        return len(self._identities)

    def note(self, identity: bytes) -> None:
        """Remember an identity; the one noted longest ago makes room for it."""
        identities = self._identities
        if identity in identities:
            identities.move_to_end(identity)
            return
        identities[identity] = None
        if len(identities) > self._most:
            identities.popitem(last=False)


class Entry:
    """What is known of one message, for all of its copies that are admitted and not finished.

    It is forgotten together with the last of their runs, however they end.
    """

    __slots__ = ("__weakref__", "_entries", "asked", "finished", "identity")

    def __init__(self, identity: bytes, entries: dict[bytes, weakref.ref[Entry]]) -> None:
        self.identity = identity
        self.finished = False
        """A copy of it was finished, here or elsewhere."""
        self.asked: StoreAnswer[bool] | None = None
        """The look-up in the store, under way or done."""
        self._entries = entries
        entries[identity] = weakref.ref(self)

    def __del__(self) -> None:
        # A weak dictionary of the standard library would do it at twice the price.
        self._entries.pop(self.identity, None)
        asked = self.asked
        if asked is not None and not asked.done() and not asked.get_loop().is_closed():
            asked.cancel()  # nobody wants to know any more


class Deduplication:
    """Of the copies of a message, by key and ``id``, one is handled.

    Outermost but for ``Fired``: what it lets pass is tried again inside. ``admitted`` comes first, for
    every message, at its admission or before a deferred one runs again.
    """

    def __init__(
        self,
        cache_size: int,
        version: str,
        group_id: str,
        store: DedupStore | None,
        storms: Storms,
        recent: Recent | None = None,
    ) -> None:
        """
        :param cache_size: messages that are remembered in memory, at least 1.
        :param version: ``idempotence_version``: with another one all messages are new.
        :param store: None remembers in memory only.
        :param recent: the memory of an earlier subscription of the same group, to go on with.
        """
        self._version = version
        self._group_id = group_id
        self._store = store
        self._storm = storms.of(_log)
        self.recent = Recent(cache_size) if recent is None else recent
        self._entries: dict[bytes, weakref.ref[Entry]] = {}
        self._identities: dict[TopicPartition, MessageIdentities] = {}
        self._listener = self._written
        self.hits = 0
        """Messages passed over."""
        self.unread = 0
        """Messages of which the store did not say whether they were finished."""
        self.unrecorded = 0
        """Messages finished of which the store may not know."""

    # At admission

    def admitted(self, run: Run) -> None:
        """Begin to find out whether the message of ``run`` was finished before, if it has an ``id``."""
        event = run.event
        if type(event) is Message:
            payload = event.payload
            if type(payload) is dict:
                event_id = payload.get("id")
                if type(event_id) is str:
                    run.duplicate = self._entry(run, event_id)

    def _entry(self, run: Run, event_id: str) -> Entry:
        topic_partition = run.partition.topic_partition
        identities = self._identities.get(topic_partition)
        if identities is None:
            identities = self._identities_of(topic_partition)
        identity = identities.of(run.key, event_id)
        reference = self._entries.get(identity)
        entry = None if reference is None else reference()
        if entry is None:
            entry = Entry(identity, self._entries)
        if not entry.finished:
            if self.recent.knows(identity):
                entry.finished = True
            elif self._store is not None and (entry.asked is None or entry.asked.done()):
                # A copy has got its answer already; it is of then, this one wants one of now.
                entry.asked = self._ask(self._store, identity, run)
        return entry

    def _identities_of(self, topic_partition: TopicPartition) -> MessageIdentities:
        if len(self._identities) >= PARTITIONS_MOST:
            self._identities.clear()
        identities = MessageIdentities(self._version, self._group_id, *topic_partition)
        self._identities[topic_partition] = identities
        return identities

    # The layer

    def wrap(self, inner: Begin) -> Begin:
        async def once(run: Run) -> Outcome:
            entry: Entry = run.duplicate
            if not entry.finished and not self.recent.knows(entry.identity):
                # Of its own: a copy that is admitted meanwhile puts another one into the entry.
                asked = entry.asked
                if asked is not None and (not asked.done() or asked.cancelled()):
                    asked = await self._answer(run, entry, asked)
                    if not run.partition.running:
                        return ABANDONED
                if not self._is_finished(run, entry, asked):
                    outcome = await whole(inner, run)
                    if outcome.kind is Kind.SUCCESS or outcome.kind is Kind.PERMANENT:
                        self._finished(run, entry)
                    return outcome
            entry.finished = True
            self.recent.note(entry.identity)
            self.hits += 1
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("handled before, passed over: %s", run.where(), extra=fields(run))
            return SUCCESS

        def deduplicated(run: Run) -> Outcome | Awaitable[Outcome]:
            # No coroutine of its own: messages without an id pay for a comparison.
            return inner(run) if run.duplicate is None else once(run)

        return deduplicated

    async def _answer(
        self, run: Run, entry: Entry, asked: StoreAnswer[bool]
    ) -> StoreAnswer[bool] | None:
        """Wait until the look-up has ended, or a shutdown comes; answers the look-up.

        The store answers, or fails, within a deadline of its own.
        """
        if asked.cancelled() and self._store is not None:
            # The lane that waited for it was cancelled; this is the one that goes on.
            again = entry.asked = self._ask(self._store, entry.identity, run)
            if again is None:
                return None
            asked = again
        if asked.done():
            return asked
        run.partition.give_back(run)
        if not run.partition.running:
            return None
        run.interruptible = asked  # a shutdown ends the look-up itself, as a miss
        try:
            await asked
        except Exception as error:  # noqa: BLE001
            # It is told, and counted, where the answer is looked at. Its traceback holds on to this run,
            # whose entry holds on to the look-up, which holds on to it.
            error.__traceback__ = None
        finally:
            run.interruptible = None
        return asked

    def _is_finished(self, run: Run, entry: Entry, asked: StoreAnswer[bool] | None) -> bool:
        """What is known of the message now that the store has answered."""
        # First, because a copy may have finished while this one waited for the store.
        if entry.finished or self.recent.knows(entry.identity):
            return True
        if asked is None:
            return False
        error = asked.exception()
        if error is None:
            return asked.result()
        self._not_read(error, run)
        return False

    def _finished(self, run: Run, entry: Entry) -> None:
        """Remember that the message is finished; its offset waits until the store does, too."""
        entry.finished = True
        self.recent.note(entry.identity)
        if self._store is None:
            return
        try:
            writing = self._store.record(entry.identity)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, the handler has ended well, and is not to run again because of it.
            self._not_recorded(error, run)
            return
        if writing.done():
            self._recorded(writing, run)
        elif run.timer is not None:
            # Deferred before: its offset was done long ago, and the run goes on to the next of its key.
            # The entry is kept for copies that come meanwhile.
            writing.about = entry, fields(run)
            writing.listener = self._written_behind
        else:
            run.unwritten = True
            writing.about = run
            writing.listener = self._listener

    def _written(self, writing: StoreAnswer[None]) -> None:
        run: Run = writing.about
        self._recorded(writing, run)
        run.partition.written(run)

    def _written_behind(self, writing: StoreAnswer[None]) -> None:
        _, about = writing.about
        self._recorded(writing, about)

    def _recorded(self, writing: StoreAnswer[None], about: Run | Fields) -> None:
        if writing.cancelled():
            self._not_recorded(asyncio.CancelledError(), about)
        elif (error := writing.exception()) is not None:
            self._not_recorded(error, about)

    def _ask(self, store: DedupStore, identity: bytes, run: Run) -> StoreAnswer[bool] | None:
        try:
            return store.seen(identity)
        except Exception as error:  # noqa: BLE001
            self._not_read(error, run)  # whatever it is, a message is handled that may be a copy
            return None

    def _not_read(self, error: BaseException, run: Run) -> None:
        self.unread += 1
        what = "the store does not say whether a message was handled before, taken as new"
        self._warn(what, error, run)

    def _not_recorded(self, error: BaseException, about: Run | Fields) -> None:
        self.unrecorded += 1
        what = "handled, but not recorded in the store; a copy of it may be handled, too"
        self._warn(what, error, about)

    def _warn(self, what: str, error: BaseException, about: Run | Fields) -> None:
        more = self._storm.allows(logging.WARNING, about)
        if more is not None:
            extra = about if isinstance(about, Mapping) else fields(about)
            _log.warning("%s: %s%s", what, error, more, extra=extra)
