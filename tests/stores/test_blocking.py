"""The guard against blocking calls: what it sees, and what it takes for no waiting."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.stores.blocking import no_blocking_call


def test_a_wait_is_seen_and_its_caller_named() -> None:
    with (
        pytest.raises(AssertionError, match=r"(?s)Condition\.wait\n.*test_a_wait_is_seen"),
        no_blocking_call(),
    ):
        threading.Event().wait(0.001)


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_asking_is_no_waiting(timeout: float) -> None:
    with no_blocking_call():
        condition = threading.Condition()
        with condition:
            assert not condition.wait(timeout)
            assert not condition.wait(timeout=timeout)


async def test_handing_work_to_threads_is_no_waiting_when_none_is_idle() -> None:
    both_run = threading.Barrier(2)
    with no_blocking_call():
        # Each waits for the other, so that a second thread has to begin.
        await asyncio.gather(
            asyncio.to_thread(both_run.wait, 10), asyncio.to_thread(both_run.wait, 10)
        )


def test_what_comes_after_a_thread_has_begun_is_seen() -> None:
    def start_and_sleep() -> None:
        other = threading.Thread(target=int)
        other.start()
        other.join()
        time.sleep(0)

    with pytest.raises(AssertionError, match=r"time\.sleep"), no_blocking_call():
        start_and_sleep()


def test_other_threads_may_wait() -> None:
    with no_blocking_call():
        other = threading.Thread(target=threading.Event().wait, args=(0.001,))
        other.start()
        other.join()


def test_everything_is_as_before_afterwards() -> None:
    before = threading.Condition.wait, threading.Thread.start, time.sleep
    with no_blocking_call():
        assert threading.Condition.wait is not before[0]
    assert (threading.Condition.wait, threading.Thread.start, time.sleep) == before
