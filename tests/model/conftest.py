"""A small machine for the model's tests: one kernel, pages counted from the window's start, raw entries at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.proc import pagemap
from ptewalk.model.profiles import NAMED
from ptewalk.model.x86 import Access

SOFT_DIRTY = 1 << 55


class Machine:
    """One kernel, driven in pages of the window."""

    def __init__(self, profile: str = "linux-6.1", **options: object) -> None:
        kernel, exact = NAMED[profile]
        self.kernel = Kernel(kernel, exact=exact, **{"pagemap_v2": True} | options)  # type: ignore[arg-type]

    def mm(self, who: int = 0):  # type: ignore[no-untyped-def]
        """The address space of a process."""
        return self.kernel.processes[who].mm

    def mmap(
        self,
        page: int,
        n: int,
        prot: str = "rw",
        kind: str = "anon",
        file_page: int = 0,
        flags: Iterable[str] = (),
        who: int = 0,
    ) -> int:
        kernel = self.kernel
        process = kernel.processes[who]
        return kernel.mmap(process, kernel.base + page, n, prot, kind, file_page, list(flags)) - kernel.base

    def write(self, page: int, n: int = 1, who: int = 0, value: int = 7) -> list[int | str]:
        pages = range(self.kernel.base + page, self.kernel.base + page + n)
        return self.kernel.touch_pages(self.kernel.processes[who], pages, Access.WRITE, value)

    def read(self, page: int, n: int = 1, who: int = 0) -> list[int | str]:
        pages = range(self.kernel.base + page, self.kernel.base + page + n)
        return self.kernel.touch_pages(self.kernel.processes[who], pages, Access.READ)

    def clear(self, value: str = "4", who: int = 0) -> int:
        return self.kernel.clear_refs(who, value)

    def mprotect(self, page: int, n: int, prot: str, who: int = 0) -> None:
        self.kernel.mprotect(self.kernel.processes[who], self.kernel.base + page, n, prot)

    def munmap(self, page: int, n: int, who: int = 0) -> None:
        self.kernel.munmap(self.kernel.processes[who], self.kernel.base + page, n)

    def mremap(
        self,
        page: int,
        n: int,
        new_n: int,
        new_page: int = 0,
        flags: Iterable[str] = ("MAYMOVE", "FIXED"),
        who: int = 0,
    ) -> int:
        kernel = self.kernel
        process = kernel.processes[who]
        return kernel.mremap(process, kernel.base + page, n, new_n, list(flags), kernel.base + new_page) - kernel.base

    def madvise(self, page: int, n: int, advice: str, who: int = 0) -> None:
        self.kernel.madvise(self.kernel.processes[who], self.kernel.base + page, n, advice)

    def fork(self, child: int = 1, who: int = 0) -> None:
        self.kernel.fork(self.kernel.processes[who], child)

    def mem_write(self, page: int, n: int = 1, who: int = 0) -> list[int | str]:
        pages = range(self.kernel.base + page, self.kernel.base + page + n)
        return self.kernel.mem_access(self.kernel.processes[who], pages, write=True, value=9)

    def pte(self, page: int, who: int = 0) -> int:
        """Raw level-1 entry without its frame."""
        return self.mm(who).tables.get(self.kernel.base + page) & ~0x000F_FFFF_FFFF_F000

    def pmd(self, page: int, who: int = 0) -> int:
        """Raw level-2 leaf without its frame."""
        return self.mm(who).tables.get_huge(self.kernel.base + page) & ~0x000F_FFFF_FFE0_0000

    def frame(self, page: int, who: int = 0) -> int:
        """Frame of a small page."""
        return int(self.kernel.entries.pte_pfn(self.mm(who).tables.get(self.kernel.base + page)))

    def words(self, page: int, n: int, who: int = 0, *, show_frames: bool = True) -> list[int]:
        """Pagemap words."""
        return pagemap.read(self.mm(who), self.kernel.base + page, n, show_frames=show_frames).tolist()

    def dirty(self, page: int, n: int, who: int = 0) -> list[int]:
        """The pages of a range whose bit 55 is set."""
        return [page + i for i, word in enumerate(self.words(page, n, who)) if word & SOFT_DIRTY]

    def areas(self, who: int = 0) -> list[tuple[int, int]]:
        """(page, pages) of each area."""
        return [(vma.start - self.kernel.base, vma.end - vma.start) for vma in self.mm(who).areas]

    def error(self, call: Callable[..., object], *arguments: object, **named: object) -> str | None:
        """The errno of a call; None when it succeeds."""
        try:
            call(*arguments, **named)
        except Errno as error:
            return error.name
        return None


@pytest.fixture
def machine() -> type[Machine]:
    """The class: call it with a profile and Kernel's options."""
    return Machine


@pytest.fixture
def tracks() -> tuple[Track, ...]:
    """Every way of tracking."""
    return (Track.OFF, Track.FAULT, Track.NATIVE)
