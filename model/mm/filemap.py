"""Files behind mappings (mm/filemap.c, mm/truncate.c, mm/fremap.c)."""

from __future__ import annotations

from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import gup, mmap, modify, rmap, thp
from ptewalk.model.state.files import File
from ptewalk.model.state.frames import by_page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT


def pwrite(kernel: MachineState, number: str, position: int, data: bytes) -> None:
    """Write bytes to a file, which grows as far as they reach; no entry that maps it is touched."""
    file = kernel.files.open(number)
    for start, length in by_page(position, len(data)):
        offset = start >> PAGE_SHIFT
        file.pages = max(file.pages, offset + 1)
        frame = kernel.files.get_page(file, offset)
        kernel.frames.store(frame, start % PAGE_BYTES, data[start - position : start - position + length])
        kernel.frames.mark_dirty(int(kernel.frames.head[frame]))


def pread(kernel: MachineState, number: str, position: int, length: int) -> bytes:
    """Bytes of a file, as far as it reaches."""
    file = kernel.files.open(number)
    found = b""
    for start, wanted in by_page(position, min(length, (file.pages << PAGE_SHIFT) - position)):
        offset = start >> PAGE_SHIFT
        if offset in file.swapped:
            kernel.files.add_page(file, offset)
        frame = file.cache.get(offset)
        found += kernel.frames.load(frame, start % PAGE_BYTES, wanted) if frame else bytes(wanted)
    return found


def truncate(kernel: MachineState, number: str, pages: int) -> None:
    """Set a file's length."""
    file = kernel.files.open(number)
    old = file.pages
    file.pages = pages
    if pages < old:
        truncate_range(kernel, file, pages, max(old, 1 << 40), even_cows=True)


def truncate_range(kernel: MachineState, file: File, first: int, last: int, *, even_cows: bool) -> None:
    """Drop pages [first, last) of a file and every mapping of them (unmap_mapping_range, truncation)."""
    for process in kernel.processes.values():
        for vma in list(process.mm.areas):
            if vma.file is not file or vma.huge_level:
                continue
            if vma.remapped is not None:  # unmap_mapping_range_list: every page is looked at
                for at in range(vma.start, vma.end):
                    if first <= vma.shown_offset(at) < last:
                        mmap.zap_range(process.mm, vma, at, at + 1, even_cows=even_cows)
                continue
            start = max(vma.start, vma.start + first - vma.pgoff)
            end = min(vma.end, vma.start + last - vma.pgoff)
            if start < end:
                mmap.zap_range(process.mm, vma, start, end, even_cows=even_cows)
                process.mm.replace(start, end)
    for offset in (first, last - 1):
        _split_partly(kernel, file, offset, first, last)
    for offset in [o for o in file.cache if first <= o < last]:
        whole = _offsets(kernel, file.cache[offset])
        if whole.start < first or whole.stop > last:  # what is pinned could not be split: it is filled with zeros
            kernel.frames.store(file.cache[offset], 0, bytes(PAGE_BYTES))
            continue
        frame = file.cache.pop(offset)
        kernel.lru.drain()
        kernel.frames.delete_from_page_cache(frame)
        if not kernel.frames.maps[frame]:
            kernel.frames.free(frame)
    for offset in [o for o in file.swapped if first <= o < last]:
        del file.swapped[offset]
    for offset, run in list(file.swapped_together.items()):
        if run.start < last and first < run.stop:
            del file.swapped_together[offset]


def _split_partly(kernel: MachineState, file: File, offset: int, first: int, last: int) -> None:
    """Split the large page at `offset` if [first, last) has a part of it (truncate_inode_partial_folio).

    Later kernels split it around the first page of that part, and what is left behind the part around its first page.
    """
    frame = file.cache.get(offset, 0)
    whole = _offsets(kernel, frame) if frame else range(0)
    if len(whole) < 2 or first <= whole.start and whole.stop <= last:
        return
    around = kernel.profile.filemap_splits_around
    if not thp.split_file_page(kernel, file.cache[max(first, whole.start)], around=around):
        return
    if around and last < whole.stop and len(_offsets(kernel, file.cache[last])) > 1:
        thp.split_file_page(kernel, file.cache[last], around=True)


def _offsets(kernel: MachineState, frame: int) -> range:
    """The part of its file that the page is, of whatever size, that a frame is part of."""
    folio = kernel.frames.folio(frame)
    first = int(kernel.frames.index[folio.start])
    return range(first, first + len(folio))


def write_back(kernel: MachineState, number: str) -> None:
    """fdatasync: a file with dirty accounting write-protects and cleans what is dirty (mm/rmap.c:page_mkclean)."""
    file = kernel.files.open(number)
    if not file.counts_dirty:
        return
    for frame in list(file.cache.values()):
        kernel.frames.clear_dirty(frame)
        for mm, vma, at, _huge in rmap.walk(kernel, frame):
            pte = mm.tables.get(at)
            if vma.flags & VmFlag.SHARED and (kernel.entries.pte_shares_write(pte) or kernel.entries.pte_dirty(pte)):
                mm.tables.set(at, kernel.entries.pte_mkclean(kernel.entries.pte_wrprotect(pte)))


def remap_file_pages(mm: Mm, at: int, pages: int, file_page: int) -> None:
    """remap_file_pages (3.11): show other pages of the file in part of a shared mapping (mm/fremap.c)."""
    vma = mm.areas.lookup(at)
    if vma is None or vma.file is None or not vma.flags & VmFlag.SHARED or pages <= 0 or at + pages > vma.end:
        raise Errno("EINVAL")
    if vma.remapped is None and file_page == vma.offset(at):
        gup.mm_populate(mm, at, at + pages)
        return
    mmap.zap_range(mm, vma, at, at + pages)
    mm.remapped.update({at + j: file_page + j for j in range(pages)})
    vma.remapped = mm.remapped
    modify.set_flags(vma, VmFlag.NONLINEAR)
    gup.mm_populate(mm, at, at + pages)
