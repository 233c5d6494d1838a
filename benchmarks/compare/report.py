"""The page in Markdown, the figures in JSON, and the last lines that say what is wrong."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

from benchmarks.compare.bars import MISSED, NOT_MEASURED
from benchmarks.compare.outcome import FAULTS
from benchmarks.compare.rivals import RIVALS, SETTLE_S
from benchmarks.compare.works import BACKLOG, LIVE
from benchmarks.tracking.report import number, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.compare.bars import Bar
    from benchmarks.compare.outcome import Outcome
    from benchmarks.compare.works import Case

BROKEN = "BROKEN"
NOT_PROMISED = "*"
Column = tuple[str, str, float]
"""Head, figure, and by how much it is multiplied."""
BACKLOG_COLUMNS: list[Column] = [
    ("messages/s", "rate", 1), ("CPU us/message", "cpu_us", 1), ("peak MiB", "peak_mib", 1),
    ("first message s", "first_s", 1), ("unsubscribe s", "close_s", 1),
]  # fmt: skip
LIVE_COLUMNS: list[Column] = [
    ("p50 ms", "p50_s", 1e3), ("p99 ms", "p99_s", 1e3), ("p99.9 ms", "p999_s", 1e3),
    ("CPU us/message", "cpu_us", 1), ("peak MiB", "peak_mib", 1),
]  # fmt: skip
REBALANCE_COLUMNS: list[Column] = [
    ("first message s", "first_s", 1), ("pause by a join s", "join_pause_s", 1),
    ("pause by a leave s", "leave_pause_s", 1), ("unsubscribe s", "close_s", 1),
    ("p99.9 ms from send to handler", "p999_s", 1e3), ("handled again", "again", 1),
]  # fmt: skip
FAULT_HEADS = ("order faults", "handled twice", "lost", "uncommitted", "keys missing")


def columns_of(case: Case) -> list[Column]:
    if case.scene == BACKLOG:
        return BACKLOG_COLUMNS
    return LIVE_COLUMNS if case.scene == LIVE else REBALANCE_COLUMNS


def median(rows: Sequence[Outcome], figure: str) -> float | None:
    """Over the rounds that have it."""
    found = [value for row in rows if (value := row.figure(figure)) is not None]
    return statistics.median(found) if found else None


def outcomes_of(case: Case, outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.case == case.key]


def of_case(case: Case, outcomes: Sequence[Outcome], missing: Mapping[str, str]) -> str:
    """The table of a case."""
    columns = columns_of(case)
    head = ("", "messages", *(name for name, _, _ in columns), "keys", *FAULT_HEADS)
    rows = []
    for entrant, _ in case.entrants:
        if entrant.rival in missing:
            rows.append((f"missing: {entrant.name}", *[""] * (len(head) - 1)))
            continue
        mine = [o for o in outcomes_of(case, outcomes) if o.entrant == entrant]
        if not mine:
            rows.append((f"not run: {entrant.name}", *[""] * (len(head) - 1)))
            continue
        broken = f"{BROKEN} " if any(o.broken for o in mine) else ""
        keys = median(mine, "distinct_keys")
        rows.append((
            f"{broken}{entrant.name}",
            f"{mine[0].count:,}",
            *(
                number(None if (m := median(mine, figure)) is None else m * scale)
                for _, figure, scale in columns
            ),
            "-" if keys is None else f"{keys:,.0f}",
            *(_faults(mine, fault) for fault in FAULTS),
        ))  # fmt: skip
    rate = median(outcomes_of(case, outcomes), "sent_rate")
    note = ""
    if rate:
        late_ms = 1e3 * (median(outcomes_of(case, outcomes), "sender_late_s") or 0.0)
        note = (
            f"\n{rate:,.0f} messages a second were sent; in the usual run the sender itself was late by "
            f"{late_ms:.0f} ms at the worst, which counts as latency.\n"
        )
    return f"## ({case.row}) {case.title}\n\n{table(head, rows, words=1)}{note}"


def _faults(rows: Sequence[Outcome], fault: str) -> str:
    """Added up over the rounds; a star where it breaks no promise."""
    count = sum(int(row.figures.get(fault) or 0) for row in rows)
    promised = any(row.promised(fault) for row in rows)
    return f"{count:,}" + ("" if promised or not count else NOT_PROMISED)


def of_bars(bars: Sequence[Bar], outcomes: Sequence[Outcome]) -> str:
    """What has to be reached."""
    return table(
        ("bar", "", "measured", "floor", "aim"),
        (
            (
                bar.text, bar.verdict(outcomes), number(bar.value(outcomes)),
                "-" if bar.floor is None else f"{'<=' if bar.less else '>='} {bar.floor:g}",
                f"{bar.aim:g}",
            )
            for bar in bars
        ),
        words=2,
    )  # fmt: skip


def wrong(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each run with a fault."""
    return [
        f"{BROKEN} round {o.round + 1} ({o.case}) {o.entrant.name}: {'; '.join(o.broken)}"
        for o in outcomes
        if o.broken
    ]


def missed(bars: Sequence[Bar], outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each bar that does not hold or could not be measured."""
    return [
        f"{verdict} {bar.text}"
        for bar in bars
        if (verdict := bar.verdict(outcomes)) in {MISSED, NOT_MEASURED}
    ]


def of_rivals(missing: Mapping[str, str]) -> str:
    """Versions, and who is missing and why."""
    return table(
        ("package", "installed", ""),
        (
            (
                rival.name,
                ", ".join(rival.requirements) or "this checkout",
                f"missing: {_one_line(missing[rival.name])}" if rival.name in missing else "",
            )
            for rival in RIVALS.values()
        ),
        words=3,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


def page(
    about: Mapping[str, str],
    cases: Sequence[Case],
    bars: Sequence[Bar],
    outcomes: Sequence[Outcome],
    missing: Mapping[str, str],
    picture: str,
) -> str:
    """All of it."""
    facts = "".join(f"| {name} | {text} |\n" for name, text in about.items())
    faults = "".join(f"- {line}\n" for line in wrong(outcomes)) or "None.\n"
    tables = "\n".join(of_case(case, outcomes, missing) for case in cases)
    return f"""\
# Beside what else a Python program can pick

Made by `make bench-compare-peers`; do not edit. All on the same real Kafka and Cassandra in one run, one
process each, in turn, rounds interleaved; figures are medians of the rounds, faults are added up. What
the rows are is in `benchmarks/compare/works.py`, what each package promises in `rivals.py`. Ours runs in
pipeline mode with everything on: deduplication, deferral and timers over Cassandra, telemetry, fair
scheduling.

![Messages a second, CPU, latency and memory]({picture})

| | |
|---|---|
{facts}
{of_rivals(missing)}
A row with a fault of what it promises is {BROKEN}; a number with a {NOT_PROMISED} is a fault that it does
not promise to avoid. The bare loops decode with the JSON library that ours uses, and FastStream's own lines
for each message are switched off. At its defaults FastStream gets a backlog of a few seconds only: a longer
one keeps its event loop from sending heartbeats, and its group drops it. prosody-events leaves uncommitted
what it handled in the last second before it leaves the group, so it is given {SETTLE_S:g} s before that.

## To be reached

{of_bars(bars, outcomes)}
## Faults

{faults}
{tables}"""


def as_json(
    about: Mapping[str, str],
    bars: Sequence[Bar],
    outcomes: Sequence[Outcome],
    missing: Mapping[str, str],
) -> str:
    """Every run of every round, and the bars."""
    return (
        json.dumps(
            {
                "about": dict(about),
                "missing": dict(missing),
                "bars": [
                    {
                        "bar": bar.text, "floor": bar.floor, "aim": bar.aim,
                        "ratios": bar.ratios(outcomes), "verdict": bar.verdict(outcomes),
                    }
                    for bar in bars
                ],
                "runs": [outcome.as_json() for outcome in outcomes],
            },
            indent=1,
        )
        + "\n"
    )  # fmt: skip
