"""From the broker to the handler and back: polling, admission, lanes, commits."""
