"""What docs/rules.md says real kernels answered, looked up in the recordings, and every scenario that it names."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from ptewalk.model.scenario.format import Scenario, read

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    **{path.name: path for path in (ROOT / "cosim" / "formats" / "data").glob("linux-*.jsonl.gz")},
    **{path.name: path for path in (ROOT / "tests" / "data").glob("own-linux-*.jsonl.gz")},
    **{path.name: path for path in (ROOT / "tests" / "data").glob("kinds-linux-*.jsonl.gz")},
    **{path.name: path for path in (ROOT / "tests" / "data").glob("flips-linux-*.jsonl.gz")},
}
SAMPLE_1, SAMPLE_12 = "linux-6.1-sample.jsonl.gz", "linux-6.12-sample.jsonl.gz"
OWN_1, OWN_12 = "own-linux-6.1.jsonl.gz", "own-linux-6.12.jsonl.gz"
SEED, RELEASE = "linux-seed-sample.jsonl.gz", "linux-3.11-sample.jsonl.gz"
SAMPLES, OWN, OLD = (SAMPLE_1, SAMPLE_12), (OWN_1, OWN_12), (SEED, RELEASE)


@lru_cache
def scenarios(file: str) -> dict[str, Scenario]:
    return {scenario.name: scenario for scenario in read(FILES[file])}


def state(file: str, name: str, step: int, who: str = "0") -> dict[str, Any]:
    recorded = scenarios(file)[name].steps[step].recorded
    assert recorded is not None
    found: dict[str, Any] = recorded["state"][who]
    return found


def letters(file: str, name: str, step: int, page: int, who: str = "0") -> str:
    """The pagemap letters of a page; nothing for a page whose word is 0."""
    for first, pages, flags, *_ in state(file, name, step, who)["pages"]:
        if first <= page < first + pages:
            return str(flags)
    return ""


def entry(file: str, name: str, step: int, page: int) -> int:
    """The raw leaf of a page."""
    for first, pages, _, value, *_ in state(file, name, step)["ptes"]:
        if first <= page < first + pages:
            return int(value, 16)
    return 0


CLAIMS: list[tuple[tuple[str, ...], str, int, dict[int, str]]] = [
    (SAMPLES, "h21_mremap_grow_inplace", 3, {0: "PX", 4: "", 7: ""}),
    (SAMPLES, "h23_mremap_grow_move", 3, {16: "PXD", 20: "", 23: ""}),
    (SAMPLES, "h25_mremap_dontunmap", 3, {0: "", 16: "PXD"}),
    (OWN, "stack_000003", 5, {63: "PXD", 64: "", 94: ""}),
    (OLD, "a19_mremap_grow", 3, {0: "P", 4: ""}),
    (OLD, "a18_mremap_aligned_2m", 4, {1024: "PD", 1025: "PD"}),
    (OWN, "table_000018", 4, {3584: "PX", 3599: "PX"}),
    ((OWN_12,), "table_000003", 11, {1236: "PX", 1254: "PX", 1480: "PXD"}),
    ((OWN_1,), "table_000003", 11, {1236: "PXD", 1254: "PXD", 1480: "PXD"}),
    (SAMPLES, "t05_mremap_table_move_shared", 6, {512: "PFX", 513: "PFX"}),
    (SAMPLES, "h08_adjacent_merge", 3, {0: "PXD", 4: "D"}),
    (SAMPLES, "h17_mprotect_split_new_vma_sd", 3, {0: "D", 4: "D"}),
    ((SAMPLE_1,), "h10_merge_fill_hole", 5, {0: "PX", 3: "D", 5: "PXD"}),
    ((SAMPLE_12,), "h10_merge_fill_hole", 5, {0: "PXD", 3: "D", 5: "PX"}),
    (SAMPLES, "t01_clean_into_sd_mprotect", 3, {4: "PFXD"}),
    (SAMPLES, "t01_clean_into_sd_mprotect", 5, {4: "PFX"}),
    (SAMPLES, "t02_same_written_before", 6, {4: "PFX"}),
    (SAMPLES, "h59_madv_populate", 5, {0: "PXD", 1: "PXD", 2: "P"}),
    ((OWN_1,), "migrate_000018", 6, {17: "PXD"}),
    ((OWN_12,), "migrate_000018", 6, {17: "PX"}),
    (OWN, "anon_000016", 7, {33: "PXD", 34: "PXD"}),
    (OWN, "pin_000021", 6, {0: "PXD", 1: "PXD", 2: "PX", 6: "PXD"}),
    (OWN, "ksm_000024", 9, {13: "PXD", 14: "PXD", 15: "PXD"}),
    (OWN, "ksm_000024", 10, {13: "P", 14: "PD", 15: "P"}),
    ((OWN_1,), "huge_000012", 7, {0: "PX", 73: "PX"}),
    ((OWN_12,), "huge_000012", 7, {0: "PXD", 73: "PXD"}),
    (OWN, "huge_000015", 2, {1024: "PFD"}),
    (OWN, "uffd_000025", 5, {51: "SW"}),
    (SAMPLES, "h39_dontneed_after_clear_dirty", 4, {0: "PX", 1: ""}),
    (OLD, "a12_thp_mremap_part", 5, {0: "P", 768: "P"}),
    (OLD, "a12_thp_mremap_part", 6, {0: "PD", 768: "PD", 1024: "PD"}),
    (OLD, "a07_thp_mprotect_loses", 3, {0: "P", 511: "P"}),
    (OLD, "a16_mprotect_loses", 3, {0: "PD"}),
    (OLD, "a16_mprotect_loses", 4, {0: "P"}),
    (OLD, "h08_adjacent_merge", 3, {0: "P", 4: ""}),
    ((SEED,), "v01_v1_format", 1, {0: "P1"}),
    ((SAMPLE_12,), "p16_hugetlb", 6, {0: "PX"}),
    (OWN, "hugetlb_000008", 3, {1024: "PX"}),
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("file", "name", "step", "pages"),
    [(file, name, step, pages) for files, name, step, pages in CLAIMS for file in files],
)
def test_a_kernel_answered(file: str, name: str, step: int, pages: dict[int, str]) -> None:
    assert {page: letters(file, name, step, page) for page in pages} == pages


def test_a_forked_child_reads_shared_memory_as_clean() -> None:
    for file in OWN:
        assert letters(file, "fork_000012", 6, 18) == "PFXD"
        assert letters(file, "fork_000012", 6, 18, "1") == ""


def test_a_store_that_set_d_alone() -> None:
    """Writable without soft-dirty: the store is the hardware's business."""
    for file in SAMPLES:
        assert entry(file, "t01_clean_into_sd_mprotect", 4, 4) & 0x842 == 0x2
        assert entry(file, "t01_clean_into_sd_mprotect", 6, 4) & 0x842 == 0x42


def test_a_table_moved_without_a_change_of_its_entries() -> None:
    for file in SAMPLES:
        before = [entry(file, "t05_mremap_table_move_shared", 4, 2048 + page) for page in range(16)]
        assert [entry(file, "t05_mremap_table_move_shared", 5, 512 + page) for page in range(16)] == before


def test_the_scan_and_pagemap_disagree_about_hugetlb() -> None:
    recorded = scenarios(SAMPLE_12)["p16_hugetlb"].steps[4].recorded
    assert recorded is not None
    first, size, categories = recorded["scan"]["regions"][0]
    assert (first, size) == (0, 512) and "SOFT_DIRTY" in categories
    assert letters(SAMPLE_12, "p16_hugetlb", 4, 0) == "PX"


def test_the_scan_calls_holes_written() -> None:
    recorded = scenarios(SAMPLE_12)["p01_fresh_vma"].steps[5].recorded
    assert recorded is not None
    assert [0, 3, ["WRITTEN"]] in recorded["scan"]["regions"]
    assert letters(SAMPLE_12, "p01_fresh_vma", 5, 0) == ""


def test_a_write_after_a_fork_is_no_fast_fault() -> None:
    """The page is copied, not put back: its frame changes."""
    for file in SAMPLES:
        frames = [state(file, "h50_fork_dirty", step)["ptes"][0][5] for step in (3, 4)]
        assert frames[0] != frames[1]


@pytest.mark.thorough
def test_every_scenario_that_the_document_names_is_recorded() -> None:
    text = (ROOT / "docs" / "rules.md").read_text()
    known = {name for file in FILES for name in scenarios(file)}
    named = set(re.findall(r"`((?:[ahvxtpfm]\d\d_\w+|\w+_\d{6}|(?:hugetlb|shmem)_\w+))`", text))
    assert len(named) > 30
    assert named <= known, sorted(named - known)
