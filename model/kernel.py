"""The kernel: a machine and the system calls that its processes make, a line each.

Places are page numbers (linear address >> 12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

from ptewalk.model import access
from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import (
    brk,
    filemap,
    fork,
    gup,
    ksm,
    madvise,
    migrate,
    mlock,
    mmap,
    mprotect,
    mremap,
    pkeys,
    swapin,
    uffd,
)
from ptewalk.model.proc import clear_refs, pagemap_scan
from ptewalk.model.state.machine import MachineState, Process
from ptewalk.model.x86 import PAGE_SHIFT, Access

_K = TypeVar("_K", bound=MachineState)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_PROT: Final = {"r": VmFlag.READ, "w": VmFlag.WRITE, "x": VmFlag.EXEC}


def protection(prot: str) -> int:
    """VmFlag bits of a string of r, w and x."""
    return sum(_PROT[letter] for letter in set(prot.replace("-", "")))


def _flushes(call: Callable[Concatenate[_K, _P], _R]) -> Callable[Concatenate[_K, _P], _R]:
    """Of a system call that changes entries: when it is over, the MMU is told (`MachineState.flush`)."""

    @wraps(call)
    def flushed(self: _K, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self.flush():
            return call(self, *args, **kwargs)

    return flushed


class Kernel(MachineState):
    """One machine under one kernel, with its system calls. Parameters and attributes are those of `MachineState`."""

    # Accesses of user memory.

    def reach(self, process: Process, addresses: Sequence[int], kind: Access) -> Iterator[int | str]:
        """The physical address of each 1-byte user access; see `access.reach`."""
        return access.reach(self, process, addresses, kind)

    def touch_pages(
        self, process: Process, pages: Sequence[int], kind: Access, value: int = 0, *, offset: int = 8
    ) -> list[int | str]:
        """One 1-byte user access per page; see `access.touch_pages`."""
        return access.touch_pages(self, process, pages, kind, value, offset=offset)

    def copy_to_user(self, process: Process, at: int, offset: int, value: int) -> bool:
        """A byte that the kernel stores to user memory; False: EFAULT."""
        return access.copy_to_user(self, process, at, offset, value)

    def mem_access(self, process: Process, pages: Sequence[int], *, write: bool, value: int = 0) -> list[int | str]:
        """One byte per page through /proc/self/mem; see `access.mem_access`."""
        return access.mem_access(self, process, pages, write=write, value=value)

    @_flushes
    def access_remote(self, process: Process, at: int, *, write: bool) -> int:
        """The frame through which /proc/PID/mem reaches the page `at`; see `gup.access_remote`."""
        return gup.access_remote(process.mm, at, write=write)

    def fill(self, process: Process, at: int, pages: int) -> None:
        """A process fills pages with bytes 0x5a."""
        access.fill(self, process, at, pages)

    # Mappings.

    @_flushes
    def mmap(
        self, process: Process, at: int, pages: int, prot: str, kind: str, file_page: int, flags: Sequence[str]
    ) -> int:
        """mmap with MAP_FIXED; the page number of the mapping."""
        mmap.do_mmap(
            process.mm,
            at,
            pages,
            protection(prot),
            kind,
            file_page,
            locked="locked" in flags,
            grows_down="growsdown" in flags,
            populate="populate" in flags,
            no_reserve="noreserve" in flags,
        )
        return at

    def get_unmapped_area(self, process: Process, hint: int, pages: int, *, align: int = 1) -> int:
        """Where mmap without MAP_FIXED maps; see `mmap.get_unmapped_area`."""
        return mmap.get_unmapped_area(process.mm, hint, pages, align=align)

    @_flushes
    def munmap(self, process: Process, at: int, pages: int) -> None:
        """munmap"""
        mmap.do_munmap(process.mm, at, pages)

    @_flushes
    def brk(self, process: Process, end: int) -> int:
        """brk; see `brk.brk`."""
        return brk.brk(process.mm, end)

    @_flushes
    def mremap(self, process: Process, at: int, pages: int, new_pages: int, flags: Sequence[str], new_at: int) -> int:
        """mremap; the page number of the result."""
        return mremap.mremap(process.mm, at, pages, new_pages, frozenset(flags), new_at)

    @_flushes
    def remap_file_pages(self, process: Process, at: int, pages: int, file_page: int) -> None:
        """remap_file_pages (3.11)"""
        filemap.remap_file_pages(process.mm, at, pages, file_page)

    @_flushes
    def mprotect(self, process: Process, at: int, pages: int, prot: str, key: int = -1) -> None:
        """mprotect, or pkey_mprotect with a key; keys are allocated 1, 2, ... up to the one first used."""
        if key >= 0:
            if not pkeys.in_use(self):
                raise Errno("EINVAL")
            pkeys.allocate(process, key)
        mprotect.do_mprotect(process.mm, at, pages, protection(prot), key)

    def wrpkru(self, process: Process, key: int, rights: int) -> None:
        """Write one key's rights: 0 none, 1 access disabled, 2 writes disabled."""
        process.pkru = process.pkru & ~(3 << 2 * key) | rights << 2 * key

    @_flushes
    def madvise(self, process: Process, at: int, pages: int, advice: str) -> None:
        """madvise"""
        madvise.do_madvise(process.mm, at, pages, advice)

    @_flushes
    def mlock(self, process: Process, at: int, pages: int, *, lock: bool) -> None:
        """mlock or munlock"""
        mlock.do_mlock(process.mm, at, pages, lock=lock)

    @_flushes
    def pin(self, process: Process, at: int, pages: int) -> None:
        """Register pages as an io_uring buffer."""
        process.pinned[at] = gup.pin(process.mm, at, at + pages)

    def unpin(self, process: Process, at: int | None = None) -> None:
        """Unregister the buffer whose first page is `at`; None: all of them."""
        buffers = list(process.pinned) if at is None else [at]
        if not buffers or at is not None and at not in process.pinned:
            raise Errno("ENXIO")
        for first in buffers:
            gup.unpin(process.mm, process.pinned.pop(first))

    @_flushes
    def move_pages(self, process: Process, at: int, pages: int, node: int) -> tuple[int, list[int]]:
        """move_pages: pages that were not moved, and a status per page."""
        return migrate.move_pages(process.mm, at, pages, node)

    # userfaultfd.

    @_flushes
    def uffd_open(self, process: Process, *, asynchronous: bool) -> None:
        """Open a userfaultfd, with SIGBUS or with WP_ASYNC; the one that was open is closed."""
        uffd.open_new(process, asynchronous=asynchronous)

    @_flushes
    def uffd_register(self, process: Process, at: int, pages: int, *, asynchronous: bool = False) -> None:
        """Register a range for write-protection with the process's userfaultfd, which is opened when there is none."""
        if process.uffd is None:
            uffd.open_new(process, asynchronous=asynchronous)
        uffd.register(process.mm, uffd.opened(process), at, pages)

    @_flushes
    def uffd_unregister(self, process: Process, at: int, pages: int) -> None:
        """Unregister a range."""
        uffd.opened(process)
        uffd.unregister(process.mm, at, pages)

    @_flushes
    def uffd_writeprotect(self, process: Process, at: int, pages: int, *, protect: bool) -> None:
        """Write-protect a range, or take that back."""
        uffd.opened(process)
        uffd.writeprotect(process.mm, at, pages, protect=protect)

    # Processes.

    @_flushes
    def fork(self, process: Process, child: int) -> None:
        """fork"""
        new = self.new_process(child)
        try:
            fork.copy_process(process, new)
        except Errno:
            self.exit(new)
            raise

    @_flushes
    def exit(self, process: Process) -> None:
        """The process ends: everything it maps goes."""
        mmap.exit_mmap(process.mm)
        del self.processes[process.who]

    def setuid(self, process: Process) -> None:
        """Become an ordinary user and open pagemap again."""
        process.user = True
        process.sees_frames = False

    # Files and swap.

    def file_write(self, number: str, offset: int, value: int) -> None:
        """pwrite of one byte at offset 8 of a page of a file."""
        filemap.pwrite(self, number, offset << PAGE_SHIFT | 8, bytes([value]))

    def file_read(self, number: str, offset: int) -> int | None:
        """pread of one byte at offset 8 of a page of a file; None beyond its end."""
        found = filemap.pread(self, number, offset << PAGE_SHIFT | 8, 1)
        return found[0] if found else None

    def pwrite(self, number: str, position: int, data: bytes) -> None:
        """Write bytes to a file, which grows as far as they reach."""
        filemap.pwrite(self, number, position, data)

    def pread(self, number: str, position: int, length: int) -> bytes:
        """Bytes of a file, as far as it reaches."""
        return filemap.pread(self, number, position, length)

    @_flushes
    def ftruncate(self, number: str, pages: int) -> None:
        """Set a file's length."""
        filemap.truncate(self, number, pages)

    @_flushes
    def sync(self, number: str) -> None:
        """fdatasync"""
        filemap.write_back(self, number)

    @_flushes
    def swapoff(self) -> None:
        """Every swapped page comes back."""
        swapin.swapoff(self)

    @_flushes
    def ksm_scan(self, *, use_zero_pages: bool = False) -> None:
        """Full passes of ksmd."""
        ksm.scan(self, use_zero_pages=use_zero_pages)

    # /proc.

    def clear_refs(self, target: int, text: str, writer: Process | None = None) -> int:
        """Write to /proc/<target>/clear_refs; bytes taken. The file is its owner's and root's to write."""
        if writer is not None and writer.user and not self.processes[target].user:
            raise Errno("EACCES")
        return clear_refs.write(self.processes[target].mm, text)

    def pagemap_scan(self, process: Process, argument: pagemap_scan.Argument) -> pagemap_scan.Answer:
        """The PAGEMAP_SCAN ioctl."""
        if "pagemap_scan" not in self.profile.verbs:
            raise Errno("ENOTTY")

        def store(address: int, data: bytes) -> bool:
            places = enumerate(data, address)
            return all(self.copy_to_user(process, at >> PAGE_SHIFT, at & 0xFFF, byte) for at, byte in places)

        return pagemap_scan.scan(process.mm, argument, store)
