"""What both halves of the core use, each written once: numbers, and one mark."""

from __future__ import annotations

from typing import Final

LN2: Final = 0.6931471805599453
"""The natural logarithm of 2: what turns half-lives into exponents of e."""

REBASE_HALF_LIVES: Final = 512.0
"""Half-lives after which virtual times are measured from a new landmark.

A second charged then counts 2**512, so that a float has as many powers of two left above it."""

LONGEST_RUN_S: Final = 1e9
"""What a run may be charged at most: 31 years, so that no sum of charges overflows."""

ESTIMATE_RUNS: Final = 64
"""The mean run of a class is the plain mean of so many runs, then moves by one part in so many."""

BUCKETS: Final = 64
"""A rolling window is as long as so many buckets."""

RING: Final = BUCKETS + 1
"""So many buckets does a window touch that does not begin where a bucket does."""

BUCKET_TICKS: Final = 2**31
"""Windows count time in whole numbers, so that sums are exact: so many ticks fit into 32 bits."""

WINDOW_TICKS: Final = BUCKETS * BUCKET_TICKS
"""Of a window of five minutes a tick is 2.2 ns."""

MIN_WINDOW_S: Final = 1e-6
"""The shortest rolling window."""

MAX_WINDOW_S: Final = 1e12
"""The longest rolling window."""

FARTHEST_BUCKET: Final = 2**50
"""Up to so far from time 0 a float is sure to tell one bucket from the next."""

MAX_COUNT: Final = 2**31 - 1
"""The largest cache of a time window, and the largest minimum of an outcome window."""

RECENT_SHARE: Final = 8
"""One key in so many, those that ran last, is not looked at when a time window evicts."""

MAX_RECENT: Final = 1_024
"""At most so many."""

BATCH_RECORDS: Final = 16_384
"""Records of a batch that is framed for Kafka, at most."""

ENDED: Final = object()
"""The coroutine has ended: what ``first_step`` answers then."""

COMPRESSED_OR_CONTROL: Final = 0x27
"""Bits of the attributes of a batch: a codec, and that it is a marker of a transaction."""

LOG_APPEND_TIME: Final = 0x08
"""Bit of the attributes of a batch: its records have the time at which the broker wrote it."""

NUMBER_MAX: Final = 2**62
"""Offsets and times of a batch are below, so that their sums fit into 64 bits."""
