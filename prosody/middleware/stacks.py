"""The three modes: three ordered lists of layers, outermost first.

The specification's pipeline is Deduplication, Retry, Defer, Monopolization, Shutdown, Scheduler,
Timeout, Telemetry. Around each list lies Fired, which makes a run of a timer what one of a message is.
Spans lie around the handler itself, within Invoke, and only while somebody wants them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prosody.deferral.gate import Gate
from prosody.middleware.base import Begin, Call, Layer, compose
from prosody.middleware.dead_letter import DeadLetter, DeadLetterWriter
from prosody.middleware.deduplication import Deduplication, Recent
from prosody.middleware.defer import Defer
from prosody.middleware.fired import Fired
from prosody.middleware.invoke import Invoke
from prosody.middleware.log_and_skip import LogAndSkip
from prosody.middleware.monopolization import Monopolization
from prosody.middleware.redelivery import Redelivery
from prosody.middleware.reload import Reload
from prosody.middleware.retry import Retry
from prosody.middleware.scheduler import Scheduler
from prosody.middleware.shutdown import Shutdown
from prosody.middleware.straight import Straight
from prosody.middleware.telemetry import Telemetry
from prosody.middleware.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from prosody.broker.protocol import Record
    from prosody.config import Config
    from prosody.deferral.loader import Loader
    from prosody.model.handler import HandlerMethods
    from prosody.model.message import ExciseMessage, Message
    from prosody.observe.handler_spans import HandlerSpans
    from prosody.observe.storm import Storms
    from prosody.runtime import Runtime
    from prosody.stores.protocol import DedupStore
    from prosody.telemetry.buffer import Buffer


@dataclass(frozen=True, slots=True)
class Stack:
    """A mode's way from an admitted event to the handler."""

    call: Begin
    scheduler: Scheduler
    timeout: Timeout
    takes_undecodable: bool
    """Whether records that cannot be decoded go through the stack, to end as dead letters."""
    takes_excise: bool
    """Whether the handler wants records without a value."""
    deduplication: Deduplication | None = None
    """Told of each message at its admission; None where nothing is deduplicated."""
    monopolization: Monopolization | None = None
    """Which keys are held back; None where none ever is."""
    gate: Gate | None = None
    """Whether failing messages may be deferred; None where none ever is."""
    retry: Retry | None = None
    defer: Defer | None = None
    redelivery: Redelivery | None = None
    """These three for what they count; None where they are not in the stack."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the layers need of the stores, and of the broker to get back what is stored."""

    dedup: DedupStore
    loader: Loader | None
    """None where the store keeps the records themselves."""
    decode: Callable[[Record], Message | ExciseMessage | None]


def build(
    config: Config,
    methods: HandlerMethods,
    runtime: Runtime,
    storms: Storms,
    torn_down: Callable[[], bool],
    dead_letters: DeadLetterWriter | None,
    kept: Kept | None = None,
    recent: Recent | None = None,
    spans: HandlerSpans | None = None,
    events: Buffer | None = None,
) -> Stack:
    """The stack of ``config.mode``.

    :param dead_letters: needed in low-latency mode; in pipeline mode told of lost deferred messages.
    :param kept: None without stores: nothing is deferred, and ids are remembered in memory only.
    :param recent: the ids that an earlier subscription remembered.
    :param spans: puts spans around what the handler does, while there is a tracer.
    :param events: where telemetry events go; None reports nothing.
    """
    timeout = Timeout(config.consumer.timeout, runtime, storms)
    pipeline = config.mode == "pipeline"
    monopolization = None
    if pipeline and config.monopolization.monopolization_enabled:
        monopolization = Monopolization(config.monopolization, runtime, storms)
    scheduler = Scheduler(
        config.consumer.max_concurrency,
        config.scheduler,
        runtime,
        monopolization.meter if monopolization else None,
    )
    telemetry = None if events is None else Telemetry(events, runtime, spans, timeout.running)
    deduplication = defer = redelivery = gate = None
    if pipeline and config.consumer.idempotence_cache_size:
        deduplication = _deduplication(config, storms, kept, recent)
    if pipeline and kept is not None:
        gate = Gate(config.defer, runtime, storms)
        remember = kept.loader.remember if kept.loader else None
        defer = Defer(config.defer, gate, scheduler, runtime, storms, remember)
        redelivery = Redelivery(
            config.defer,
            Reload(kept.loader, kept.decode, dead_letters, storms),
            runtime,
            storms,
            deduplication.admitted if deduplication else None,
        )

    invoke = Invoke(methods, torn_down)
    if spans is not None:
        spans.surround(invoke.methods, invoke.not_async)
    layers: list[Layer | None]
    retry = None
    if config.mode == "best-effort":
        log_and_skip = LogAndSkip()
        layers = [log_and_skip, Shutdown(), scheduler, timeout, telemetry]
        outer = [log_and_skip.ended]
    else:
        most = None if pipeline else config.retry.max_retries
        retry = Retry(config.retry.retry_base, config.retry.max_retry_delay, runtime, storms, most)
        outer = [retry.ended]
        layers = [retry, defer, monopolization, Shutdown(), scheduler, timeout, telemetry]
        if not pipeline:
            assert dead_letters is not None, "low-latency mode has a failure topic"
            dead_letter = DeadLetter(dead_letters)
            outer.append(dead_letter.ended)
            layers.insert(0, dead_letter)
    call_layers = compose([layer for layer in layers if layer], invoke.call)
    straight = Straight(call_layers, outer, invoke, scheduler, telemetry, monopolization, defer)
    begin = straight.begins()
    call = begin if deduplication is None else deduplication.wrap(begin)
    redeliver: Call | None = redelivery
    if redelivery is not None:
        redelivery.call = call
        if telemetry is not None:
            redeliver = telemetry.retries(redelivery)
    if kept is not None:
        call = Fired(redeliver).wrap(call)
    return Stack(
        call=begin if call is begin else straight.begins(call),
        scheduler=scheduler,
        timeout=timeout,
        takes_undecodable=config.mode == "low-latency",
        takes_excise=methods.on_excise is not None,
        deduplication=deduplication,
        monopolization=monopolization,
        gate=gate,
        retry=retry,
        defer=defer,
        redelivery=redelivery,
    )


def _deduplication(
    config: Config, storms: Storms, kept: Kept | None, recent: Recent | None
) -> Deduplication:
    group_id = config.core.group_id
    assert group_id is not None, "checked before a consumer is made"
    options = config.consumer
    return Deduplication(
        options.idempotence_cache_size,
        options.idempotence_version,
        group_id,
        kept.dedup if kept else None,
        storms,
        recent,
    )
