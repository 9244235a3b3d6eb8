"""What every request passes before a route sees it: who may ask, how much may come, what is logged."""

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from pixelclip_sdk.serve.config import ServeConfig
from pixelclip_sdk.serve.errors import ServeError, from_exception
from pixelclip_sdk.serve.metrics import Metrics

__all__ = ["BEARER", "Gate", "is_loopback"]

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BEARER = "bearer."
"""A WebSocket subprotocol that starts with it carries the token: browsers cannot set other headers."""

# Paths without a token: the page and its files, the documentation, and what orchestrators ask.
_OPEN = re.compile(r"/|/static/.*|/docs|/openapi\.json|/docs-files/.*|/healthz|/v2/health/(live|ready)")
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
# Seconds for what a client still sends when it is answered, as after a body that is too large.
_REST_S = 5.0
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether an address of this machine cannot be reached from others."""
    name = host.strip("[]").lower()
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # Another name, such as 127.example.com.
        return False


class Gate:
    """ASGI application around another one.

    It checks the host, the origin and the token, bounds the bytes and the time of bodies, gives each request
    an id, turns exceptions into answers, and writes one line of JSON per request to the log.
    """

    def __init__(self, application: Application, config: ServeConfig, metrics: Metrics) -> None:
        self._application = application
        self._config = config
        self._metrics = metrics
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._application(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        body = _Body(self, receive, headers)
        scope.setdefault("state", {}).update(request_id=request_id, reserve=body.reserve)
        answer = _Answer(send, request_id, body)
        started = time.perf_counter()
        try:
            self._admit(scope, headers)
            if scope["type"] == "http":
                body.check_length()
                await self._application(scope, body.receive, answer.send)
            else:
                await self._application(scope, receive, answer.send)
        except Exception as exception:
            error = from_exception(exception)
            if error.status == 500:
                _log.exception("request %s failed", request_id)
            if not answer.started:
                await self._refuse(scope, error, request_id, answer)
        finally:
            self._buffered -= body.counted
            self._note(scope, answer, request_id, time.perf_counter() - started)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        """Raise ServeError if this client may not ask at all."""
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
            sender = host if origin is None else urlsplit(origin).netloc
        except ValueError:
            raise ServeError(400, "the header Host or Origin is not an address") from None
        # A page of another site whose name points to this machine must not reach a server without a token.
        # Browsers always send the header; some clients of HTTP/1.0 do not.
        only_here = is_loopback(self._config.host) and self._config.token is None
        if only_here and host and not is_loopback(name):
            raise ServeError(403, "the Host header names another machine; use http://127.0.0.1 or localhost")
        if sender.lower() != host.lower():
            raise ServeError(403, "requests of pages of other origins are refused")
        if self._config.token is None or _OPEN.fullmatch(scope["path"]):
            return
        given = headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        if scope["type"] == "websocket":
            protocols = [p.strip() for p in headers.get("sec-websocket-protocol", "").split(",")]
            found = next((p.removeprefix(BEARER) for p in protocols if p.startswith(BEARER)), "")
            # Characters that a subprotocol cannot have are percent-encoded.
            scheme, token = ("bearer", unquote(found)) if found else (scheme, token)
        if scheme.lower() == "basic" and scope["path"].startswith("/label-studio/"):
            # Label Studio sends a name and a password. The password is the token.
            with contextlib.suppress(ValueError):
                scheme, token = "bearer", base64.b64decode(token, validate=True).decode().partition(":")[2]
        same = hmac.compare_digest(token.strip().encode(), self._config.token.encode())
        if scheme.lower() != "bearer" or not same:
            raise ServeError(401, "the token is missing or wrong; send the header Authorization: Bearer …")

    def reserve(self, count: int) -> None:
        """Count bytes that are buffered; raise ServeError 503 if all requests together have too many."""
        if self._buffered + count > self._config.limits.buffered_bytes:
            raise ServeError(503, "too many requests are being received; ask again later", retry_after_s=1)
        self._buffered += count

    async def _refuse(self, scope: Scope, error: ServeError, request_id: str, answer: "_Answer") -> None:
        self._metrics.errors.labels(error.code).inc()
        response = error_response(error, request_id, scope["path"])
        if scope["type"] == "websocket":  # Refuses the handshake, with the same answer.
            answer.status = error.status
            await answer.send(
                {
                    "type": "websocket.http.response.start",
                    "status": error.status,
                    "headers": response.raw_headers,
                }
            )
            await answer.send({"type": "websocket.http.response.body", "body": response.body})
            return
        await response(scope, _nothing, answer.send)

    def _note(self, scope: Scope, answer: "_Answer", request_id: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or ("unknown" if answer.status == 404 else "other")
        method = scope.get("method", "WEBSOCKET")
        status = answer.status or 499  # The client went away.
        if scope["type"] == "http":
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
        client = scope.get("client") or ("",)
        line = {
            "event": "request",
            "id": request_id,
            "method": method,
            "path": scope["path"][:200],
            "status": status,
            "ms": round(seconds * 1e3, 1),
            "client": client[0],
        }
        _log.info(json.dumps(line))


def error_response(error: ServeError, request_id: str, path: str) -> JSONResponse:
    """The HTTP answer of an error. The Open Inference Protocol has a form of its own."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if path == "/v2" or path.startswith("/v2/"):
        status = 400 if error.status == 422 else error.status
        return JSONResponse({"error": error.message}, status, headers=headers)
    return JSONResponse(error.body(request_id), error.status, headers=headers)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


class _Answer:
    """Remembers the status of an answer and adds headers to it."""

    def __init__(self, send: Send, request_id: str, body: "_Body") -> None:
        self._send = send
        self._request_id = request_id
        self._body = body
        self.status = 0
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status, self.started = message["status"], True
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if message["type"] == "http.response.start" and not await self._body.dropped():
                headers["Connection"] = "close"
        elif message["type"] in ("websocket.accept", "websocket.close"):
            self.status, self.started = self.status or 101, True
        await self._send(message)


class _Body:
    """Passes on the body of a request, as long as it stays within the limits."""

    def __init__(self, gate: Gate, receive: Receive, headers: Headers) -> None:
        self._gate = gate
        self._receive = receive
        self._headers = headers
        self._limits = gate._config.limits
        self._until = 0.0
        self._complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self._late = False
        self.counted = 0

    def check_length(self) -> None:
        """Raise ServeError 413 if the body will be too large."""
        length = self._headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._limits.body_bytes:
            raise self._too_large()

    def reserve(self, count: int) -> None:
        """Count bytes that this request keeps in memory, until it is answered; see `Gate.reserve`."""
        self._gate.reserve(count)
        self.counted += count

    async def receive(self) -> Message:
        if self._complete:  # What comes now is that the client has gone.
            return await self._receive()
        if not self._until:
            self._until = asyncio.get_running_loop().time() + self._limits.body_s
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            self._late = True
            raise ServeError(
                408, f"the body did not arrive within {self._limits.body_s:g} s; send it faster"
            ) from None
        if message["type"] == "http.request" and (count := len(message.get("body", b""))):
            if self.counted + count > self._limits.body_bytes:
                raise self._too_large()
            self.reserve(count)
        self._complete = not message.get("more_body", False)
        return message

    async def dropped(self) -> bool:
        """Read what the client still sends, and drop it; returns whether that was all.

        Many clients read no answer before they have sent everything, and closing the connection earlier
        would lose the answer.
        """
        if self._complete:
            return True
        waits = self._headers.get("expect", "").lower() == "100-continue" and not self._until
        if self._late or waits:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_REST_S, self._limits.body_s)):
                while not self._complete:
                    message = await self._receive()
                    self._complete = not message.get("more_body", False)
        return self._complete

    def _too_large(self) -> ServeError:
        return ServeError(
            413, f"the body has more than {self._limits.body_bytes} bytes, the limit; send a smaller image"
        )
