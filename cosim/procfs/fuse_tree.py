"""A `ProcFs` behind FUSE, by way of mfusepy and libfuse."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.proc.files import MODES, SELF, ProcFile, ProcFs, pid_of

__all__ = ["ProcTree", "mount"]

_FOLDER_MODE = stat.S_IFDIR | 0o555


@contextmanager
def _as_os_error() -> Iterator[None]:
    """An `Errno` of the model as the error of the system call."""
    try:
        yield
    except Errno as error:
        number = getattr(errno, error.name)
        raise OSError(number, os.strerror(number)) from None


class ProcTree:
    """The operations that mfusepy calls, for a tree of model/proc/files.py.

    Every file is opened for direct input and output: each read and write reaches the model with its own offset and
    count. Errors are OSError with the model's errno.

    Parameters
    ----------
    kernel : Kernel
    privileged : bool
        Readers open pagemap with CAP_SYS_ADMIN.
    ready : callable
        Called when the tree is mounted.
    caller : callable
        The PID of the program that asks.
    """

    use_ns = True

    def __init__(
        self, kernel: Kernel, *, privileged: bool, ready: Callable[[], None], caller: Callable[[], int] = lambda: 0
    ) -> None:
        self._files = ProcFs(kernel)
        self._caller = caller
        self._privileged = privileged
        self._ready = ready
        self._open: dict[int, ProcFile] = {}
        self._handle = 0

    def _inside(self, path: str) -> str:
        """The path in the tree: a program that looks itself up by its own PID finds process 0, as in ``self``."""
        first, slash, rest = path[1:].partition("/")
        own = first.isdigit() and int(first) == self._caller() and first not in self._files.names("")
        return SELF + slash + rest if own else path[1:]

    def init(self, path: str) -> None:
        """The tree is mounted."""
        self._ready()

    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        """Files have size 0, as in /proc."""
        inside = self._inside(path)
        with _as_os_error():
            folder = self._files.is_folder(inside)
        mode = _FOLDER_MODE if folder else stat.S_IFREG | MODES.get(os.path.basename(path), 0o444)
        if path[1:] == SELF:
            mode, folder = stat.S_IFLNK | 0o777, False
        return {"st_mode": mode, "st_nlink": 2 if folder else 1, "st_uid": os.getuid(), "st_gid": os.getgid()}

    def readlink(self, path: str) -> str:
        """``self`` is process 0: the readers are none of the machine's own."""
        if path[1:] != SELF:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return str(pid_of(0))

    def readdir(self, path: str, fh: Any) -> list[str]:
        """What a folder holds."""
        with _as_os_error():
            return [".", "..", *self._files.names(self._inside(path))]

    def open(self, path: str, info: Any) -> int:
        """Open a file; `info` is libfuse's fuse_file_info."""
        with _as_os_error():
            file = self._files.open(self._inside(path), privileged=self._privileged)
        self._handle += 1
        self._open[self._handle] = file
        info.fh = self._handle
        info.direct_io = 1
        return 0

    def create(self, path: str, mode: int, info: Any = None) -> int:
        """Nothing can be made."""
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def release(self, path: str, info: Any) -> int:
        """Close it."""
        del self._open[info.fh]
        return 0

    def read(self, path: str, size: int, offset: int, info: Any) -> bytes:
        """As `ProcFile.pread`."""
        with _as_os_error():
            return self._open[info.fh].pread(size, offset)

    def write(self, path: str, data: bytes, offset: int, info: Any) -> int:
        """As `ProcFile.pwrite`."""
        with _as_os_error():
            return self._open[info.fh].pwrite(data, offset)

    def truncate(self, path: str, length: int, info: Any = None) -> int:
        """A shell's ``>`` truncates; /proc takes no notice."""
        return 0


def mount(kernel: Kernel, mountpoint: Path, *, privileged: bool, ready: Callable[[], None]) -> None:
    """Mount and serve until it is unmounted, or SIGINT or SIGTERM comes, which unmounts it.

    Raises
    ------
    ToolError
        mfusepy or libfuse is missing, or mounting was refused.
    """
    try:
        import mfusepy
    except ImportError:
        raise ToolError("mfusepy is not installed: pip install '.[cosim]'") from None
    except OSError:
        raise ToolError("libfuse is not installed: sudo apt-get install fuse3") from None
    mounted = False

    def on_mount() -> None:
        nonlocal mounted
        mounted = True
        ready()

    tree = ProcTree(kernel, privileged=privileged, ready=on_mount, caller=lambda: int(mfusepy.fuse_get_context()[2]))
    try:
        mfusepy.FUSE(
            tree,
            str(mountpoint),
            raw_fi=True,
            foreground=True,
            nothreads=True,
            direct_io=True,
            fsname="ptewalk",
            default_permissions=True,
        )
    except RuntimeError:
        # libfuse reports the signal that ended it as an error, too.
        if not mounted:
            raise ToolError(
                f"{mountpoint}: mounting was refused: be root, or have fusermount3 (sudo apt-get install fuse3)"
            ) from None
