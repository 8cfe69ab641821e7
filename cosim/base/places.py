"""Places that others' tools can use: a path without spaces for make, a home for those that keep caches in one.

GNU make, and so the makefiles of a Verilator model, cannot name a file whose path has a space. Where the virtual
environment lies below such a path, what is built goes through a link without spaces, and is kept in a folder without
spaces. YoWASP's tools, wasmtime and ccache keep caches in the user's home, and fail where there is none.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import CACHE_VARIABLE, cache_folder, home_cache

__all__ = ["has_spaces", "plain", "plain_python", "settle_homes", "spaceless_folder"]


def has_spaces(path: Path) -> bool:
    """True: make cannot name it."""
    return any(letter.isspace() for letter in str(path))


def spaceless_folder() -> Path:
    """A folder of this user's for what make has to name; it exists. Raises `ToolError` when it cannot be made."""
    for folder in (cache_folder(), home_cache()):
        if folder is not None and not has_spaces(folder):
            break
    else:
        folder = Path(tempfile.gettempdir()).resolve() / f"ptewalk-{os.getuid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ToolError(f"{folder}: {error.strerror}; set {CACHE_VARIABLE} to a folder that can be written") from error
    return folder


def plain(path: Path) -> Path:
    """`path`, which lies in this Python's virtual environment, by a name without spaces."""
    prefix = Path(sys.prefix).resolve()
    if not has_spaces(path) or not path.is_relative_to(prefix):
        return path
    link = spaceless_folder() / "links" / hashlib.sha256(str(prefix).encode()).hexdigest()[:16]
    if not link.is_symlink():
        link.parent.mkdir(exist_ok=True)
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.symlink_to(prefix)
        os.replace(fresh, link)
    return link / path.relative_to(prefix)


def plain_python() -> str:
    """This Python, by a name without spaces: what it imports from its environment has then none either."""
    return str(plain(Path(sys.prefix).resolve() / "bin" / Path(sys.executable).name))


def settle_homes() -> None:
    """Give tools that keep caches in the user's home a place in ours where the home cannot be written."""
    if home_cache() is not None:
        return
    folder = cache_folder() / "tools"
    os.environ["XDG_CACHE_HOME"] = str(folder)
    os.environ["YOWASP_CACHE_DIR"] = str(folder / "YoWASP")
    try:
        Path.home()
    except RuntimeError:  # a user who is in no list of users: wasmtime wants a home all the same
        os.environ["HOME"] = str(folder)
