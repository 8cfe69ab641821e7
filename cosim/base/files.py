"""Files: written whole or not at all, JSON Lines plain or compressed, one place for what is kept, locks."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError

__all__ = [
    "CACHE_VARIABLE",
    "cache_folder",
    "check_writable",
    "home_cache",
    "is_lines_name",
    "keep_earlier",
    "lines_text",
    "locked",
    "made_folder",
    "user_cache_folder",
    "write_lines",
    "write_whole",
]

CACHE_VARIABLE: Final = "PTEWALK_CACHE"
"""Environment variable: the folder of built models, kernels and other things that can be made again."""


def check_writable(path: Path) -> None:
    """`ToolError` when `write_whole` could not write `path`: to be asked before the work, not after it."""
    folder = path.absolute().parent
    while not os.path.exists(folder):  # False too where it cannot be looked at
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = "cannot be written" if folder.is_dir() else "is not a folder"
        raise ToolError(f"{path}: {folder} {why}; name a file in a folder that can be written")


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all, its folder too where it is missing; `ToolError` when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ToolError(f"{path}: {error.strerror}; name a file in a folder that can be written") from error


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """`folder` is there inside; where that ends in an exception, those that were made for it go, if they are empty.

    Raises `ToolError` when it cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not os.path.exists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"{folder}: {error.strerror}; name a folder that can be written") from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for one in missing:
                one.rmdir()
        raise


def keep_earlier(path: Path) -> Path | None:
    """Give a file that `path` names already the first free name of path-1, path-2, ...; that name, or None.

    So what a command writes to a name of its own choice replaces nothing. `ToolError` when it cannot be renamed.
    """
    number = 1
    while True:
        kept = path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            path.stat()
            kept.touch(exist_ok=False)  # the name is this process's own from here on
        except FileExistsError:
            number += 1
            continue
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}; name a file in a folder that can be written") from error
        try:
            path.rename(kept)  # one process gets the file, whoever else keeps it at the same time
        except FileNotFoundError:
            kept.unlink()
            return None
        return kept


def is_lines_name(path: Path) -> bool:
    """True: the name ends in .jsonl or .jsonl.gz."""
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def lines_text(lines: Iterable[Any]) -> str:
    """Objects as JSON Lines."""
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write objects as .jsonl or .jsonl.gz, by the name: whole or not at all, the same bytes for the same objects.

    Raises
    ------
    ToolError
        The name has another ending, or the file cannot be written.
    """
    if not is_lines_name(path):
        raise ToolError(f"{path}: name a file that ends in .jsonl or .jsonl.gz")
    data = lines_text(lines).encode()
    write_whole(path, gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def _checkout() -> Path | None:
    """The folder of the sources, when this is a checkout that can be written."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() and os.access(folder, os.W_OK) else None


def home_cache() -> Path | None:
    """ptewalk in the user's cache folder, when that can be written."""
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(named) if named else Path.home() / ".cache").absolute()
    except RuntimeError:  # a user without a home
        return None
    existing = folder
    while not os.path.exists(existing):  # False too where it cannot be looked at
        existing = existing.parent
    return folder / "ptewalk" if os.access(existing, os.W_OK | os.X_OK) else None


def cache_folder() -> Path:
    """The folder of built models.

    PTEWALK_CACHE; build/sim of a checkout; ptewalk in the user's cache folder; where no home can be written either, in
    the temporary folder.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    checkout = _checkout()
    if checkout is not None:
        return checkout / "build" / "sim"
    return home_cache() or Path(tempfile.gettempdir()).resolve() / f"ptewalk-{os.getuid()}"


def user_cache_folder() -> Path:
    """The folder of downloads, which all checkouts share: PTEWALK_CACHE; ptewalk in the user's cache folder.

    A home that cannot be written is passed by: then it is `cache_folder`.
    """
    if os.environ.get(CACHE_VARIABLE):
        return cache_folder()
    return home_cache() or cache_folder()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is in here, per path."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
