"""The embedded broker: a cluster inside the process, for mock mode and tests."""

from prosody.broker.memory.broker import MemoryBroker
from prosody.broker.memory.cluster import MemoryCluster

__all__ = ["MemoryBroker", "MemoryCluster"]
