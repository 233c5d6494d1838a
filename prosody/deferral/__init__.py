"""Deferred work of a partition: which keys have some, when it is tried again, how it is loaded."""
