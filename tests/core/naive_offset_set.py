"""The text of a finished set as one would explain it: a string of bits, and the best cut searched."""

from __future__ import annotations

import zlib

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
LONGEST = 32_768

Runs = list[tuple[int, int]]


def gamma(number: int) -> str:
    digits = f"{number:b}"
    return "0" * (len(digits) - 1) + digits


def digits_of(bits: str) -> str:
    while len(bits) % 6:
        bits += "0"
    return "".join(DIGITS[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def lowest(runs: Runs, count: int) -> Runs:
    """The ``count`` lowest offsets of ``runs``."""
    kept = []
    for start, end in runs:
        if count > 0:
            kept.append((start, min(end, start + count)))
        count -= end - start
    return kept


def text_of(committed: int, runs: Runs) -> str:
    if not runs:
        return ""
    bits = ""
    unfinished = committed
    for start, end in runs:
        bits += gamma(1) * (start - 1 - unfinished) + gamma(end - start + 1)
        unfinished = end
    body = digits_of(bits)
    checksum = digits_of(f"{zlib.crc32(f'1{committed}:{body}'.encode()):032b}")
    return "1" + checksum + body


def longest_text(committed: int, runs: Runs, max_length: int) -> str:
    """The text of as many of the lowest offsets as fit: one more never makes it shorter."""
    fit, too_many = 0, sum(end - start for start, end in runs) + 1
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        if len(text_of(committed, lowest(runs, middle))) <= min(max_length, LONGEST):
            fit = middle
        else:
            too_many = middle
    return text_of(committed, lowest(runs, fit))
