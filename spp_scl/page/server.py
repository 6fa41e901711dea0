"""Serve the page on one address."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from gradio import close_all, processing_utils
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from spp_scl.errors import UserError, first_line
from spp_scl.page.app import make_app
from spp_scl.page.guard import Guard, NoTransport, remove_old
from spp_scl.page.uploads import LARGEST_FILE
from spp_scl.prediction.predictor import Predictor

# Users who may wait at a time; the next is told that the queue is full.
_WAITING = 100
# Sessions whose last inputs and answers Gradio keeps in memory.
_SESSIONS = 100
# Seconds: how often what is older is removed, and how old it may be.
_SWEEP, _KEPT = 60, 600

# Answers are read aloud when they change.
_JS = "() => document.querySelector('#said').setAttribute('aria-live', 'polite')"


def serve(predictor: Predictor, host: str, port: int, hosts: Sequence[str], folder: Path) -> None:
    """Serve the page until Ctrl-C.

    Args:
        predictor: the model.
        host: the address to listen on.
        port: likewise.
        hosts: names under which browsers may ask for the page; another one is a page of somebody else's that
            has made its own name point here (DNS rebinding). `*`: any.
        folder: for uploads and temporary files, see `command.temporary_folder`.

    Raises:
        UserError: the address or the port cannot be had.
    """
    processing_utils.async_transport = NoTransport()  # type: ignore[assignment]
    # Gradio asks its own address whether it answers, and must not ask a proxy.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), host, "localhost"]))
    written = f"[{host}]" if ":" in host else host
    done = threading.Event()
    threading.Thread(target=_sweep, args=(folder, done), daemon=True).start()
    try:
        make_app(predictor, folder).queue(max_size=_WAITING, api_open=False).launch(
            server_name=written,
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
            state_session_capacity=_SESSIONS,
            app_kwargs={
                "middleware": [
                    Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
                    Middleware(Guard, folder=folder),
                ]
            },
            css=(Path(__file__).parent / "page.css").read_text(encoding="utf-8"),
            js=_JS,
        )
        print(f"http://{written}:{port} (Ctrl-C ends it)", flush=True)
        done.wait()
    except OSError as error:
        raise UserError(f"{host}, port {port}: cannot be listened on: {first_line(error)}") from None
    finally:
        done.set()
        close_all()


def _sweep(folder: Path, done: threading.Event) -> None:
    while not done.wait(_SWEEP):
        for name in ("tmp", "uploads"):
            remove_old(folder / name, _KEPT)
