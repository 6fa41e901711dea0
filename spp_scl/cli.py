"""The command `spp-scl`: what is not a stage of the pipeline."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spp_scl.errors import UserError

_ATTENTION = "draw where in the picture a word of a tweet looks (clmlf)"
_COMPARE = "experiments side by side, as a page"
_EXPORT = "copy the trained model, with a model card, for another machine"
_METHODS = "what each method is, reads and takes, and the figures published for it"
_PREDICT = "what a trained model says of a post, or of a file of posts"
_RELEASED = "turn the authors' checkpoint into a model and two encoders of this project"
_SERVE = "a page on which people try a trained model"
_STUDIES = "run tables of experiments, and collect their results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the return value is its exit status.

    Args:
        arguments: those of the command line, without the command's own name.
    """
    parser = argparse.ArgumentParser(
        prog="spp-scl",
        description="Image-text sentiment with SPP-SCL. The pipeline itself: `dvc repro`, `dvc exp run`.",
        epilog="`spp-scl COMMAND --help` describes a command.",
    )
    # A command reads its own arguments: importing it takes seconds, and --help should not.
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("attention", help=_ATTENTION, add_help=False)
    commands.add_parser("compare", help=_COMPARE, add_help=False)
    commands.add_parser("export", help=_EXPORT, add_help=False)
    commands.add_parser("methods", help=_METHODS, add_help=False)
    commands.add_parser("predict", help=_PREDICT, add_help=False)
    commands.add_parser("released", help=_RELEASED, add_help=False)
    commands.add_parser("serve", help=_SERVE, add_help=False)
    commands.add_parser("studies", help=_STUDIES, add_help=False)
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = parser.parse_args(given[:1]).command
    try:
        _COMMANDS[command](given[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `spp-scl methods | head`: what is left is wanted by nobody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _attention(arguments: Sequence[str]) -> None:
    from spp_scl.attention import main

    main(arguments)


def _compare(arguments: Sequence[str]) -> None:
    _enter_pipeline()
    from studies.compare import main

    main(arguments)


def _export(arguments: Sequence[str]) -> None:
    from spp_scl.prediction.export import main

    main(arguments)


def _methods(arguments: Sequence[str]) -> None:
    from spp_scl.listing import main

    main(arguments)


def _predict(arguments: Sequence[str]) -> None:
    from spp_scl.prediction.command import main

    main(arguments)


def _released(arguments: Sequence[str]) -> None:
    from spp_scl.released.command import main

    main(arguments)


def _serve(arguments: Sequence[str]) -> None:
    from spp_scl.page.command import main

    main(arguments)


def _studies(arguments: Sequence[str]) -> None:
    _enter_pipeline()
    from studies.command import main

    main(arguments)


def _enter_pipeline() -> None:
    """Make `studies` importable."""
    # The studies are not part of the package: they are the pipeline's, whose folder can be anywhere.
    missing = [name for name in ("dvc.yaml", "studies/command.py") if not Path(name).is_file()]
    if missing:
        raise UserError(f"{Path.cwd()}: no {' and no '.join(missing)}; go to the pipeline's folder")
    sys.path.insert(0, str(Path.cwd()))


_COMMANDS = {
    "attention": _attention,
    "compare": _compare,
    "export": _export,
    "methods": _methods,
    "predict": _predict,
    "released": _released,
    "serve": _serve,
    "studies": _studies,
}
