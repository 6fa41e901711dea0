"""What DVC's cache holds of a stage's outputs is checked when the stage runs again, not trusted."""

import json
import os
from contextlib import suppress
from pathlib import Path

from dvc.config import Config
from ruamel.yaml import YAML

from spp_scl.files import look_again


def doubt_cache() -> None:
    """Make DVC verify the objects of its cache that this stage's outputs were linked to.

    A file that was damaged in place was damaged in the cache as well, where it is a link. DVC takes whatever
    is read-only there for whole, puts it back over the file that the stage has written anew, and records it
    as that file. An object that may be written it hashes first, and removes if it is damaged.
    """
    lock = Path("dvc.lock")
    if not lock.is_file():
        return
    cache = Path(Config(Path(".dvc").resolve())["cache"].get("dir", ".dvc/cache")) / "files/md5"
    known = YAML(typ="safe").load(lock).get("stages", {}).get(os.environ["DVC_STAGE"].split(":")[-1], {})
    hashes = [out["md5"] for out in known.get("outs", [])]
    for name in hashes:
        path = cache / name[:2] / name[2:]
        # Missing, or another user's in a shared cache, or a list of files that is itself damaged.
        with suppress(OSError, ValueError):
            path.chmod(path.stat().st_mode | 0o200)
            look_again(path)
            if name.endswith(".dir"):
                hashes += [entry["md5"] for entry in json.loads(path.read_bytes())]
