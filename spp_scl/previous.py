"""Outputs as DVC keeps them: the last one of a stage that runs again, and what to do with a damaged one."""

import shlex
from pathlib import Path

from spp_scl.errors import UserError

LOCK = Path("dvc.lock")


def previous_output(path: Path | str) -> Path | None:
    """Where DVC's cache keeps the output that dvc.lock names for `path`.

    Only for reading: other versions of the repository share the file. Its content is not checked.

    Args:
        path: of an output, as dvc.yaml has it, seen from the repository's root.

    Returns:
        None without DVC, without a dvc.lock that names the output, or when the cache lacks it.
    """
    md5 = _locked_md5(path)
    if md5 is None:
        return None
    try:
        # Here: not everybody who encodes has DVC, and it takes a second to import.
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError:
        return None
    try:
        with Repo() as repo:
            cached = Path(repo.cache.local.oid_to_path(md5))
    except DvcException:
        return None
    return cached if cached.is_file() else None


def _locked_md5(path: Path | str) -> str | None:
    if not LOCK.is_file():
        return None
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        stages = YAML(typ="safe").load(LOCK)["stages"].values()
        outputs = [output for stage in stages for output in stage.get("outs", ())]
        locked = {Path(output["path"]).absolute(): output.get("md5") for output in outputs}
    except (YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        return None  # not a lock file; DVC itself says so
    return locked.get(Path(path).absolute())


def damaged_output(why: str, *paths: Path | str) -> UserError:
    """The error for a damaged output, with the command that makes it anew.

    Where the file is a link, DVC's cache holds the same damage, and DVC trusts what it has cached: both go.

    Args:
        why: what is wrong.
        paths: the damaged output, and others that belong to it.
    """
    if _locked_md5(paths[0]) is None:  # not an output, or never finished
        return UserError(f"{paths[0]}: damaged ({why}); make it again")
    cached = [file for path in paths if (file := previous_output(path))]
    files = " ".join(shlex.quote(str(path)) for path in (*paths, *cached))
    return UserError(
        f"{paths[0]}: damaged ({why}). Remove it and make it again: `rm -f {files} && dvc repro`"
    )
