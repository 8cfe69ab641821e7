"""Every field of a profile matters: with another kernel's value in it, a recording is not answered as recorded.

For each field `FLIPS` names a recording, a scenario of it, and the kernel whose value is put in. A new field needs a
row: `python -m tests.model.test_profile_flips FIELD` looks for the shortest scenario that shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ptewalk.model.profile import Profile
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.report import replay

from .proc_files import answered, recorded

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "tests" / "data", ROOT / "cosim" / "formats" / "data")
FIELDS = [field for field in Profile._fields if field not in ("name", "verbs")]
FLIPS: dict[str, tuple[str, str, str]] = {
    "pte_vm_softdirty": ("own-linux-6.1.jsonl.gz", "file_000012", "linux-3.11"),
    "pte_saved_dirty": ("la57-linux-6.12.jsonl.gz", "merge_004700", "linux-6.1"),
    "pte_uffd_wp_protects": ("kinds-linux-6.12.jsonl.gz", "p30_wp_thp_whole", "linux-6.1"),
    "pte_keep_bits": ("kinds-linux-6.1.jsonl.gz", "f05_hugetlb_protnone_mem_read", "linux-3.11"),
    "pte_inverts_prot_none": ("kinds-linux-6.1.jsonl.gz", "f05_hugetlb_protnone_mem_read", "linux-3.11"),
    "pte_swap": ("kinds-linux-6.12.jsonl.gz", "f02_anon_marker_dontneed", "linux-6.1"),
    "machine_pagemap_v2": ("linux-seed-sample.jsonl.gz", "v02_thp_v1", "linux-6.1"),
    "machine_thp_anon": ("mthp-linux-7.3.jsonl.gz", "h01_anon_basic", "linux-6.1"),
    "lru_batch": ("flips-linux-6.12.jsonl.gz", "flip_lru_batch", "linux-6.1"),
    "lru_gen": ("flips-linux-6.12.jsonl.gz", "flip_lru_gen", "linux-6.1"),
    "modify_merge": ("linux-6.12-sample.jsonl.gz", "h10_merge_fill_hole", "linux-6.1"),
    "modify_uffd_by_part": ("found-linux-6.12.jsonl", "uffd_merge_keeps_neighbour", "linux-6.1"),
    "modify_uffd_keeps_mark": ("found-linux-6.12.jsonl", "uffd_merge_between", "linux-6.1"),
    "modify_keeps_marks": ("linux-7.3-sample.jsonl.gz", "h134_expand_into_next_merge", "linux-6.18"),
    "modify_takes_anon": ("flips-linux-7.3.jsonl.gz", "flip_takes_anon_next", "linux-6.12"),
    "modify_joins_source": ("linux-7.3-sample.jsonl.gz", "g_anon_033", "linux-6.18"),
    "modify_keeps_offsets": ("flips-linux-6.18.jsonl.gz", "dontunmap_offsets", "linux-7.2"),
    "modify_moves_files_apart": ("flips-linux-7.3.jsonl.gz", "file_moves_apart", "linux-7.2"),
    "modify_moves_uffd_apart": ("flips-linux-7.3.jsonl.gz", "uffd_moves", "linux-7.2"),
    "stack_guard_page": ("own-linux-6.1.jsonl.gz", "stack_000003", "linux-3.11"),
    "mmap_drains": ("flips-linux-7.3.jsonl.gz", "ml_f", "linux-6.12"),
    "mmap_passes_errors_on": ("found-linux-6.12.jsonl", "leaf_080203", "linux-6.1"),
    "filemap_splits_around": ("flips-linux-7.3.jsonl.gz", "shs_remove_one", "linux-6.12"),
    "faults_numa_hint": ("found-linux-6.1.jsonl", "uffd_wp_write_only", "linux-3.11"),
    "faults_around_pages": ("kinds-linux-6.1.jsonl.gz", "shmem_coll_p0", "linux-3.11"),
    "faults_around_folio": ("flips-linux-7.3.jsonl.gz", "shmem_coll_p0", "linux-6.12"),
    "faults_reuse_by_mapcount": ("flips-linux-6.1.jsonl.gz", "flip_lru_batch", "linux-3.11"),
    "faults_copy_compound": ("flips-linux-6.12.jsonl.gz", "flip_copy_compound", "linux-6.1"),
    "faults_huge_shmem": ("flips-linux-6.1.jsonl.gz", "flip_shmem_suits_area", "linux-3.11"),
    "faults_huge_shmem_suits_area": ("flips-linux-6.12.jsonl.gz", "flip_shmem_suits_area", "linux-6.1"),
    "faults_whole_folio": ("flips-linux-6.12.jsonl.gz", "flip_whole_folio", "linux-6.1"),
    "faults_mark_dirty_files": ("linux-7.3-sample.jsonl.gz", "c8", "linux-6.12"),
    "faults_reuse_compound": ("flips-linux-7.3.jsonl.gz", "flip_reuse_compound", "linux-6.12"),
    "faults_empty_batches": ("flips-linux-7.3.jsonl.gz", "lru_two", "linux-6.12"),
    "thp_reuses_by_mapcount": ("flips-linux-6.1.jsonl.gz", "flip_reuse_huge", "linux-3.11"),
    "thp_copies_whole": ("kinds-linux-6.1.jsonl.gz", "cross_1_000043", "linux-3.11"),
    "thp_shared_by_process": ("flips-linux-7.3.jsonl.gz", "shs_out_priv", "linux-6.12"),
    "thp_replaces_zero": ("flips-linux-7.3.jsonl.gz", "flip_huge_zero_written", "linux-6.12"),
    "thp_zero_is_special": ("linux-7.3-sample.jsonl.gz", "r_thp_049", "linux-6.12"),
    "thp_split_dirty": ("linux-6.12-sample.jsonl.gz", "x06_pkey_thp", "linux-6.1"),
    "thp_split_maps_zeros": ("found-linux-6.12.jsonl", "part_000152", "linux-6.1"),
    "thp_advises_whole": ("contents-linux-6.12.jsonl.gz", "contents_huge_split_and_zero", "linux-6.1"),
    "thp_file_minds_advice": ("flips-linux-6.12.jsonl.gz", "flip_whole_folio", "linux-6.1"),
    "swapin_through_cache": ("found-linux-6.1.jsonl", "pin_065509", "linux-3.11"),
    "swapin_reuses_by_mapcount": ("la57-linux-6.1.jsonl.gz", "swap_004609", "linux-3.11"),
    "swapin_restores_write": ("linux-6.12-sample.jsonl.gz", "p11_swapped", "linux-6.1"),
    "swapin_always_cached": ("flips-linux-7.3.jsonl.gz", "sw_nonex", "linux-6.18"),
    "swapin_reads_ahead": ("readahead-linux-6.18.jsonl.gz", "readahead_centre", "linux-7.2"),
    "swapin_off_keeps_marks": ("readahead-linux-6.18.jsonl.gz", "readahead_swapoff", "linux-3.11"),
    "remap_forgets": ("kinds-linux-6.1.jsonl.gz", "f11_move_pages_thp", "linux-3.11"),
    "remap_marks": ("kinds-linux-6.12.jsonl.gz", "m14_migrate_pinned", "linux-6.1"),
    "remap_protects": ("flips-linux-6.12.jsonl.gz", "moved_ro_shared", "linux-6.1"),
    "hugetlb_touched": ("kinds-linux-6.12.jsonl.gz", "cross_1_000006", "linux-6.1"),
    "hugetlb_restores_reserve": ("kinds-linux-6.12.jsonl.gz", "f10_hugetlb_dontneed_reserve", "linux-6.1"),
    "hugetlb_fork_keeps_wp": ("kinds-linux-6.12.jsonl.gz", "hugetlb_fork_wp", "linux-6.1"),
    "hugetlb_forced_is_read_only": ("flips-linux-7.3.jsonl.gz", "forced_hugetlb_new", "linux-6.12"),
    "hugetlb_prepares_first": ("flips-linux-6.12.jsonl.gz", "flip_prepares_first", "linux-6.1"),
    "hugetlb_counts_any_table": ("flips-linux-6.18.jsonl.gz", "gigantic_56_000014", "linux-6.12"),
    "collapse_hole_is_ebusy": ("found-linux-6.12.jsonl", "part_000165", "linux-6.1"),
    "collapse_retracts_all": ("kinds-linux-6.12.jsonl.gz", "shmem_pte", "linux-6.1"),
    "collapse_part_is_fine": ("flips-linux-7.3.jsonl.gz", "coll_part", "linux-6.18"),
    "collapse_takes_read_only": ("linux-7.3-sample.jsonl.gz", "c10", "linux-6.12"),
    "fork_drains": ("flips-linux-7.3.jsonl.gz", "lr_exit", "linux-6.12"),
    "fork_copies_hugetlb": ("flips-linux-6.1.jsonl.gz", "flip_prepares_first", "linux-3.11"),
    "fork_makes_huge_zero_anew": ("contents-linux-6.1.jsonl.gz", "contents_huge_zero", "linux-3.11"),
    "fork_copies_pinned": ("contents-linux-6.1.jsonl.gz", "contents_pinned_and_forked_huge", "linux-3.11"),
    "guard_sets_flag": ("linux-7.3-sample.jsonl.gz", "c14", "linux-6.18"),
    "gup_force_breaks_cow": ("la57-linux-6.1.jsonl.gz", "anon_004645", "linux-3.11"),
    "gup_forces_hugetlb": ("kinds-linux-6.1.jsonl.gz", "cross_1_000052", "linux-3.11"),
    "gup_forces_shared": ("own-linux-3.11.jsonl.gz", "hugetlb_311290", "linux-6.1"),
    "gup_marks_huge": ("kinds-linux-6.1.jsonl.gz", "shmem_mem", "linux-3.11"),
    "gup_pins_one_file": ("found-linux-6.1.jsonl", "pin_one_file", "linux-3.11"),
    "gup_pin_touches": ("kinds-linux-6.12.jsonl.gz", "cross_1_000006", "linux-6.1"),
    "ksm_merges_within_huge": ("contents-linux-6.1.jsonl.gz", "contents_merged_huge", "linux-3.11"),
    "ksm_marks_zero_pages": ("contents-linux-6.12.jsonl.gz", "contents_merged_zeros", "linux-6.1"),
    "ksm_unshares": ("contents-linux-6.12.jsonl.gz", "contents_merged_by_content", "linux-6.1"),
    "ksm_needs_access": ("found-linux-6.12.jsonl", "ksmnone_000048", "linux-6.1"),
    "ksm_skips": ("flips-linux-7.3.jsonl.gz", "ksm_skipped", "linux-6.1"),
    "ksm_max_sharing": ("contents-linux-6.1.jsonl.gz", "contents_merged_huge", "linux-3.11"),
    "madvise_advices": ("found-linux-6.1.jsonl", "pin_020625", "linux-3.11"),
    "madvise_populates_before_walking": ("flips-linux-6.12.jsonl.gz", "flip_populate_hole", "linux-6.1"),
    "madvise_pageout_is_push": ("kinds-linux-6.1.jsonl.gz", "shmem_outpart", "linux-3.11"),
    "madvise_refuses_repeated_huge": ("flips-linux-6.1.jsonl.gz", "flip_shmem_suits_area", "linux-3.11"),
    "madvise_drops_hugetlb": ("kinds-linux-6.1.jsonl.gz", "f10_hugetlb_dontneed_reserve", "linux-3.11"),
    "madvise_keeps_special_unforked": ("flips-linux-7.3.jsonl.gz", "dofork_hugetlb", "linux-6.18"),
    "madvise_reclaims_tables": ("flips-linux-7.3.jsonl.gz", "flip_reclaims_tables", "linux-6.12"),
    "madvise_remove_needs_write": ("kinds-linux-6.1.jsonl.gz", "cross_1_000004", "linux-3.11"),
    "madvise_punches_hugetlb": ("kinds-linux-6.1.jsonl.gz", "f06_hugetlb_remove", "linux-3.11"),
    "migrate_leaves_slots": ("own-linux-3.11.jsonl.gz", "offline_311279", "linux-6.1"),
    "migrate_empty_is_efault": ("own-linux-6.12.jsonl.gz", "migrate_000007", "linux-6.1"),
    "migrate_sees_prot_none": ("own-linux-6.12.jsonl.gz", "migrate_000018", "linux-6.1"),
    "migrate_marks_partly_mapped": ("flips-linux-7.3.jsonl.gz", "thp_mig2", "linux-6.18"),
    "migrate_takes_tails": ("kinds-linux-6.12.jsonl.gz", "hugetlb_mig_s", "linux-6.1"),
    "migrate_splits_partly_mapped": ("kinds-linux-6.12.jsonl.gz", "hugetlb_mig_thp", "linux-6.1"),
    "mprotect_restores_private": ("linux-6.1-sample.jsonl.gz", "h14_mprotect_dirty_writable", "linux-3.11"),
    "mprotect_restores_clean": ("linux-6.1-sample.jsonl.gz", "x06_pkey_thp", "linux-6.12"),
    "mprotect_restores_huge": ("linux-6.12-sample.jsonl.gz", "x06_pkey_thp", "linux-6.1"),
    "mprotect_populates": ("own-linux-3.11.jsonl.gz", "anon_311222", "linux-6.1"),
    "mprotect_in_batches": ("linux-7.3-sample.jsonl.gz", "c11", "linux-6.12"),
    "mprotect_forgets_huge_dirty": ("linux-7.3-sample.jsonl.gz", "x06_pkey_thp", "linux-6.18"),
    "mprotect_unaccounts": ("own-linux-6.12.jsonl.gz", "key_000020", "linux-6.1"),
    "mremap_checks_addresses_first": ("own-linux-6.1.jsonl.gz", "move_000025", "linux-3.11"),
    "mremap_moves_many": ("linux-6.18-sample.jsonl.gz", "h99_two_vmas_mremap_efault", "linux-6.12"),
    "mremap_refuses_hugetlb": ("kinds-linux-6.1.jsonl.gz", "f07_hugetlb_uffd_mremap", "linux-3.11"),
    "mremap_empties_private": ("linux-6.1-sample.jsonl.gz", "h36_mremap_oldlen0_private_einval", "linux-3.11"),
    "mremap_same_place_overlaps": ("own-linux-6.1.jsonl.gz", "huge_000017", "linux-3.11"),
    "mremap_splits_nohugepage": ("flips-linux-6.1.jsonl.gz", "flip_move_nohuge", "linux-3.11"),
    "mremap_table_move": ("own-linux-6.12.jsonl.gz", "table_000003", "linux-6.1"),
    "mremap_dontunmap": ("own-linux-6.1.jsonl.gz", "move_000019", "linux-3.11"),
    "mremap_unlocks_all": ("flips-linux-6.18.jsonl.gz", "dontunmap_locked", "linux-7.2"),
    "mremap_failure_takes_reserve": ("flips-linux-7.2.jsonl.gz", "giga_move_fails", "linux-7.3"),
    "reclaim_lazy_batch": ("flips-linux-7.2.jsonl.gz", "free_batch2", "linux-6.18"),
    "reclaim_swaps_files_whole": ("flips-linux-7.3.jsonl.gz", "shs_out", "linux-6.12"),
    "reclaim_splits_lazy": ("flips-linux-7.2.jsonl.gz", "free_whole", "linux-7.3"),
    "reclaim_keeps_accessed": ("contents-linux-6.12.jsonl.gz", "contents_lazily_freed_huge_page", "linux-6.1"),
    "uffd_empty_is_einval": ("flips-linux-6.12.jsonl.gz", "flip_uffd_empty", "linux-6.1"),
    "uffd_restores_write": ("la57-linux-6.12.jsonl.gz", "scan_004745", "linux-6.1"),
    "uffd_wp_spans_areas": ("own-linux-6.12.jsonl.gz", "uffd_000018", "linux-6.1"),
    "bulk_clears_swap": ("own-linux-3.11.jsonl.gz", "slot_311118", "linux-seed"),
    "bulk_reads_offset": ("own-linux-6.1.jsonl.gz", "key_000016", "linux-3.11"),
    "bulk_tells_uffd": ("kinds-linux-6.1.jsonl.gz", "f07_hugetlb_uffd_mremap", "linux-3.11"),
    "clear_refs_values": ("own-linux-6.1.jsonl.gz", "none_000009", "linux-3.11"),
    "clear_refs_splits_huge": ("linux-6.1-sample.jsonl.gz", "x06_pkey_thp", "linux-3.11"),
    "clear_refs_keeps_pinned": ("kinds-linux-6.1.jsonl.gz", "m14_migrate_pinned", "linux-3.11"),
    "pagemap_tells_exclusive": ("own-linux-6.1.jsonl.gz", "file_000012", "linux-3.11"),
    "pagemap_huge_files": ("kinds-linux-6.1.jsonl.gz", "f06_hugetlb_remove", "linux-3.11"),
    "pagemap_exclusive_by_page": ("flips-linux-6.12.jsonl.gz", "flip_reuse_huge", "linux-6.1"),
    "pagemap_exclusive_by_first": ("linux-7.3-sample.jsonl.gz", "c7", "linux-6.12"),
    "pagemap_special_is_no_file": ("linux-7.3-sample.jsonl.gz", "r_thp_049", "linux-7.2"),
    "pagemap_hides_frames": ("own-linux-6.1.jsonl.gz", "key_000016", "linux-3.11"),
    "pagemap_scan_categories": ("flips-linux-7.3.jsonl.gz", "flip_scan_guard", "linux-7.2"),
    "pagemap_scan_empty_is_written": ("linux-7.3-sample.jsonl.gz", "p58_wp_max_pages_unpopulated", "linux-6.18"),
    "pagemap_scan_written_needs_uffd": ("linux-7.3-sample.jsonl.gz", "p60_end_rounding", "linux-7.2"),
    "files_pagemap_keeps_mm": ("files-linux-6.1.jsonl.gz", "files_ended", "linux-3.11"),
    "files_smaps_rollup": ("files-linux-6.1.jsonl.gz", "files_anon", "linux-3.11"),
    "kpage_compound_tails": ("found-linux-6.1.jsonl", "hugetlb_end_not_split", "linux-3.11"),
    "kpage_zero_page": ("files-linux-6.1.jsonl.gz", "files_anon", "linux-3.11"),
    "kpage_folio_flags": ("files-linux-6.12.jsonl.gz", "files_anon", "linux-6.1"),
    "kpage_exclusive": ("files-linux-6.1.jsonl.gz", "files_anon", "linux-3.11"),
    "smaps_lines": ("files-linux-6.12.jsonl.gz", "files_anon", "linux-6.1"),
    "smaps_counts_huge_zero": ("kinds-linux-6.1.jsonl.gz", "cross_1_000019", "linux-3.11"),
    "smaps_counts_hidden_huge": ("linux-6.12-sample.jsonl.gz", "x08_thp_prot_none", "linux-6.1"),
    "smaps_counts_shmem_swap": ("files-linux-6.1.jsonl.gz", "files_shmem", "linux-3.11"),
    "status_by_kind": ("files-linux-6.1.jsonl.gz", "files_anon", "linux-3.11"),
}
"""Field to (recording, scenario, kernel whose value is put in)."""


def kernel_of(recording: str) -> str:
    """The profile of the kernel that answered."""
    return max((name for name in PROFILES if f"{name}." in recording or f"{name}-" in recording), key=len)


@cache
def scenarios_of(recording: str) -> dict[str, Scenario]:
    """Name to scenario."""
    path = next(folder / recording for folder in FOLDERS if (folder / recording).is_file())
    return {scenario.name: scenario for scenario in read(path)}


def shows(scenario: Scenario, kernel: str, field: str, other: str) -> bool:
    """Is a scenario answered as recorded, and not with another kernel's value in the field?"""
    known, flipped = PROFILES[kernel], PROFILES[kernel]._replace(**{field: getattr(PROFILES[other], field)})
    if getattr(known, field) == getattr(flipped, field) or replay([scenario], known).agree < len(scenario.steps):
        return False
    files = recorded(scenario)
    if replay([scenario], flipped).differ > 0:
        return True
    return bool(files) and answered(scenario, known) == files != answered(scenario, flipped)


def test_each_field_has_a_row_and_each_row_a_field() -> None:
    missing = [field for field in FIELDS if field not in FLIPS]
    assert not missing, (
        f"shown by no recording: {missing}; python -m tests.model.test_profile_flips FIELD looks for one"
    )
    assert list(FLIPS) == FIELDS


@pytest.mark.slow
@pytest.mark.parametrize("field", FLIPS)
def test_a_recording_shows_the_field(field: str) -> None:
    recording, name, other = FLIPS[field]
    assert shows(scenarios_of(recording)[name], kernel_of(recording), field, other)


def test_the_check_can_fail() -> None:
    """No field shows in a scenario that does not get there, nor with its own value."""
    scenario = scenarios_of("flips-linux-6.1.jsonl.gz")["flip_lru_gen"]
    assert shows(scenario, "linux-6.1", "lru_gen", "linux-6.12")
    assert not shows(scenario, "linux-6.1", "lru_gen", "linux-3.11")
    assert not shows(scenario, "linux-6.1", "mremap_table_move", "linux-6.12")
    assert not shows(scenario, "linux-6.12", "lru_gen", "linux-6.1"), "this is not what 6.12 answered"


def candidates(field: str) -> Iterator[tuple[str, str, str]]:
    """Rows that show a field, neighbours in time and short scenarios first."""
    names = list(PROFILES)
    recordings = sorted(path.name for folder in FOLDERS for path in folder.glob("*linux-*.jsonl*"))
    pairs = sorted((abs(i - j), -i, j) for i in range(len(names)) for j in range(len(names)) if i != j)
    for _, minus_i, j in pairs:
        kernel, other = names[-minus_i], names[j]
        found = [
            (len(str(scenario.steps)), recording, name)
            for recording in recordings
            if kernel_of(recording) == kernel and "feature-off" not in recording
            for name, scenario in scenarios_of(recording).items()
        ]
        for _, recording, name in sorted(found):
            if shows(scenarios_of(recording)[name], kernel, field, other):
                yield recording, name, other


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(f'    "{wanted}": {next(candidates(wanted), None)},')
