"""Judges a history with timers, deferral and deduplication while it is written.

Beside the rules of ``simulation/oracle.py`` that still hold (L0 to L5): L6, each message and each timer
comes to a good end once, and more often only where a crash, the loss of a partition or a failing store
excuses it, never in the same assignment; no timer fires before its time, or after a call that cancelled
it has returned; every timer fires whose setting has returned. A key's messages and timers never run
beside each other, and its messages keep their order through deferral. L7, keys that do not fail go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.assignments import CLOCK_S
from tests.simulation.durable.messages import Messages
from tests.simulation.durable.state import Key, Place, Running

if TYPE_CHECKING:
    from tests.simulation.history import Event


class DurableOracle(Messages):
    """Adds the rules about timers."""

    def unfinished(self) -> list[str]:
        """Records that are not done, and timers that have not fired."""
        places = [p for key in self.keys.values() for p in key.places.values()]
        return super().unfinished() + [f"{place} has not fired" for place in places if place.must]

    def _place(self, event: Event) -> Place:
        assert event.tp is not None
        assert event.due is not None
        places = self.keys[event.tp, event.key].places
        if (place := places.get(event.due)) is None:
            place = places[event.due] = Place(event.tp, event.key, event.due)
        return place

    # -- firing -------------------------------------------------------------------------------

    def see_fires(self, event: Event) -> None:
        place = self._place(event)
        held = self._begin(event, place)
        if self.now_s < place.due - CLOCK_S:
            self.fault(f"L6 {place} fires early")
        if place.may:
            return
        if place.cancelled_s is not None:
            self.fault(f"L6 {place} fires in {held}, and was cancelled at {place.cancelled_s:.4f}")
        elif place.finished_by is None:
            self.fault(f"L6 {place} fires in {held}, and was never set")
        else:
            self._again(place, held, counted=True)
        place.may = 1

    def see_fired(self, event: Event) -> None:
        place = self._place(event)
        running = self._finish(event, place)
        if running is None or event.note not in {"success", "permanent"}:
            return
        place.must = running.set_again and place.must
        if self._counts(running.held):
            place.may = max(0, place.may - 1)
            place.finished_by, place.finished_s = running.held, self.now_s
            place.cancelled_s = None

    # -- calls of handlers --------------------------------------------------------------------

    def see_calls(self, event: Event) -> None:
        """From the beginning of a call on it may have had its effect, or not."""
        match event.note:
            case "schedule" | "move":
                place = self._place(event)
                firing = self._firing(event)
                place.may = max(place.may, 2 if firing and firing.what is place else 1)
                place.cancelled_s = None
                if event.note == "move":
                    self._maybe_not(event, but=place)
            case "unschedule":
                self._place(event).must = False
            case "clear":
                self._maybe_not(event)

    def see_called(self, event: Event) -> None:
        call, said, *listed = event.note.split()
        running = self._firing(event)
        if said == "failed" or running is None or not self._counts(running.held):
            return
        match call:
            case "schedule" | "move":
                place = self._place(event)
                place.must = True
                running.set_again = running.set_again or running.what is place
                if call == "move":
                    self._none(event, running, but=place)
            case "unschedule":
                self._cancelled(self._place(event), running)
            case "clear":
                self._none(event, running)
            case "scheduled":
                self._check_listed(event, running, {int(due) for due in listed})

    def _firing(self, event: Event) -> Running | None:
        """Whose call it is."""
        key = self._key(event)
        runner = (event.member, event.epoch)
        return next(
            (r for r in key.running if (r.held.member, r.held.epoch) == runner),
            None,
        )

    def _key(self, event: Event) -> Key:
        assert event.tp is not None
        return self.keys[event.tp, event.key]

    def _maybe_not(self, event: Event, but: Place | None = None) -> None:
        for place in self._key(event).places.values():
            if place is not but:
                place.must = False

    def _none(self, event: Event, running: Running, but: Place | None = None) -> None:
        for place in self._key(event).places.values():
            if place is not but:
                self._cancelled(place, running)

    def _cancelled(self, place: Place, running: Running) -> None:
        if running.what is place:
            # What is under way may fail, and be tried again.
            place.may = min(place.may, 1)
            running.set_again = False
        elif place.may:
            place.may, place.cancelled_s = 0, self.now_s

    def _check_listed(self, event: Event, running: Running, listed: set[int]) -> None:
        places = self._key(event).places
        for due in sorted(listed):
            if due not in places or not places[due].may:
                self.fault(f"L6 {event.key} in {running.held} lists {due}, which is not set")
        for due, place in sorted(places.items()):
            if place.must and due > self.now_s + CLOCK_S and due not in listed:
                self.fault(f"L6 {event.key} in {running.held} does not list {due}")
