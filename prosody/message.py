"""Where programs written for the reference package import ``Message`` from."""

from prosody.model.message import ExciseMessage, JSONValue, Message

__all__ = ["ExciseMessage", "JSONValue", "Message"]
