"""Epochs: what pagemap reports, beside what really changed.

At the end of an epoch the bytes of every page are hashed, pagemap is read, and soft-dirty cleared by 4. A page whose
contents changed and that was not reported is a lost store. Nothing here knows a rule of the model: contents are
compared, and bit 55 is read. With a dirty log, it is the log that reports.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.dirty_log import ProgramLog
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import SoftBit, VmFlag
from ptewalk.model.proc import pagemap
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Process
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT

__all__ = ["KINDS", "Epoch", "Epochs", "Every", "Lost", "Present", "is_private", "present_pages"]

KINDS: Final = ("present", "reported", "changed", "lost")
"""What is kept of pages."""
_MOST_LOST: Final = 1000
_ZERO: Final = blake2b(bytes(PAGE_BYTES), digest_size=16).digest()
_SOFT_DIRTY: Final = 1 << SoftBit.SOFT_DIRTY


@dataclass(frozen=True)
class Every:
    """When an epoch ends.

    Attributes
    ----------
    kind : str
        "syscalls": before each `count`-th system call of all processes; "instructions": after so many of them;
        "marker": at each system call `call_numbers.MARKER`.
    count : int
    """

    kind: str
    count: int = 0

    @staticmethod
    def parse(text: str) -> Every:
        """What ``syscalls:N``, ``instructions:N`` or ``marker`` says. Raises `ToolError`."""
        found = re.fullmatch(r"(syscalls|instructions):([1-9][0-9]{0,14})|marker", text)
        if found is None:
            raise ToolError(f"no epoch {text!r}: give syscalls:N, instructions:N or marker")
        return Every(found[1], int(found[2])) if found[1] else Every("marker")

    def __str__(self) -> str:
        return f"{self.kind}:{self.count}" if self.count else self.kind


class Present(NamedTuple):
    """A page that is there, or swapped out."""

    page: int
    frame: int
    """0: swapped out, and in no frame."""
    reported: bool
    by_entry: bool
    """Its own entry says so, not the area's flag."""
    huge: bool
    vma: Vma
    swapped: bool = False
    words: NDArray[np.uint64] | None = None
    """Of a page in no frame: what it holds; None: zeros."""


@dataclass(frozen=True)
class Lost:
    """A page that changed and was not reported."""

    epoch: int
    process: int
    page: int
    area: str

    def __str__(self) -> str:
        return f"epoch {self.epoch}: process {self.process}, page {self.page << PAGE_SHIFT:#x}, area {self.area}"


@dataclass
class Epoch:
    """What one epoch counted, in pages.

    Attributes
    ----------
    number : int
        From 1 on.
    pages : int
        Present or swapped out, of all processes.
    reported, changed, lost : int
    same_value : int
        Reported and not changed: the same bytes were stored again, or what was stored was taken back.
    area : int
        Reported and not changed: by VM_SOFTDIRTY of an area that is new or has merged.
    huge : int
        Reported and not changed: the whole huge page is reported.
    elsewhere : int
        Changed in shared memory, and reported by no mapping: who stored is gone, or it was write(2).
    unlogged : int or None
        Soft-dirty by the page's own entry, and not in the dirty log; None: there is no log.
    """

    number: int
    pages: int = 0
    reported: int = 0
    changed: int = 0
    lost: int = 0
    same_value: int = 0
    area: int = 0
    huge: int = 0
    elsewhere: int = 0
    unlogged: int | None = None

    def as_json(self) -> dict[str, int]:
        """Name to number."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def present_pages(kernel: Kernel, process: Process) -> Iterator[Present]:
    """The pages of a process that are there or swapped out, ascending, as pagemap tells them."""
    mm = process.mm
    for vma in list(mm.areas):
        for piece in mm.tables.pieces(vma, vma.start, vma.end):
            words = pagemap.read(mm, piece.first, piece.last - piece.first)
            for place in (words & (pagemap.PRESENT | pagemap.SWAP)).nonzero()[0].tolist():
                word = int(words[place])
                at = piece.first + place
                entry = piece.leaf or mm.tables.get(at)
                reported = bool(word & int(pagemap.SOFT_DIRTY))
                if word & int(pagemap.PRESENT):
                    frame = word & int(pagemap.FRAME)
                    yield Present(at, frame, reported, bool(entry & _SOFT_DIRTY), bool(piece.leaf), vma)
                elif not kernel.entries.is_marker(entry):
                    slot = kernel.swap.slots[kernel.entries.pte_to_swp_entry(entry)]
                    by_entry = bool(kernel.entries.pte_swp_soft_dirty(entry))
                    words_there = None if slot.frame else slot.words
                    yield Present(at, slot.frame, reported, by_entry, False, vma, True, words_there)


def is_private(kernel: Kernel, one: Present) -> bool:
    """Is it anonymous memory, and not a file's page or the zero page?"""
    return one.swapped or bool(kernel.frames.flags[one.frame] & page.ANON)


@dataclass
class Epochs:
    """The epochs of a run.

    Parameters
    ----------
    kernel : Kernel
    every : Every
    keeps_pages : bool
        Which pages were there, reported, changed and lost is kept, epoch by epoch.
    log : ProgramLog or None
        It reports, not pagemap.

    Attributes
    ----------
    done : list of Epoch
    pages : list of dict
        Of each epoch, where they are kept: kind to process to runs of pages, [first, how many].
    losses : list of Lost
        The first thousand.
    """

    kernel: Kernel
    every: Every
    keeps_pages: bool = False
    log: ProgramLog | None = None
    done: list[Epoch] = field(default_factory=list)
    pages: list[dict[str, dict[int, list[list[int]]]]] = field(default_factory=list)
    losses: list[Lost] = field(default_factory=list)
    _known: dict[Process, dict[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._hashes: dict[int, bytes] = {}
        self._shared: dict[tuple[int, int], bytes] = {}
        """File and offset of a shared page to its contents at the end of the last epoch."""
        self._seen: dict[tuple[int, int], bytes] = {}
        self._stored: dict[int, dict[int, bytes]] = {}
        self._marked: dict[str, dict[int, list[int]]] = {}
        self._told: dict[Process, set[int]] = {}
        """Pages that were reported when the program cleared its bits itself, since the last epoch."""

    def begin(self, processes: Sequence[Process]) -> None:
        """The first epoch begins: what is there is noted, and soft-dirty cleared."""
        for process in processes:
            self._known[process] = {one.page: self._digest(one) for one in present_pages(self.kernel, process)}
        self._clear(processes)

    def before_clear(self, process: Process) -> None:
        """The program is about to clear the bits of a process: what they report now counts at the epoch's end."""
        told = self._told.setdefault(process, set())
        told |= {one.page for one in present_pages(self.kernel, process) if one.reported}

    def _found(self, process: Process) -> list[Present]:
        pages = present_pages(self.kernel, process)
        if self.log is not None:
            logged = self.log.pages(process.mm.tables)
            return [one._replace(reported=one.page in logged) for one in pages]
        told = self._told.get(process, ())
        return [one._replace(reported=True, by_entry=True) if one.page in told else one for one in pages]

    def end(
        self,
        processes: Sequence[Process],
        origins: Mapping[Process, Process],
        *,
        somebody_left: bool,
        observe: Callable[[Mapping[Process, Sequence[Present]]], None] = lambda found: None,
    ) -> Epoch:
        """An epoch ends, and the next begins.

        Parameters
        ----------
        processes : sequence of Process
        origins : mapping
            Process to the one that it was forked from since the last epoch.
        somebody_left : bool
            A process ended, or ran another program, since the last epoch.
        observe : callable
            Told of all present pages before soft-dirty is cleared.
        """
        epoch = self._blank(len(self.done) + 1)
        self._hashes.clear()
        found = {process: self._found(process) for process in processes}
        everywhere = {one.frame for pages in found.values() for one in pages if one.reported}
        known: dict[Process, dict[int, bytes]] = {}
        self._stored = {}
        self._marked = {kind: {} for kind in KINDS}
        for process in processes:
            known_as: Process | None = process
            while known_as is not None and known_as not in self._known:
                known_as = origins.get(known_as)
            before = self._known[known_as] if known_as is not None else {}
            known[process], self._stored[process.who] = {}, {}
            for one in found[process]:
                digest = known[process][one.page] = self._digest(one)
                self._judge(epoch, process, one, digest, before.get(one.page), everywhere, somebody_left)
            self._add_shared(process)
        self._known = known
        self._shared, self._seen = {**self._shared, **self._seen}, {}
        self.done.append(epoch)
        if self.keeps_pages:
            self.pages.append(
                {kind: {who: _runs(pages) for who, pages in of.items()} for kind, of in self._marked.items()}
            )
        observe(found)
        self._clear(processes)
        return epoch

    def _judge(
        self,
        epoch: Epoch,
        process: Process,
        one: Present,
        digest: bytes,
        before: bytes | None,
        everywhere: set[int],
        somebody_left: bool,
    ) -> None:
        epoch.pages += 1
        epoch.reported += one.reported
        if epoch.unlogged is not None:
            epoch.unlogged += one.by_entry and not one.reported
        self._mark("present", process, one)
        if one.reported:
            self._mark("reported", process, one)
        if digest != _ZERO and is_private(self.kernel, one):
            self._stored[process.who][one.page] = digest
        if self._is_shared(one):
            place = int(self.kernel.frames.owner[one.frame]), int(self.kernel.frames.index[one.frame])
            before = self._shared.get(place, self._origin_of_shared(one, digest))
            self._seen[place] = digest
            changed = digest != before
        elif is_private(self.kernel, one):
            changed = digest != (self._origin(one) if before is None else before)
        else:
            changed = False  # the zero page, or the file's own, took the place of what was stored
        if changed:
            self._mark("changed", process, one)
            epoch.changed += 1
            if one.reported:
                return
            if self._is_shared(one) and one.frame in everywhere:
                return
            if self._is_shared(one) and somebody_left:
                epoch.elsewhere += 1
                return
            epoch.lost += 1
            self._mark("lost", process, one)
            if len(self.losses) < _MOST_LOST:
                self.losses.append(Lost(epoch.number, process.who + 1, one.page, _name(one.vma)))
        elif one.reported and before is not None:
            if one.huge:
                epoch.huge += 1
            elif one.by_entry:
                epoch.same_value += 1
            else:
                epoch.area += 1

    def _mark(self, kind: str, process: Process, one: Present) -> None:
        if self.keeps_pages:
            self._marked[kind].setdefault(process.who + 1, []).append(one.page)

    def _add_shared(self, process: Process) -> None:
        """Shared memory is a process's whether its own entries are there or not."""
        for vma in process.mm.areas:
            for offset, frame in vma.file.cache.items() if vma.file is not None and vma.flags & VmFlag.SHARED else ():
                at, digest = vma.start + offset - vma.pgoff, self._hash(frame)
                if vma.start <= at < vma.end and digest != _ZERO:
                    self._stored[process.who][at] = digest

    @staticmethod
    def _is_shared(one: Present) -> bool:
        return one.vma.file is not None and bool(one.vma.flags & VmFlag.SHARED)

    def _origin_of_shared(self, one: Present, digest: bytes) -> bytes:
        """As `_origin`, of a shared page that is seen for the first time: a named file's is taken as it is."""
        assert one.vma.file is not None
        return _ZERO if self.kernel.files.number_of(one.vma.file)[1] is None else digest

    def _origin(self, one: Present) -> bytes:
        """What a page holds before anything is stored: the file's bytes, or zeros."""
        file = one.vma.file
        frame = file.cache.get(one.vma.offset(one.page), 0) if file is not None else 0
        return self._hash(frame) if frame else _ZERO

    def _digest(self, one: Present) -> bytes:
        if one.frame:
            return self._hash(one.frame)
        return _ZERO if one.words is None else blake2b(one.words.data, digest_size=16).digest()

    def _hash(self, frame: int) -> bytes:
        found = self._hashes.get(frame)
        if found is None:
            row = self.kernel.memory_row(frame)
            found = _ZERO if row is None else blake2b(row.data, digest_size=16).digest()
            self._hashes[frame] = found
        return found

    def _clear(self, processes: Sequence[Process]) -> None:
        for process in processes:
            self.kernel.clear_refs(process.who, "4")
        self._told.clear()
        self._hashes.clear()
        if self.log is not None:
            self.log.forget(process.mm.tables for process in processes)

    def _blank(self, number: int) -> Epoch:
        return Epoch(number, unlogged=None if self.log is None else 0)

    def contents(self) -> dict[int, dict[int, bytes]]:
        """What processes had stored at the end of the last epoch: process to page to hash, without pages of zeros."""
        return self._stored

    def as_json(self) -> dict[str, Any]:
        """Totals, the epochs one by one, and what was lost."""
        names = [name for name in self._blank(0).as_json() if name != "number"]
        return {
            "count": len(self.done),
            **{name: sum(getattr(epoch, name) for epoch in self.done) for name in names},
            "epochs": [epoch.as_json() for epoch in self.done],
            "losses": [str(loss) for loss in self.losses],
            **({"pages_of_epochs": self.pages} if self.keeps_pages else {}),
        }


def _runs(pages: Sequence[int]) -> list[list[int]]:
    """Ascending pages as [first, how many]."""
    runs: list[list[int]] = []
    for page_number in pages:
        if runs and sum(runs[-1]) == page_number:
            runs[-1][1] += 1
        else:
            runs.append([page_number, 1])
    return runs


def _name(vma: Vma) -> str:
    kind = "anonymous" if vma.file is None else "shared" if vma.flags & VmFlag.SHARED else "file"
    return f"{vma.start << PAGE_SHIFT:#x}-{vma.end << PAGE_SHIFT:#x} ({kind})"
