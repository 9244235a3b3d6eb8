"""The application: routes, files of the page and of the documentation, and error answers."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from pixelclip_sdk._version import __version__
from pixelclip_sdk.backends.memory import return_unused
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.serve import api
from pixelclip_sdk.serve.config import ServeConfig
from pixelclip_sdk.serve.engine import Engine
from pixelclip_sdk.serve.errors import STATUS_CODES, ServeError, from_exception
from pixelclip_sdk.serve.gate import Application, Gate, error_response
from pixelclip_sdk.serve.kserve import route as kserve
from pixelclip_sdk.serve.label_studio import route as label_studio
from pixelclip_sdk.serve.live import route as live
from pixelclip_sdk.serve.metrics import CONTENT_TYPE_LATEST, Metrics

__all__ = ["make_application"]

_TIDY_S = 60.0
_STATIC = Path(__file__).parent / "static"
# The page loads nothing from elsewhere, and runs no script that is written into it.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def make_application(engine: Engine, config: ServeConfig, metrics: Metrics) -> Application:
    """Return the ASGI application of a server; it closes the engine when it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        await engine.warm_up()
        tidying = asyncio.create_task(_keep_tidy())
        yield
        tidying.cancel()
        await engine.drain()
        engine.close()

    app = FastAPI(
        title="PixelCLIP",
        version=__version__,
        description="Open-vocabulary semantic segmentation: words and images in, label maps out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(api.make_router(engine))
    app.include_router(live.make_router(engine, config))
    app.include_router(kserve.make_router(engine))
    app.include_router(label_studio.make_router(engine, config.label_studio))
    _add_pages(app)
    _add_operations(app, engine, metrics)
    _add_errors(app, metrics)
    return Gate(app, config, metrics)


async def _keep_tidy() -> None:
    """Return freed memory every minute, for some milliseconds.

    Otherwise it grows by a megabyte or two an hour, because small new objects come to lie between large free
    ones, and has reserves that an idle server does not need (docs/adr/0024).
    """
    while True:
        await asyncio.sleep(_TIDY_S)
        return_unused()


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_STATIC / "index.html", headers={"Content-Security-Policy": _POLICY})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="PixelCLIP API",
            swagger_js_url="docs-files/swagger-ui-bundle.js",
            swagger_css_url="docs-files/swagger-ui.css",
            swagger_favicon_url="docs-files/favicon.png",
        )

    app.mount("/static", StaticFiles(directory=_STATIC))
    app.mount("/docs-files", StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"))


def _add_operations(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Whether this server answers requests")
    async def healthz() -> JSONResponse:
        if not engine.ready:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok", "waiting": engine.waiting, "running": engine.running})

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def numbers() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    def answer(request: Request, error: ServeError) -> JSONResponse:
        metrics.errors.labels(error.code).inc()
        return error_response(error, request.state.request_id, request.url.path)

    @app.exception_handler(ServeError)
    @app.exception_handler(PixelClipError)
    async def refused(request: Request, exception: Exception) -> JSONResponse:
        error = from_exception(exception)
        if error.status == 500:
            raise exception
        return answer(request, error)

    @app.exception_handler(Exception)
    async def failed(request: Request, exception: Exception) -> JSONResponse:
        return answer(request, from_exception(exception))  # Starlette raises it again, and the gate logs it.

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # Nobody reads it; the log has it.

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, exception: HTTPException) -> JSONResponse:
        status = exception.status_code if exception.status_code in STATUS_CODES else 400
        message = {404: "there is nothing at this address; see /docs", 405: "another method is expected"}
        response = answer(request, ServeError(status, message.get(status, str(exception.detail))))
        response.headers.update(exception.headers or {})  # Allow, with 405.
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exception: RequestValidationError) -> JSONResponse:
        first = exception.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return answer(request, ServeError(422, f"{field}: {first['msg']}"[:500]))
