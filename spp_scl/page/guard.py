"""What stands before Gradio: it serves much that this page does not need, and keeps more than it should."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spp_scl.errors import first_line

log = logging.getLogger(__name__)

# Whatever a page is made to say, the browser sends nothing to another host and loads nothing from one.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# What a browser with the page asks for. Among the rest are a proxy, recordings, and tools that write code.
_FILE = "/gradio_api/file="
_GET = (
    "/config",
    "/favicon.ico",
    "/gradio_api/info",
    "/gradio_api/queue/data",
    "/gradio_api/startup-events",
    "/gradio_api/upload_progress",
    "/manifest.json",
    "/theme.css",
)
_GET_UNDER = ("/assets/", "/gradio_api/heartbeat/", "/static/")
# Bytes of a request; an upload has several files.
_POST: Mapping[str, int] = {
    "/gradio_api/cancel": 2**20,
    "/gradio_api/queue/join": 2**20,
    "/gradio_api/run/predict": 2**20,
    "/gradio_api/upload": 200 * 2**20,
}


class Guard:
    """Lets through what the page needs, adds headers to each answer, and refuses the rest.

    Args:
        app: that is guarded.
        folder: outside which no file is served.
    """

    def __init__(self, app: ASGIApp, folder: Path):
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        status = 200 if scope["type"] == "lifespan" else self._judge(scope)
        answer = self.app if status == 200 else PlainTextResponse("refused", status)
        await answer(scope, receive, send_with_headers)

    def _judge(self, scope: Scope) -> int:
        """The status of the answer; 200: the application's own."""
        if scope["type"] != "http":
            return 404
        path, verb, headers = scope["path"], scope["method"], Headers(scope=scope)
        if verb == "POST" and path in _POST:
            # Another page that a user has open can send forms here, and its browser says from where.
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                return 403
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return 411
            return 200 if int(length) <= _POST[path] else 413
        if verb not in ("GET", "HEAD"):
            return 404
        if path.startswith(_FILE):
            return 200 if self._may_serve(path.removeprefix(_FILE)) else 403
        return 200 if path == "/" or path in _GET or path.startswith(_GET_UNDER) else 404

    def _may_serve(self, name: str) -> bool:
        try:
            return Path(name).is_absolute() and Path(name).resolve().is_relative_to(self.folder)
        except (OSError, RuntimeError, ValueError):  # a link to itself, a null byte
            return False


class NoTransport(httpx.AsyncBaseTransport):
    """Fetches nothing: Gradio would download what an address in a request names."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse.

        Raises:
            ConnectError: always.
        """
        raise httpx.ConnectError("this page fetches nothing from other hosts", request=request)


def remove_old(folder: Path, seconds: float) -> None:
    """Remove files that have not been written for so long, and folders that are empty since then.

    Gradio's own `delete_cache` forgets uploads that were broken off, and ends at the first thing that it
    cannot remove.
    """
    limit = time.time() - seconds
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before it
        try:
            if path.lstat().st_mtime > limit:
                continue
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            else:
                path.unlink()
        except FileNotFoundError:  # somebody else has removed it
            continue
        except OSError as error:
            log.warning("%s: cannot be removed: %s", path, first_line(error))
