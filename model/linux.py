"""Facts of Linux's page-table software bits and memory management that every kernel shares.

Inert tables: no function, no condition. What differs between kernels is in profiles.py.

Sources: arch/x86/include/asm/pgtable_types.h, include/linux/mm.h, fs/proc/task_mmu.c.
"""

from enum import IntEnum
from types import MappingProxyType
from typing import Final


class SoftBit(IntEnum):
    """Software bits of a present entry that every profile and the gateware share."""

    SPECIAL = 9
    UFFD_WP = 10
    SOFT_DIRTY = 11
    """_PAGE_BIT_SOFT_DIRTY, the seed commit's bit (_PAGE_BIT_HIDDEN there)."""
    ARM = 52
    """ptewalk's own: the entry may be made writable by a mend. Linux leaves bit 52 unused."""
    SAVED_DIRTY = 58
    """_PAGE_BIT_SAVED_DIRTY of 6.6 and later: dirty, of a read-only entry."""


class Track(IntEnum):
    """Who tracks: the ways the MMU treats soft-dirty."""

    OFF = 0
    """A plain x86 MMU: soft-dirty is software's."""
    FAULT = 1
    """The seed's mechanism without the trap: a write to an armed entry mends it."""
    NATIVE = 2
    """Soft-dirty as a second dirty bit: no write-protection at all."""


class PteMarker(IntEnum):
    """What a PTE marker says, in its offset (include/linux/leafops.h)."""

    UFFD_WP = 1
    GUARD = 4


class NotPresentBit(IntEnum):
    """Bits of an entry with P=0 that is not zero (arch/x86/include/asm/pgtable_64.h)."""

    PROTNONE = 8
    """_PAGE_BIT_PROTNONE: the position of G. Set: a PROT_NONE page. Clear: a swap-like entry."""


class VmFlag:
    """Flags of an area (include/linux/mm.h); the numbers of 6.1 stand for every kernel."""

    READ: Final = 1 << 0
    WRITE: Final = 1 << 1
    EXEC: Final = 1 << 2
    SHARED: Final = 1 << 3
    MAYREAD: Final = 1 << 4
    MAYWRITE: Final = 1 << 5
    MAYEXEC: Final = 1 << 6
    MAYSHARE: Final = 1 << 7
    GROWSDOWN: Final = 1 << 8
    UFFD_MISSING: Final = 1 << 9
    MAYBE_GUARD: Final = 1 << 11
    """The area has, or had, guard regions (6.19)."""
    UFFD_WP: Final = 1 << 12
    LOCKED: Final = 1 << 13
    SEQ_READ: Final = 1 << 15
    RAND_READ: Final = 1 << 16
    DONTCOPY: Final = 1 << 17
    DONTEXPAND: Final = 1 << 18
    ACCOUNT: Final = 1 << 20
    NORESERVE: Final = 1 << 21
    HUGETLB: Final = 1 << 22
    NONLINEAR: Final = 1 << 23
    WIPEONFORK: Final = 1 << 25
    DONTDUMP: Final = 1 << 26
    SOFTDIRTY: Final = 1 << 27
    HUGEPAGE: Final = 1 << 29
    NOHUGEPAGE: Final = 1 << 30
    MERGEABLE: Final = 1 << 31
    PKEY_LOW: Final = 32
    """Lowest of the four bits of the protection key."""


SMAPS_FLAGS: Final = (
    (VmFlag.READ, "rd"),
    (VmFlag.WRITE, "wr"),
    (VmFlag.EXEC, "ex"),
    (VmFlag.SHARED, "sh"),
    (VmFlag.MAYREAD, "mr"),
    (VmFlag.MAYWRITE, "mw"),
    (VmFlag.MAYEXEC, "me"),
    (VmFlag.MAYSHARE, "ms"),
    (VmFlag.GROWSDOWN, "gd"),
    (VmFlag.UFFD_MISSING, "um"),
    (VmFlag.MAYBE_GUARD, "gu"),
    (VmFlag.UFFD_WP, "uw"),
    (VmFlag.LOCKED, "lo"),
    (VmFlag.SEQ_READ, "sr"),
    (VmFlag.RAND_READ, "rr"),
    (VmFlag.DONTCOPY, "dc"),
    (VmFlag.DONTEXPAND, "de"),
    (VmFlag.ACCOUNT, "ac"),
    (VmFlag.NORESERVE, "nr"),
    (VmFlag.HUGETLB, "ht"),
    (VmFlag.WIPEONFORK, "wf"),
    (VmFlag.DONTDUMP, "dd"),
    (VmFlag.SOFTDIRTY, "sd"),
    (VmFlag.HUGEPAGE, "hg"),
    (VmFlag.NOHUGEPAGE, "nh"),
    (VmFlag.MERGEABLE, "mg"),
)
"""VmFlags of smaps, in its order (fs/proc/task_mmu.c:show_smap_vma_flags)."""
RECORDED_FLAGS: Final = frozenset(
    ("rd", "wr", "ex", "sh", "gd", "um", "uw", "lo", "dc", "ac", "nr", "ht", "wf", "sd", "hg", "nh", "gu")
)
"""The VmFlags that docs/scenario-format.md keeps."""
LATER_FLAGS: Final = frozenset(("mg", "sr", "rr", "dd"))
"""VmFlags that a recording keeps whose scenario line has "vm_flags": "all"; others may show them."""


class PagemapBit(IntEnum):
    """Bits of a /proc/PID/pagemap word (fs/proc/task_mmu.c)."""

    SOFT_DIRTY = 55
    EXCLUSIVE = 56
    UFFD_WP = 57
    GUARD = 58
    FILE = 61
    SWAP = 62
    PRESENT = 63


PAGEMAP_FRAME_BITS: Final = 55
PAGEMAP_SWAP_TYPE_BITS: Final = 5
PAGEMAP_V1_SHIFT_LOW: Final = 55
"""Lowest bit of the page-shift field of the first layout; the field always holds 12."""
PAGEMAP_LETTERS: Final = (
    (PagemapBit.PRESENT, "P"),
    (PagemapBit.SWAP, "S"),
    (PagemapBit.FILE, "F"),
    (PagemapBit.GUARD, "G"),
    (PagemapBit.UFFD_WP, "W"),
    (PagemapBit.EXCLUSIVE, "X"),
    (PagemapBit.SOFT_DIRTY, "D"),
)
"""Letters of docs/scenario-format.md, in its order."""


class KpageflagsBit(IntEnum):
    """Bits of a /proc/kpageflags word that the model knows (include/uapi/linux/kernel-page-flags.h)."""

    UPTODATE = 3
    DIRTY = 4
    BUDDY = 10
    MMAP = 11
    ANON = 12
    SWAPCACHE = 13
    SWAPBACKED = 14
    COMPOUND_HEAD = 15
    COMPOUND_TAIL = 16
    HUGE = 17
    NOPAGE = 20
    KSM = 21
    THP = 22
    ZERO_PAGE = 24
    PGTABLE = 26
    RESERVED = 32
    MAPPEDTODISK = 34
    """PG_mappedtodisk; of an anonymous page PG_anon_exclusive (6.1)."""


FIRST_SPECIAL_SWAP_TYPE: Final = 26
"""Swap types from here on are not swap devices: migration entries, markers and the like."""


class ScanCategory(IntEnum):
    """Page categories of the PAGEMAP_SCAN ioctl (include/uapi/linux/fs.h)."""

    WPALLOWED = 1
    WRITTEN = 2
    FILE = 4
    PRESENT = 8
    SWAPPED = 16
    PFNZERO = 32
    HUGE = 64
    SOFT_DIRTY = 128
    GUARD = 256
    ACCESSED = 512


class ScanFlag(IntEnum):
    """Flags of the PAGEMAP_SCAN ioctl."""

    WP_MATCHING = 1
    CHECK_WPASYNC = 2


ADVICE: Final = MappingProxyType(
    {
        "NORMAL": 0,
        "RANDOM": 1,
        "SEQUENTIAL": 2,
        "WILLNEED": 3,
        "DONTNEED": 4,
        "FREE": 8,
        "REMOVE": 9,
        "DONTFORK": 10,
        "DOFORK": 11,
        "MERGEABLE": 12,
        "UNMERGEABLE": 13,
        "HUGEPAGE": 14,
        "NOHUGEPAGE": 15,
        "DONTDUMP": 16,
        "DODUMP": 17,
        "WIPEONFORK": 18,
        "KEEPONFORK": 19,
        "COLD": 20,
        "PAGEOUT": 21,
        "POPULATE_READ": 22,
        "POPULATE_WRITE": 23,
        "DONTNEED_LOCKED": 24,
        "COLLAPSE": 25,
        "SOFT_OFFLINE": 101,
        "GUARD_INSTALL": 102,
        "GUARD_REMOVE": 103,
    }
)
"""Advice of madvise, by its name without MADV_ (include/uapi/asm-generic/mman-common.h, to Linux 6.13). HWPOISON is
not among them: it leaves the machine with less memory."""

SCAN_ARGUMENT_BYTES: Final = 96
SCAN_RETURN_MASK: Final = 255
"""The categories of 6.7, and what a scenario asks for when it names none."""
SCAN_BUFFER_REGIONS: Final = 512
"""Regions that the kernel gathers before it copies them out (PAGEMAP_WALK_SIZE / PAGE_SIZE)."""
TABLE_FLAGS: Final = 0x67
"""_PAGE_TABLE: P, RW, US, A and D of every entry that points to a table."""
HUGE_PAGES: Final = 512
"""4 KiB pages of a 2 MiB page."""
GIGANTIC_PAGES: Final = 512 * 512
WINDOW_PAGES: Final = 1 << 39 - 12
"""Pages from a scenario's base on that a recorder looks at."""
FILE_PAGES: Final = 8192
"""Length of a scenario's tmpfs file, in pages."""
BLOCK_FILE_PAGES: Final = 64
"""Length of the ext2 files s4 and p4 of the 3.11 recordings."""
HUGETLB_POOL: Final = (4, 4)
"""2 MiB hugetlb pages of the recorded machines, by memory node where there are two."""
TASK_PAGES: Final = {4: (1 << 35) - 1, 5: (1 << 44) - 1}
"""Levels to TASK_SIZE, in pages (arch/x86/include/asm/page_64.h:task_size_max)."""
STACK_PAGE: Final = (1 << 35) - 2
"""Highest page of a process's own stack, with four levels and with five (STACK_TOP, no randomisation)."""
STACK_GUARD_GAP: Final = 256
"""Pages kept free below an area that grows down (mm/mmap.c:stack_guard_gap)."""
STACK_LIMIT: Final = 2048
"""RLIMIT_STACK in pages: 8 MiB."""
PKRU_AFTER_FAULT: Final = 0x55555554
"""PKRU in a signal handler (arch/x86/mm/pkeys.c:init_pkru_value)."""
