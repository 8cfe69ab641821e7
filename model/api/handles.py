"""What a machine and a task hand out: files, and userfaultfds."""

from __future__ import annotations

from ptewalk.model.api import words
from ptewalk.model.api.words import PAGE, page_of
from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.state.machine import Process


class File:
    """An open file of a machine: `Machine.file` opens one.

    Attributes
    ----------
    kernel : Kernel
        The machine's.
    number : int
        Its number, 0 to 9.
    """

    def __init__(self, kernel: Kernel, number: int) -> None:
        self.kernel = kernel
        self.number = number

    @property
    def length(self) -> int:
        """Bytes of the file, a multiple of `PAGE`."""
        return self.kernel.files.open(str(self.number)).pages * PAGE

    def pread(self, length: int, offset: int = 0) -> bytes:
        """pread(2): at most `length` bytes from byte `offset` on; fewer at the end of the file."""
        wanted, position = words.whole("length", length), words.whole("offset", offset)
        return self.kernel.pread(str(self.number), position, wanted)

    def pwrite(self, data: bytes, offset: int = 0) -> int:
        """pwrite(2): store `data` from byte `offset` on; the number of bytes. No entry that maps the file is marked."""
        position = words.whole("offset", offset)
        self.kernel.pwrite(str(self.number), position, bytes(data))
        return len(data)

    def ftruncate(self, length: int) -> None:
        """ftruncate(2): give the file a length in bytes, whole pages (mm/truncate.c:truncate_setsize).

        Raises
        ------
        ValueError
            The length is no multiple of `PAGE`: the model counts files in pages.
        """
        if words.whole("length", length) % PAGE:
            raise ValueError(f"length of a file must be a multiple of {PAGE}, not {length!r}")
        self.kernel.ftruncate(str(self.number), length // PAGE)

    def fsync(self) -> None:
        """fsync(2): a file on a disk is cleaned, and its entries write-protected (mm/rmap.c:page_mkclean)."""
        self.kernel.sync(str(self.number))


class Userfaultfd:
    """A userfaultfd of a task: `Task.userfaultfd` opens one (fs/userfaultfd.c).

    Every method raises Errno EBADF once the task has opened another, EINVAL for an address or a length that is no
    multiple of `PAGE`.
    """

    def __init__(self, kernel: Kernel, process: Process) -> None:
        self._kernel = kernel
        self._process = process
        self._fd = process.uffd

    def _range(self, at: int, length: int) -> tuple[int, int]:
        if self._process.uffd is not self._fd:
            raise Errno("EBADF", "the task has opened another userfaultfd, which closed this one")
        start = page_of("at", words.address("at", at, words.whole("length", length)))
        return start, page_of("length", length)

    def register(self, at: int, length: int) -> None:
        """UFFDIO_REGISTER with UFFDIO_REGISTER_MODE_WP (userfaultfd_register).

        Raises
        ------
        Errno
            EINVAL: nothing is mapped there, or a file that cannot be tracked. EPERM: never writable. EBUSY: another
            userfaultfd's.
        """
        start, pages = self._range(at, length)
        self._kernel.uffd_register(self._process, start, pages)

    def unregister(self, at: int, length: int) -> None:
        """UFFDIO_UNREGISTER: write-protection of the range is dropped (userfaultfd_unregister).

        Raises
        ------
        Errno
            EINVAL: nothing is mapped there.
        """
        start, pages = self._range(at, length)
        self._kernel.uffd_unregister(self._process, start, pages)

    def writeprotect(self, at: int, length: int, *, protect: bool = True) -> None:
        """UFFDIO_WRITEPROTECT: protect, or with ``protect=False`` let go (mm/userfaultfd.c:mwriteprotect_range).

        Raises
        ------
        Errno
            ENOENT: not registered. EINVAL: not aligned to hugetlb pages.
        """
        start, pages = self._range(at, length)
        self._kernel.uffd_writeprotect(self._process, start, pages, protect=protect)
