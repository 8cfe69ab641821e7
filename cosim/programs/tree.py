"""The files that a program sees: a folder of the host that is only read, and above it a scratch folder for what it
writes.

Paths are resolved here, component by component, links included, and never leave the two folders: an absolute link
leads to the root of the program, and so does ``..`` above it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.nodes import Nodes

__all__ = ["KERNELS", "Tree"]

_MOST_LINKS: Final = 40
_LONGEST: Final = 4095
_LONGEST_NAME: Final = 255
KERNELS: Final = (b"/proc", b"/sys", b"/dev")
"""Folders that are never the host's."""


class Tree:
    """The program's tree of files.

    Parameters
    ----------
    root : Path
        What is read.
    scratch : Path
        What is written, an empty folder at the start.
    limit : int
        Bytes that the files in it may have in all.

    Attributes
    ----------
    gone : set of bytes
        Paths of the root that the program removed.
    written : int
        Bytes that the scratch folder was given so far.
    nodes : Nodes
        Numbers and times of what lies in the scratch folder.
    seen : set of bytes
        Paths of the root that the program looked at, and were there.
    listed : set of bytes
        Folders of which it read the names.
    """

    def __init__(self, root: Path, scratch: Path, limit: int) -> None:
        self.root, self.scratch = os.fsencode(root.resolve()), os.fsencode(scratch.resolve())
        self.limit = limit
        self.gone: set[bytes] = set()
        self.written = 0
        self.seen: set[bytes] = set()
        self.listed: set[bytes] = set()
        self.nodes = Nodes()
        self.nodes.made(self.scratch)

    def resolve(self, folder: bytes, path: bytes, *, follow: bool = True) -> bytes:
        """The absolute path without links that `path`, seen from `folder`, stands for; its last part need not exist.

        Raises
        ------
        CallFails
            ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG.
        """
        if not path:
            raise CallFails("ENOENT")
        if len(path) > _LONGEST:
            raise CallFails("ENAMETOOLONG")
        left = path.split(b"/")[::-1]
        at = [] if path.startswith(b"/") else [part for part in folder.split(b"/") if part]
        links = 0
        while left:
            part = left.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del at[-1:]
                continue
            if len(part) > _LONGEST_NAME:
                raise CallFails("ENAMETOOLONG")
            at.append(part)
            here = b"/" + b"/".join(at)
            if here.startswith(KERNELS) and at[0] in (b"proc", b"sys", b"dev"):
                continue
            last = not any(left)
            found = self.lstat(here)
            if found is None:
                if last:
                    continue
                raise CallFails("ENOENT")
            if stat.S_ISLNK(found.st_mode) and (follow or not last or left):
                links += 1
                if links > _MOST_LINKS:
                    raise CallFails("ELOOP")
                target = self.readlink(here)
                at.pop()
                if target.startswith(b"/"):
                    at.clear()
                left += target.split(b"/")[::-1]
            elif left and not stat.S_ISDIR(found.st_mode):
                raise CallFails("ENOTDIR")
        return b"/" + b"/".join(at)

    def host(self, path: bytes) -> bytes | None:
        """Where a resolved path lies on the host; None: there is nothing."""
        above = self.scratch + path
        if os.path.lexists(above):
            return above
        if self._is_gone(path):
            return None
        below = self.root.rstrip(b"/") + path
        if not os.path.lexists(below):
            return None
        self.seen.add(path)
        return below

    def _is_gone(self, path: bytes) -> bool:
        if not self.gone:
            return False
        parts = path.split(b"/")
        return any(b"/".join(parts[: count + 1]) in self.gone for count in range(1, len(parts)))

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Of a resolved path; None: there is nothing."""
        host = self.host(path)
        try:
            return None if host is None else os.lstat(host)
        except OSError:
            return None

    def identity(self, path: bytes, found: os.stat_result) -> tuple[int, int]:
        """Device and inode number that stat tells of a resolved path."""
        return self.nodes.identity(found, written=os.path.lexists(self.scratch + path))

    def readlink(self, path: bytes) -> bytes:
        """What a link says. Raises `CallFails` EINVAL, ENOENT."""
        host = self.host(path)
        if host is None:
            raise CallFails("ENOENT")
        try:
            return os.readlink(host)
        except OSError as error:
            raise CallFails.of(error) from error

    def names(self, path: bytes) -> list[bytes]:
        """What a folder holds, in order of the names."""
        found: set[bytes] = set()
        self.listed.add(path)
        below = self.root.rstrip(b"/") + path
        if not self._is_gone(path) and os.path.isdir(below) and not os.path.islink(below):
            prefix = path.rstrip(b"/") + b"/"
            found |= {name for name in os.listdir(below) if prefix + name not in self.gone}
        above = self.scratch + path
        if os.path.isdir(above):
            found |= set(os.listdir(above))
        return sorted(found)

    # Writing.

    def _prepare(self, path: bytes) -> bytes:
        """The place of a path in the scratch folder, with the folders above it."""
        parent = path.rsplit(b"/", 1)[0] or b"/"
        found = self.lstat(parent)
        if found is None or path.startswith(KERNELS):
            raise CallFails("EACCES" if path.startswith(KERNELS) else "ENOENT")
        if not stat.S_ISDIR(found.st_mode):
            raise CallFails("ENOTDIR")
        self._make_folders(parent)
        return self.scratch + path

    def _make_folders(self, path: bytes) -> None:
        if not os.path.isdir(self.scratch + path):
            self._make_folders(path.rsplit(b"/", 1)[0])
            os.mkdir(self.scratch + path, mode=0o700)
            self._made(path)

    def _made(self, path: bytes) -> None:
        self.nodes.made(self.scratch + path)
        self._changed_folder(path)

    def _changed_folder(self, path: bytes) -> None:
        self.nodes.touch(self.scratch + path.rsplit(b"/", 1)[0])

    def spend(self, count: int) -> None:
        """`count` more bytes are to be written. Raises `CallFails` ENOSPC beyond the limit."""
        if self.written + count > self.limit:
            raise CallFails("ENOSPC")
        self.written += count

    def open(self, path: bytes, flags: int, mode: int) -> int:
        """A host descriptor of a resolved path, which is copied to the scratch folder before it is written."""
        host = self.host(path)
        writes = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC
        if host is None and not flags & os.O_CREAT:
            raise CallFails("ENOENT")
        if host is not None and flags & os.O_CREAT and flags & os.O_EXCL:
            raise CallFails("EEXIST")
        if host is None or (writes and host != self.scratch + path):
            if host is not None and not stat.S_ISREG(os.lstat(host).st_mode):
                raise CallFails("EISDIR" if stat.S_ISDIR(os.lstat(host).st_mode) else "ENXIO")
            host = self._copy_up(path, host, truncates=bool(flags & os.O_TRUNC), mode=mode)
        access = os.O_RDWR if writes else os.O_RDONLY
        try:
            handle = os.open(host, access | flags & os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise CallFails.of(error) from error
        if flags & os.O_TRUNC:
            self.nodes.touch(handle)
        return handle

    def _copy_up(self, path: bytes, source: bytes | None, *, truncates: bool, mode: int) -> bytes:
        target = self._prepare(path)
        data = b""
        if source is not None and not truncates:
            with open(source, "rb") as handle:
                data = handle.read()
        self.spend(len(data))
        try:
            handle_number = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise CallFails.of(error) from error
        with os.fdopen(handle_number, "wb") as handle:
            handle.write(data)
        self._made(path)
        os.chmod(target, (mode if source is None else stat.S_IMODE(os.stat(source).st_mode)) & 0o777 | 0o600)
        self.gone.discard(path)
        return target

    def mkdir(self, path: bytes, mode: int) -> None:
        """A folder. Raises `CallFails`."""
        if self.host(path) is not None:
            raise CallFails("EEXIST")
        target = self._prepare(path)
        os.mkdir(target, mode & 0o777 | 0o700)
        self._made(path)

    def symlink(self, target: bytes, path: bytes) -> None:
        """A link, whose text is never followed by the host. Raises `CallFails`."""
        if self.host(path) is not None:
            raise CallFails("EEXIST")
        os.symlink(target, self._prepare(path))
        self._made(path)

    def remove(self, path: bytes, *, folder: bool) -> None:
        """unlink or rmdir. Raises `CallFails`."""
        found = self.lstat(path)
        if found is None:
            raise CallFails("ENOENT")
        if stat.S_ISDIR(found.st_mode) != folder:
            raise CallFails("ENOTDIR" if folder else "EISDIR")
        if folder and self.names(path):
            raise CallFails("ENOTEMPTY")
        self._prepare(path)
        above = self.scratch + path
        if os.path.lexists(above):
            if folder:
                os.rmdir(above)
            else:
                os.unlink(above)
            self._changed_folder(path)
        if os.path.lexists(self.root.rstrip(b"/") + path):
            self.gone.add(path)

    def rename(self, old: bytes, new: bytes) -> None:
        """Only files and links move, and folders of the scratch folder alone. Raises `CallFails`."""
        found = self.lstat(old)
        if found is None:
            raise CallFails("ENOENT")
        above = self.scratch + old
        if stat.S_ISDIR(found.st_mode) and (os.path.lexists(self.root.rstrip(b"/") + old) or self.host(new)):
            raise CallFails("EXDEV")
        if not os.path.lexists(above):
            if not stat.S_ISREG(found.st_mode):
                raise CallFails("EXDEV")
            host = self.host(old)
            assert host is not None
            self._copy_up(old, host, truncates=False, mode=0)
        target = self._prepare(new)
        try:
            os.rename(above, target)
        except OSError as error:
            raise CallFails.of(error) from error
        self._changed_folder(old)
        self._changed_folder(new)
        self.gone.discard(new)
        if os.path.lexists(self.root.rstrip(b"/") + old):
            self.gone.add(old)
