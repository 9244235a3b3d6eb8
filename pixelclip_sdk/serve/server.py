"""The server process: uvicorn with limits for the heads of requests."""

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Mapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve.app import make_application
from pixelclip_sdk.serve.config import Limits, ServeConfig
from pixelclip_sdk.serve.engine import Engine
from pixelclip_sdk.serve.metrics import Metrics

__all__ = ["serve"]

_STOP_S = 10


def serve(segmenters: Mapping[str, Segmenter], config: ServeConfig, *, announce: Any = None) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests that were taken, and close the models.

    Args:
        segmenters: Name → loaded model, at least one; the first is the default.
        config: What to serve, and where.
        announce: Called with the address when the server listens.

    Raises:
        PixelClipError: The address cannot be used.
    """
    _log_json()
    metrics = Metrics()
    engine = Engine(segmenters, config.limits, metrics)
    listener = _listen(config)
    host = f"[{config.host}]" if ":" in config.host else config.host
    settings = uvicorn.Config(
        make_application(engine, config, metrics),
        http=_protocol(config.limits),
        ws="websockets-sansio",
        ws_max_size=config.limits.message_bytes,
        ws_per_message_deflate=False,  # JPEG and PNG are compressed already.
        limit_concurrency=config.limits.connections,
        timeout_graceful_shutdown=_STOP_S,
        server_header=False,
        access_log=False,
        log_config=None,
    )
    if announce is not None:
        announce(f"http://{host}:{listener.getsockname()[1]}")
    uvicorn.Server(settings).run(sockets=[listener])


def _listen(config: ServeConfig) -> socket.socket:
    """Open the port, so that a taken one is an error before anything else starts."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise PixelClipError(
            f"cannot listen on {config.host}, port {config.port}: {error.strerror or error}. "
            "Choose another --port, or an address of this machine."
        ) from error
    listener.listen(1024)
    return listener


def _protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """HTTP as uvicorn speaks it, but slow and long heads end the connection; uvicorn waits for ever."""

    class Protocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_came()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._timer is not None:
                self._head_bytes += len(data)
                if self._head_bytes > limits.head_bytes:
                    self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._timer is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._head_came()
            super().on_headers_complete()

        def _expect_head(self) -> None:
            self._head_bytes = 0
            self._timer = self.loop.call_later(limits.head_s, self.transport.close)

        def _head_came(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Protocol


class _JsonFormatter(logging.Formatter):
    """One line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        fields: dict[str, Any] = {"message": text}
        if text.startswith('{"event"'):
            fields = json.loads(text)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        return json.dumps({"time": time, "level": record.levelname.lower(), **fields})


def _log_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    for name in ("pixelclip_sdk", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if name == "pixelclip_sdk" else logging.WARNING)
