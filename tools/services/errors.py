"""What can go wrong when servers are fetched and started."""

from __future__ import annotations


class ServiceError(RuntimeError):
    """A server could not be fetched, started or controlled; the text says what to do."""


class MissingToolError(ServiceError):
    """Java or Maven is missing or of a wrong version; the text names what to install."""
