"""Where programs written for the reference package import ``Context`` from."""

from prosody.model.context import Context

__all__ = ["Context"]
