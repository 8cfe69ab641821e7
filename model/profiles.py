"""The kernels that are modelled, as profiles. Inert: no function, no condition.

A new kernel is a `_replace` here, and the files of what it does otherwise.

Sources: arch/x86/include/asm/pgtable_types.h, mm/, fs/proc/task_mmu.c of each kernel.
"""

from typing import Final

from ptewalk.model.linux import SCAN_RETURN_MASK, ScanCategory
from ptewalk.model.profile import LazyBatch, MergeRule, Profile, SmapsLine, SplitDirty, SwapLayout, TableMove

SWAP_SEED: Final = SwapLayout(1, 5, 9, 55, False, None, None, None, None)
SWAP_3_11: Final = SwapLayout(1, 5, 9, 55, False, 7, None, None, None)
SWAP_6_1: Final = SwapLayout(59, 5, 9, 50, True, 1, 2, 3, 30)
SWAP_6_12: Final = SwapLayout(59, 5, 9, 50, True, 1, 2, 3, 31)
_SMAPS_KB: Final = {
    name: SmapsLine(name, 8, " kB")
    for name in (
        *("Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty"),
        *("Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "KSM", "LazyFree", "AnonHugePages"),
        *("ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked"),
    )
}
"""The lines in kB, in the order of 6.12."""
_SMAPS_KEY: Final = SmapsLine("ProtectionKey", 8, "")
SMAPS_3_11: Final = tuple(
    _SMAPS_KB[name]
    for name in (
        *("Size", "Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced"),
        *("Anonymous", "AnonHugePages", "Swap", "KernelPageSize", "MMUPageSize", "Locked"),
    )
)
"""fs/proc/task_mmu.c:show_smap of 3.11."""
SMAPS_6_1: Final = (
    *(line for line in _SMAPS_KB.values() if line.name != "KSM"),
    SmapsLine("THPeligible", 0, ""),
    _SMAPS_KEY,
)
"""show_smap of 6.1."""
SMAPS_6_12: Final = (*_SMAPS_KB.values(), SmapsLine("THPeligible", 8, ""), _SMAPS_KEY)
"""show_smap of 6.12."""
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
ADVICES_6_18: Final = ADVICES_6_1 | {"GUARD_INSTALL", "GUARD_REMOVE"}
VERBS_ALL: Final = frozenset(
    (
        *("mmap", "munmap", "mlock", "munlock", "mprotect", "mremap", "madvise", "write", "read", "mem_write"),
        *("mem_read", "syscall_read_into", "file_write", "file_read", "ftruncate", "clear_refs", "fork", "exit"),
        "setuid",
    )
)
"""Operations that every kernel's recordings have."""
VERBS_3_11: Final = VERBS_ALL | {"clearraw", "remapfile", "same", "ksm", "sync", "swapoff", "swapon"}
VERBS_6_1: Final = VERBS_ALL | {
    *("move_pages", "ksm_scan", "pkey_mprotect", "wrpkru", "pin", "unpin", "uffd_reg", "uffd_wp", "uffd_unwp"),
}
VERBS_6_12: Final = VERBS_6_1 | {
    *("uffd_async_open", "uffd_async_reg", "uffd_async_unreg", "uffd_async_wp", "uffd_async_unwp", "pagemap_scan"),
}

LINUX_SEED: Final = Profile(
    name="linux-seed",
    verbs=VERBS_3_11,
    pte_vm_softdirty=False,
    pte_saved_dirty=False,
    pte_uffd_wp_protects=False,
    pte_keep_bits=_KEEP_3_11,
    pte_inverts_prot_none=False,
    pte_swap=SWAP_SEED,
    machine_pagemap_v2=False,
    machine_thp_anon=False,
    lru_batch=0,
    lru_gen=False,
    modify_merge=MergeRule.CASES,
    modify_uffd_by_part=False,
    modify_uffd_keeps_mark=False,
    modify_keeps_marks=False,
    modify_takes_anon=False,
    modify_joins_source=False,
    modify_moves_uffd_apart=False,
    stack_guard_page=True,
    mmap_drains=True,
    mmap_passes_errors_on=False,
    faults_numa_hint=False,
    faults_around_pages=1,
    faults_around_folio=False,
    faults_reuse_by_mapcount=True,
    faults_copy_compound=False,
    faults_huge_shmem=False,
    faults_huge_shmem_suits_area=False,
    faults_whole_folio=False,
    faults_mark_dirty_files=False,
    faults_reuse_compound=False,
    thp_reuses_by_mapcount=True,
    thp_copies_whole=True,
    thp_replaces_zero=True,
    thp_zero_is_special=False,
    thp_split_dirty=SplitDirty.ALWAYS,
    thp_split_maps_zeros=False,
    thp_advises_whole=False,
    thp_file_minds_advice=False,
    swapin_through_cache=True,
    swapin_reuses_by_mapcount=True,
    swapin_restores_write=False,
    swapin_always_cached=False,
    remap_forgets=True,
    remap_marks=False,
    hugetlb_touched=False,
    hugetlb_restores_reserve=False,
    hugetlb_fork_keeps_wp=False,
    hugetlb_forced_is_read_only=False,
    hugetlb_prepares_first=False,
    collapse_hole_is_ebusy=False,
    collapse_retracts_all=False,
    collapse_part_is_fine=False,
    collapse_takes_read_only=False,
    fork_drains=True,
    fork_copies_hugetlb=True,
    fork_makes_huge_zero_anew=True,
    fork_copies_pinned=False,
    guard_sets_flag=False,
    gup_force_breaks_cow=True,
    gup_forces_hugetlb=True,
    gup_forces_shared=True,
    gup_marks_huge=True,
    gup_pins_one_file=False,
    gup_pin_touches=False,
    ksm_merges_within_huge=True,
    ksm_marks_zero_pages=False,
    ksm_unshares=False,
    ksm_needs_access=False,
    ksm_max_sharing=None,
    madvise_advices=ADVICES_3_11,
    madvise_populates_before_walking=False,
    madvise_pageout_is_push=True,
    madvise_refuses_repeated_huge=True,
    madvise_drops_hugetlb=False,
    madvise_reclaims_tables=False,
    madvise_remove_needs_write=True,
    madvise_punches_hugetlb=False,
    migrate_leaves_slots=True,
    migrate_empty_is_efault=True,
    migrate_sees_prot_none=False,
    migrate_takes_tails=False,
    migrate_splits_partly_mapped=False,
    migrate_marks_partly_mapped=False,
    mprotect_restores_private=False,
    mprotect_restores_clean=False,
    mprotect_restores_huge=False,
    mprotect_populates=False,
    mprotect_in_batches=False,
    mprotect_forgets_huge_dirty=False,
    mprotect_unaccounts=False,
    mremap_checks_addresses_first=True,
    mremap_moves_many=False,
    mremap_refuses_hugetlb=True,
    mremap_empties_private=True,
    mremap_same_place_overlaps=True,
    mremap_splits_nohugepage=True,
    mremap_table_move=TableMove.NEVER,
    mremap_dontunmap=False,
    reclaim_lazy_batch=LazyBatch.ONE,
    reclaim_splits_lazy=True,
    reclaim_keeps_accessed=False,
    uffd_empty_is_einval=False,
    uffd_restores_write=False,
    uffd_wp_spans_areas=False,
    bulk_clears_swap=False,
    bulk_reads_offset=True,
    bulk_tells_uffd=False,
    clear_refs_values=(1, 2, 3, 4),
    clear_refs_splits_huge=True,
    clear_refs_keeps_pinned=False,
    pagemap_tells_exclusive=False,
    pagemap_huge_files=False,
    pagemap_exclusive_by_page=False,
    pagemap_exclusive_by_first=False,
    pagemap_special_is_no_file=False,
    pagemap_hides_frames=False,
    pagemap_scan_categories=0,
    pagemap_scan_empty_is_written=True,
    pagemap_scan_written_needs_uffd=False,
    files_pagemap_keeps_mm=False,
    files_smaps_rollup=False,
    kpage_compound_tails=False,
    kpage_zero_page=False,
    kpage_folio_flags=False,
    kpage_exclusive=False,
    smaps_lines=SMAPS_3_11,
    smaps_counts_huge_zero=True,
    smaps_counts_hidden_huge=True,
    smaps_counts_shmem_swap=False,
    status_by_kind=False,
)
LINUX_3_11: Final = LINUX_SEED._replace(name="linux-3.11", pte_swap=SWAP_3_11, bulk_clears_swap=True)
LINUX_6_1: Final = LINUX_3_11._replace(
    name="linux-6.1",
    verbs=VERBS_6_1,
    pte_vm_softdirty=True,
    pte_keep_bits=_KEEP_6_1,
    pte_inverts_prot_none=True,
    pte_swap=SWAP_6_1,
    machine_pagemap_v2=True,
    lru_batch=15,
    modify_merge=MergeRule.CASES_EXPAND,
    stack_guard_page=False,
    faults_numa_hint=True,
    faults_around_pages=16,
    faults_reuse_by_mapcount=False,
    faults_huge_shmem=True,
    thp_reuses_by_mapcount=False,
    thp_copies_whole=False,
    thp_replaces_zero=False,
    thp_split_dirty=SplitDirty.NEVER,
    swapin_through_cache=False,
    swapin_reuses_by_mapcount=False,
    remap_forgets=False,
    remap_marks=True,
    hugetlb_fork_keeps_wp=True,
    fork_copies_hugetlb=False,
    fork_makes_huge_zero_anew=False,
    fork_copies_pinned=True,
    gup_force_breaks_cow=False,
    gup_forces_hugetlb=False,
    gup_forces_shared=False,
    gup_marks_huge=False,
    gup_pins_one_file=True,
    ksm_merges_within_huge=False,
    ksm_needs_access=True,
    ksm_max_sharing=256,
    madvise_advices=ADVICES_6_1,
    madvise_pageout_is_push=False,
    madvise_refuses_repeated_huge=False,
    madvise_drops_hugetlb=True,
    madvise_remove_needs_write=False,
    madvise_punches_hugetlb=True,
    migrate_leaves_slots=False,
    mprotect_restores_private=True,
    mprotect_populates=True,
    mremap_checks_addresses_first=False,
    mremap_refuses_hugetlb=False,
    mremap_empties_private=False,
    mremap_same_place_overlaps=False,
    mremap_splits_nohugepage=False,
    mremap_table_move=TableMove.ALIGNED,
    mremap_dontunmap=True,
    bulk_reads_offset=False,
    bulk_tells_uffd=True,
    clear_refs_values=(1, 2, 3, 4, 5),
    clear_refs_splits_huge=False,
    clear_refs_keeps_pinned=True,
    pagemap_tells_exclusive=True,
    pagemap_huge_files=True,
    pagemap_hides_frames=True,
    files_pagemap_keeps_mm=True,
    files_smaps_rollup=True,
    kpage_compound_tails=True,
    kpage_zero_page=True,
    kpage_exclusive=True,
    smaps_lines=SMAPS_6_1,
    smaps_counts_huge_zero=False,
    smaps_counts_hidden_huge=False,
    smaps_counts_shmem_swap=True,
    status_by_kind=True,
)
LINUX_6_12: Final = LINUX_6_1._replace(
    name="linux-6.12",
    verbs=VERBS_6_12,
    pte_saved_dirty=True,
    pte_uffd_wp_protects=True,
    pte_keep_bits=_KEEP_6_12,
    pte_swap=SWAP_6_12,
    machine_thp_anon=True,
    lru_batch=31,
    lru_gen=True,
    modify_merge=MergeRule.RANGES,
    modify_uffd_by_part=True,
    modify_uffd_keeps_mark=True,
    mmap_passes_errors_on=True,
    faults_copy_compound=True,
    faults_huge_shmem_suits_area=True,
    faults_whole_folio=True,
    thp_split_dirty=SplitDirty.IF_DIRTY,
    thp_split_maps_zeros=True,
    thp_advises_whole=True,
    thp_file_minds_advice=True,
    swapin_restores_write=True,
    remap_marks=False,
    hugetlb_touched=True,
    hugetlb_prepares_first=True,
    hugetlb_fork_keeps_wp=False,
    hugetlb_restores_reserve=True,
    collapse_hole_is_ebusy=True,
    collapse_retracts_all=True,
    gup_pins_one_file=False,
    gup_pin_touches=True,
    ksm_marks_zero_pages=True,
    ksm_unshares=True,
    ksm_needs_access=False,
    madvise_populates_before_walking=True,
    migrate_empty_is_efault=False,
    migrate_sees_prot_none=True,
    migrate_splits_partly_mapped=True,
    migrate_marks_partly_mapped=True,
    migrate_takes_tails=True,
    mprotect_restores_clean=True,
    mprotect_restores_huge=True,
    mprotect_unaccounts=True,
    mremap_table_move=TableMove.REALIGNED,
    reclaim_keeps_accessed=True,
    uffd_empty_is_einval=True,
    uffd_restores_write=True,
    uffd_wp_spans_areas=True,
    pagemap_exclusive_by_page=True,
    pagemap_scan_categories=SCAN_RETURN_MASK,
    kpage_folio_flags=True,
    smaps_lines=SMAPS_6_12,
    smaps_counts_hidden_huge=True,
)
LINUX_6_18: Final = LINUX_6_12._replace(
    name="linux-6.18",
    mmap_drains=False,
    fork_drains=False,
    modify_takes_anon=True,
    modify_joins_source=True,
    faults_around_folio=True,
    faults_mark_dirty_files=True,
    faults_reuse_compound=True,
    thp_replaces_zero=True,
    thp_zero_is_special=True,
    collapse_takes_read_only=True,
    hugetlb_forced_is_read_only=True,
    gup_forces_hugetlb=True,
    madvise_advices=ADVICES_6_18,
    madvise_reclaims_tables=True,
    migrate_marks_partly_mapped=False,
    mprotect_in_batches=True,
    mprotect_forgets_huge_dirty=True,
    mremap_moves_many=True,
    reclaim_lazy_batch=LazyBatch.ANY,
    reclaim_splits_lazy=False,
    pagemap_exclusive_by_first=True,
    pagemap_scan_categories=SCAN_RETURN_MASK | ScanCategory.GUARD,
    pagemap_scan_empty_is_written=False,
)
LINUX_7_2: Final = LINUX_6_18._replace(
    name="linux-7.2",
    swapin_always_cached=True,
    modify_keeps_marks=True,
    modify_joins_source=False,
    collapse_part_is_fine=True,
    guard_sets_flag=True,
    migrate_marks_partly_mapped=True,
    mprotect_forgets_huge_dirty=False,
    reclaim_lazy_batch=LazyBatch.ALIKE,
    pagemap_scan_empty_is_written=True,
)
LINUX_7_3: Final = LINUX_7_2._replace(
    name="linux-7.3",
    modify_moves_uffd_apart=True,
    reclaim_splits_lazy=True,
    pagemap_special_is_no_file=True,
    pagemap_scan_categories=SCAN_RETURN_MASK | ScanCategory.GUARD | ScanCategory.ACCESSED,
    pagemap_scan_written_needs_uffd=True,
)
OLD: Final = (LINUX_SEED, LINUX_3_11)
MODERN: Final = (LINUX_6_1, LINUX_6_12, LINUX_6_18, LINUX_7_2, LINUX_7_3)
PROFILES: Final = {profile.name: profile for profile in (*OLD, *MODERN)}
"""Name to profile."""
EXACT: Final = "exact"
NAMED: Final = {name: (profile, False) for name, profile in PROFILES.items()} | {EXACT: (LINUX_6_1, True)}
"""Names for a command line, to the profile and whether the machine is `exact`."""
