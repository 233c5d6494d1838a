"""Records that other libraries drop: no key, no value, no JSON, not for us."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from prosody import Context, ExciseMessage
from tests.client.support import Place, Recorder, eventually


async def nothing_left(place: Place) -> None:
    async def look() -> bool:
        return await place.lag() == 0

    await eventually(look, "everything should be committed")


async def test_a_record_without_a_key_has_the_empty_key(place: Place) -> None:
    await place.create_topic()
    await place.put({"i": 1}, key=None)
    await place.put({"i": 2}, key=b"")
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(2)
    assert {m.key for m in recorder.handled} == {""}


async def test_records_without_a_value_go_to_on_excise(place: Place) -> None:
    await place.create_topic()
    await place.put(None, key=b"gone")
    await place.put({"i": 1}, key=b"gone")

    class Handler(Recorder):
        async def on_excise(self, context: Context, message: ExciseMessage) -> None:
            excised.append(message)

    excised: list[ExciseMessage] = []
    handler = Handler()
    await place.client().subscribe(handler)
    await handler.until_handled(1)
    assert [(m.key, m.topic, m.offset) for m in excised] == [("gone", place.topic, 0)]


async def test_records_without_a_value_are_skipped_visibly(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "prosody")
    await place.create_topic()
    await place.put(None, key=b"gone")
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await nothing_left(place)
    assert "no on_excise" in caplog.text
    assert not recorder.attempts


async def test_json_null_is_an_ordinary_payload(place: Place) -> None:
    await place.create_topic()
    await place.put(b"null")
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(1)
    assert recorder.handled[0].payload is None


UNDECODABLE: dict[str, tuple[bytes | None, bytes]] = {
    "empty": (b"k", b""),
    "no JSON": (b"k", b"{oops"),
    "NaN": (b"k", b"NaN"),
    "value no UTF-8": (b"k", b'"\xff"'),
    "key no UTF-8": (b"\xff", b"1"),
    "nested too deeply": (b"k", b"[" * 100_000 + b"]" * 100_000),
}


@pytest.mark.parametrize("kind", UNDECODABLE)
async def test_an_undecodable_record_is_logged_and_committed(
    place: Place, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    await place.create_topic()
    key, value = UNDECODABLE[kind]
    await place.put(value, key=key)
    recorder = Recorder()
    await place.client(mode="pipeline").subscribe(recorder)
    await nothing_left(place)
    assert not recorder.attempts
    (line,) = [r.getMessage() for r in caplog.records if "cannot be decoded" in r.getMessage()]
    assert place.topic in line
    assert "offset 0" in line


async def test_only_allowed_event_types_are_handled(place: Place) -> None:
    await place.create_topic()
    wanted: list[Any] = [{"type": "user.created"}, {"type": 7}, {"no": "type"}, ["type"], "text"]
    unwanted = [{"type": "admin.user."}, {"type": "User.created"}, {"type": ""}]
    for payload in [*unwanted, *wanted]:
        await place.put(payload)
    recorder = Recorder()
    await place.client(allowed_events=["user.", "account."]).subscribe(recorder)
    await recorder.until_handled(len(wanted))
    await nothing_left(place)
    assert [m.payload for m in recorder.handled] == wanted


async def test_a_group_does_not_hear_itself(place: Place) -> None:
    await place.create_topic()
    mine = place.group.encode()
    await place.put({"i": 0}, headers=(("source-system", mine),))
    await place.put({"i": 1}, headers=(("source-system", b"other"), ("source-system", mine)))
    await place.put({"i": 2}, headers=(("source-system", None),))
    await place.put({"i": 3}, headers=(("source-system", mine), ("source-kind", b"message")))
    await place.put({"i": 4})
    recorder = Recorder()
    await place.client().subscribe(recorder)
    await recorder.until_handled(4)
    await nothing_left(place)
    assert [m.payload["i"] for m in recorder.handled] == [1, 2, 3, 4]


async def test_the_default_source_system_stops_the_loop(place: Place) -> None:
    await place.create_topic()
    client = place.client(source_system=None)
    recorder = Recorder()
    await client.subscribe(recorder)
    assert client.source_system == place.group
    await client.send(place.topic, "k", {"i": 1})
    await nothing_left(place)
    assert not recorder.attempts
