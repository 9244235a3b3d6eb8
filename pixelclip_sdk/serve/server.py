"""The server process: uvicorn, its socket and its log."""

import gc
import json
import logging
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import uvicorn

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.serve import encode
from pixelclip_sdk.serve.app import make_application
from pixelclip_sdk.serve.config import ServeConfig
from pixelclip_sdk.serve.engine import Engine
from pixelclip_sdk.serve.metrics import Metrics
from pixelclip_sdk.serve.protocol import bounded

__all__ = ["listen", "serve"]

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
    encode.bound_pillow(config.limits.pixels)
    metrics = Metrics()
    engine = Engine(segmenters, config.limits, metrics)
    listener = listen(config)
    host = f"[{config.host}]" if ":" in config.host else config.host
    settings = uvicorn.Config(
        make_application(engine, config, metrics),
        http=bounded(config.limits),
        ws="websockets-sansio",
        ws_max_size=config.limits.message_bytes,
        ws_per_message_deflate=False,  # JPEG and PNG are compressed already.
        timeout_graceful_shutdown=_STOP_S,
        timeout_keep_alive=config.limits.idle_s,
        server_header=False,
        access_log=False,
        log_config=None,
    )
    if announce is not None:
        announce(f"http://{host}:{listener.getsockname()[1]}")
    _set_aside()
    uvicorn.Server(settings).run(sockets=[listener])


def _set_aside() -> None:
    """Take what exists now out of garbage collections, which hold all requests up: for 3 ms instead of 50."""
    gc.collect()
    gc.freeze()
    gc.collect()  # Only a full one tells the collector that few objects are left to look at.


def listen(config: ServeConfig) -> socket.socket:
    """Open the port, so that a taken one is an error before anything else starts."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # With the protocol named, asyncio sends small packets at once. Otherwise the end of an answer waits until
    # the client has confirmed its head, which takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except (OSError, OverflowError) as error:  # OverflowError: no port has that number.
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise PixelClipError(
            f"cannot listen on {config.host}, port {config.port}: {reason}. "
            "Choose another --port, or an address of this machine."
        ) from error
    listener.listen(1024)
    return listener


class _JsonFormatter(logging.Formatter):
    """One line of JSON for each record, with its time in UTC."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        fields: dict[str, Any] = {"message": text}
        if text.startswith('{"event"'):
            fields = json.loads(text)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        moment = self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ")
        return json.dumps({"time": moment, "level": record.levelname.lower(), **fields})


def _log_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("pixelclip_sdk").setLevel(logging.INFO)
    logging.captureWarnings(True)
    # uvicorn reports every WebSocket that was refused with a body as a fault of the application.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "completing handshake" not in str(record.msg))
