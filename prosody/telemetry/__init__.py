"""Telemetry events: what happens to messages and timers, written to a topic of its own."""
