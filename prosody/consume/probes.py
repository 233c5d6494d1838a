"""The HTTP endpoints of a consumer: health for everybody, the inner state where it is switched on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prosody.broker.protocol import TopicPartition
from prosody.consume.picture import picture
from prosody.consume.why import why_key, why_offset
from prosody.errors import ConfigurationError
from prosody.observe.answer import Answer, Request, document, told
from prosody.observe.health import livez, readyz

if TYPE_CHECKING:
    import asyncio

    from prosody.config import Config
    from prosody.consume.inside import Inside
    from prosody.observe.answer import Route
    from prosody.observe.health import Subject
    from prosody.observe.http import HttpServer
    from prosody.observe.metrics import Metrics

_log = logging.getLogger("prosody.probes")

_USAGE = (
    "ask with ?topic=T&partition=P&offset=O, with or without &key=K; "
    "or with ?key=K, with or without &topic=T"
)


_NO_METRICS = (
    "metrics are served where prometheus_client is installed: "
    "pip install 'prosody-asyncio[prometheus]'"
)


class Probes:
    """The server of one subscription. There is none without ``probe_port``, and in mock mode."""

    def __init__(self, config: Config, subject: Subject, inside: Inside, metrics: Metrics) -> None:
        self._wanted = None if config.core.mock else config.consumer.probe_port
        self._routes: dict[str, Route] = {"/readyz": readyz(subject), "/livez": livez(subject)}
        self._routes["/metrics"] = lambda request: scrape(metrics, request)
        if config.extra.debug_endpoint:
            self._routes["/debug/state"] = lambda _: document(picture(inside).as_dict())
            self._routes["/debug/why"] = lambda request: why(inside, request)
        self._server: HttpServer | None = None

    @property
    def port(self) -> int | None:
        """Where it listens; None unless it does."""
        return None if self._server is None else self._server.port

    async def start(self) -> None:
        """Listen, if that is wanted.

        :raises ConfigurationError: the port cannot be had.
        """
        if self._wanted is None:
            return
        # Imported here: who has no server does not need what it is made of.
        from prosody.observe.http import HOST, HttpServer

        server = HttpServer(self._routes)
        try:
            await server.start(self._wanted)
        except OSError as error:
            raise ConfigurationError(
                [
                    f"probe_port={self._wanted} (variable PROSODY_PROBE_PORT) cannot be opened: "
                    f"{error.strerror or error}. Give a port that is free, 0 for any free one, or None "
                    "for no health checks."
                ]
            ) from error
        self._server = server
        _log.info("health checks are answered on %s, port %d", HOST, server.port)

    async def stop(self) -> None:
        """Listen no more. Can be repeated."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()


def scrape(metrics: Metrics, request: Request) -> Answer | asyncio.Future[Answer]:
    """``/metrics``."""
    if not metrics.scraped:
        return told(request, 404, _NO_METRICS)
    # Imported here, because the extra may not be installed.
    from prosody.observe.prometheus import page

    return page(metrics, request)


def why(inside: Inside, request: Request) -> Answer:
    """``/debug/why``: one sentence about an offset or a key."""
    query = request.query
    key, topic = query.get("key"), query.get("topic")
    if "offset" not in query and "partition" not in query:
        if key is None:
            return told(request, 400, _USAGE)
        return told(request, 200, why_key(inside, key, topic))
    try:
        place = TopicPartition(query["topic"], int(query["partition"]))
        offset = int(query["offset"])
    except (KeyError, ValueError):
        return told(request, 400, _USAGE)  # which of them is missing or no number shows in it
    return told(request, 200, why_offset(inside, place, offset, key))
