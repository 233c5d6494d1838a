"""Configuration: the options a program gives, ``PROSODY_*`` variables, and the rules for both."""

from __future__ import annotations

from prosody.config.config import Config, load

__all__ = ["Config", "load"]
