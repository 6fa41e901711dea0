"""DVC's experiments as Git has them: each is a commit under refs/exps."""

import subprocess
from collections.abc import Mapping

from ruamel.yaml import YAML

from spp_scl.errors import UserError


def git(*arguments: str) -> str:
    """What a git command prints.

    Raises:
        UserError: it fails.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def experiment_ref(commit: str, name: str) -> str:
    """Where DVC keeps the experiment of that name that began from a commit."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"


def list_experiments() -> dict[str, str]:
    """The commit of each experiment, by its name."""
    found = {}
    for line in git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines():
        ref, revision = line.split()
        parts = ref.split("/")
        if len(parts) == 5 and len(parts[2]) == 2:  # see `experiment_ref`; DVC has others of its own there
            found[parts[4]] = revision
    return found


def read_params(revision: str) -> dict[str, object]:
    """All parameters of a commit, by their full names."""
    return flatten(YAML(typ="safe").load(git("show", f"{revision}:params.yaml")))


def flatten(values: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested parameters by their full names."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
