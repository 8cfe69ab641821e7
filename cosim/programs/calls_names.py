"""System calls on names: of files, folders and links."""

from __future__ import annotations

import stat
import struct
from typing import Final

from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.open_files import Folder
from ptewalk.cosim.programs.opening import AT_FDCWD, is_kernels, path_of, resolve, stat_file, stat_path
from ptewalk.cosim.programs.stats import Stat
from ptewalk.cosim.programs.system import System, call

_AT_NOFOLLOW, _AT_REMOVEDIR, _AT_EMPTY_PATH = 0x100, 0x200, 0x1000
_STATFS: Final = struct.Struct("<12Q")


@call("stat")
def stat_(system: System, path: int, address: int) -> int:
    """stat"""
    return newfstatat(system, AT_FDCWD, path, address, 0)


@call("lstat")
def lstat(system: System, path: int, address: int) -> int:
    """lstat"""
    return newfstatat(system, AT_FDCWD, path, address, _AT_NOFOLLOW)


@call("fstat")
def fstat(system: System, number: int, address: int) -> int:
    """fstat"""
    system.memory.write(address, stat_file(system, system.file(number)).pack())
    return 0


@call("newfstatat")
def newfstatat(system: System, folder: int, path: int, address: int, flags: int) -> int:
    """fstatat"""
    system.memory.write(address, _stat_at(system, folder, path, flags).pack())
    return 0


def _stat_at(system: System, folder: int, path: int, flags: int) -> Stat:
    start, text = path_of(system, folder, path)
    if not text:
        if not flags & _AT_EMPTY_PATH:
            raise CallFails("ENOENT")
        return stat_file(system, system.file(folder))
    return stat_path(system, system.tree.resolve(start, text, follow=not flags & _AT_NOFOLLOW))


@call("statx")
def statx(system: System, folder: int, path: int, flags: int, mask: int, address: int) -> int:
    """statx"""
    system.memory.write(address, _stat_at(system, folder, path, flags).pack_x())
    return 0


@call("statfs", "fstatfs")
def statfs(system: System, _: int, address: int) -> int:
    """statfs: a file system of 1 GiB, half of it free"""
    system.memory.write(
        address,
        _STATFS.pack(0x01021994, 4096, 1 << 18, 1 << 17, 1 << 17, 1 << 16, 1 << 15, 0, 255, 4096, 0, 0).ljust(
            120, b"\0"
        ),
    )
    return 0


@call("access")
def access(system: System, path: int, mode: int) -> int:
    """access"""
    return faccessat(system, AT_FDCWD, path, mode)


@call("faccessat", "faccessat2")
def faccessat(system: System, folder: int, path: int, mode: int) -> int:
    """faccessat: everything may be read and written"""
    found = stat_path(system, resolve(system, folder, path))
    if mode & 1 and not found.mode & 0o111:
        raise CallFails("EACCES")
    return 0


@call("readlink")
def readlink(system: System, path: int, address: int, size: int) -> int:
    """readlink"""
    return readlinkat(system, AT_FDCWD, path, address, size)


@call("readlinkat")
def readlinkat(system: System, folder: int, path: int, address: int, size: int) -> int:
    """readlinkat"""
    resolved = resolve(system, folder, path, follow=False)
    special = is_kernels(system, resolved)
    target = special.link if special is not None else system.tree.readlink(resolved)
    if target is None:
        raise CallFails("EINVAL")
    system.memory.write(address, target[:size])
    return min(size, len(target))


@call("getcwd")
def getcwd(system: System, address: int, size: int) -> int:
    """getcwd"""
    text = system.current.folder + b"\0"
    if len(text) > size:
        raise CallFails("ERANGE")
    system.memory.write(address, text)
    return len(text)


@call("chdir")
def chdir(system: System, path: int) -> int:
    """chdir"""
    resolved = resolve(system, AT_FDCWD, path)
    if not stat.S_ISDIR(stat_path(system, resolved).mode):
        raise CallFails("ENOTDIR")
    system.current.folder = resolved
    return 0


@call("fchdir")
def fchdir(system: System, number: int) -> int:
    """fchdir"""
    folder = system.file(number)
    if not isinstance(folder, Folder):
        raise CallFails("ENOTDIR")
    system.current.folder = folder.path
    return 0


@call("mkdir")
def mkdir(system: System, path: int, mode: int) -> int:
    """mkdir"""
    return mkdirat(system, AT_FDCWD, path, mode)


@call("mkdirat")
def mkdirat(system: System, folder: int, path: int, mode: int) -> int:
    """mkdirat"""
    system.tree.mkdir(resolve(system, folder, path), mode & ~system.current.umask)
    return 0


@call("rmdir")
def rmdir(system: System, path: int) -> int:
    """rmdir"""
    return unlinkat(system, AT_FDCWD, path, _AT_REMOVEDIR)


@call("unlink")
def unlink(system: System, path: int) -> int:
    """unlink"""
    return unlinkat(system, AT_FDCWD, path, 0)


@call("unlinkat")
def unlinkat(system: System, folder: int, path: int, flags: int) -> int:
    """unlinkat"""
    system.tree.remove(resolve(system, folder, path, follow=False), folder=bool(flags & _AT_REMOVEDIR))
    return 0


@call("rename")
def rename(system: System, old: int, new: int) -> int:
    """rename"""
    return renameat2(system, AT_FDCWD, old, AT_FDCWD, new, 0)


@call("renameat", "renameat2")
def renameat2(system: System, old_folder: int, old: int, new_folder: int, new: int, flags: int) -> int:
    """renameat2"""
    if flags:
        raise CallFails("EINVAL")
    source = resolve(system, old_folder, old, follow=False)
    system.tree.rename(source, resolve(system, new_folder, new, follow=False))
    return 0


@call("symlink")
def symlink(system: System, target: int, path: int) -> int:
    """symlink"""
    return symlinkat(system, target, AT_FDCWD, path)


@call("symlinkat")
def symlinkat(system: System, target: int, folder: int, path: int) -> int:
    """symlinkat"""
    text = system.memory.text(target)
    if not text:
        raise CallFails("ENOENT")
    system.tree.symlink(text, resolve(system, folder, path, follow=False))
    return 0


@call("chmod", "fchmod", "fchown", "chown", "lchown", "utimensat", "fchmodat", "fchownat", "utimes")
def attributes(system: System) -> int:
    """Rights, owners and times of files are kept as they are"""
    return 0


@call("umask")
def umask(system: System, mask: int) -> int:
    """umask"""
    old, system.current.umask = system.current.umask, mask & 0o777
    return old
