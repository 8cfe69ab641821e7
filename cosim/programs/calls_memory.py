"""System calls on memory: numbers of Linux to the model's words."""

from __future__ import annotations

from typing import Final

from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.open_files import HostFile, Null, OpenFile
from ptewalk.cosim.programs.system import System, call, signed
from ptewalk.model.linux import HUGE_PAGES, TASK_PAGES
from ptewalk.model.profiles import ADVICES_6_1
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT

_PROT_BITS: Final = ((1, "r"), (2, "w"), (4, "x"))
_SHARED, _PRIVATE, _KIND, _FIXED, _ANONYMOUS = 0x01, 0x02, 0x0F, 0x10, 0x20
_GROWSDOWN, _LOCKED, _NORESERVE, _POPULATE = 0x100, 0x2000, 0x4000, 0x8000
_HUGETLB, _FIXED_NOREPLACE = 0x40000, 0x100000
_FLAG_WORDS: Final = {
    _GROWSDOWN: "growsdown",
    _LOCKED: "locked",
    _NORESERVE: "noreserve",
    _POPULATE: "populate",
}
_ADVICES: Final = {
    0: "NORMAL",
    1: "RANDOM",
    2: "SEQUENTIAL",
    3: "WILLNEED",
    4: "DONTNEED",
    8: "FREE",
    9: "REMOVE",
    10: "DONTFORK",
    11: "DOFORK",
    12: "MERGEABLE",
    13: "UNMERGEABLE",
    14: "HUGEPAGE",
    15: "NOHUGEPAGE",
    16: "DONTDUMP",
    17: "DODUMP",
    18: "WIPEONFORK",
    19: "KEEPONFORK",
    20: "COLD",
    21: "PAGEOUT",
    22: "POPULATE_READ",
    23: "POPULATE_WRITE",
    25: "COLLAPSE",
}
_REMAP_FLAGS: Final = {1: "MAYMOVE", 2: "FIXED", 4: "DONTUNMAP"}
_END: Final = TASK_PAGES[4] << PAGE_SHIFT


def _letters(prot: int) -> str:
    if prot & ~0x01000007:
        raise CallFails("EINVAL")
    return "".join(letter for bit, letter in _PROT_BITS if prot & bit) or "-"


def _pages(length: int) -> int:
    return -(-length // PAGE_BYTES)


def _range(at: int, length: int) -> tuple[int, int]:
    if at % PAGE_BYTES:
        raise CallFails("EINVAL")
    if at + length > _END:
        raise CallFails("ENOMEM")
    return at >> PAGE_SHIFT, _pages(length)


@call("mmap")
def mmap(system: System, at: int, length: int, prot: int, flags: int, number: int, offset: int) -> int:
    """mmap"""
    kernel, process = system.kernel, system.current.process
    if not length or offset % PAGE_BYTES or (flags & _FIXED and at % PAGE_BYTES):
        raise CallFails("EINVAL")
    if length > _END:
        raise CallFails("ENOMEM")
    shared = flags & _KIND in (_SHARED, 3)
    if not shared and flags & _KIND != _PRIVATE:
        raise CallFails("EINVAL")
    pages, align = _pages(length), 1
    file: OpenFile | None = None if flags & _ANONYMOUS else system.file(number)
    if isinstance(file, Null):
        file = None
    if flags & _HUGETLB:
        kind, align = "shugetlb" if shared else "hugetlb", HUGE_PAGES
        pages = -(-pages // align) * align
    elif file is None:
        kind = "sanon" if shared else "anon"
    elif isinstance(file, HostFile):
        if shared and prot & 2 and (not file.inode.writable or file.flags & 3 != 2):
            raise CallFails("EACCES")
        kind = ("p" if not shared else "s" if file.inode.writable else "r") + system.cache.map(file.inode)
    else:
        raise CallFails("ENODEV")
    letters = _letters(prot)
    if flags & (_FIXED | _FIXED_NOREPLACE):
        start, _ = _range(at, pages << PAGE_SHIFT)
        if flags & _FIXED_NOREPLACE and process.mm.areas.in_range(start, start + pages):
            raise CallFails("EEXIST")
    else:
        start = kernel.get_unmapped_area(process, at >> PAGE_SHIFT, pages, align=align)
    words = [word for bit, word in _FLAG_WORDS.items() if flags & bit]
    return kernel.mmap(process, start, pages, letters, kind, offset >> PAGE_SHIFT, words) << PAGE_SHIFT


@call("munmap")
def munmap(system: System, at: int, length: int) -> int:
    """munmap"""
    if at % PAGE_BYTES or not length or at + length > _END:
        raise CallFails("EINVAL")
    system.kernel.munmap(system.current.process, at >> PAGE_SHIFT, _pages(length))
    return 0


@call("mprotect")
def mprotect(system: System, at: int, length: int, prot: int) -> int:
    """mprotect"""
    start, pages = _range(at, length)
    system.kernel.mprotect(system.current.process, start, pages, _letters(prot))
    return 0


@call("mremap")
def mremap(system: System, at: int, length: int, new_length: int, flags: int, new: int) -> int:
    """mremap"""
    if flags & ~7 or at % PAGE_BYTES or not new_length or (flags & 2 and new % PAGE_BYTES):
        raise CallFails("EINVAL")
    words = [word for bit, word in _REMAP_FLAGS.items() if flags & bit]
    at_page, old_pages, new_pages = at >> PAGE_SHIFT, _pages(length), _pages(new_length)
    found = system.kernel.mremap(system.current.process, at_page, old_pages, new_pages, words, new >> PAGE_SHIFT)
    return found << PAGE_SHIFT


@call("madvise")
def madvise(system: System, at: int, length: int, advice: int) -> int:
    """madvise"""
    start, pages = _range(at, length)
    name = _ADVICES.get(signed(advice, 32))
    if name is None or name not in ADVICES_6_1:
        if name in ("NORMAL", "RANDOM", "SEQUENTIAL", "WILLNEED", "DONTDUMP", "DODUMP"):
            return 0
        raise CallFails("EINVAL")
    if pages:
        system.kernel.madvise(system.current.process, start, pages, name)
    return 0


@call("brk")
def brk(system: System, end: int) -> int:
    """brk: the end of the heap, whether it could be moved or not"""
    task = system.current
    mm = task.process.mm
    if end < mm.start_brk << PAGE_SHIFT or end > _END:
        return task.brk
    pages = _pages(end)
    if system.kernel.brk(task.process, pages) == pages:
        task.brk = end
    return task.brk


@call("mlock")
def mlock(system: System, at: int, length: int) -> int:
    """mlock"""
    return _lock(system, at, length, lock=True)


@call("munlock")
def munlock(system: System, at: int, length: int) -> int:
    """munlock"""
    return _lock(system, at, length, lock=False)


def _lock(system: System, at: int, length: int, *, lock: bool) -> int:
    start, pages = _range(at & -PAGE_BYTES, length + at % PAGE_BYTES)
    if pages:
        system.kernel.mlock(system.current.process, start, pages, lock=lock)
    return 0


@call("msync")
def msync(system: System, at: int, length: int, flags: int) -> int:
    """msync: stores through a mapping are in the file already"""
    start, pages = _range(at, length)
    covered = sum(
        min(area.end, start + pages) - max(area.start, start)
        for area in system.current.process.mm.areas.in_range(start, start + pages)
    )
    if covered != pages:
        raise CallFails("ENOMEM")
    return 0
