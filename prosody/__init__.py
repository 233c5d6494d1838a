"""prosody: per-key order with concurrency across keys, for asyncio services that consume Kafka."""

from prosody.admin import AdminClient
from prosody.client import ProsodyClient
from prosody.errors import (
    BrokerError,
    ClientClosedError,
    ConfigurationError,
    ConfigurationTypeError,
    ConsumerStateError,
    ContextError,
    EventHandlerError,
    ForkError,
    HandlerTypeError,
    PayloadError,
    PermanentError,
    ProsodyError,
    RecordTooLargeError,
    SendError,
    SendTimeoutError,
    StoreDownError,
    StoreError,
    TopicsNotFoundError,
    TransientError,
    permanent,
    transient,
)
from prosody.model.context import Context
from prosody.model.handler import EventHandler
from prosody.model.message import ExciseMessage, JSONValue, Message, Timer

__all__ = [
    "AdminClient",
    "BrokerError",
    "ClientClosedError",
    "ConfigurationError",
    "ConfigurationTypeError",
    "ConsumerStateError",
    "Context",
    "ContextError",
    "EventHandler",
    "EventHandlerError",
    "ExciseMessage",
    "ForkError",
    "HandlerTypeError",
    "JSONValue",
    "Message",
    "PayloadError",
    "PermanentError",
    "ProsodyClient",
    "ProsodyError",
    "RecordTooLargeError",
    "SendError",
    "SendTimeoutError",
    "StoreDownError",
    "StoreError",
    "Timer",
    "TopicsNotFoundError",
    "TransientError",
    "permanent",
    "transient",
]
