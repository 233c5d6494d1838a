"""Messages that fail for long: stored by their offset, loaded again, tried later."""
