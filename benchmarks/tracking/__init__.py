"""Regression tracking of the core: ratios within one run, set against those of a stored run."""
