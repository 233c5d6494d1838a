"""The demo: an order service over prosody, with a hot key, keys whose dependency fails for a while, orders
that are sent twice, and reminders that are timers.

Run it with ``make demo`` (embedded broker and stores) or ``make demo-kafka`` (a real Apache Kafka and a
real Apache Cassandra), or as ``python -m demo``. It shows its progress and ends with a table of what it has
measured; the exit code is 0 only when all its checks hold.
"""
