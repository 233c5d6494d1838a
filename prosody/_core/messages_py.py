"""What every message needs, in pure Python: the twin of ``messages_c.pyx``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from prosody._core.constants import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from prosody._core.protocols_messages import Admitting, Given, Made


def maker(
    example: Made,  # the compiled half copies it
    names: Sequence[str],
    plain: Callable[Given, Made],
) -> Callable[Given, Made]:
    """See ``protocols_messages.MakerOf``."""
    return plain


@final
class Admission:
    """Takes records of one partition to its key queue; see ``protocols_messages.Admission``."""

    __slots__ = (
        "_allows", "_decode", "_done", "_identify", "_mark", "_message", "_number", "_partition",
        "_push", "_ready", "_run", "_track",
    )  # fmt: skip

    def __init__(
        self,
        partition: Admitting,
        *,
        track: Callable[[int, float], None],
        done: Callable[[int], object],
        push: Callable[[str, Any], bool],
        ready: Callable[[float], None],
        decode: Callable[[bytes], Any],
        message: Callable[..., Any],
        run: Callable[..., Any],
        mark: tuple[str, bytes],
        allows: Callable[[Any], bool] | None,
        identify: Callable[[Any], None] | None,
    ) -> None:
        self._partition = partition
        self._number = partition.number
        self._track = track
        self._done = done
        self._push = push
        self._ready = ready
        self._decode = decode
        self._message = message
        self._run = run
        self._mark = mark
        self._allows = allows
        self._identify = identify

    def admit(
        self, records: Sequence[Any], at: int, stop: int, room: int, before: int, now: float
    ) -> tuple[int, int]:
        """See ``protocols_messages.Admission``."""
        partition, number, mark = self._partition, self._number, self._mark
        track, push, ready = self._track, self._push, self._ready
        decode, make_message, make_run = self._decode, self._message, self._run
        allows, identify = self._allows, self._identify
        while at < stop and room > 0:
            record = records[at]
            offset, timestamp, raw_key = record.offset, record.timestamp, record.key
            value, headers = record.value, record.headers
            if value is None or offset <= before or timestamp < 0 or (headers and mark in headers):
                break
            try:
                key = raw_key.decode() if raw_key else ""
                payload = decode(value)
            except Exception:  # noqa: BLE001  # the caller reads it once more, and says what is wrong with it
                break
            at += 1
            before = offset
            track(offset, now)
            if allows is not None and not allows(payload):
                self._done(offset)
                continue
            message = make_message(record.topic, record.partition, offset, timestamp, key, payload)
            run = make_run(partition, record, key, message, (number, key))
            if identify is not None and type(payload) is dict and "id" in payload:
                identify(run)
            if push(key, run):
                ready(now)
            room -= 1
        return at, room


def first_step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """See ``protocols_messages.FirstStep``."""
    try:
        return coroutine.send(None)
    except StopIteration:
        return ENDED
