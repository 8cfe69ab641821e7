"""What differs between kernels: the fields of a profile. Inert: no function, no condition.

A field says one thing, and its name begins with the one file that reads it: `gup_forces_shared` is read in mm/gup.py.
Only `name` and `verbs` are for everybody. The kernels themselves are in profiles.py. A version is that of the first one
there that does so, as its recordings show (tests/model/test_profile_flips.py); what came between two is not said.
"""

from enum import IntEnum
from typing import NamedTuple


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


class TableMove(IntEnum):
    """When mremap relinks a whole page table instead of moving its entries (mm/mremap.c:move_page_tables)."""

    NEVER = 0
    ALIGNED = 1
    """Both addresses aligned to what the table maps, and all of it moved."""
    REALIGNED = 2
    """As ALIGNED, and a start with the same offset at both ends is first moved down to the boundary (6.12)."""


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


class LazyBatch(IntEnum):
    """Entries of a large page with MADV_FREE that are unmapped together (mm/rmap.c:try_to_unmap_one)."""

    ONE = 0
    ANY = 1
    """All that follow, whatever their RW, D, A and soft-dirty (can_batch_unmap_folio_ptes)."""
    ALIKE = 2
    """All that follow with the same RW and soft-dirty (folio_unmap_pte_batch)."""


class SmapsLine(NamedTuple):
    """One line of smaps between an area's header and its VmFlags."""

    name: str
    width: int
    """Columns of the number."""
    unit: str
    """" kB" or nothing."""


class Profile(NamedTuple):
    """What differs between kernels, as far as soft-dirty can see it."""

    name: str
    verbs: frozenset[str]
    """Operations of a scenario that the kernel, or what records it, knows."""

    # pte.py: bits of entries.
    pte_vm_softdirty: bool
    """VM_SOFTDIRTY exists (6.1)."""
    pte_saved_dirty: bool
    """A read-only dirty entry keeps its dirtiness in SoftBit.SAVED_DIRTY (6.6 and later; pte_mksaveddirty)."""
    pte_uffd_wp_protects: bool
    """pte_mkuffd_wp clears RW as well (6.12)."""
    pte_keep_bits: tuple[int, ...]
    """Bits besides the frame that pte_modify keeps: _PAGE_CHG_MASK."""
    pte_inverts_prot_none: bool
    """The frame of a PROT_NONE entry is stored as its complement (6.1, the L1TF guard; protnone_mask)."""
    pte_swap: SwapLayout

    # state/machine.py, state/lru.py
    machine_pagemap_v2: bool
    """pagemap has always had its status bits where the page shift was (6.1)."""
    machine_thp_anon: bool
    """The boot parameter thp_anon gives sizes of transparent huge pages (setup_thp_anon; 6.12)."""
    lru_batch: int
    """Pages in a full batch for the LRU lists (PAGEVEC_SIZE); 0: a write fault does not count references."""
    lru_gen: bool
    """The LRU lists are generations (CONFIG_LRU_GEN_ENABLED)."""

    # mm/
    modify_merge: MergeRule
    modify_uffd_by_part: bool
    """Registering part of an area merges by that part's offset; 6.1 takes the area's own (userfaultfd_register)."""
    modify_uffd_keeps_mark: bool
    """An area merged as it is registered or unregistered keeps its own VM_SOFTDIRTY; 6.1 gives it the part's flags.

    userfaultfd_set_ctx.
    """
    modify_keeps_marks: bool
    """A merged area has VM_SOFTDIRTY and VM_MAYBE_GUARD if any part of it had them (VM_STICKY; 7.2)."""
    modify_takes_anon: bool
    """An area without an anon_vma merges with pages that have one, and takes it over (is_mergeable_anon_vma; 6.18)."""
    modify_joins_source: bool
    """MREMAP_DONTUNMAP may merge the source with the copy (copy_vma of 6.18, not of 7.2)."""
    modify_keeps_offsets: bool
    """The source of MREMAP_DONTUNMAP keeps its offsets (dontunmap_complete; 6.18 alone)."""
    modify_moves_files_apart: bool
    """A private file's area with an anon_vma merges with none that lacks one as it moves (copy_vma; 7.3)."""
    modify_moves_uffd_apart: bool
    """An area with a userfaultfd merges with nothing as it moves (copy_vma; 7.3)."""
    stack_guard_page: bool
    """The lowest page of an area that grows down is a guard page, grown when touched and not shown (in 3.11)."""
    mmap_drains: bool
    """Unmapping empties the batches of the LRU lists (lru_add_drain in unmap_region and zap_page_range; not 6.18)."""
    mmap_passes_errors_on: bool
    """MAP_FIXED fails as the unmapping it begins with does, otherwise with ENOMEM (6.12; vms_gather_munmap_vmas)."""
    filemap_splits_around: bool
    """Truncation leaves the rest of a huge page as large as it can be (truncate_inode_partial_folio; 6.18)."""
    faults_numa_hint: bool
    """A fault on a PROT_NONE entry of an accessible area restores the area's protection (mm/memory.c:do_numa_page)."""
    faults_around_pages: int
    """Pages of the aligned block that a read fault of a file maps (fault_around_bytes; 6.1)."""
    faults_around_folio: bool
    """All of a file's huge page is mapped around where it fits area and page table (filemap_map_pages; 6.18)."""
    faults_reuse_by_mapcount: bool
    """A write reuses an anonymous page mapped once, not one that is exclusive or has one reference.

    do_wp_page; in 3.11.
    """
    faults_copy_compound: bool
    """A write copies a part of a huge page that is not exclusive, whatever uses it (wp_can_reuse_anon_folio; 6.12)."""
    faults_huge_shmem: bool
    """A fault of shared memory or tmpfs with MADV_HUGEPAGE makes a huge page (6.1; mm/shmem.c)."""
    faults_huge_shmem_suits_area: bool
    """Only where the area can map it as a whole (shmem_suitable_orders; 6.12)."""
    faults_whole_folio: bool
    """A write to shared anonymous memory maps all of a huge page by small entries (finish_fault; 6.12)."""
    faults_mark_dirty_files: bool
    """A read fault that maps a file's dirty page writable sets D and soft-dirty (set_pte_range; 6.18)."""
    faults_reuse_compound: bool
    """A write reuses a part of a huge page that only this process maps (__wp_can_reuse_large_anon_folio; 6.18)."""
    faults_empty_batches: bool
    """A write to a page that is on no LRU list yet empties the batches, as a recording shows (do_wp_page; 6.18)."""
    thp_reuses_by_mapcount: bool
    """A write reuses a huge page that one entry maps (do_huge_pmd_wp_page, in 3.11)."""
    thp_copies_whole: bool
    """A write copies a shared huge page whole or in 512 parts; later it is split (do_huge_pmd_wp_page, in 3.11)."""
    thp_shared_by_process: bool
    """A large page is shared if another process maps it, however often this one does (6.18)."""
    thp_replaces_zero: bool
    """A write to the huge zero page gets a huge page (do_huge_zero_wp_pmd of 6.18; 3.11); otherwise it is split."""
    thp_zero_is_special: bool
    """The entry of the huge zero page is special (set_huge_zero_folio; 6.18)."""
    thp_split_dirty: SplitDirty
    thp_split_maps_zeros: bool
    """Splitting a huge page maps those parts that hold zeros to the zero page (try_to_map_unused_to_zeropage; 6.12)."""
    thp_advises_whole: bool
    """MADV_FREE, COLD and PAGEOUT take a huge page in small entries whole (folio_pte_batch; 6.12)."""
    thp_file_minds_advice: bool
    """MADV_NOHUGEPAGE keeps a fault from mapping a file's huge page as one leaf (do_set_pmd; 6.12)."""
    swapin_through_cache: bool
    """A page read back always keeps its slot and stays in the swap cache (do_swap_page, in 3.11)."""
    swapin_reuses_by_mapcount: bool
    """A write swap-in asks for the number of users of page and slot (reuse_swap_page, in 3.11)."""
    swapin_restores_write: bool
    """A read swap-in of an exclusive soft-dirty page maps it writable (do_swap_page of 6.12)."""
    swapin_always_cached: bool
    """All pages read back pass through the swap cache (do_swap_page; 7.2).

    They are dirty at once (folio_free_swap), and exclusive only where the entry says so.
    """
    swapin_reads_ahead: bool
    """Neighbours come back with a page whose slot several entries name, into the swap cache (swap_vma_readahead)."""
    swapin_off_keeps_marks: bool
    """swapoff keeps soft-dirty and uffd-wp, and what its entry says of exclusive (unuse_pte; 5.19)."""
    remap_forgets: bool
    """A migration entry keeps neither soft-dirty nor D nor A (remove_migration_pte of 3.11)."""
    remap_marks: bool
    """A dirty page gains soft-dirty by migration (remove_migration_pte of 6.1)."""
    remap_protects: bool
    """A read-only entry stays so though its area's pages are mapped writable (remove_migration_pte, up to 6.1)."""
    hugetlb_touched: bool
    """get_user_pages for a write sets A, D and soft-dirty in hugetlb entries (follow_page_pte serves them; 6.12)."""
    hugetlb_restores_reserve: bool
    """A private page that is dropped goes back to its area's reservation (6.12; __unmap_hugepage_range)."""
    hugetlb_fork_keeps_wp: bool
    """A child's entries keep uffd-wp though its areas have no userfaultfd (in 6.1; copy_hugetlb_page_range)."""
    hugetlb_forced_is_read_only: bool
    """A forced write leaves the entry of an area without VM_WRITE read-only (hugetlb_wp; 6.18)."""
    hugetlb_prepares_first: bool
    """A first touch gives the area its anon_vma before it asks for a page (6.12; hugetlb_no_page)."""
    hugetlb_counts_any_table: bool
    """How many share a table is asked of those with entries of 1 GiB too (6.18; copy_hugetlb_page_range)."""
    collapse_hole_is_ebusy: bool
    """MADV_COLLAPSE of an empty entry where a userfaultfd is fails with EBUSY, before with EINVAL.

    madvise_collapse_errno of 6.12.
    """
    collapse_retracts_all: bool
    """Of shared memory every area's emptied table goes, and mapping is a second step (retract_page_tables; 6.12)."""
    collapse_part_is_fine: bool
    """MADV_COLLAPSE of a part of one 2 MiB block does nothing, with success (madvise_collapse; 7.2)."""
    collapse_takes_read_only: bool
    """No entry needs to be writable for MADV_COLLAPSE (hpage_collapse_scan_pmd; 6.18)."""
    fork_drains: bool
    """So does fork: the child's first write to its stack (wp_can_reuse_anon_folio; not 6.18)."""
    fork_copies_hugetlb: bool
    """Private hugetlb entries are copied although nothing was written (copy_page_range of 3.11)."""
    fork_makes_huge_zero_anew: bool
    """The child's entry of the huge zero page is a new one, without the parent's bits (copy_huge_pmd of 3.11)."""
    fork_copies_pinned: bool
    """A pinned page is copied for the child at once (copy_present_page, copy_huge_pmd; 6.1)."""
    guard_sets_flag: bool
    """A guard region sets VM_MAYBE_GUARD; in a file's area it needs no anon_vma then (madvise_guard_install; 7.2)."""
    gup_force_breaks_cow: bool
    """A forced write takes what is mapped after one fault, for FOLL_WRITE is dropped (in 3.11).

    Later it asks for an exclusive page (can_follow_write_pte).
    """
    gup_forces_hugetlb: bool
    """A forced write reaches hugetlb areas that are not writable (check_vma_flags of 3.11)."""
    gup_forces_shared: bool
    """A forced write reaches shared areas that are not writable but may be made so (check_vma_flags of 3.11)."""
    gup_marks_huge: bool
    """A huge page that is looked up gets A and D for a read too (follow_trans_huge_pmd of 3.11)."""
    gup_pins_one_file: bool
    """A registered buffer may lie in areas of one file only, or of none (io_uring/rsrc.c:io_pin_pages of 6.1)."""
    gup_pin_touches: bool
    """From the first page on that has to be faulted in, pinning touches (io_pin_pages; 6.12)."""
    ksm_merges_within_huge: bool
    """Equal parts of one huge page are merged once it is split; later it is only split (cmp_and_merge_page, 3.11)."""
    ksm_marks_zero_pages: bool
    """An entry that KSM points to the zero page is dirty (replace_page of 6.12; is_ksm_zero_pte)."""
    ksm_unshares: bool
    """A KSM page is broken up by FAULT_FLAG_UNSHARE: the copy is read-only and keeps soft-dirty (6.12)."""
    ksm_needs_access: bool
    """KSM scans PROT_NONE pages too, but later finds none of them: a search ends there, and none is broken up."""
    ksm_skips: bool
    """Pages that were scanned in vain are left out of later passes, as a recording shows (smart_scan; 6.7)."""
    ksm_max_sharing: int | None
    """Entries that may map one KSM page (max_page_sharing); None: any number."""
    madvise_advices: frozenset[str]
    madvise_populates_before_walking: bool
    """MADV_POPULATE_* is done before areas are looked for; a hole ends it at once (madvise_do_behavior of 6.12)."""
    madvise_pageout_is_push: bool
    """PAGEOUT is the recorder's push through the reclaim code of 3.11, which has no such advice."""
    madvise_refuses_repeated_huge: bool
    """HUGEPAGE and NOHUGEPAGE fail where the flag is set already, and in shared areas (hugepage_madvise of 3.11)."""
    madvise_drops_hugetlb: bool
    """DONTNEED takes hugetlb areas (madvise_dontneed_free_valid_vma; 6.1)."""
    madvise_keeps_special_unforked: bool
    """DOFORK refuses areas that may not be expanded, as those of hugetlb (madvise_vma_behavior; 7.2)."""
    madvise_reclaims_tables: bool
    """DONTNEED frees a page table that it empties as a whole (zap_pte_range with CONFIG_PT_RECLAIM; 6.18)."""
    madvise_remove_needs_write: bool
    """REMOVE needs a writable area, not one that may be made so (madvise_remove of 3.11)."""
    madvise_punches_hugetlb: bool
    """REMOVE makes a hole in a hugetlb file; EOPNOTSUPP in 3.11 (hugetlbfs_fallocate)."""
    migrate_leaves_slots: bool
    """Entries of a page in the swap cache name its slot after migration (try_to_unmap_one of 3.11)."""
    migrate_empty_is_efault: bool
    """move_pages says EFAULT of an anonymous page that was never there, later ENOENT (do_pages_stat_array; 6.12)."""
    migrate_sees_prot_none: bool
    """move_pages finds PROT_NONE pages (add_page_for_migration of 6.12)."""
    migrate_marks_partly_mapped: bool
    """A large page with small entries counts as mapped in parts once it was moved (migrate_folio_move; not 6.18)."""
    migrate_takes_tails: bool
    """move_pages takes any page of a hugetlb page for the whole (6.12; add_folio_for_migration)."""
    migrate_splits_partly_mapped: bool
    """A huge page of which parts are not mapped any more is split first (6.12; migrate_pages_batch)."""
    mprotect_restores_private: bool
    """mprotect makes entries of private areas writable that need no fault (can_change_pte_writable; 6.1)."""
    mprotect_restores_clean: bool
    """Private entries need not be dirty for that (can_change_private_pte_writable; 6.12)."""
    mprotect_restores_huge: bool
    """Huge pages are made writable as well (can_change_pmd_writable; 6.12)."""
    mprotect_populates: bool
    """Locked private memory that becomes writable is faulted in for writing at once (6.1)."""
    mprotect_in_batches: bool
    """Entries of one large page are changed together, as one entry is (mprotect_folio_pte_batch; 6.18)."""
    mprotect_forgets_huge_dirty: bool
    """A huge page that becomes read-only loses D (pmd_modify of 6.18, not of 7.2)."""
    mprotect_unaccounts: bool
    """An anonymous area that was never faulted loses VM_ACCOUNT when it becomes read-only (6.12)."""
    mremap_checks_addresses_first: bool
    """With FIXED the addresses are checked before the source, and a shrink looks at nothing (sys_mremap of 3.11)."""
    mremap_moves_many: bool
    """FIXED with one length moves all areas of the range; everything is checked first (do_mremap; 6.18)."""
    mremap_refuses_hugetlb: bool
    """hugetlb areas are neither moved nor grown (vma_to_resize, in 3.11)."""
    mremap_empties_private: bool
    """An old size of 0 is taken for private areas too (vma_to_resize, in 3.11)."""
    mremap_same_place_overlaps: bool
    """A move to where the area is overlaps it (mremap_to of 3.11)."""
    mremap_splits_nohugepage: bool
    """A huge page that moves into an area with VM_NOHUGEPAGE is split (move_huge_pmd of 3.11)."""
    mremap_table_move: TableMove
    mremap_dontunmap: bool
    """MREMAP_DONTUNMAP exists (6.1)."""
    mremap_unlocks_all: bool
    """MREMAP_DONTUNMAP of a part of a locked area unlocks all of it (dontunmap_complete of 6.18, not of 7.2)."""
    mremap_failure_takes_reserve: bool
    """A move of hugetlb memory that fails takes the reservation of what stays (copy_vma_and_data; 6.18)."""
    reclaim_lazy_batch: LazyBatch
    """What is unmapped together of a large page with MADV_FREE (ANY 6.18, ALIKE 7.2)."""
    reclaim_swaps_files_whole: bool
    """A large page of shared memory is swapped out as it is, and comes back so (shmem_writeout; 6.18)."""
    reclaim_splits_lazy: bool
    """A huge page with MADV_FREE is split before it is unmapped (not 6.18 and 7.2: unmap_huge_pmd_locked)."""
    reclaim_keeps_accessed: bool
    """PAGEOUT leaves A of the entries it takes (madvise_cold_or_pageout_pte_range; 6.12)."""
    uffd_empty_is_einval: bool
    """A range with nothing in it fails with EINVAL; 6.1 says ENOMEM where nothing lies above it either.

    userfaultfd_register, userfaultfd_unregister.
    """
    uffd_restores_write: bool
    """Taking protection back may make entries writable at once (uffd_wp_range; 6.12)."""
    uffd_wp_spans_areas: bool
    """UFFDIO_WRITEPROTECT takes a range over several areas (mwriteprotect_range; 6.12)."""

    # bulk.py and proc/
    bulk_clears_swap: bool
    """clear_refs 4 clears soft-dirty of swap-like entries (linux-3.11, not linux-seed; clear_soft_dirty)."""
    bulk_reads_offset: bool
    """pagemap takes bit 11 of a swap entry, a bit of its offset, for soft-dirty (in 3.11)."""
    bulk_tells_uffd: bool
    """pagemap tells UFFD_WP in bit 57 (6.1)."""
    clear_refs_values: tuple[int, ...]
    """Numbers that clear_refs takes."""
    clear_refs_splits_huge: bool
    """clear_refs splits every huge page it meets (rule A10 of linux-seed; clear_refs_pte_range)."""
    clear_refs_keeps_pinned: bool
    """An entry that may map a pinned page stays as it is (pte_is_pinned; 6.1)."""
    pagemap_tells_exclusive: bool
    """pagemap tells in bit 56 of pages that are mapped once (6.1)."""
    pagemap_huge_files: bool
    """pagemap tells in bit 61 of huge pages too whether they are a file's (pagemap_hugetlb_range; 6.1)."""
    pagemap_exclusive_by_page: bool
    """Bit 56 under a huge leaf is each page's own (pagemap_pmd_range of 6.12)."""
    pagemap_exclusive_by_first: bool
    """Bit 56 under a huge leaf is that of the first page read, for all (pagemap_pmd_range_thp; 6.18)."""
    pagemap_special_is_no_file: bool
    """Bit 61 of the huge zero page is off (vm_normal_page_pmd; 7.3)."""
    pagemap_hides_frames: bool
    """pagemap shows frame numbers with CAP_SYS_ADMIN only (6.1)."""
    pagemap_scan_categories: int
    """Categories that PAGEMAP_SCAN knows (pagemap_scan_get_args)."""
    pagemap_scan_empty_is_written: bool
    """An empty entry is WRITTEN (pagemap_page_category; not in 6.18)."""
    pagemap_scan_written_needs_uffd: bool
    """Only pages of areas that a userfaultfd protects are WRITTEN (pagemap_page_category; 7.3)."""
    files_pagemap_keeps_mm: bool
    """A pagemap that was opened before its process ended reads as empty; otherwise ESRCH (6.1; pagemap_open)."""
    files_smaps_rollup: bool
    """smaps_rollup exists (6.1)."""
    kpage_compound_tails: bool
    """kpageflags gives a tail page its head's ANON and THP (stable_page_flags)."""
    kpage_zero_page: bool
    """kpageflags knows ZERO_PAGE and PGTABLE (6.1)."""
    kpage_folio_flags: bool
    """kpageflags takes the flags of a tail page from its head, and calls every anonymous page KSM (6.12)."""
    kpage_exclusive: bool
    """MAPPEDTODISK of an anonymous page says that it is exclusive (PG_anon_exclusive; 6.1)."""
    smaps_lines: tuple[SmapsLine, ...]
    smaps_counts_huge_zero: bool
    """AnonHugePages counts the huge zero page (3.11)."""
    smaps_counts_hidden_huge: bool
    """AnonHugePages counts huge pages that are PROT_NONE (smaps_pmd_entry: not 6.1)."""
    smaps_counts_shmem_swap: bool
    """Swap counts shared memory that is swapped out (smaps_pte_hole; 6.1)."""
    status_by_kind: bool
    """status tells RssAnon, RssFile and RssShmem, and HugetlbPages (6.1)."""
