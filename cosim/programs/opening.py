"""Opening a resolved path: the host's files, and those that are the kernel's own, below /proc, /sys and /dev."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.open_files import Folder, HostFile, Kernels, Null, OpenFile, Text
from ptewalk.cosim.programs.stats import Stat
from ptewalk.cosim.programs.system import System, signed
from ptewalk.cosim.programs.tree import KERNELS
from ptewalk.model.proc.files import MACHINE_TEXTS, MODES, TEXTS, ProcFs, pid_of

__all__ = ["AT_FDCWD", "Special", "is_kernels", "open_path", "path_of", "resolve", "stat_file", "stat_path"]

AT_FDCWD: Final = -100

_DEVICES: Final = {b"null": 0x103, b"zero": 0x105, b"full": 0x107, b"random": 0x108, b"urandom": 0x109}
_DEVICE_LINKS: Final = {b"stdin": b"fd/0", b"stdout": b"fd/1", b"stderr": b"fd/2", b"fd": b"/proc/self/fd"}
_LINK: Final = stat.S_IFLNK | 0o777
_DIRECTORY, _REGULAR, _LINK_KIND, _DEVICE_KIND = 4, 8, 10, 2
_KINDS: Final = {stat.S_IFDIR: _DIRECTORY, stat.S_IFREG: _REGULAR, stat.S_IFLNK: _LINK_KIND, stat.S_IFCHR: _DEVICE_KIND}


@dataclass(frozen=True)
class Special:
    """A file of the kernel's.

    Attributes
    ----------
    mode : int
    open : callable (int) -> OpenFile
        Takes the flags.
    link : bytes or None
        What a link says.
    names : tuple of bytes
        Of a folder.
    """

    mode: int
    open: Callable[[int], OpenFile] | None = None
    link: bytes | None = None
    names: tuple[bytes, ...] = ()
    device: int = 0


def is_kernels(system: System, path: bytes) -> Special | None:
    """The kernel's file of a resolved path; None: it belongs to the tree. Raises `CallFails` ENOENT."""
    parts = path[1:].split(b"/")
    if b"/" + parts[0] not in KERNELS:
        return None
    found = _device(system, parts[1:]) if parts[0] == b"dev" else None
    if parts[0] == b"proc":
        found = _proc(system, parts[1:])
    if found is None:
        raise CallFails("ENOENT")
    return found


def _device(system: System, parts: list[bytes]) -> Special | None:
    if not parts:
        return Special(stat.S_IFDIR | 0o755, names=(*_DEVICES, *_DEVICE_LINKS))
    name = parts[0]
    if len(parts) > 1 or name not in (*_DEVICES, *_DEVICE_LINKS):
        return None
    if name in _DEVICE_LINKS:
        return Special(_LINK, link=_DEVICE_LINKS[name], open=lambda flags: _same(system, _DEVICE_LINKS[name][-1:]))
    chance = system.chance if name.endswith(b"random") else None
    zeros = name in (b"zero", b"full")
    return Special(
        stat.S_IFCHR | 0o666,
        lambda flags: Null(flags, _DEVICES[name], zeros=zeros, chance=chance),
        device=_DEVICES[name],
    )


def _same(system: System, number: bytes) -> OpenFile:
    """What /proc/self/fd/N stands for: the open file itself, never the host's."""
    if not number.isdigit():
        raise CallFails("ENOENT")
    return system.file(int(number))


def _proc(system: System, parts: list[bytes]) -> Special | None:
    pids = {str(pid).encode(): task for pid, task in system.tasks.items() if task.status is None}
    if not parts:
        return Special(stat.S_IFDIR | 0o555, names=(*pids, b"self", *(name.encode() for name in MACHINE_TEXTS)))
    own = str(system.current.pid).encode()
    if parts == [b"self"]:
        return Special(_LINK, link=own, names=(b"fd",))
    task = system.current if parts[0] == b"self" else pids.get(parts[0])
    if task is None:
        if len(parts) == 1 and parts[0].decode("latin-1") in MACHINE_TEXTS:
            told = MACHINE_TEXTS[parts[0].decode()]
            return Special(stat.S_IFREG | 0o444, lambda flags: Text(flags, told(system.kernel).encode()))
        return None
    if len(parts) == 1:
        return Special(stat.S_IFDIR | 0o555, names=(b"fd", b"exe", b"cwd", b"clear_refs", b"pagemap", *_texts()))
    name = parts[1]
    if name == b"fd":
        if len(parts) == 2:
            return Special(stat.S_IFDIR | 0o500, names=tuple(str(n).encode() for n in sorted(task.descriptors)))
        descriptor = task.descriptors.get(int(parts[2])) if parts[2].isdigit() and len(parts) == 3 else None
        if descriptor is None:
            return None
        shared = descriptor.file
        text: bytes = getattr(shared, "path", b"pipe:[1]")
        return Special(_LINK, lambda flags: shared, link=text)
    if len(parts) > 2:
        return None
    if name == b"exe":
        path = task.path
        return Special(_LINK, lambda flags: open_path(system, path, flags, 0), link=path)
    if name == b"cwd":
        return Special(_LINK, link=task.folder)
    if name == b"cmdline":
        data = b"".join(word + b"\0" for word in task.arguments)
        return Special(stat.S_IFREG | 0o444, lambda flags: Text(flags, data))
    if name == b"comm":
        return Special(stat.S_IFREG | 0o444, lambda flags: Text(flags, task.name + b"\n"))
    word = name.decode("latin-1")
    if word not in TEXTS and word not in MODES:
        return None
    proc_path = f"{pid_of(task.process.who)}/{word}"
    mode = MODES.get(word, 0o444)
    return Special(
        stat.S_IFREG | mode,
        lambda flags: Kernels(
            flags, f"/proc/{proc_path}", ProcFs(system.kernel).open(proc_path, privileged=False), mode
        ),
    )


def _texts() -> tuple[bytes, ...]:
    return tuple(name.encode() for name in TEXTS)


def open_path(system: System, path: bytes, flags: int, mode: int) -> OpenFile:
    """Open a resolved path. Raises `CallFails`."""
    special = is_kernels(system, path)
    if special is not None:
        if special.open is not None:
            return special.open(flags)
        if special.link is not None and not stat.S_ISDIR(special.mode) and not special.names:
            raise CallFails("ELOOP")
        names = special.names
        return Folder(
            path, lambda: _entries([(name, 1, _DIRECTORY if name.isdigit() else _REGULAR) for name in names]), flags
        )
    found = system.tree.lstat(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_CREAT:
            raise CallFails("EISDIR")
        return Folder(path, lambda: _entries(_listed(system, path)), flags)
    if found is not None and flags & os.O_DIRECTORY:
        raise CallFails("ENOTDIR")
    if found is not None and stat.S_ISLNK(found.st_mode):
        raise CallFails("ELOOP")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise CallFails("ENXIO")
    return HostFile(system.inode(path, flags, mode), flags, path, system.cache, system.tree)


def _listed(system: System, path: bytes) -> list[tuple[bytes, int, int]]:
    rows = []
    for name in system.tree.names(path):
        whole = path.rstrip(b"/") + b"/" + name
        found = system.tree.lstat(whole)
        if found is not None:
            number = system.tree.identity(whole, found)[1]
            rows.append((name, number, _KINDS.get(stat.S_IFMT(found.st_mode), 0)))
    return rows


def _entries(rows: list[tuple[bytes, int, int]]) -> list[tuple[bytes, int, int]]:
    return [(b".", 1, _DIRECTORY), (b"..", 1, _DIRECTORY), *rows]


def stat_file(system: System, file: OpenFile) -> Stat:
    """fstat of an open file."""
    return stat_path(system, file.path) if isinstance(file, Folder) else Stat.of_file(file)


def stat_path(system: System, path: bytes) -> Stat:
    """stat of a resolved path. Raises `CallFails`."""
    special = is_kernels(system, path)
    if special is not None:
        if special.link is not None and special.open is not None:
            return Stat.of_file(special.open(0))
        return Stat(stat.S_IFDIR | 0o555 if special.names else special.mode, special=special.device)
    found = system.tree.lstat(path)
    if found is None:
        raise CallFails("ENOENT")
    return Stat.of_host(found, system.tree.identity(path, found))


def path_of(system: System, folder: int, address: int) -> tuple[bytes, bytes]:
    """The folder that a path starts from, and the path."""
    text = system.memory.text(address)
    if text.startswith(b"/") or signed(folder, 32) == AT_FDCWD:
        return system.current.folder, text
    file = system.file(folder)
    if not isinstance(file, Folder):
        if text:
            raise CallFails("ENOTDIR")
        return b"/", text
    return file.path, text


def resolve(system: System, folder: int, address: int, *, follow: bool = True) -> bytes:
    """The resolved path that an argument of a system call stands for. Raises `CallFails`."""
    return system.tree.resolve(*path_of(system, folder, address), follow=follow)
