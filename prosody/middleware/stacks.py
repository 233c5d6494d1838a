"""The three modes: three ordered lists of layers, outermost first.

The specification's pipeline is Deduplication, Retry, Defer, Monopolization, Shutdown, Scheduler,
Timeout, Telemetry. The layer that this version does not have yet (Telemetry) is absent, not faked. Around
each list lies Fired, which makes a run of a timer what one of a message is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prosody.middleware.base import Call, Layer, compose
from prosody.middleware.dead_letter import DeadLetter, DeadLetterWriter
from prosody.middleware.invoke import Invoke
from prosody.middleware.log_and_skip import LogAndSkip
from prosody.middleware.monopolization import Monopolization
from prosody.middleware.retry import Retry
from prosody.middleware.scheduler import Scheduler
from prosody.middleware.shutdown import Shutdown
from prosody.middleware.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.config import Config
    from prosody.model.handler import HandlerMethods
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Stack:
    """A mode's way from an admitted event to the handler."""

    call: Call
    scheduler: Scheduler
    timeout: Timeout
    takes_undecodable: bool
    """Whether records that cannot be decoded go through the stack, to end as dead letters."""
    takes_excise: bool
    """Whether the handler wants records without a value."""


def build(
    config: Config,
    methods: HandlerMethods,
    runtime: Runtime,
    storms: Storms,
    torn_down: Callable[[], bool],
    dead_letters: DeadLetterWriter | None,
) -> Stack:
    """The stack of ``config.mode``. ``dead_letters`` is needed in low-latency mode only."""
    retry = config.retry
    timeout = Timeout(config.consumer.timeout, runtime, storms)
    monopolization = None
    if config.mode == "pipeline" and config.monopolization.monopolization_enabled:
        monopolization = Monopolization(config.monopolization, runtime, storms)
    scheduler = Scheduler(
        config.consumer.max_concurrency,
        config.scheduler,
        runtime,
        monopolization.meter if monopolization else None,
    )

    def retries(most: int | None) -> Retry:
        return Retry(retry.retry_base, retry.max_retry_delay, runtime, storms, most)

    layers: list[Layer | None]
    if config.mode == "pipeline":
        layers = [retries(None), monopolization, Shutdown(), scheduler, timeout]
    elif config.mode == "low-latency":
        assert dead_letters is not None, "low-latency mode has a failure topic"
        layers = [
            DeadLetter(dead_letters), retries(retry.max_retries), Shutdown(), scheduler, timeout
        ]  # fmt: skip
    else:
        layers = [LogAndSkip(), Shutdown(), scheduler, timeout]
    return Stack(
        call=compose([layer for layer in layers if layer], Invoke(methods, torn_down).call),
        scheduler=scheduler,
        timeout=timeout,
        takes_undecodable=config.mode == "low-latency",
        takes_excise=methods.on_excise is not None,
    )
