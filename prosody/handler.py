"""Where programs written for the reference package import ``EventHandler`` from."""

from prosody.model.handler import EventHandler

__all__ = ["EventHandler"]
