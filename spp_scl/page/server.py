"""Serve the page: on one address, asking no other host for anything, and keeping nothing."""

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Before gradio is imported, which would tell its makers of each start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from gradio import close_all
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spp_scl.errors import UserError, first_line
from spp_scl.page.app import make_app
from spp_scl.page.uploads import LARGEST_FILE
from spp_scl.prediction.predictor import Predictor

# Whatever a page is made to say, the browser sends nothing to another host and loads nothing from one.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Users who may wait at a time; the next is told that the queue is full.
_WAITING = 100


class _Headers:
    """Adds the headers above to each answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def serve(predictor: Predictor, host: str, port: int, hosts: Sequence[str]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        predictor: the model.
        host: the address to listen on.
        port: likewise.
        hosts: names under which browsers may ask for the page; another one is a page of somebody else's that
            has made its own name point here (DNS rebinding). `*`: any.

    Raises:
        UserError: the address or the port cannot be had.
    """
    with _folder() as folder:
        app = make_app(predictor, folder)
        try:
            app.queue(max_size=_WAITING, api_open=False).launch(
                server_name=host,
                server_port=port,
                quiet=True,
                prevent_thread_lock=True,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                run_history=False,
                enable_monitoring=False,
                footer_links=[],
                max_file_size=LARGEST_FILE,
                app_kwargs={
                    "middleware": [
                        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
                        Middleware(_Headers),
                    ]
                },
                css=(Path(__file__).parent / "page.css").read_text(encoding="utf-8"),
            )
            print(f"http://{host}:{port} (Ctrl-C ends it)", flush=True)
            app.block_thread()
        except OSError as error:
            raise UserError(f"{host}, port {port}: cannot be listened on: {first_line(error)}") from None
        finally:
            close_all()


@contextmanager
def _folder() -> Iterator[Path]:
    """For what is uploaded; removed with all that is in it, however the process is asked to end."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        with tempfile.TemporaryDirectory(prefix="spp-scl-") as name:
            os.environ["GRADIO_TEMP_DIR"] = f"{name}/uploads"
            yield Path(name)
    finally:
        signal.signal(signal.SIGTERM, before)
