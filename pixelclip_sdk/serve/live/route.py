"""The WebSocket `/v1/live`: frames in, results out, words changed in between.

Each viewer has two tasks. One reads messages and keeps the newest frame, with the settings that came before
it. The other puts these into effect and segments the frame, one at a time, and waits until the client has
taken the result. So nothing queues up, neither for a slow server nor for a slow client, and a client that has
gone is noticed at once.
"""

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from pixelclip_sdk.serve import encode
from pixelclip_sdk.serve.config import ServeConfig
from pixelclip_sdk.serve.engine import Engine
from pixelclip_sdk.serve.errors import ServeError, from_exception
from pixelclip_sdk.serve.live import messages
from pixelclip_sdk.serve.live.messages import ClientFrame
from pixelclip_sdk.serve.live.sources import Shot, Source
from pixelclip_sdk.serve.live.view import View, merged
from pixelclip_sdk.serve.schemas import LiveSettings, LiveShown
from pixelclip_sdk.smoothing import Smoother
from pixelclip_sdk.support.clock import Clock

__all__ = ["PROTOCOL", "make_router"]

_log = logging.getLogger(__name__)

PROTOCOL = "pixelclip.v1"
"""The WebSocket subprotocol."""

# Results of a server's source that a client which says what it has shown may still have to show.
_UNSHOWN = 2
# Settings that wait, each for an answer of its own. More of them become one.
_PENDING = 8
# Pause of a viewer whose frame was refused because the server is busy.
_BUSY_S = 0.25
_POLICY_VIOLATION, _INTERNAL, _TRY_LATER = 1008, 1011, 1013


class _Close(Exception):  # noqa: N818 (not an error of this program)
    """Ends a connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Live:
    """What the viewers of a server share."""

    def __init__(self, engine: Engine, config: ServeConfig) -> None:
        self.engine = engine
        self.config = config
        self.limits = config.limits
        self.viewers = 0
        self.sources = {name: Source(name, address) for name, address in config.sources.items()}
        # Viewers take turns here, where their frames can still be replaced: the engine's queue has room left.
        self.slots = asyncio.Semaphore(2 * config.limits.workers)


def make_router(engine: Engine, config: ServeConfig) -> APIRouter:
    """The route, for one engine."""
    router = APIRouter(prefix="/v1")
    live = _Live(engine, config)

    @router.websocket("/live")
    async def connect(socket: WebSocket) -> None:
        await socket.accept(subprotocol=PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
        if live.viewers >= live.limits.viewers:
            await socket.close(_TRY_LATER, f"there are {live.viewers} viewers already; try again later")
            return
        live.viewers += 1
        engine.metrics.viewers.inc()
        try:
            await _Viewer(socket, live).serve()
        finally:
            live.viewers -= 1
            engine.metrics.viewers.dec()

    return router


class _Viewer:
    """One live connection."""

    def __init__(self, socket: WebSocket, live: _Live) -> None:
        self._socket = socket
        self._live = live
        self._engine = live.engine
        self._view = View.first(live.engine)
        self._smoother: Smoother | None = None
        # The newest frame that no result was made of, and the settings that came before it and after it.
        self._waiting: ClientFrame | None = None
        self._before: list[LiveSettings] = []
        self._after: list[LiveSettings] = []
        self._shot = 0  # Number of the source's frame that was looked at last.
        # Frames that were sent and not shown; None for a client that does not say what it has shown.
        self._unshown: list[int] | None = None
        self._unwatch: Callable[[], None] | None = None
        self._told_failure = False
        self._dropped = 0
        self._busy = False  # Whether the server was.
        self._news = asyncio.Event()
        self._allowed_messages = live.limits.messages_per_s
        self._counted_at = time.monotonic()

    async def serve(self) -> None:
        """Serve until the client goes."""
        tasks = []
        try:
            await self._hello()
            tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._work())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        except (WebSocketDisconnect, RuntimeError) as error:  # Starlette's error of sending after the end.
            if isinstance(error, RuntimeError) and "websocket" not in str(error).lower():
                raise
        except _Close as error:
            await self._close(error.code, str(error))
        except Exception:
            _log.exception("live connection %s failed", self._socket.state.request_id)
            await self._close(_INTERNAL, "the server failed; its log has the request id")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._watch(None)

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.close(code, reason)

    async def _hello(self) -> None:
        limits = self._live.limits
        hello = {
            "type": "hello",
            "protocol": 1,
            "models": list(self._engine.models),
            "sources": list(self._live.sources),
            "words": messages.synonyms(self._view.vocabulary),
            "limits": {
                "message_bytes": limits.message_bytes,
                "pixels": limits.pixels,
                "words": limits.words,
                "messages_per_s": limits.messages_per_s,
            },
        }
        await self._socket.send_text(json.dumps(hello))

    # Messages of the client ------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._count_message()
            number = None
            try:
                if (data := message.get("bytes")) is not None:
                    self._take(messages.parse_frame(data))
                    continue
                wanted, number = messages.parse_text(message["text"])
                if isinstance(wanted, LiveSettings):
                    self._ask(wanted)
                elif isinstance(wanted, LiveShown):
                    self._unshown = [n for n in self._unshown or () if n > wanted.frame]
                    self._news.set()
                else:
                    raise wanted
            except ServeError as error:
                await self._socket.send_text(self._error(error, number=number))

    def _count_message(self) -> None:
        now, rate = time.monotonic(), self._live.limits.messages_per_s
        self._allowed_messages = min(self._allowed_messages + (now - self._counted_at) * rate, rate)
        self._counted_at = now
        if self._allowed_messages < 1:
            raise _Close(_POLICY_VIOLATION, f"more than {rate:g} messages a second")
        self._allowed_messages -= 1

    def _take(self, frame: ClientFrame) -> None:
        if self._waiting is not None:
            self._drop(1)
            self._before, self._after = self._before + self._after, []
        self._waiting = frame
        self._news.set()

    def _ask(self, wanted: LiveSettings) -> None:
        pending = self._before if self._waiting is None else self._after
        pending.append(wanted)
        if len(pending) > _PENDING:
            pending[:] = [merged(pending)]
        self._news.set()

    async def _settle(self, asked: list[LiveSettings]) -> list[str]:
        """Put settings into effect; return what the client is told. Raises ServeError 503."""
        if not asked:
            return []
        # Words that newer ones replaced before a frame came need not be embedded.
        view = await self._changed(merged(asked))
        if isinstance(view, Exception):
            if len(asked) > 1:  # One of them was a mistake: each on its own.
                return [answer for one in asked for answer in await self._settle([one])]
            return [self._error(view, number=asked[0].id)]
        before, self._view = self._view, view
        if (view.smooth, view.source) != (before.smooth, before.source) or self._smoother is None:
            self._smoother = view.smoother()
        if view.source != before.source:
            self._watch(view.source)
        return [messages.settings_message(asked[-1].id, view.vocabulary, view.warnings())]

    async def _changed(self, wanted: LiveSettings) -> View | Exception:
        try:
            view = await self._view.changed(self._engine, wanted)
        except Exception as error:
            if _is_busy(error):
                raise
            return error
        if view.source is not None and view.source not in self._live.sources:
            known = ", ".join(self._live.sources) or "none"
            return ServeError(404, f"there is no source {view.source[:100]!r}; this server has: {known}")
        return view

    def _watch(self, name: str | None) -> None:
        if self._unwatch is not None:
            self._unwatch()
        self._unwatch, self._shot, self._told_failure = None, 0, False
        self._unshown = None if self._unshown is None else []
        if name is not None:
            self._unwatch = self._live.sources[name].watch(self._news.set)

    def _error(self, error: Exception, *, number: int | None = None, frame: int | None = None) -> str:
        """The message about a client's mistake, or a busy server. The connection stays."""
        told = from_exception(error)
        self._engine.metrics.errors.labels(told.code).inc()
        if told.status == 500:
            _log.error("live connection %s", self._socket.state.request_id, exc_info=error)
        return messages.error_message(told.code, told.message, number=number, frame=frame)

    # Frames ----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            for answer in [self._failure(), *await self._turn()]:
                if isinstance(answer, bytes):
                    await self._socket.send_bytes(answer)
                elif answer is not None:
                    await self._socket.send_text(answer)
            if self._busy:
                self._busy = False
                await asyncio.sleep(_BUSY_S)
            if self._before or self._has_frame():
                self._news.set()

    async def _turn(self) -> list[str | bytes]:
        """Put settings into effect and segment the newest frame; return what to send, in this order."""
        answers: list[str | bytes] = []
        if not (self._before or self._has_frame()):
            return answers
        async with self._live.slots:
            # The newest of now: what comes while words are embedded is for the next turn.
            asked, frame = self._before, self._waiting
            self._waiting, self._before, self._after = None, self._after, []
            try:
                answers += await self._settle(asked)
            except ServeError as error:
                self._busy = True
                self._before = asked + self._before
                return [] if frame is None else [self._error(error, frame=frame.id)]
            newest = frame if self._source() is None else self._newest_shot()
            if newest is not None:
                answers.append(await self._answer(newest, self._view))
        return answers

    def _source(self) -> Source | None:
        name = self._view.source
        return None if name is None else self._live.sources[name]

    def _has_frame(self) -> bool:
        source = self._source()
        if source is None:
            return self._waiting is not None
        newest = source.newest
        shown = self._unshown is None or len(self._unshown) < _UNSHOWN
        return newest is not None and newest.number > self._shot and shown

    def _newest_shot(self) -> Shot | None:
        """Take the newest frame of the server's source, if there is a new one."""
        source = self._source()
        if source is None or source.newest is None or not self._has_frame():
            return None
        shot = source.newest
        if self._shot:
            self._drop(shot.number - self._shot - 1)
        self._shot = shot.number
        return shot

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._engine.metrics.dropped.labels(self._stream).inc(count)

    @property
    def _stream(self) -> str:
        """What metrics call the frames' origin."""
        source = self._source()
        return "live" if source is None else f"source {source.name}"

    def _failure(self) -> str | None:
        """What the client is told when the source of the server begins to fail."""
        source = self._source()
        failed, self._told_failure = self._told_failure, source is not None and source.failing
        if source is None or failed or not source.failing:
            return None
        message = f"the source {source.name} cannot be read; the server tries again every second"
        return messages.error_message("source", message)

    async def _answer(self, frame: ClientFrame | Shot, view: View) -> str | bytes:
        """Return the message with the result, or with what went wrong."""
        stream, started = self._stream, time.perf_counter()
        age_s = time.monotonic() - frame.time_s if isinstance(frame, Shot) else started - frame.came_at
        compute = functools.partial(_compute, view, frame, self._smoother, self._engine, stream)
        try:
            parts, header, spent_ms = await self._engine.run(compute)
        except Exception as error:
            self._smoother = self._view.smoother()  # A call that took too long may still use the old one.
            self._busy = _is_busy(error)
            return self._error(error, frame=_number(frame))
        if isinstance(frame, Shot) and self._unshown is not None:
            self._unshown.append(frame.number)
        spent_s = time.perf_counter() - started
        header["queue_ms"] = round(max(spent_s * 1e3 - spent_ms, 0), 3)
        header["dropped"] = self._dropped
        self._engine.metrics.frame_seconds.labels(view.model.name, stream).observe(age_s + spent_s)
        return messages.packed(header, parts)


def _is_busy(error: Exception) -> bool:
    return isinstance(error, ServeError) and error.status == 503


def _number(frame: ClientFrame | Shot) -> int:
    return frame.id if isinstance(frame, ClientFrame) else frame.number


def _compute(
    view: View, frame: ClientFrame | Shot, smoother: Smoother | None, engine: Engine, stream: str
) -> tuple[bytes, dict[str, Any], float]:
    """Segment a frame and encode the result; runs in a worker thread."""
    whole = Clock()
    image: bytes | npt.NDArray[np.uint8]
    if isinstance(frame, Shot):
        image, picture, time_ms = frame.image(), frame.jpeg(), round(frame.time_s * 1e3)
    else:
        encode.check_pixels([frame.image], engine.limits.pixels)
        image, picture, time_ms = frame.image, None, frame.time_ms
    result = view.segmenter.predict(image, smoother=smoother, time_s=time_ms / 1e3)
    encoding = Clock()
    facts = {"frame": _number(frame), "time_ms": time_ms, "settings": view.id}
    parts, header = messages.result_message(result, facts, confidence=view.confidence, picture=picture)
    encoding.lap("encode")
    engine.metrics.segmented(view.model.name, stream, {**result.speed, **encoding.laps})
    whole.lap("total")
    speed = {**result.speed, **encoding.laps, **whole.laps}
    header["speed_ms"] = {stage: round(time, 3) for stage, time in speed.items()}
    return parts, header, whole.laps["total"]
