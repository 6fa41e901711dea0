"""The command `spp-scl serve`: a page on which people try a model."""

import argparse
import logging
import sys
from collections.abc import Sequence

from spp_scl.errors import UserError
from spp_scl.prediction.command import add_model_options, load_predictor

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


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
    try:
        from spp_scl.page.server import serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"the page needs {error.name}, which is not installed: pip install 'spp-scl[page]'"
        ) from None
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    predictor = load_predictor(options)
    local = options.host in _LOOPBACK
    if not local:
        log.warning(
            "%s: whoever reaches this machine can use the page: it has no password and no encryption",
            options.host,
        )
    serve(predictor, options.host, options.port, hosts=_LOOPBACK if local else ("*",))
