"""Parts of a subscription that are little more than a selection of its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prosody.broker.protocol import ConsumerSettings, ProducerSettings
from prosody.consume.assignment import COMMIT_TIMEOUT_S
from prosody.consume.durable import SETTLE_S
from prosody.middleware.dead_letter import DeadLetterWriter
from prosody.observe.handler_spans import HandlerSpans
from prosody.observe.metrics import Metrics, can_be_scraped

if TYPE_CHECKING:
    from prosody.config import Config
    from prosody.observe.storm import Storms
    from prosody.observe.tracing import Tracing
    from prosody.produce import Producer
    from prosody.runtime import Runtime


def consumer_settings(config: Config, client_id: str) -> ConsumerSettings:
    """What the broker's side of a consumer needs to know."""
    group_id = config.core.group_id
    assert group_id is not None, "checked before a consumer is made"
    return ConsumerSettings(
        group_id=group_id,
        client_id=client_id,
        session_timeout_s=config.extra.session_timeout,
        # A rebalance waits for the drain, the last store operations and the final commit of what is
        # revoked.
        rebalance_timeout_s=config.consumer.shutdown_timeout + SETTLE_S + COMMIT_TIMEOUT_S + 5.0,
        fetch_bytes=config.extra.fetch_bytes,
        assignor=config.extra.assignor,
        metadata_max_age_s=config.extra.metadata_max_age,
    )


def producer_settings(config: Config, client_id: str) -> ProducerSettings:
    """What the broker's side of a producer needs to know."""
    extra = config.extra
    return ProducerSettings(client_id, extra.compression, extra.partitioner)


def metrics_of(config: Config, runtime: Runtime) -> Metrics:
    """What a client measures; scraped where there are probes, and the extra that this needs."""
    probed = not config.core.mock and config.consumer.probe_port is not None
    return Metrics(runtime, config.core.group_id, scraped=probed and can_be_scraped())


def handler_spans(config: Config, tracing: Tracing | None) -> HandlerSpans | None:
    """Who puts spans around handlers; to be made in the context variables that these run in."""
    group_id = config.core.group_id
    if tracing is None or group_id is None:
        return None
    return HandlerSpans(
        tracing,
        message_spans=config.consumer.message_spans,
        timer_spans=config.consumer.timer_spans,
        group_id=group_id,
    )


def dead_letter_writer(
    config: Config,
    producer: Producer,
    runtime: Runtime,
    storms: Storms,
    spans: HandlerSpans | None,
) -> DeadLetterWriter | None:
    """Who writes to the failure topic; None without one, and in the mode that has no use for it."""
    group_id, failure_topic = config.core.group_id, config.consumer.failure_topic
    if group_id is None or failure_topic is None or config.mode == "best-effort":
        return None
    return DeadLetterWriter(
        producer,
        failure_topic,
        group_id,
        config.core.source_system,
        config.retry.retry_base,
        config.retry.max_retry_delay,
        runtime,
        storms,
        spans,
        patience_s=config.producer.send_timeout,
    )
