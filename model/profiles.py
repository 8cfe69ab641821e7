"""What differs between kernels, by profile. Inert: a field says one thing, and the rules ask for it by name.

Sources: arch/x86/include/asm/pgtable_types.h, mm/, fs/proc/task_mmu.c of each kernel.
"""

from enum import IntEnum
from typing import Final, NamedTuple


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
    hugetlb_restores_reserve: bool
    """A private page that is dropped goes back to its area's reservation (6.9 and later; __unmap_hugepage_range)."""
    hugetlb_fork_keeps_wp: bool
    """A child's entries keep uffd-wp though its areas have no userfaultfd (before 6.4; copy_hugetlb_page_range)."""
    hugetlb_prepares_first: bool
    """A first touch gives the area its anon_vma before it asks for a page (6.10 and later; hugetlb_no_page)."""
    hugetlb_punches_holes: bool
    """MADV_REMOVE makes a hole; EOPNOTSUPP before 4.3 (hugetlbfs_fallocate)."""
    migrate_takes_tails: bool
    """move_pages takes any page of a hugetlb page for the whole (6.11 and later; add_folio_for_migration)."""
    migrate_splits_partly_mapped: bool
    """A huge page of which parts are not mapped any more is split first (6.8 and later; migrate_pages_batch)."""
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
    hugetlb_restores_reserve=False,
    hugetlb_fork_keeps_wp=False,
    hugetlb_prepares_first=False,
    hugetlb_punches_holes=False,
    migrate_takes_tails=False,
    migrate_splits_partly_mapped=False,
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
    hugetlb_restores_reserve=False,
    hugetlb_fork_keeps_wp=True,
    hugetlb_prepares_first=False,
    hugetlb_punches_holes=True,
    migrate_takes_tails=False,
    migrate_splits_partly_mapped=False,
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
    hugetlb_restores_reserve=True,
    hugetlb_fork_keeps_wp=False,
    hugetlb_prepares_first=True,
    migrate_takes_tails=True,
    migrate_splits_partly_mapped=True,
)
EXACT: Final = LINUX_6_1._replace(name="exact", exact=True)
PROFILES: Final = {p.name: p for p in (LINUX_SEED, LINUX_3_11, LINUX_6_1, LINUX_6_12, EXACT)}
"""Name to profile."""
