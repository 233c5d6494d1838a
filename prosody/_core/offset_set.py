"""Offsets finished beyond the committable one, as text for a commit's metadata: the format.

A text is a version character, six characters of CRC-32 and a body, all of it base64 digits, so
ASCII, and of six bits each. The body is a string of bits: the distances from each unfinished offset
to the next one, beginning at the committed offset, each in Elias' gamma code: a number of k binary
digits stands behind k - 1 zeros, so 1 is ``1``, 2 is ``010`` and 1,000,000 takes 39 bits. What lies
between two unfinished offsets is finished. The last distance reaches one past the last finished
offset, or to the next unfinished one; up to five zeros fill the last character. ::

    committed 10, finished 11, 12, 14:  distances 3 (10 to 13), 2 (13 to 15)  =  011 010

So a distance costs at most 1.5 bits for each offset that it spans and next to nothing when it spans
many: neither dense nor sparse states need a mode of their own. Runs of unfinished and finished
offsets by turns would make every second one finished a third shorter, but the cost of a distance
depends on two neighbours alone, so the trackers know the exact length at any time, and can tell how
far it could grow.

Gaps in the log (compaction, transaction markers) count as finished where they are spanned. That does
no harm: an offset that was not received between two that were is not in the log, or is no record
that a consumer is given, and never will be.

The checksum covers the committed offset too: the text holds for that offset alone, and a tool that
moved the offset and kept the metadata would otherwise hide unfinished records.

Both halves of the tracker write this format, each in its own way, as that happens at each commit. A
text is read once for each assignment of a partition, hence by the one decoder here.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64, crc32
from string import ascii_letters, digits

VERSION = "1"
# Characters before the body.
FRAME = 7
# Longest text written or read. A broker takes 4,096 unless it is configured otherwise.
MAX_TEXT = 32_768
# One past the highest offset that Kafka can have.
END_OF_OFFSETS = 2**63

_BASE64 = frozenset(ascii_letters + digits + "+/")


def sealed(body: str, committed: int) -> str:
    """The text with this body, that holds for the offset ``committed``."""
    return VERSION + _checksum(body, committed) + body


def decode_finished(text: str, committed: int) -> list[tuple[int, int]]:
    """The offsets that ``text`` says are finished beyond ``committed``.

    Runs ``(start, end)``, ``end`` not included, ascending, disjoint, all above ``committed``. Empty
    metadata is that of a commit with nothing finished ahead: no runs.

    :raises ValueError: when ``text`` was not written by ``encode_finished`` of this version for this
        very offset, was cut or changed, or is longer than 32,768 characters; or when ``committed`` is
        no offset. Such a text is to be dropped: it says nothing about what is finished.
    """
    if not 0 <= committed < END_OF_OFFSETS:
        raise ValueError(f"decode_finished: committed must be an offset, not {committed}")
    if not text:
        return []
    if len(text) > MAX_TEXT:
        raise ValueError(_refusal(text, f"longer than {MAX_TEXT} characters"))
    if text[0] != VERSION:
        raise ValueError(_refusal(text, f"not of version {VERSION}"))
    body = text[FRAME:]
    if not body or not _BASE64.issuperset(body):
        raise ValueError(_refusal(text, "cut short or not in base64"))
    if text[1:FRAME] != _checksum(body, committed):
        raise ValueError(_refusal(text, f"changed, or not meant for offset {committed}"))

    runs = []
    position = committed
    for distance in _distances(text, body):
        if distance > END_OF_OFFSETS - position:
            raise ValueError(_refusal(text, "reaching beyond the highest offset"))
        if distance > 1:
            runs.append((position + 1, position + distance))
        position += distance
    if not runs or runs[-1][1] != position:
        raise ValueError(_refusal(text, "ending with what is not finished"))
    return runs


def _distances(text: str, body: str) -> list[int]:
    padded = body + "A" * (-len(body) % 4)  # A is six zeros
    bits = f"{int.from_bytes(a2b_base64(padded), 'big'):0{6 * len(padded)}b}"[: 6 * len(body)]
    distances = []
    at = 0
    while (one := bits.find("1", at)) >= 0:
        end = 2 * one - at + 1
        if end > len(bits):
            raise ValueError(_refusal(text, "ending inside a number"))
        distances.append(int(bits[one:end], 2))
        at = end
    if not distances or len(bits) - at > 5:
        raise ValueError(_refusal(text, "ending in too many zeros"))
    return distances


def _checksum(body: str, committed: int) -> str:
    held = f"{VERSION}{committed}:{body}".encode("ascii")
    return b2a_base64(crc32(held).to_bytes(4, "big"), newline=False)[: FRAME - 1].decode("ascii")


def _refusal(text: str, reason: str) -> str:
    shown = ascii(text[:24]) + ("..." if len(text) > 24 else "")
    return (
        f"decode_finished: the commit metadata {shown} ({len(text)} characters) is {reason}; "
        "it is not used, and what had finished ahead of the committed offset runs again"
    )
