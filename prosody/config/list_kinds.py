"""The kinds of value that are lists or name something outside: topics, servers, files."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import ClassVar, Final

from prosody.config.kinds import Kind, RefusedError, as_text, wrong_type

MAX_PORT: Final = 65_535
_PORT: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class TextList(Kind):
    """One text or a list of texts, none empty; in a variable separated by commas and trimmed.

    Text in an option is one element, commas included, since a prefix may contain one.
    """

    none_means_no_value: ClassVar[bool] = False  # "none" is an element like any other
    wanted: str = "text or a list of texts, at least one and none empty"

    @property
    def expected(self) -> str:
        return f"{self.wanted} (in the variable: separated by commas)"

    def from_option(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            return self._checked((as_text(value),))
        if not isinstance(value, (list, tuple)):
            raise wrong_type(value, "text or a list of texts")
        for place, element in enumerate(value, 1):
            if not isinstance(element, str):
                kind = type(element).__name__
                raise RefusedError(f"element {place} is {kind}, text is meant", wrong_type=True)
        return self._checked(tuple(as_text(element) for element in value))

    def from_variable(self, text: str) -> tuple[str, ...]:
        as_text(text)
        return self._checked(tuple(element.strip() for element in text.split(",")))

    def _checked(self, elements: tuple[str, ...]) -> tuple[str, ...]:
        if not elements:
            raise RefusedError("it is empty")
        for place, element in enumerate(elements, 1):
            if not element:
                raise RefusedError(
                    "it is empty" if len(elements) == 1 else f"element {place} is empty"
                )
            self.check_element(element)
        return elements

    def check_element(self, element: str) -> None:
        """Refuse an element that is not empty and still wrong."""


@dataclass(frozen=True)
class TopicList(TextList):
    """Topics; one that begins with ``^`` is a regular expression over topic names."""

    def check_element(self, element: str) -> None:
        if not element.startswith("^"):
            return
        try:
            re.compile(element)
        except (re.error, OverflowError, RecursionError) as error:
            raise RefusedError(f"{element!r} is no regular expression: {error}") from error


@dataclass(frozen=True)
class ServerList(TextList):
    """Servers as ``host`` or ``host:port``.

    Unlike other lists, an option's text is split at commas too: no host contains one, and Kafka
    programs everywhere write ``"a:9092,b:9092"``.
    """

    wanted: str = 'servers as "host:port" with a port from 0 to 65535'

    def from_option(self, value: object) -> tuple[str, ...]:
        servers = super().from_option(value)
        if any("," in server for server in servers):
            return self.from_variable(",".join(servers))
        for server in servers:
            check_server(server)
        return servers

    def from_variable(self, text: str) -> tuple[str, ...]:
        servers = super().from_variable(text)
        for server in servers:
            check_server(server)
        return servers


def check_server(server: str) -> None:
    """Refuse what is not ``host``, ``host:port``, an IPv6 address or ``[address]:port``."""
    if "://" in server:
        raise RefusedError(f'{server!r} has a protocol; write only "host:port"')
    if any(character.isspace() for character in server):
        raise RefusedError(f"{server!r} contains a space")
    if server.startswith("["):
        host, bracket, rest = server[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise RefusedError(f'{server!r} is no IPv6 address with a port; write "[::1]:9092"')
        port = rest[1:] if rest else None
    elif server.count(":") > 1:
        if not _is_ipv6(server):
            raise RefusedError(
                f'{server!r} has more than one colon; write "host:port" or "[::1]:9092"'
            )
        port = None
    else:
        host, colon, rest = server.partition(":")
        if not host:
            raise RefusedError(f"{server!r} has no host")
        port = rest if colon else None
    if port is not None and not (_PORT.fullmatch(port) and int(port) <= MAX_PORT):
        raise RefusedError(f"the port of {server!r} is not a number from 0 to {MAX_PORT}")


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:  # the answer to the question, not a failure
        return False
    return True


@dataclass(frozen=True)
class File(Kind):
    """The path of a file that exists, as text or ``os.PathLike``."""

    @property
    def expected(self) -> str:
        return "the path of a file that exists"

    def from_option(self, value: object) -> str:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        path = as_text(value)
        if not path:
            raise RefusedError("it is empty")
        # Not Path.is_file(), which raises for a name too long or a folder that may not be read.
        if not os.path.isfile(path):  # noqa: PTH113
            raise RefusedError("there is no such file")
        return path

    def from_variable(self, text: str) -> str:
        return self.from_option(text)
