"""The demo: an order service over prosody, with a hot key and a key whose dependency fails.

Run it with ``make demo`` (embedded broker) or ``make demo-kafka`` (a real Apache Kafka), or as
``python -m demo``. It shows its progress and ends with a table of what it has measured; the exit
code is 0 only when all its checks hold.
"""
