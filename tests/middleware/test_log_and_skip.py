"""Best effort: failures are logged once, and done with."""

from __future__ import annotations

import pytest

from prosody.middleware.log_and_skip import LogAndSkip
from prosody.model.outcome import ABANDONED, SUCCESS, Kind, Outcome
from tests.middleware.fakes import DEFERRED, PERMANENT, TRANSIENT, Inner, make_run


@pytest.mark.parametrize("outcome", [TRANSIENT, PERMANENT])
async def test_failures_end_the_message(outcome: Outcome, caplog: pytest.LogCaptureFixture) -> None:
    answer = await LogAndSkip().wrap(Inner(outcome))(make_run(9))
    assert (answer.kind, answer.error) == (Kind.PERMANENT, outcome.error)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert f"({outcome.kind.value})" in record.getMessage()
    assert "offset 9" in record.getMessage()


@pytest.mark.parametrize("outcome", [SUCCESS, ABANDONED, DEFERRED])
async def test_the_rest_passes_without_a_word(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    assert await LogAndSkip().wrap(Inner(outcome))(make_run()) is outcome
    assert caplog.records == []
