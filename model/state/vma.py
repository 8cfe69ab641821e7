"""Areas of an address space (struct vm_area_struct) and who shares anonymous memory (struct anon_vma).

mm/rmap.c. All places are page numbers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ptewalk.model.linux import VmFlag
from ptewalk.model.state.files import File
from ptewalk.model.state.pools import Reservation
from ptewalk.model.x86 import INDEX_BITS


class Userfaultfd:
    """One userfaultfd of a process.

    Parameters
    ----------
    asynchronous : bool
        WP_ASYNC, WP_UNPOPULATED and WP_HUGETLBFS_SHMEM: a write to a protected page is let through and the protection
        dropped, and empty entries are protected by markers. Otherwise the write ends in SIGBUS.
    refused : bool
        The kernel does not know its features: it is open, and good for nothing.
    """

    def __init__(self, *, asynchronous: bool, refused: bool = False) -> None:
        self.asynchronous = asynchronous
        self.refused = refused


class AnonVma:
    """struct anon_vma: who may share anonymous pages.

    Parameters
    ----------
    identity : int
        What its frames name as their owner: a forked area's is its parent's.
    """

    __slots__ = ("identity",)

    def __init__(self, identity: int) -> None:
        self.identity = identity


class Readahead(NamedTuple):
    """What an area's next readahead of swap goes by (mm/swap_state.c: SWAP_RA_VAL).

    Attributes
    ----------
    page : int
        The page of the last fault that asked the swap cache.
    window : int
        Pages of the last readahead; 0: there was none.
    hits : int
        Pages read ahead that were found since; at first a guess.
    """

    page: int
    window: int
    hits: int


NO_READAHEAD: Final = Readahead(0, 0, 4)
"""Of a new area (GET_SWAP_RA_VAL)."""


class Vma:
    """One area: pages [start, end)."""

    __slots__ = (
        "start",
        "end",
        "flags",
        "pgoff",
        "file",
        "anon_vma",
        "chain",
        "prot",
        "uffd",
        "huge_level",
        "remapped",
        "reservation",
        "page_taken",
        "readahead",
    )

    def __init__(self, start: int, end: int, flags: int, pgoff: int, file: File | None) -> None:
        self.start = start
        self.end = end
        self.flags = flags
        self.pgoff = pgoff
        self.file = file
        self.anon_vma: AnonVma | None = None
        self.chain: list[AnonVma] = []
        self.prot = 0
        """vm_page_prot"""
        self.uffd: Userfaultfd | None = None
        """vm_userfaultfd_ctx"""
        self.huge_level = 0
        """Level of a hugetlb area's leaves: 2 or 3; 0 for every other area."""
        self.remapped: dict[int, int] | None = None
        """`Mm.remapped` when remap_file_pages was used on the area (3.11); None: never."""
        self.reservation: Reservation | None = None
        """A hugetlb area's own pool pages."""
        self.page_taken = False
        """A hugetlb page was taken from the area for its owner's sake."""
        self.readahead = NO_READAHEAD
        """swap_readahead_info"""

    def copy(self) -> Vma:
        """vm_area_dup: the same area, with no anon_vma yet."""
        twin = Vma(self.start, self.end, self.flags, self.pgoff, self.file)
        twin.prot = self.prot
        twin.uffd = self.uffd
        twin.huge_level = self.huge_level
        twin.remapped = self.remapped
        twin.reservation = self.reservation
        twin.readahead = self.readahead
        return twin

    @property
    def is_anonymous(self) -> bool:
        """vma_is_anonymous: no vm_ops."""
        return self.file is None and not self.huge_level

    @property
    def is_cow(self) -> bool:
        """is_cow_mapping: private and possibly writable."""
        return self.flags & (VmFlag.SHARED | VmFlag.MAYWRITE) == VmFlag.MAYWRITE

    @property
    def leaf_pages(self) -> int:
        """4 KiB pages of one of a hugetlb area's pages; 1 in any other area."""
        return 1 << INDEX_BITS * (self.huge_level - 1) if self.huge_level else 1

    @property
    def resolves_itself(self) -> bool:
        """Does a write to a protected page of the area go through (userfaultfd_wp_async)?"""
        return self.uffd is not None and self.uffd.asynchronous

    @property
    def uses_markers(self) -> bool:
        """Are empty entries of the area protected by markers (userfaultfd_wp_use_markers)?"""
        return not self.is_anonymous or self.resolves_itself

    def offset(self, page: int) -> int:
        """linear_page_index"""
        return self.pgoff + page - self.start

    def shown_offset(self, page: int) -> int:
        """The offset that `page` shows: the linear one, or what remap_file_pages made it."""
        if self.remapped is not None and page in self.remapped:
            return self.remapped[page]
        return self.offset(page)


def anon_vma_clone(target: Vma, source: Vma) -> None:
    """Give `target` the anon_vma of `source`, and all its links (mm/rmap.c:anon_vma_clone)."""
    target.anon_vma = source.anon_vma
    target.chain = list(source.chain)


def unlink_anon_vmas(vma: Vma) -> None:
    """mm/rmap.c:unlink_anon_vmas"""
    vma.chain = []
    vma.anon_vma = None


def anon_vma_fork(child: Vma, parent: Vma) -> None:
    """Link a child's area to all that its parent's is linked to, and to an anon_vma of its own (mm/rmap.c).

    Later kernels may hand it one of those that no area has as its own any more, instead of a new one. Nobody can tell:
    no other area has it either, and two links are there both ways, so that the same areas may merge.
    """
    if not parent.anon_vma:
        return
    child.anon_vma = AnonVma(parent.anon_vma.identity)
    child.chain = [*parent.chain, child.anon_vma]
