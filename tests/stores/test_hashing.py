"""Identities and hashes are the same in every version and in every language."""

from __future__ import annotations

import itertools
import uuid

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from prosody.stores.hashing import MessageIdentities, key_hash, message_identity, segment_id
from prosody.stores.protocol import Segment


@pytest.mark.parametrize(
    ("message", "identity"),
    [
        (("1", "test-group", "test-topic", 0, "key1", "evt1"), "dbe317e0-9682-8ccf-8160-c47074e3d366"),
        (("2", "grp", "orders", 7, "cleé", "msg-123"), "491a6ade-bdd8-83c8-b4af-f142018cc357"),
        (("1", "test-group", "test-topic", 0, "k" * 300, "evt1"), "8073537d-cfc3-846d-9831-971a7c9b8667"),
        (("1", "my-consumer-group", "my-topic", 0, "key1", "msg-123"),
         "b56494e9-2919-878e-96d1-1604ae3194ed"),
    ],
)  # fmt: skip
def test_identities_of_the_reference(
    message: tuple[str, str, str, int, str, str], identity: str
) -> None:
    assert message_identity(*message) == uuid.UUID(identity).bytes
    assert MessageIdentities(*message[:4]).of(*message[4:]) == uuid.UUID(identity).bytes


@given(st.text(), st.text())
def test_an_identity_is_a_uuid_of_version_8(key: str, event_id: str) -> None:
    found = uuid.UUID(bytes=message_identity("1", "g", "t", 0, key, event_id))
    assert (found.version, found.variant) == (8, uuid.RFC_4122)


def test_each_part_counts_and_borders_do_not_blur() -> None:
    parts = [("v", "g"), ("g", "gg"), ("t", "tt"), (1, 2), ("k", "kk", ""), ("i", "ii", "")]
    found = {message_identity(*each) for each in itertools.product(*parts)}
    assert len(found) == 2 * 2 * 2 * 2 * 3 * 3


def test_the_hash_of_a_key_is_that_of_its_utf_8() -> None:
    assert key_hash("") == 0x2D06800538D394C2  # of XXH3's own test vectors
    assert key_hash("clé") != key_hash("cle")
    assert (
        key_hash("clé")
        == xxhash.xxh3_64("cl\N{LATIN SMALL LETTER E WITH ACUTE}".encode()).intdigest()
    )


def test_segments_are_told_apart() -> None:
    segments = [Segment(g, t, p) for g in ("a", "ab") for t in ("c", "bc") for p in (0, 1)]
    assert len({segment_id(segment) for segment in segments}) == 8
