"""One call made on several objects, which must all answer the same."""

from __future__ import annotations

from typing import Any

READABLE = {
    "KeyQueue": ("queued", "in_flight", "ready", "keys"),
    "OffsetTracker": ("committable", "outstanding", "finished_ahead", "last_admitted"),
    "TimeWindow": ("remembered", "running"),
    "OutcomeWindow": (),
    "VirtualTimeHeap": ("waiting", "dispatched", "remembered"),
}


class SideBySide:
    """Calls go to every subject; the first, the naive model, says what is right.

    A call that is refused has an answer too: the type and text of its exception.
    """

    def __init__(self, interface: str, *, check: bool = True, **subjects: Any) -> None:
        self.properties = READABLE[interface]
        self.subjects = subjects
        self.check = check

    def call(self, method: str, *arguments: Any) -> Any:
        """Make the call everywhere, compare everything that can be seen, return the answer."""
        given = self.answer(method, *arguments)
        self.compare()
        return given

    def answer(self, method: str, *arguments: Any) -> Any:
        """Make the call everywhere and compare the answers only: for the many calls of one step."""
        answers = {
            label: answer(getattr(subject, method), arguments)
            for label, subject in self.subjects.items()
        }
        agree(f"{method}{arguments!r:.300}", answers)
        return next(iter(answers.values()))[-1]

    def compare(self) -> None:
        """Every property and the repr agree, and each subject finds itself valid."""
        for name in self.properties:
            agree(name, {label: seen(getattr(s, name)) for label, s in self.subjects.items()})
        agree("repr", {label: repr(subject) for label, subject in self.subjects.items()})
        if self.check:
            for subject in self.subjects.values():
                subject.check_valid()


def answer(method: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the call returned, to the bit, or how it was refused."""
    try:
        value = method(*arguments)
    except Exception as refusal:  # whatever it is, it is what gets compared
        return "raised", type(refusal), str(refusal), None
    return "returned", *seen(value)


def seen(value: Any) -> tuple[Any, ...]:
    """``value`` such that True differs from 1, and -0.0 from 0.0; entries compare by identity."""
    return type(value), repr(value), value


def agree(what: str, answers: dict[str, Any]) -> None:
    expected, *_ = answers.values()
    for label, given in answers.items():
        if given != expected:
            raise AssertionError(f"{what}: {label} says {given}, the naive model {expected}")
