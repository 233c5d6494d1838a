"""The whole path, from broker to handler, against named baselines in the same run."""
