"""Beside the reference's own Python package, over the same servers and the same topics."""
