"""The command `spp-scl serve`: a page on which people try a model."""

import argparse
import importlib.util
import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spp_scl.errors import UserError
from spp_scl.prediction.command import add_model_options, load_predictor

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        arguments: those of the command line.

    Raises:
        UserError: there is no model, the port is taken, or gradio is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="spp-scl serve",
        description="A page on which people try a model: type a post, add a picture, see the classes and "
        "what each word and region adds; or score a file. It needs gradio: pip install 'spp-scl[page]'.",
        epilog="example: spp-scl serve --model exported --port 8000",
    )
    add_model_options(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on (default: 127.0.0.1, which this machine alone reaches)",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.set_defaults(precision=None)  # as in training
    options = parser.parse_args(arguments)
    if not 0 < options.port < 2**16:
        parser.error("--port: from 1 to 65535")
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio, which is not installed: pip install 'spp-scl[page]'")
    local, names = _describe_host(options.host)
    _require_free(options.host, options.port)  # before seconds of loading
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not local:
        log.warning(
            "%s: whoever reaches this machine can use the page: it has no password and no encryption",
            options.host,
        )
    predictor = load_predictor(options)
    with temporary_folder() as folder:
        from spp_scl.page.server import serve

        serve(predictor, options.host, options.port, names, folder)


def _describe_host(host: str) -> tuple[bool, list[str]]:
    """Whether this machine alone reaches the address, and the names of the page there; `*`: any."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return False, ["*"]
    own = ["localhost", "127.0.0.1", "[::1]", f"[{host}]" if address.version == 6 else host]
    return address.is_loopback, ["*"] if address.is_unspecified else own


def _require_free(host: str, port: int) -> None:
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise UserError(
            f"{host}, port {port}: cannot be listened on: {error.strerror or error}; "
            "another address or port: --host, --port"
        ) from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for what is uploaded, and for every temporary file of this process.

    It is removed with all that is in it when the process ends, also when it is asked to (SIGTERM) or its
    terminal is closed (SIGHUP). To be entered before gradio is imported.
    """

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with tempfile.TemporaryDirectory(prefix="spp-scl-") as name:
            folder = Path(name)
            for part in ("tmp", "uploads"):
                (folder / part).mkdir()
            tempfile.tempdir = str(folder / "tmp")
            os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
            # Else gradio tells its makers of each start.
            os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
            yield folder
    finally:
        tempfile.tempdir = None
        for number, handler in before.items():
            signal.signal(number, handler)
