"""Timers of a partition: set, cancelled, loaded ahead, fired when they are due."""
