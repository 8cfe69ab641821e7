"""/proc/PID/maps and /proc/PID/smaps as text (fs/proc/task_mmu.c:show_map_vma, show_smap)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import FIRST_SPECIAL_SWAP_TYPE, HUGE_PAGES, PAGEMAP_SWAP_TYPE_BITS, SMAPS_FLAGS, VmFlag
from ptewalk.model.mm import hugetlb, thp
from ptewalk.model.pte import PROTNONE, SPECIAL, A, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.files import File
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import INDEX_BITS, PAGE_BYTES, PAGE_SHIFT, Control

_NAME_COLUMN: Final = 73
_PSS_SHIFT: Final = 12
"""Fraction bits of a proportional size."""
_WHOLE_PAGE: Final = PAGE_BYTES << _PSS_SHIFT
_LETTERS: Final = ((VmFlag.READ, "r"), (VmFlag.WRITE, "w"), (VmFlag.EXEC, "x"))
_OF_ONE_AREA: Final = ("Size", "KernelPageSize", "MMUPageSize", "THPeligible", "ProtectionKey")
"""Lines that smaps_rollup has not."""
_BY_KIND: Final = ("Pss_Anon", "Pss_File", "Pss_Shmem")
"""Lines that it alone has, behind Pss_Dirty."""
_SHMEM_DEVICE: Final = "00:01"
_HUGETLB_DEVICE: Final = "00:0f"
_DISK_DEVICE: Final = "08:00"


def permissions(vma: Vma) -> str:
    """The four letters of an area, such as "rw-p"."""
    flags = vma.flags
    letters = [letter if flags & bit else "-" for bit, letter in _LETTERS]
    return "".join(letters) + ("s" if flags & VmFlag.MAYSHARE else "p")


def flag_names(vma: Vma) -> list[str]:
    """VmFlags of an area, in the kernel's order."""
    flags = vma.flags
    return [name for bit, name in SMAPS_FLAGS if flags & bit]


def maps(mm: Mm) -> str:
    """The text of /proc/PID/maps.

    Addresses, permissions and offsets are the kernel's. Device, inode and a file's name are the model's own: file K of
    a scenario is ``/fileK``, and inodes count files in the order they were made.
    """
    return "".join(_header(mm.kernel, vma) for vma in mm.areas)


def smaps(mm: Mm) -> str:
    """The text of /proc/PID/smaps, with the lines of the profile's kernel.

    As in the kernel, from the same entries and frames: Size, the page sizes, Rss, Pss, Pss_Dirty, Shared_*, Private_*,
    Anonymous, KSM, LazyFree, AnonHugePages, *_Hugetlb, Swap, SwapPss, Locked, THPeligible (THP for MADV_HUGEPAGE areas
    only), ProtectionKey, VmFlags. One is less than the kernel's where it knows more: Referenced counts pages with A
    set, not those with PG_referenced alone. LazyFree counts at once what the kernel marks some pages later. Always 0,
    for the model has no huge pages of files: ShmemPmdMapped, FilePmdMapped.
    """
    return "".join(_area(mm, vma) for vma in mm.areas)


def rollup(mm: Mm) -> str:
    """The text of /proc/PID/smaps_rollup: the sums over all areas (show_smaps_rollup; 6.1)."""
    sums: dict[str, int] = {}
    locked = 0
    for vma in mm.areas:
        usage = _Usage(mm, vma)
        for name, size in {**usage.sizes, **usage.proportional}.items():
            sums[name] = sums.get(name, 0) + size
        locked += usage.proportional["Pss"] if vma.flags & VmFlag.LOCKED else 0
    start, end = (mm.areas.list[0].start, mm.areas.list[-1].end) if mm.areas.list else (0, 0)
    header = f"{start << PAGE_SHIFT:08x}-{end << PAGE_SHIFT:08x} ---p 00000000 00:00 0 "
    kilobytes = {name: size >> 10 + (_PSS_SHIFT if "Pss" in name else 0) for name, size in sums.items()}
    kilobytes["Locked"] = locked >> 10 + _PSS_SHIFT
    lines = [
        f"{name + ':':<16}{kilobytes.get(name, 0):{line.width}}{line.unit}\n"
        for line in mm.kernel.profile.smaps_lines
        if line.name not in _OF_ONE_AREA
        for name in (line.name, *(_BY_KIND if line.name == "Pss_Dirty" else ()))
    ]
    return header.ljust(_NAME_COLUMN) + "[rollup]\n" + "".join(lines)


def huge_pages(mm: Mm, vma: Vma) -> list[int]:
    """First pages of the huge pages that AnonHugePages counts.

    3.11 counts the huge zero page too; 6.1 no PROT_NONE ones.
    """
    return _whole_leaves(mm, vma) if vma.is_anonymous else []


def shmem_huge_pages(mm: Mm, vma: Vma) -> list[int]:
    """First pages of the huge pages that ShmemPmdMapped counts."""
    return [] if vma.is_anonymous else _whole_leaves(mm, vma)


def _whole_leaves(mm: Mm, vma: Vma) -> list[int]:
    if vma.huge_level or not mm.tables.any_leaf():
        return []
    profile = mm.entries.profile
    found = []
    for piece in mm.tables.pieces(vma, vma.start, vma.end):
        if not piece.leaf or not piece.whole:
            continue
        counts = piece.leaf & P or profile.smaps_counts_hidden_huge
        if counts and (profile.smaps_counts_huge_zero or not thp.is_huge_zero(mm, piece.leaf)):
            found.append(piece.head)
    return found


def _header(kernel: MachineState, vma: Vma) -> str:
    """The line of maps."""
    device, inode, name, offset = "00:00", 0, "", 0
    if vma.file is not None:
        offset = vma.pgoff << PAGE_SHIFT
        inode, number = kernel.files.number_of(vma.file)
        device, name = _SHMEM_DEVICE, "/dev/zero (deleted)"
        if vma.huge_level:
            device, name = _HUGETLB_DEVICE, "/anon_hugepage (deleted)"
        elif number is not None:
            device, name = _DISK_DEVICE if vma.file.counts_dirty else _SHMEM_DEVICE, f"/file{number}"
    start, end = vma.start << PAGE_SHIFT, vma.end << PAGE_SHIFT
    text = f"{start:08x}-{end:08x} {permissions(vma)} {offset:08x} {device} {inode} "
    return (text.ljust(_NAME_COLUMN) + name if name else text) + "\n"


def _area(mm: Mm, vma: Vma) -> str:
    """The lines of smaps for one area."""
    kernel = mm.kernel
    values = _Usage(mm, vma).values()
    page_kb = PAGE_BYTES << INDEX_BITS * (vma.huge_level - 1 if vma.huge_level else 0) >> 10
    values |= {
        "Size": (vma.end - vma.start) * PAGE_BYTES >> 10,
        "KernelPageSize": page_kb,
        "MMUPageSize": page_kb,
        "THPeligible": int(thp.eligible(mm, vma)),
        "ProtectionKey": vma.flags >> VmFlag.PKEY_LOW & 0xF,
    }
    lines = [
        f"{line.name + ':':<16}{values[line.name]:{line.width}}{line.unit}\n"
        for line in kernel.profile.smaps_lines
        if line.name != "ProtectionKey" or kernel.control & 1 << Control.PKE
    ]
    flags = "".join(f"{name} " for name in flag_names(vma))
    return _header(kernel, vma) + "".join(lines) + f"VmFlags: {flags}\n"


class _Usage:
    """What an area uses (struct mem_size_stats), in bytes."""

    def __init__(self, mm: Mm, vma: Vma) -> None:
        self.mm = mm
        self.vma = vma
        self.sizes = dict.fromkeys(
            ("Rss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "KSM")
            + ("LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb")
            + ("Swap",),
            0,
        )
        self.proportional = dict.fromkeys(("Pss", "Pss_Dirty", "SwapPss", *_BY_KIND), 0)
        if vma.huge_level:
            self._hugetlb()
            return
        name = "AnonHugePages" if vma.is_anonymous else "ShmemPmdMapped"
        for first in _whole_leaves(mm, vma):
            pmd = mm.tables.get_huge(first)
            run = np.arange(HUGE_PAGES, dtype=np.int64) + thp.pmd_frame(mm, pmd)
            self.sizes[name] += HUGE_PAGES * PAGE_BYTES
            self._account(run, np.full(HUGE_PAGES, pmd, np.uint64))
        parts = [
            mm.tables.part(piece.first, piece.last)
            for piece in mm.tables.pieces(vma, vma.start, vma.end)
            if not piece.leaf
        ]
        if parts:
            self._entries(np.concatenate(parts))
        if vma.file is not None and not vma.file.counts_dirty and mm.entries.profile.smaps_counts_shmem_swap:
            self.sizes["Swap"] += PAGE_BYTES * self._swapped_pages(vma.file)

    def values(self) -> dict[str, int]:
        """Kilobytes by name."""
        found = {name: size >> 10 for name, size in self.sizes.items()}
        found |= {name: size >> _PSS_SHIFT + 10 for name, size in self.proportional.items()}
        return found | {"Locked": found["Pss"] if self.vma.flags & VmFlag.LOCKED else 0}

    def _entries(self, part: NDArray[np.uint64]) -> None:
        """smaps_pte_entry over many entries."""
        entries = self.mm.entries
        present = (part & np.uint64(P | PROTNONE)) != 0
        normal = part[present & ((part & np.uint64(SPECIAL)) == 0)]
        if len(normal):
            self._account(entries.pte_pfn(normal).astype(np.int64), normal)
        swapped = part[(part != 0) & ~present]
        kinds = entries.swp_type(swapped)
        real = kinds < FIRST_SPECIAL_SWAP_TYPE
        if real.any():
            places = kinds[real] | entries.swp_offset(swapped[real]) << np.uint64(PAGEMAP_SWAP_TYPE_BITS)
            self.sizes["Swap"] += PAGE_BYTES * len(places)
            self.proportional["SwapPss"] += int((_WHOLE_PAGE // self._slot_counts(places)).sum())

    def _slot_counts(self, places: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Entries that name each slot, at least 1 (swp_swapcount)."""
        slots = self.mm.kernel.swap.slots
        if not slots:
            return np.ones(len(places), np.int64)
        known = np.array([kind | offset << PAGEMAP_SWAP_TYPE_BITS for kind, offset in slots], np.uint64)
        counts = np.array([slot.count for slot in slots.values()], np.int64)
        order = np.argsort(known)
        where = np.searchsorted(known, places, sorter=order)
        found = order[np.minimum(where, len(order) - 1)]
        return np.where(known[found] == places, np.maximum(counts[found], 1), 1)

    def _account(self, pfns: NDArray[np.int64], entries: NDArray[np.uint64]) -> None:
        """smaps_account for pages, each with the entry that maps it."""
        frames, sizes = self.mm.frames, self.sizes
        flags = frames.flags[pfns]
        head_flags = frames.flags[frames.head[pfns]]
        counts = np.maximum(frames.mapcounts(pfns), 1)
        anon = (flags & page.ANON) != 0
        dirty = (self.mm.entries.pte_dirty(entries) != 0) | ((head_flags & page.DIRTY) != 0)
        shared = counts >= 2
        for name, chosen in (
            ("Rss", np.ones(len(pfns), bool)),
            ("Referenced", (entries & np.uint64(A)) != 0),
            ("Anonymous", anon),
            ("KSM", (flags & page.KSM) != 0),
            ("LazyFree", anon & ((head_flags & page.LAZYFREE) != 0) & ~dirty),
            ("Shared_Clean", shared & ~dirty),
            ("Shared_Dirty", shared & dirty),
            ("Private_Clean", ~shared & ~dirty),
            ("Private_Dirty", ~shared & dirty),
        ):
            sizes[name] += PAGE_BYTES * int(np.count_nonzero(chosen))
        portion = _WHOLE_PAGE // counts
        self.proportional["Pss"] += int(portion.sum())
        self.proportional["Pss_Dirty"] += int(portion[dirty].sum())
        in_memory = self.vma.file is None or not self.vma.file.counts_dirty
        self.proportional["Pss_Anon"] += int(portion[anon].sum())
        self.proportional["Pss_Shmem" if in_memory else "Pss_File"] += int(portion[~anon].sum())

    def _hugetlb(self) -> None:
        """smaps_hugetlb_range"""
        mm, vma = self.mm, self.vma
        for piece in mm.tables.pieces(vma, vma.start, vma.end):
            if not mm.entries.pte_present(piece.leaf):
                continue
            shared = mm.frames.mapcount(mm.entries.pte_pfn(piece.leaf)) >= 2
            shared = shared or hugetlb.table_counts_as_shared(mm, piece.head, piece.level)
            self.sizes["Shared_Hugetlb" if shared else "Private_Hugetlb"] += vma.leaf_pages * PAGE_BYTES

    def _swapped_pages(self, file: File) -> int:
        """Pages of shared memory in the area that are swapped out.

        Of a private writable mapping only those that it has no copy of (smaps_pte_hole_lookup).
        """
        mm, vma = self.mm, self.vma
        places = np.array(list(file.swapped), np.int64) - vma.pgoff + vma.start
        places = places[(places >= vma.start) & (places < vma.end)]
        if vma.flags & VmFlag.SHARED or not vma.flags & VmFlag.WRITE:
            return len(places)
        return sum(not mm.tables.get(at) for at in places.tolist())
