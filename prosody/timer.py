"""Where programs written for the reference package import ``Timer`` from."""

from prosody.model.message import Timer

__all__ = ["Timer"]
