"""The stores in Cassandra, over the official driver."""

from prosody.stores.cassandra.settings import CassandraSettings
from prosody.stores.cassandra.stores import CassandraStores

__all__ = ["CassandraSettings", "CassandraStores"]
