"""Images of a run on disk: folders that are written whole or not at all, and checked when they are read.

FOLDER/000001 is a full image, each later one holds what was reported since the one before. An image is state.json, the
pages that it brings (pages.bin, 4096 bytes each), and the files that the program wrote (file-0, file-1, ...). All of it
is data: JSON, numbers and bytes. They are readable by their owner alone, for they hold what the program knows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.model.x86 import PAGE_BYTES

__all__ = ["VERSION", "Image", "Pages", "numbers", "read_image", "write_image"]

VERSION: Final = 2
_FORMAT: Final = "ptewalk image"
_NAME: Final = re.compile(r"[0-9]{6}")
_LONGEST_JSON: Final = 1 << 28


def digest(data: bytes) -> str:
    """BLAKE2b-256, as hexadecimal text."""
    return blake2b(data, digest_size=32).hexdigest()


class Image:
    """One image in memory.

    Attributes
    ----------
    state : dict
        What state.json says.
    pages : bytes
    blobs : list of bytes
    """

    def __init__(self, state: dict[str, Any], pages: bytes, blobs: list[bytes]) -> None:
        self.state, self.pages, self.blobs = state, pages, blobs


def write_image(folder: Path, number: int, image: Image) -> int:
    """Write an image under its number; the bytes of it. Raises `ToolError`."""
    body = {
        "format": _FORMAT,
        "version": VERSION,
        "number": number,
        "pages": {"count": len(image.pages) // PAGE_BYTES, "digest": digest(image.pages)},
        "blobs": [{"bytes": len(blob), "digest": digest(blob)} for blob in image.blobs],
        "state": image.state,
    }
    text = json.dumps(body, separators=(",", ":"), sort_keys=True)
    whole = json.dumps({"digest": digest(text.encode()), "image": body}, separators=(",", ":"), sort_keys=True)
    parts = {"state.json": whole.encode(), "pages.bin": image.pages}
    parts |= {f"file-{place}": blob for place, blob in enumerate(image.blobs)}
    target, fresh = folder / f"{number:06}", folder / f".{number:06}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name, data in parts.items():
            with os.fdopen(os.open(fresh / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as handle:
                handle.write(data)
        os.rename(fresh, target)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise ToolError(f"{target}: {error.strerror}; name an empty folder with room for --checkpoint") from error
    return sum(map(len, parts.values()))


def numbers(folder: Path) -> list[int]:
    """The numbers of the whole images in a folder. Raises `ToolError` when there is none."""
    try:
        found = sorted(int(path.name) for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
    except OSError as error:
        raise ToolError(f"{folder}: {error.strerror}; name the folder of --checkpoint") from error
    if not found:
        raise ToolError(f"{folder}: no image in it; name the folder of --checkpoint")
    return found


def read_image(folder: Path, number: int) -> Image:
    """An image, checked. Raises `ToolError` when it is missing, cut off, falsified or of another version."""
    path = folder / f"{number:06}"
    try:
        raw = (path / "state.json").read_bytes()
        if len(raw) > _LONGEST_JSON:
            raise ValueError("state.json is too long")
        whole = json.loads(raw)
        body = whole["image"]
        if body["format"] != _FORMAT:
            raise ValueError("it is not an image of ptewalk")
        if body["version"] != VERSION:
            raise ToolError(f"{path}: version {body['version']!r} of images; this ptewalk reads version {VERSION}")
        text = json.dumps(body, separators=(",", ":"), sort_keys=True)
        if digest(text.encode()) != whole["digest"] or body["number"] != number:
            raise ValueError("state.json was changed")
        pages = (path / "pages.bin").read_bytes()
        if len(pages) != body["pages"]["count"] * PAGE_BYTES or digest(pages) != body["pages"]["digest"]:
            raise ValueError("pages.bin is cut off or was changed")
        blobs = []
        for place, said in enumerate(body["blobs"]):
            blob = (path / f"file-{place}").read_bytes()
            if len(blob) != said["bytes"] or digest(blob) != said["digest"]:
                raise ValueError(f"file-{place} is cut off or was changed")
            blobs.append(blob)
        state = body["state"]
        if not isinstance(state, dict):
            raise ValueError("its state is no object")
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; restore another one with --epoch") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ToolError(f"{path}: {_plain(error)}; restore another one with --epoch") from None
    return Image(state, pages, blobs)


def _plain(error: Exception) -> str:
    return f"state.json has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]


class Pages:
    """Where the pages and files of an image and of those before it lie: [number of the image, place in it].

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: dict[int, Image] = {}

    def image(self, number: int) -> Image:
        """An image, read once."""
        if number not in self._images:
            self._images[number] = read_image(self._folder, number)
        return self._images[number]

    def page(self, place: list[int]) -> bytes:
        """4096 bytes. Raises ValueError when there are none."""
        number, index = place
        data = self.image(number).pages[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]
        if index < 0 or len(data) != PAGE_BYTES:
            raise ValueError(f"image {number} has no page {index}")
        return data

    def blob(self, place: list[int]) -> bytes:
        """A file's bytes. Raises ValueError."""
        number, index = place
        blobs = self.image(number).blobs
        if not 0 <= index < len(blobs):
            raise ValueError(f"image {number} has no file {index}")
        return blobs[index]
