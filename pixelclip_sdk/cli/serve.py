"""`pixelclip serve`: the live page and the APIs."""

import argparse
import contextlib
import os
import re
from pathlib import Path

from pixelclip_sdk.cli import common
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.packages import imported

_TOKEN = "PIXELCLIP_TOKEN"
_STUDIO_KEY = "LABEL_STUDIO_API_KEY"
_EXTRA = '"pixelclip-sdk[serve]"'


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser(
        "serve",
        help="a live page in the browser, with an HTTP and a WebSocket API",
        description="Serve a live page and APIs. With an address that other machines reach, clients need a "
        f"token: set the variable {_TOKEN}, or --token-file.",
    )
    parser.add_argument(
        "--classes", help=f"words to start with, and of requests without words: {common.CLASSES_HELP}"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port; 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="NAME=IN",
        help="a camera (0, /dev/video0), video or address of the server that the page offers; repeatable",
    )
    parser.add_argument(
        "--token-file", type=path, metavar="FILE", help=f"file with the token (default: {_TOKEN})"
    )
    parser.add_argument(
        "--label-studio",
        metavar="URL",
        help=f"address of the Label Studio whose pictures are fetched; its token is in {_STUDIO_KEY}",
    )
    parser.add_argument("--insecure", action="store_true", help="serve other machines without a token")
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="a name (see `pixelclip models`) or a bundle's folder; repeatable, the first is the default "
        "(default: pixelclip-lite)",
    )
    common.add_engine_options(parser)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    imported("fastapi", _EXTRA)
    from pixelclip_sdk.serve.config import LabelStudio, ServeConfig
    from pixelclip_sdk.serve.gate import is_loopback
    from pixelclip_sdk.serve.server import serve

    token = _token(options.token_file)
    if not is_loopback(options.host) and token is None and not options.insecure:
        raise PixelClipError(
            f"{options.host} can be reached from other machines: set a token in the variable {_TOKEN} or in "
            "a file (--token-file), or allow everyone with --insecure"
        )
    config = ServeConfig(
        sources=_sources(options.source),
        host=options.host,
        port=options.port,
        token=token,
        label_studio=None if options.label_studio is None else LabelStudio(*_studio(options.label_studio)),
    )
    with contextlib.ExitStack() as stack:
        models = options.model or ["pixelclip-lite"]
        segmenters = {}
        for options.model in models:
            segmenter = stack.enter_context(common.load_segmenter(options))
            segmenters[segmenter.bundle.name if segmenter.bundle else options.model] = segmenter
        if len(segmenters) < len(models):
            raise PixelClipError(f"two models have the same name: {', '.join(models)}")
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the stop signal again when it is done.
            serve(segmenters, config, announce=_announce)
    return 0


def _announce(address: str) -> None:
    elsewhere = ""
    for every in ("0.0.0.0", "[::]"):  # All addresses of this machine; browsers open none of that name.
        if f"//{every}:" in address:
            address = address.replace(every, "localhost")
            elsewhere = ", or with this machine's address from another one"
    print(
        f"open {address} in a browser{elsewhere}; {address}/docs describes the API. Ctrl-C stops.", flush=True
    )


def _token(file: Path | None) -> str | None:
    token = os.environ.get(_TOKEN)
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise PixelClipError(
                f"the token cannot be read from {file}: {error}. "
                f"--token-file takes a file; the token itself can be in the variable {_TOKEN}"
            ) from error
    token = None if token is None else token.strip()
    if token is not None and not re.fullmatch(r"[\x21-\x7e]{16,}", token):
        raise PixelClipError("the token cannot be used; expected at least 16 ASCII characters without spaces")
    return token


def _studio(url: str) -> tuple[str, str]:
    """The address of Label Studio without a slash at the end, and its token."""
    if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
        raise PixelClipError(f"--label-studio is {url!r}; expected an address such as http://localhost:8080")
    return url.rstrip("/"), os.environ.get(_STUDIO_KEY, "").strip()


def _sources(texts: list[str]) -> dict[str, str]:
    sources: dict[str, str] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        if not (equals and name.strip() and address.strip()):
            raise PixelClipError(f"--source is {text!r}; expected NAME=IN, such as door=rtsp://camera/1")
        if name.strip() in sources:
            raise PixelClipError(f"--source names {name.strip()!r} twice")
        sources[name.strip()] = address.strip()
    return sources
