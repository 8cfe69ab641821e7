"""What can be seen of a process from outside: its files in /proc, and its raw entries."""

from __future__ import annotations

from typing import Final

import numpy as np

from ptewalk.model.api import words
from ptewalk.model.api.answers import Leaf, Pagemap, Region, Scan
from ptewalk.model.api.words import PAGE, Words
from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import SCAN_RETURN_MASK, ScanCategory, ScanFlag
from ptewalk.model.proc import pagemap, smaps
from ptewalk.model.proc.files import pid_of
from ptewalk.model.proc.pagemap_scan import SOME_BUFFER, Argument
from ptewalk.model.state.machine import Process

_CATEGORIES: Final = tuple(category.name for category in ScanCategory)
_RETURNED: Final = tuple(category.name for category in ScanCategory if category & SCAN_RETURN_MASK)
_SCAN_FLAGS: Final = tuple(flag.name for flag in ScanFlag)


class ProcessFiles:
    """A process as its files in /proc show it; see `Task`."""

    def __init__(self, kernel: Kernel, process: Process) -> None:
        self.kernel = kernel
        self.pid = pid_of(process.who)
        self._process = process

    @property
    def lives(self) -> bool:
        """The process has not ended."""
        return self.kernel.processes.get(self._process.who) is self._process

    @property
    def process(self) -> Process:
        """The model's own process: its areas and tables, for who looks closer."""
        if not self.lives:
            raise Errno("ESRCH", f"task {self.pid} has ended")
        return self._process

    def clear_refs(self, value: int | str = 4, *, writer: ProcessFiles | None = None) -> int:
        """Write to /proc/PID/clear_refs (fs/proc/task_mmu.c:clear_refs_write); the bytes that were taken.

        Parameters
        ----------
        value : int or str
            4 clears soft-dirty; 1, 2 and 3 clear A; or any text.
        writer : Task or None
            Who writes; None: root.

        Raises
        ------
        Errno
            EINVAL, ERANGE: no such number. EACCES: an ordinary user's write to root's process.
        """
        text = value if isinstance(value, str) else str(words.whole("value", value))
        return self.kernel.clear_refs(self.process.who, text, None if writer is None else writer.process)

    def pagemap(self, at: int, length: int = PAGE) -> Pagemap:
        """The words of /proc/PID/pagemap of every page that the range touches (fs/proc/task_mmu.c:pagemap_read)."""
        start, pages = words.covering(words.address("at", at, words.whole("length", length)), length)
        process = self.process
        found = pagemap.read(process.mm, start, pages, show_frames=process.sees_frames)
        return Pagemap(found, second=self.kernel.pagemap_v2)

    def pagemap_scan(
        self,
        at: int,
        length: int,
        flags: Words = (),
        *,
        category_mask: Words = (),
        category_anyof_mask: Words = (),
        category_inverted: Words = (),
        return_mask: Words = _RETURNED,
        max_pages: int = 0,
        vec_len: int = 4096,
    ) -> Scan:
        """The PAGEMAP_SCAN ioctl of 6.7 and later (fs/proc/task_mmu.c:do_pagemap_scan).

        Parameters
        ----------
        flags : words
            WP_MATCHING, CHECK_WPASYNC.
        category_mask, category_anyof_mask, category_inverted, return_mask : words
            WPALLOWED, WRITTEN, FILE, PRESENT, SWAPPED, PFNZERO, HUGE, SOFT_DIRTY; GUARD (6.18) and ACCESSED (7.3),
            which have to be asked for.
        max_pages : int
            0: any number.
        vec_len : int
            Regions that there is room for.

        Raises
        ------
        Errno
            ENOTTY: before 6.7. EINVAL, EFAULT: the range. EPERM: CHECK_WPASYNC where nothing is registered so.
        """
        start = words.address("at", at, words.whole("length", length))
        masks = {
            name: sum(ScanCategory[word] for word in words.some_of(name, value, _CATEGORIES, prefix="PAGE_IS_"))
            for name, value in (
                ("category_mask", category_mask),
                ("category_anyof_mask", category_anyof_mask),
                ("category_inverted", category_inverted),
                ("return_mask", return_mask),
            )
        }
        chosen = words.some_of("a flag of pagemap_scan", flags, _SCAN_FLAGS, prefix="PM_SCAN_")
        argument = Argument(
            start,
            start + length,
            flags=sum(ScanFlag[flag] for flag in chosen),
            vec=SOME_BUFFER if words.whole("vec_len", vec_len) else 0,
            vec_len=vec_len,
            max_pages=words.whole("max_pages", max_pages),
            **masks,
        )
        answer = self.kernel.pagemap_scan(self.process, argument)
        if answer.error is not None or answer.walk_end is None:
            raise Errno(answer.error or "EFAULT")
        regions = [
            Region(first * PAGE, (first + n) * PAGE, frozenset(c.name for c in ScanCategory if categories & c))
            for first, n, categories in answer.regions
        ]
        return Scan(regions, answer.walk_end)

    def maps(self) -> str:
        """The text of /proc/PID/maps."""
        return smaps.maps(self.process.mm)

    def smaps(self) -> str:
        """The text of /proc/PID/smaps, with the lines of the profile's kernel."""
        return smaps.smaps(self.process.mm)

    def entries(self, at: int, length: int = PAGE) -> list[Leaf]:
        """The raw entries that are not 0 for the pages that the range touches; a huge one once, from its own start."""
        start, pages = words.covering(words.address("at", at, words.whole("length", length)), length)
        mm, end = self.process.mm, start + pages
        found = []
        for vma in mm.areas.in_range(start, end):
            for piece in mm.tables.pieces(vma, max(start, vma.start), min(end, vma.end)):
                if piece.leaf:
                    found.append(Leaf(piece.head * PAGE, piece.level, piece.leaf))
                    continue
                part = mm.tables.part(piece.first, piece.last)
                found += [Leaf((piece.first + i) * PAGE, 1, int(part[i])) for i in np.flatnonzero(part).tolist()]
        return found
