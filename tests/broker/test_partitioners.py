"""Keys live where librdkafka and the Java client put them: vectors published with those two."""

from __future__ import annotations

import pytest

from prosody.broker.partitioners import PARTITIONERS, murmur2, partition_for
from prosody.errors import ConfigurationError


def no_dice() -> float:
    raise AssertionError("a record with a key was left to chance")


# Apache Kafka, clients/src/test/.../utils/UtilsTest.java, testMurmur2 (signed there).
JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}

# librdkafka, src/rdmurmur2.c, unittest_murmur2: every length of the rest, and nothing at all.
LIBRDKAFKA_MURMUR2 = {
    b"kafka": 0xD067CF64,
    b"giberish123456789": 0x8F552B0C,
    b"1234": 0x9FC97B14,
    b"234": 0xE7C009CA,
    b"34": 0x873930DA,
    b"4": 0x5A4B5CA1,
    b"PreAmbleWillBeRemoved,ThePrePartThatIs": 0x78424F1C,
    b"reAmbleWillBeRemoved,ThePrePartThatIs": 0x4A62B377,
    b"eAmbleWillBeRemoved,ThePrePartThatIs": 0xE0E4E09E,
    b"AmbleWillBeRemoved,ThePrePartThatIs": 0x62B8B43F,
    b"": 0x106E08D9,
}

# librdkafka, tests/0048-partitioner.c: hashes (not yet taken modulo the count) of both partitioners.
LIBRDKAFKA_PARTITIONS = {
    b"": {"crc32": 0x0, "murmur2": 0x106E08D9},
    b"23456": {"crc32": 0xB1B451D7, "murmur2": 0x058D780F},
    b"this is another string with more length to it perhaps": {
        "crc32": 0xB0150DF7,
        "murmur2": 0x4F7703DA,
    },
    b"hejsan": {"crc32": 0xD077037E, "murmur2": 0x5EC19395},
}


@pytest.mark.parametrize(("key", "signed"), JAVA_MURMUR2.items())
def test_murmur2_is_the_java_clients(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "expected"), LIBRDKAFKA_MURMUR2.items())
def test_murmur2_is_librdkafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected


@pytest.mark.parametrize("partitioner", PARTITIONERS)
@pytest.mark.parametrize("key", LIBRDKAFKA_PARTITIONS)
def test_partitions_are_librdkafkas(key: bytes, partitioner: str) -> None:
    expected = LIBRDKAFKA_PARTITIONS[key][partitioner]
    assert partition_for(partitioner, key, 7, no_dice) == expected % 7
    assert partition_for(partitioner, key, 1, no_dice) == 0


def test_murmur2_partition_of_a_negative_hash_is_the_java_clients() -> None:
    # The hash is negative in Java; its sign bit is dropped. Its absolute value would give 32.
    assert partition_for("murmur2", b"foobar", 50, no_dice) == 16


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_every_key_has_a_partition_and_every_partition_keys(partitioner: str) -> None:
    found = {partition_for(partitioner, bytes([n]), 7, no_dice) for n in range(256)}
    assert found == set(range(7))


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_without_a_key_the_dice_decide(partitioner: str) -> None:
    dice = iter((0.0, 0.49, 0.5, 0.999))
    found = [partition_for(partitioner, None, 4, lambda: next(dice)) for _ in range(4)]
    assert found == [0, 1, 2, 3]


def test_unknown_partitioner_is_named() -> None:
    with pytest.raises(ConfigurationError, match="partitioner: 'md5' is not known"):
        partition_for("md5", b"k", 4, no_dice)
