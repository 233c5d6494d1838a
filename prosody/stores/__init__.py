"""Durable timers, deferred work, and what was handled before: in memory, or in Cassandra."""
