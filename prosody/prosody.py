"""Where programs written for the reference package import the clients from."""

from prosody.admin import AdminClient
from prosody.client import ProsodyClient

__all__ = ["AdminClient", "ProsodyClient"]
