"""HTTP as uvicorn speaks it, with limits for what comes before a request reaches `gate`."""

import asyncio
import json
import uuid
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pixelclip_sdk.serve.config import Limits
from pixelclip_sdk.serve.errors import ServeError

__all__ = ["bounded"]

# Requests of a connection that wait for the answer to the first. uvicorn keeps any number in memory.
_PIPELINED = 32


def bounded(limits: Limits) -> type[HttpToolsProtocol]:
    """Return the class of connections: slow or long heads, and too many connections, are refused.

    uvicorn itself waits for a head for ever, and limits answers but not connections.
    """

    class Protocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self._refuse(503, "too many connections are open; connect again later", retry_after_s=1)
                return
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            in_head = self._timer is not None
            super().data_received(data)
            if self.transport.get_protocol() is not self:  # It is a WebSocket now.
                return
            if self._timer is None and self._idle():
                self._expect_head()  # After an empty line, which begins no message.
            elif in_head and self._timer is not None:
                self._head_bytes += len(data)
                if self._head_bytes > limits.head_bytes:
                    self._refuse(431, f"the head of the request has more than {limits.head_bytes} bytes")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._timer is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._stop_timer()
            if len(self.pipeline) >= _PIPELINED:
                raise ValueError  # Becomes an answer 400.
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            """Called by uvicorn for what is not HTTP."""
            self._refuse(400, f"{msg.rstrip('.')}; expected HTTP/1.1")

        def _idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _expect_head(self) -> None:
            self._head_bytes = 0
            message = f"the head of the request did not arrive within {limits.head_s:g} s"
            self._timer = self.loop.call_later(limits.head_s, self._refuse, 408, message)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _refuse(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
            """Answer and close. Requests of the connection that are waiting for an answer are given up."""
            self._stop_timer()
            if self.transport.is_closing():
                return
            if self._idle() or not self.cycle.response_started:  # Not into the middle of an answer.
                if self.cycle is not None:
                    self.cycle.disconnected = True
                error = ServeError(status, message, retry_after_s=retry_after_s)
                body = json.dumps(error.body(uuid.uuid4().hex)).encode()
                fields = {
                    "Content-Type": "application/json",
                    "Content-Length": len(body),
                    "Connection": "close",
                }
                if retry_after_s is not None:
                    fields["Retry-After"] = retry_after_s
                lines = [
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                    *(f"{k}: {v}" for k, v in fields.items()),
                ]
                head = "\r\n".join([*lines, "", ""])
                self.transport.write(head.encode() + body)
            self.transport.close()

    return Protocol
