"""A server of the part of the hub's protocol that downloads use."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    repository: str = "someone/model"
    cut_at: int | None = None  # close the connection once, after so many bytes of a content
    stall_at: int | None = None  # say nothing more, after so many bytes of a content, until `go_on` is set
    go_on: Event = field(default_factory=Event)
    damage: bool = False  # send another byte in the middle
    status: int | None = None  # answer everything with that
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range

    def gets(self) -> list[str | None]:
        """The Range of every GET of a content."""
        return [part for method, path, part in self.asked if method == "GET" and "/content/" in path]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    port: int
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.hub
        hub.asked.append((self.command, self.path, self.headers.get("Range")))
        parts = self.path.strip("/").split("/")
        if hub.status:
            self.answer(hub.status, hub.headers)
        elif parts[0] == "content":
            self.content(hub.files["/".join(parts[1:])])
        elif "/".join(parts[:2]) != hub.repository:
            self.answer(404, {"X-Error-Code": "RepoNotFound"})
        elif parts[3] not in ("main", COMMIT):
            self.answer(404, {"X-Error-Code": "RevisionNotFound"})
        elif (file := "/".join(parts[4:])) not in hub.files:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self.resolve(file, hub.files[file])

    def resolve(self, file: str, body: bytes) -> None:
        """Large files are somewhere else, and the redirection tells their hash; small ones are here."""
        if len(body) < 1000:
            name = hashlib.sha1(b"blob %d\0%s" % (len(body), body)).hexdigest()
            sent = body.replace(b"git", b"got") if self.hub.damage else body
            self.answer(200, {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"', **self.hub.headers}, sent)
            return
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"',
            "X-Linked-Size": str(len(body)),
            # Another host name, as the hub's: the client must not ask it for the metadata.
            "Location": f"http://localhost:{self.port}/content/{file}",
        }
        self.answer(302, headers | self.hub.headers)

    def content(self, body: bytes) -> None:
        if self.hub.damage:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut_at is not None:
            self.wfile.write(body[start : self.hub.cut_at])
            self.hub.cut_at = None
            self.close_connection = True
        elif self.hub.stall_at is not None:
            self.wfile.write(body[start : self.hub.stall_at])
            self.hub.stall_at = None
            self.hub.go_on.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(body[start:])


@contextlib.contextmanager
def serve() -> Iterator[type[Handler]]:
    """Run the server; set `hub` of the class that is yielded to the files to serve."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        Handler.port = server.server_port
        yield Handler
        server.shutdown()
        thread.join()
