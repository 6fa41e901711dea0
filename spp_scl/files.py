"""Outputs that are written aside and renamed, so that a half-written one is never taken for a whole one."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spp_scl.errors import UserError, first_line


@contextmanager
def replacing(path: Path | str, *, durable: bool = True, keep: bool = False) -> Iterator[Path]:
    """Yield a path to write; when the block succeeds it takes the place of `path`, else it is removed.

    It lies in the same folder, for a rename is atomic only within a file system. Works for a file and
    for a folder (which the block creates).

    Args:
        path: the file or folder.
        durable: whether a file must outlast a power cut too, which waits for the disk.
        keep: leave what an earlier block wrote, and what this one has written when it fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    _sweep(path.parent)
    if not keep:
        remove(aside)
    try:
        yield aside
        if aside.is_dir():
            # A folder cannot be renamed onto another one: the old one steps aside first.
            old = path.with_name(f".{path.name}.old.tmp")
            remove(old)
            if path.exists():
                path.rename(old)
            aside.rename(path)
            remove(old)
        else:
            if durable:
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
            aside.replace(path)
    finally:
        if not keep:
            remove(aside)


@contextmanager
def unfinished(path: Path | str) -> Iterator[tuple[Path, Path]]:
    """Like `replacing`, for a file that takes long: what a killed or failed run wrote is kept for the next.

    Yields the path to write, and the path where an earlier run's part is, if there is one. The block takes
    from the part what it can use, and then removes it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, part = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.part.tmp")
    _sweep(path.parent)
    if part.exists():
        remove(aside)  # its run ended while it was still taking over from the part
    elif aside.exists():
        aside.rename(part)
    yield aside, part
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)


def _sweep(folder: Path) -> None:
    """Remove what a killed DVC wrote aside, under random names, beside the outputs, and never comes back to.

    What was written within the last minute may be a running DVC's.
    """
    for file in folder.glob(".*.tmp"):
        with suppress(OSError):
            if re.fullmatch(r"\.[\w-]{22}\.tmp", file.name) and time.time() - file.lstat().st_mtime > 60:
                file.unlink()


def look_again(path: Path | str) -> None:
    """Make DVC compute a damaged file's hash anew, though its size and time say that it is as it was."""
    with suppress(OSError):
        os.utime(path)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as JSON that a person can read and Git can compare."""
    Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path | str, what: str) -> object:
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
            "are free; the earlier outputs are as they were. Free some space and run again."
        )
