# SPDX-License-Identifier: Apache-2.0
"""A web server of one folder for this machine alone."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: The only address it answers at.
HOST = "127.0.0.1"
#: Names of this machine by which a browser may ask: a page of another site that points its own name here is refused.
HOST_NAMES = {HOST, "localhost"}

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}

HEADERS = {
    "Cache-Control": "no-cache",  # another network may be served at the same address later
    "X-Content-Type-Options": "nosniff",
    # the two make the page isolated from other origins: browsers then allow WebAssembly its threads
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class PageServer(ThreadingHTTPServer):
    """Serves the files that a folder holds when the server starts; every other path is refused.

    Args:
        folder: its files are served, ``index.html`` at ``/``.
        port: 0 takes a free one.

    Attributes:
        files: path of a URL -> file.
        url: address of the page.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.files = {
            f"/{file.relative_to(folder).as_posix()}": file for file in sorted(folder.rglob("*")) if file.is_file()
        }
        self.files["/"] = self.files["/index.html"]
        super().__init__((HOST, port), _Handler)
        self.url = f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        if self.headers.get("Host", "").partition(":")[0] not in HOST_NAMES:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        file = self.server.files.get(unquote(urlsplit(self.path).path))
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = file.read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES[file.suffix])
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print no line for a request."""
