"""aiokafka's log: each text once a minute, unless somebody wants it otherwise."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from prosody.broker.kafka import logs as the_module
from tests.mutant import mutant
from tests.support import FakeRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = logging.getLogger("aiokafka")
COORDINATOR = logging.getLogger("aiokafka.consumer.group_coordinator")
FETCHER = logging.getLogger("aiokafka.consumer.fetcher")
OTHER = logging.getLogger("aiokafkaesque")
ALL = (ROOT, COORDINATOR, FETCHER, OTHER)


class Scene(FakeRuntime):
    """A clock that the test moves, and what comes through."""

    def __init__(self, module: Any = the_module) -> None:
        super().__init__()
        self.module = module
        self.now = 1000.0
        self.lines: list[str] = []

    def monotonic(self) -> float:
        return self.now

    def calm(self) -> None:
        self.module.calm_logs(self)

    def count(self) -> int:
        """How many lines came through since the last count."""
        lines, self.lines = self.lines, []
        return len(lines)


class Lines(logging.Handler):
    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.scene = scene

    def emit(self, record: logging.LogRecord) -> None:
        # What other tests left behind is collected at any time, and says so in asyncio's logger.
        if record.name.startswith("aiokafka"):
            self.scene.lines.append(record.getMessage())


def lets_each_text_through_once_a_minute(scene: Scene) -> None:
    scene.calm()
    for second in range(120):
        scene.now = 1000.0 + second
        COORDINATOR.error("Error sending %s to node %s", "Heartbeat", second)
        FETCHER.error("Error sending %s to node %s", "Fetch", second)
    assert scene.lines == [
        "Error sending Heartbeat to node 0",
        "Error sending Fetch to node 0",
        "Error sending Heartbeat to node 60 (59 more like this in the last 60 s)",
        "Error sending Fetch to node 60 (59 more like this in the last 60 s)",
    ]
    scene.now += 1000.0
    COORDINATOR.error("Error sending %s to node %s", "Heartbeat", 0)
    assert scene.lines[-1].endswith("(59 more like this in the last 1059 s)")
    scene.now += 1000.0
    COORDINATOR.error("Error sending %s to node %s", "Heartbeat", 0)
    assert "more like this" not in scene.lines[-1]


def tells_texts_and_exceptions_apart(scene: Scene) -> None:
    scene.calm()
    for _ in range(3):
        for error in (ValueError("x"), KeyError("y")):
            COORDINATOR.error("Unexpected", exc_info=error)
        COORDINATOR.error("Unexpected")
        COORDINATOR.error("Other")
        COORDINATOR.info("%(name)s", {"name": "x"})
    assert scene.count() == 5


def leaves_other_libraries_alone(scene: Scene) -> None:
    scene.calm()
    for _ in range(3):
        OTHER.error("x")
    assert scene.count() == 3


def is_installed_once(scene: Scene) -> None:
    for _ in range(3):
        scene.calm()
    assert len(ROOT.filters) == len(COORDINATOR.filters) == 1
    assert OTHER.filters == []
    for _ in range(3):
        ROOT.error("x")
    assert scene.count() == 1


def reaches_loggers_made_later(scene: Scene) -> None:
    scene.calm()
    late = logging.getLogger("aiokafka.made.later")
    scene.calm()
    try:
        assert late.filters == ROOT.filters
    finally:
        late.filters.clear()


def forgets_the_oldest_text(scene: Scene) -> None:
    scene.calm()
    for number in range(1000):
        ROOT.error(f"text {number}")
    (calm,) = ROOT.filters
    assert len(calm._texts) == 256  # type: ignore[union-attr]
    assert scene.count() == 1000
    ROOT.error("text 999")
    assert scene.count() == 0
    ROOT.error("text 0")
    assert scene.count() == 1


def a_level_of_the_user_is_respected(scene: Scene) -> None:
    ROOT.setLevel(logging.WARNING)
    scene.calm()
    assert ROOT.filters == COORDINATOR.filters == []


def a_handler_of_the_user_is_respected(scene: Scene) -> None:
    ROOT.addHandler(logging.NullHandler())
    scene.calm()
    assert ROOT.filters == COORDINATOR.filters == []


def a_filter_of_the_user_is_respected(scene: Scene) -> None:
    own = logging.Filter()
    ROOT.addFilter(own)
    scene.calm()
    assert ROOT.filters == [own]
    assert COORDINATOR.filters == []


def what_the_user_sets_later_is_respected(scene: Scene) -> None:
    scene.calm()
    for _ in range(3):
        COORDINATOR.error("x")
    assert scene.count() == 1
    ROOT.setLevel(logging.INFO)
    for _ in range(3):
        COORDINATOR.error("x")
    assert scene.count() == 3


def debug_lets_everything_through(scene: Scene) -> None:
    scene.calm()
    COORDINATOR.setLevel(logging.DEBUG)
    for _ in range(3):
        COORDINATOR.debug("x")
        FETCHER.error("x")
    assert scene.count() == 3 + 1


def a_clock_of_another_loop_does_no_harm(scene: Scene) -> None:
    scene.calm()
    ROOT.error("x")
    scene.now = 0.0
    ROOT.error("x")
    assert scene.count() == 2


SCENARIOS: list[Callable[[Scene], None]] = [
    lets_each_text_through_once_a_minute,
    tells_texts_and_exceptions_apart,
    leaves_other_libraries_alone,
    is_installed_once,
    reaches_loggers_made_later,
    forgets_the_oldest_text,
    a_level_of_the_user_is_respected,
    a_handler_of_the_user_is_respected,
    a_filter_of_the_user_is_respected,
    what_the_user_sets_later_is_respected,
    debug_lets_everything_through,
    a_clock_of_another_loop_does_no_harm,
]


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The loggers are the process's: each test finds them bare, and they are as before afterwards."""
    loggers = [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if name.startswith("aiokafka") and isinstance(logger, logging.Logger)
    ]
    before = [(logger, logger.level, logger.handlers[:], logger.filters[:]) for logger in loggers]
    for logger in loggers:
        bare(logger)
    yield
    for logger, level, handlers, filters in before:
        logger.setLevel(level)
        logger.handlers[:], logger.filters[:] = handlers, filters


def bare(logger: logging.Logger) -> None:
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()
    logger.filters.clear()


def play(scenario: Callable[[Scene], None], module: Any = the_module) -> None:
    scene = Scene(module)
    lines = Lines(scene)
    root = logging.getLogger()
    level = root.level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    try:
        scenario(scene)
    finally:
        root.removeHandler(lines)
        root.setLevel(level)
        for logger in ALL:
            bare(logger)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test(scenario: Callable[[Scene], None]) -> None:
    play(scenario)


MUTANTS = {
    "nothing is left out": ("                return False\n", "                return True\n"),
    "what was left out is not counted": ("(passed_at, left_out + 1)", "(passed_at, left_out)"),
    "nobody is told": ("        if left_out:\n", "        if False:\n"),
    "memory grows": ("if len(self._texts) > _TEXTS_MAX:", "if False:"),
    "the newest is forgotten": ("popitem(last=False)", "popitem()"),
    "exceptions are not told apart": (
        "record.exc_info[0] if record.exc_info else None",
        "None",
    ),
    "loggers are not told apart": ("key = (record.name, text", 'key = ("", text'),
    "DEBUG is not respected": (".isEnabledFor(logging.DEBUG)", ".isEnabledFor(99)"),
    "a clock that goes back mutes": ("if 0 <= now - passed_at", "if now - passed_at"),
    "a level is not respected": ("logger.level != logging.NOTSET", "False"),
    "handlers are not respected": ("or bool(logger.handlers)", ""),
    "what is set later is not respected": (
        ".isEnabledFor(logging.DEBUG) or _user_decides():",
        ".isEnabledFor(logging.DEBUG):",
    ),
    "filters are not respected": ("any(not isinstance(installed, CalmFilter)", "any(False"),
    "each call has a filter of its own": (
        "for f in filters if isinstance",
        "for f in () if isinstance",
    ),
    "others are calmed": ('startswith(f"{_ROOT}.")', "startswith(_ROOT)"),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_mutant_is_seen(name: str) -> None:
    module = mutant("broker.kafka.logs", *MUTANTS[name])

    def shows(scenario: Callable[[Scene], None]) -> bool:
        try:
            play(scenario, module)
        except (AssertionError, ValueError):
            return True
        return False

    assert any(shows(scenario) for scenario in SCENARIOS), f"nothing shows that {name}"
