"""How a long run goes on: what its parts gave, appended to a file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import write_whole

__all__ = ["Journal"]


class Journal:
    """What the parts of one run gave, in a file that is appended to.

    Parameters
    ----------
    path : Path or None
        None: nothing is kept.
    identity : dict
        What is run. A file of another run is not gone on with: `ToolError`.
    """

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self._path = path
        self.done: dict[int | str, dict[str, Any]] = {}
        """Number or name of a part to what it gave."""
        if path is None:
            return
        try:
            text = path.read_text("utf-8", "replace") if path.exists() else ""
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}; name a file") from error
        first, *rest = text.split("\n")
        if text and not _says(first, identity):
            raise ToolError(f"{path} is of another run: remove it, or name another file")
        for line in rest:
            with contextlib.suppress(ValueError):  # the last one may be cut off
                part, told = json.loads(line)
                self.done[part] = told
        lines = [json.dumps(identity), *(json.dumps(one) for one in self.done.items())]
        write_whole(path, "\n".join([*lines, ""]))

    def add(self, part: int | str, told: dict[str, Any]) -> None:
        """Keep what a part gave."""
        self.done[part] = told
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps([part, told]) + "\n")


def _says(line: str, identity: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(line) == identity)
    except ValueError:
        return False
