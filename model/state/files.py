"""Files and their page caches: tmpfs files, shared anonymous memory, and ext2 files with dirty accounting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import BLOCK_FILE_PAGES, FILE_PAGES, HUGE_PAGES
from ptewalk.model.state import frames as page
from ptewalk.model.state.frames import Frames


class File:
    """One file (struct address_space).

    Attributes
    ----------
    pages : int
        Length.
    identity : int
        What its frames name as their owner: negative, so that a file is never taken for an anon_vma.
    cache : dict
        Page offset to frame.
    swapped : dict
        Page offset to the contents of a page that was paged out (None: all zero).
    swapped_together : dict
        Page offset to the offsets of the large page that it was part of as that was swapped out.
    counts_dirty : bool
        The file system wants to see the first write (page_mkwrite, dirty accounting): ext2, not tmpfs.
    """

    __slots__ = ("pages", "cache", "swapped", "swapped_together", "counts_dirty", "identity")

    def __init__(self, pages: int, identity: int, *, counts_dirty: bool = False) -> None:
        self.identity = identity
        self.pages = pages
        self.cache: dict[int, int] = {}
        self.swapped: dict[int, NDArray[np.uint64] | None] = {}
        self.swapped_together: dict[int, range] = {}
        self.counts_dirty = counts_dirty


class Files:
    """The files of one scenario.

    Parameters
    ----------
    frames : Frames
        Where page-cache pages come from.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self._named: dict[str, File] = {}
        self._by_identity: dict[int, File] = {}

    def open(self, number: str) -> File:
        """The file of kinds ``s<number>`` and ``p<number>``; made, all zero, when first named."""
        file = self._named.get(number)
        if file is None:
            on_disk = number == "4"
            file = self._new(BLOCK_FILE_PAGES if on_disk else FILE_PAGES, counts_dirty=on_disk)
            self._named[number] = file
        return file

    def create(self, number: str, pages: int) -> File:
        """A new file of that name and length, all zero, without dirty accounting."""
        if number in self._named:
            raise ValueError(f"there is a file {number!r} already")
        self._named[number] = self._new(pages)
        return self._named[number]

    def new_anonymous(self, pages: int) -> File:
        """The file behind a shared anonymous mapping (mm/shmem.c:shmem_zero_setup)."""
        return self._new(pages)

    def _new(self, pages: int, *, counts_dirty: bool = False) -> File:
        file = File(pages, -1 - len(self._by_identity), counts_dirty=counts_dirty)
        self._by_identity[file.identity] = file
        return file

    def by_identity(self, identity: int) -> File:
        """The file that a frame names as its owner."""
        return self._by_identity[identity]

    def number_of(self, file: File) -> tuple[int, str | None]:
        """A file's place in the order they were made, from 1 on, and its name's number; None for shared memory."""
        names = {other.identity: number for number, other in self._named.items()}
        return list(self._by_identity).index(file.identity) + 1, names.get(file.identity)

    def add_page(self, file: File, offset: int) -> int:
        """A new page-cache page, with what was swapped out or all zero; what was swapped together comes together."""
        run = file.swapped_together.get(offset)
        if run is not None:
            return self._read_together(file, run) + offset - run.start
        frame = self.frames.alloc(0)
        self.frames.add_to_page_cache(frame, file.identity, offset)
        file.cache[offset] = frame
        words = file.swapped.pop(offset, None)
        if words is not None:
            self.frames.memory.add_frame(frame)[:] = words
            self.frames.mark_dirty(frame)
        return frame

    def _read_together(self, file: File, run: range) -> int:
        """The first frame of a large page that is read back from swap as a whole (shmem_swap_alloc_folio)."""
        head = self.frames.alloc_compound(page.COMPOUND, len(run))
        self.frames.add_to_page_cache(head, file.identity, run.start, len(run))
        for frame, offset in zip(range(head, head + len(run)), run, strict=True):
            del file.swapped_together[offset]
            words = file.swapped.pop(offset)
            if words is not None:
                self.frames.memory.add_frame(frame)[:] = words
            file.cache[offset] = frame
        self.frames.mark_dirty(slice(head, head + len(run)))
        return head

    def add_huge_page(self, file: File, offset: int) -> int:
        """One huge page in place of the 512 pages around `offset`, with what they held; its first frame."""
        first = offset - offset % HUGE_PAGES
        for part in [file.cache[first + i] for i in range(HUGE_PAGES) if first + i in file.cache]:
            if self.frames.flags[part] & page.COMPOUND:
                self.frames.split_compound(int(self.frames.head[part]))
        for i in range(HUGE_PAGES):
            file.swapped_together.pop(first + i, None)
        head = self.frames.alloc_compound(page.COMPOUND)
        self.frames.add_to_page_cache(head, file.identity, first, HUGE_PAGES)
        for i in range(HUGE_PAGES):
            old = file.cache.get(first + i)
            words = file.swapped.pop(first + i, None)
            if old is not None:
                self.frames.copy(old, head + i)
                self.frames.free(old)
            elif words is not None:
                self.frames.memory.add_frame(head + i)[:] = words
            file.cache[first + i] = head + i
        return head

    def is_empty(self, file: File, offset: int) -> bool:
        """Has the file nothing in the 512 pages around `offset`, in memory or in swap?"""
        first = offset - offset % HUGE_PAGES
        return not any(o in file.cache or o in file.swapped for o in range(first, first + HUGE_PAGES))

    def get_page(self, file: File, offset: int) -> int:
        """The page-cache page, read back or made when there is none; 0 beyond the end of the file (shmem_get_folio)."""
        if offset >= file.pages:
            return 0
        return file.cache.get(offset) or self.add_page(file, offset)
