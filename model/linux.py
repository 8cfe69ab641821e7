"""Facts of Linux's page-table software bits and memory management, by kernel profile.

Inert tables: no function, no condition.

Sources: arch/x86/include/asm/pgtable_types.h, include/linux/mm.h, fs/proc/task_mmu.c of each kernel.
"""

from enum import IntEnum
from typing import Final, NamedTuple


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


class NotPresentBit(IntEnum):
    """Bits of an entry with P=0 that is not zero (arch/x86/include/asm/pgtable_64.h)."""

    PROTNONE = 8
    """_PAGE_BIT_PROTNONE: the position of G. Set: a PROT_NONE page. Clear: a swap-like entry."""


class SwapLayout(NamedTuple):
    """Fields of a swap-like entry."""

    type_low: int
    """Lowest bit of the type."""
    type_bits: int
    offset_low: int
    """Lowest bit of the offset."""
    offset_bits: int
    inverted: bool
    """The offset is stored as its complement (the L1TF guard)."""
    soft_dirty: int | None
    """Bit that keeps soft-dirty; None: the entry keeps none."""
    uffd_wp: int | None
    exclusive: int | None
    marker_type: int | None
    """Type of a PTE marker; its offset's bit 0 is uffd-wp."""


SWAP_SEED: Final = SwapLayout(1, 5, 9, 55, False, None, None, None, None)
SWAP_3_11: Final = SwapLayout(1, 5, 9, 55, False, 7, None, None, None)
SWAP_6_1: Final = SwapLayout(59, 5, 9, 50, True, 1, 2, 3, 30)
SWAP_6_12: Final = SwapLayout(59, 5, 9, 50, True, 1, 2, 3, 31)


class TableMove(IntEnum):
    """When mremap relinks a whole page table instead of moving its entries (mm/mremap.c:move_page_tables)."""

    NEVER = 0
    ALIGNED = 1
    """Both addresses aligned to what the table maps, and all of it moved."""
    REALIGNED = 2
    """As ALIGNED, and a start with the same offset at both ends is first moved down to the boundary.

    6.10 and later.
    """


class SplitDirty(IntEnum):
    """What the 512 entries of a split huge page get of dirtiness (mm/huge_memory.c)."""

    ALWAYS = 0
    """D and soft-dirty, whatever the huge entry had."""
    NEVER = 1
    """D is dropped, soft-dirty copied."""
    IF_DIRTY = 2
    """pte_mkdirty when the huge entry is dirty: D and soft-dirty."""


class MergeRule(IntEnum):
    """Which code decides how areas merge."""

    CASES = 0
    """vma_merge with its eight cases, also for mmap (3.11)."""
    CASES_EXPAND = 1
    """The eight cases; mmap expands the next area first, then the one before (6.1)."""
    RANGES = 2
    """vma_merge_new_range and vma_merge_existing_range (6.12)."""


class SmapsLine(NamedTuple):
    """One line of smaps between an area's header and its VmFlags."""

    name: str
    width: int
    """Columns of the number."""
    unit: str
    """" kB" or nothing."""


SMAPS_3_11: Final = (
    SmapsLine("Size", 8, " kB"),
    SmapsLine("Rss", 8, " kB"),
    SmapsLine("Pss", 8, " kB"),
    SmapsLine("Shared_Clean", 8, " kB"),
    SmapsLine("Shared_Dirty", 8, " kB"),
    SmapsLine("Private_Clean", 8, " kB"),
    SmapsLine("Private_Dirty", 8, " kB"),
    SmapsLine("Referenced", 8, " kB"),
    SmapsLine("Anonymous", 8, " kB"),
    SmapsLine("AnonHugePages", 8, " kB"),
    SmapsLine("Swap", 8, " kB"),
    SmapsLine("KernelPageSize", 8, " kB"),
    SmapsLine("MMUPageSize", 8, " kB"),
    SmapsLine("Locked", 8, " kB"),
)
"""fs/proc/task_mmu.c:show_smap of 3.11."""
_SMAPS_HEAD: Final = (
    SmapsLine("Size", 8, " kB"),
    SmapsLine("KernelPageSize", 8, " kB"),
    SmapsLine("MMUPageSize", 8, " kB"),
    SmapsLine("Rss", 8, " kB"),
    SmapsLine("Pss", 8, " kB"),
    SmapsLine("Pss_Dirty", 8, " kB"),
    SmapsLine("Shared_Clean", 8, " kB"),
    SmapsLine("Shared_Dirty", 8, " kB"),
    SmapsLine("Private_Clean", 8, " kB"),
    SmapsLine("Private_Dirty", 8, " kB"),
    SmapsLine("Referenced", 8, " kB"),
    SmapsLine("Anonymous", 8, " kB"),
)
_SMAPS_TAIL: Final = (
    SmapsLine("LazyFree", 8, " kB"),
    SmapsLine("AnonHugePages", 8, " kB"),
    SmapsLine("ShmemPmdMapped", 8, " kB"),
    SmapsLine("FilePmdMapped", 8, " kB"),
    SmapsLine("Shared_Hugetlb", 8, " kB"),
    SmapsLine("Private_Hugetlb", 8, " kB"),
    SmapsLine("Swap", 8, " kB"),
    SmapsLine("SwapPss", 8, " kB"),
    SmapsLine("Locked", 8, " kB"),
)
_SMAPS_KEY: Final = SmapsLine("ProtectionKey", 8, "")
SMAPS_6_1: Final = (*_SMAPS_HEAD, *_SMAPS_TAIL, SmapsLine("THPeligible", 0, ""), _SMAPS_KEY)
"""show_smap of 6.1."""
SMAPS_6_12: Final = (
    *_SMAPS_HEAD,
    SmapsLine("KSM", 8, " kB"),
    *_SMAPS_TAIL,
    SmapsLine("THPeligible", 8, ""),
    _SMAPS_KEY,
)
"""show_smap of 6.12."""


class Profile(NamedTuple):
    """What differs between kernels, as far as soft-dirty can see it."""

    name: str
    has_vm_softdirty: bool
    """VM_SOFTDIRTY exists (3.12 and later)."""
    saved_dirty: bool
    """A read-only dirty entry keeps its dirtiness in SoftBit.SAVED_DIRTY (6.6 and later)."""
    keep_bits: tuple[int, ...]
    """Bits besides the frame that pte_modify keeps: _PAGE_CHG_MASK."""
    protnone_inverted: bool
    """The frame of a PROT_NONE entry is stored as its complement (the L1TF guard)."""
    swap: SwapLayout
    protection_keys: bool
    merge: MergeRule
    table_move: TableMove
    split_dirty: SplitDirty
    clear_values: tuple[int, ...]
    """Numbers that clear_refs takes."""
    clear_splits_huge: bool
    """clear_refs splits every huge page it meets (rule A10 of linux-seed)."""
    clear_swap: bool
    """clear_refs 4 clears soft-dirty of swap-like entries."""
    numa_fault: bool
    """A fault on a PROT_NONE entry of an accessible area restores the area's protection (mm/memory.c:do_numa_page)."""
    pin_one_file: bool
    """A registered buffer may lie in areas of one file only, or of none (io_uring/rsrc.c:io_pin_pages)."""
    reuse_by_mapcount: bool
    """A write fault reuses an anonymous page mapped once (3.11), not one that is exclusive or has one reference."""
    stack_guard_page: bool
    """The lowest page of an area that grows down is a guard page, grown when touched and not shown (3.11)."""
    anon_vma_reuse: bool
    """A forked or copied area may take over an anon_vma that no area uses any more (4.0 and later)."""
    fault_around_pages: int
    """Pages of the aligned block that a read fault of a file maps (fault_around_bytes)."""
    pagemap_v2: bool
    """pagemap has always had its status bits where the page shift was."""
    pagemap_reads_offset: bool
    """pagemap takes bit 11 of a swap entry, a bit of its offset, for soft-dirty (before 3.12)."""
    pagemap_exclusive: bool
    """pagemap tells bits 56 and 57."""
    hides_frames: bool
    """pagemap shows frame numbers with CAP_SYS_ADMIN only."""
    pagemap_keeps_mm: bool
    """A pagemap that was opened before its process ended reads as empty; otherwise ESRCH."""
    reports_compound_tails: bool
    """kpageflags gives a tail page its head's ANON and THP."""
    reports_zero_page: bool
    """kpageflags knows ZERO_PAGE and PGTABLE (4.0 and 4.18)."""
    reports_folio_flags: bool
    """kpageflags takes the flags of a tail page from its head, and calls every anonymous page KSM (6.10 and later)."""
    smaps_lines: tuple[SmapsLine, ...]
    pagemap_scan: bool
    userfaultfd: bool
    uffd_async: bool
    swap_in_restores_write: bool
    """A read swap-in of an exclusive soft-dirty page maps it writable."""
    migration_marks: bool
    """A dirty page gains soft-dirty by migration."""
    advices: frozenset[str]
    mremap_dontunmap: bool
    advises_whole: bool
    """MADV_FREE, COLD and PAGEOUT take a huge page in small entries whole; PAGEOUT leaves A (6.10 and later)."""
    mprotect_populates: bool
    """Locked private memory that becomes writable is faulted in for writing at once (4.2 and later)."""
    mprotect_unaccounts: bool
    """An anonymous area that was never faulted loses VM_ACCOUNT when it becomes read-only."""
    ksm_unshares: bool
    """A KSM page is broken up by FAULT_FLAG_UNSHARE: the copy is read-only and keeps soft-dirty (6.2 and later)."""
    ksm_needs_access: bool
    """KSM scans PROT_NONE pages too, but later finds none of them: a search ends there, and none is broken up."""
    ksm_max_sharing: int | None
    """Entries that may map one KSM page (max_page_sharing); None: any number."""
    lru_batch: int
    """Pages in a full batch for the LRU lists (PAGEVEC_SIZE); 0: a write fault does not count references."""
    lru_gen: bool
    """The LRU lists are generations (CONFIG_LRU_GEN_ENABLED)."""
    hugetlb_touched: bool
    """get_user_pages for a write sets A, D and soft-dirty in hugetlb entries."""
    exact: bool
    """Bit 55 tells exactly which pages may have changed since the last clear, and nothing else."""


_KEEP_3_11: Final = (3, 4, 5, 6, 9)
_KEEP_6_1: Final = (3, 4, 5, 6, 9, 10, 11, 58)
_KEEP_6_12: Final = (3, 4, 5, 6, 9, 10, 11, 57, 58)
ADVICES_3_11: Final = frozenset(
    (
        *("NORMAL", "RANDOM", "SEQUENTIAL", "WILLNEED", "DONTNEED", "REMOVE", "DONTFORK", "DOFORK", "MERGEABLE"),
        *("UNMERGEABLE", "HUGEPAGE", "NOHUGEPAGE", "DONTDUMP", "DODUMP", "SOFT_OFFLINE", "PAGEOUT"),
    )
)
"""Stock 3.11 has no PAGEOUT; its recordings use that word for a push through the reclaim code."""
ADVICES_6_1: Final = ADVICES_3_11 | {
    *("FREE", "COLD", "WIPEONFORK", "KEEPONFORK", "POPULATE_READ", "POPULATE_WRITE", "DONTNEED_LOCKED", "COLLAPSE"),
}

LINUX_SEED: Final = Profile(
    name="linux-seed",
    has_vm_softdirty=False,
    saved_dirty=False,
    keep_bits=_KEEP_3_11,
    protnone_inverted=False,
    swap=SWAP_SEED,
    protection_keys=False,
    merge=MergeRule.CASES,
    table_move=TableMove.NEVER,
    split_dirty=SplitDirty.ALWAYS,
    clear_values=(1, 2, 3, 4),
    clear_splits_huge=True,
    clear_swap=False,
    numa_fault=False,
    pin_one_file=False,
    reuse_by_mapcount=True,
    stack_guard_page=True,
    anon_vma_reuse=False,
    fault_around_pages=1,
    pagemap_v2=False,
    pagemap_reads_offset=True,
    pagemap_exclusive=False,
    hides_frames=False,
    pagemap_keeps_mm=False,
    reports_compound_tails=False,
    reports_zero_page=False,
    reports_folio_flags=False,
    smaps_lines=SMAPS_3_11,
    pagemap_scan=False,
    userfaultfd=False,
    uffd_async=False,
    swap_in_restores_write=False,
    migration_marks=False,
    advices=ADVICES_3_11,
    mremap_dontunmap=False,
    advises_whole=False,
    mprotect_populates=False,
    mprotect_unaccounts=False,
    ksm_unshares=False,
    ksm_needs_access=False,
    ksm_max_sharing=None,
    lru_batch=0,
    lru_gen=False,
    hugetlb_touched=False,
    exact=False,
)
LINUX_3_11: Final = LINUX_SEED._replace(name="linux-3.11", swap=SWAP_3_11, clear_swap=True)
LINUX_6_1: Final = Profile(
    name="linux-6.1",
    has_vm_softdirty=True,
    saved_dirty=False,
    keep_bits=_KEEP_6_1,
    protnone_inverted=True,
    swap=SWAP_6_1,
    protection_keys=True,
    merge=MergeRule.CASES_EXPAND,
    table_move=TableMove.ALIGNED,
    split_dirty=SplitDirty.NEVER,
    clear_values=(1, 2, 3, 4, 5),
    clear_splits_huge=False,
    clear_swap=True,
    numa_fault=True,
    pin_one_file=True,
    reuse_by_mapcount=False,
    stack_guard_page=False,
    anon_vma_reuse=True,
    fault_around_pages=16,
    pagemap_v2=True,
    pagemap_reads_offset=False,
    pagemap_exclusive=True,
    hides_frames=True,
    pagemap_keeps_mm=True,
    reports_compound_tails=True,
    reports_zero_page=True,
    reports_folio_flags=False,
    smaps_lines=SMAPS_6_1,
    pagemap_scan=False,
    userfaultfd=True,
    uffd_async=False,
    swap_in_restores_write=False,
    migration_marks=True,
    advices=ADVICES_6_1,
    mremap_dontunmap=True,
    advises_whole=False,
    mprotect_populates=True,
    mprotect_unaccounts=False,
    ksm_unshares=False,
    ksm_needs_access=True,
    ksm_max_sharing=256,
    lru_batch=15,
    lru_gen=False,
    hugetlb_touched=False,
    exact=False,
)
LINUX_6_12: Final = LINUX_6_1._replace(
    name="linux-6.12",
    saved_dirty=True,
    keep_bits=_KEEP_6_12,
    swap=SWAP_6_12,
    merge=MergeRule.RANGES,
    table_move=TableMove.REALIGNED,
    split_dirty=SplitDirty.IF_DIRTY,
    reports_folio_flags=True,
    smaps_lines=SMAPS_6_12,
    pagemap_scan=True,
    uffd_async=True,
    swap_in_restores_write=True,
    migration_marks=False,
    advises_whole=True,
    mprotect_unaccounts=True,
    ksm_unshares=True,
    ksm_needs_access=False,
    pin_one_file=False,
    lru_batch=31,
    lru_gen=True,
    hugetlb_touched=True,
)
EXACT: Final = LINUX_6_1._replace(name="exact", exact=True)
PROFILES: Final = {p.name: p for p in (LINUX_SEED, LINUX_3_11, LINUX_6_1, LINUX_6_12, EXACT)}
"""Name to profile."""


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
    ("rd", "wr", "ex", "sh", "gd", "um", "uw", "lo", "dc", "ac", "nr", "ht", "wf", "sd", "hg", "nh")
)
"""The VmFlags that docs/scenario-format.md keeps."""


class PagemapBit(IntEnum):
    """Bits of a /proc/PID/pagemap word (fs/proc/task_mmu.c)."""

    SOFT_DIRTY = 55
    EXCLUSIVE = 56
    UFFD_WP = 57
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
    """PG_mappedtodisk; of an anonymous page PG_anon_exclusive (5.19 and later)."""


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


class ScanFlag(IntEnum):
    """Flags of the PAGEMAP_SCAN ioctl."""

    WP_MATCHING = 1
    CHECK_WPASYNC = 2


SCAN_ARGUMENT_BYTES: Final = 96
SCAN_BUFFER_REGIONS: Final = 512
"""Regions that the kernel gathers before it copies them out (PAGEMAP_WALK_SIZE / PAGE_SIZE)."""
TABLE_FLAGS: Final = 0x67
"""_PAGE_TABLE: P, RW, US, A and D of every entry that points to a table."""
HUGE_PAGES: Final = 512
"""4 KiB pages of a 2 MiB page."""
GIGANTIC_PAGES: Final = 512 * 512
FILE_PAGES: Final = 8192
"""Length of a scenario's tmpfs file, in pages."""
BLOCK_FILE_PAGES: Final = 64
"""Length of the ext2 files s4 and p4 of the 3.11 recordings."""
HUGETLB_POOL: Final = 8
"""2 MiB hugetlb pages of the recorded machines."""
TASK_PAGES: Final = (1 << 47 - 12) - 1
"""TASK_SIZE with four levels, in pages."""
STACK_GUARD_GAP: Final = 256
"""Pages kept free below an area that grows down (mm/mmap.c:stack_guard_gap)."""
STACK_LIMIT: Final = 2048
"""RLIMIT_STACK in pages: 8 MiB."""
PKRU_AFTER_FAULT: Final = 0x55555554
"""PKRU in a signal handler (arch/x86/mm/pkeys.c:init_pkru_value)."""
