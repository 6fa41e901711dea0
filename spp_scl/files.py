"""Outputs that are written aside and renamed, so that a half-written one is never taken for a whole one."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spp_scl.errors import UserError, first_line


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a path to write; when the block succeeds it takes the place of `path`, else it is removed.

    It lies in the same folder, for a rename is atomic only within a file system. Writing into the old file
    would write into DVC's cache, where that file is a link. Works for a file and for a folder (which the
    block creates).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    remove(aside)
    try:
        yield aside
        if aside.is_dir():
            remove(path)  # a folder cannot be renamed onto another one
            aside.rename(path)
        else:
            aside.replace(path)
    finally:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as JSON that a person can read and Git can compare."""
    Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path | str, what: str) -> Any:
    """Read a JSON file; `what` names it in the errors.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: {what} is missing") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: {what} is not valid JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: {what} is not UTF-8 text") from None
    except (ValueError, RecursionError, OSError) as error:  # a number or a nesting too long for Python
        raise UserError(f"{path}: {what} cannot be read: {first_line(error)}") from None


def require_space(path: Path | str, size: int) -> None:
    """Refuse to begin what cannot fit: `size` bytes must be free where `path` is to be written.

    Raises:
        UserError: there is less.
    """
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"no space left on the device: {path} needs {size / 2**30:.2f} GiB and {free / 2**30:.2f} GiB "
            "are free. Free some space and run again."
        )
