"""What docs/scenario-format.md records of a process after a step: pages, areas, tables and raw entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import (
    FIRST_SPECIAL_SWAP_TYPE,
    LATER_FLAGS,
    PAGEMAP_LETTERS,
    PAGEMAP_SWAP_TYPE_BITS,
    RECORDED_FLAGS,
    TABLE_FLAGS,
    WINDOW_PAGES,
)
from ptewalk.model.mm import stack
from ptewalk.model.proc import kpage, pagemap, smaps
from ptewalk.model.pte import FRAME_AT, PROTNONE, P
from ptewalk.model.scenario.contents import Contents
from ptewalk.model.scenario.few import KINDS, Few, FewRules
from ptewalk.model.scenario.numbering import FrameNumbers, Numbering
from ptewalk.model.scenario.runs import Runs, group, join_entries, merge_holes, starts
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Process
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import INDEX_BITS

_KINDS: Final = ((page.ANON, "a"), (page.COMPOUND, "t"), (page.ZERO, "z"), (page.HUGETLB, "h"))
_MOST_AREAS: Final = 4096
_SHOWN_FLAGS: Final = RECORDED_FLAGS | LATER_FLAGS
_STATUS: Final = ~int(pagemap.FRAME) & (1 << 64) - 1


@dataclass
class Snapshot:
    """One process after a step, as the format has it."""

    pages: Runs
    vmas: list[dict[str, Any]]
    root: int
    tables: list[list[Any]]
    ptes: Runs
    contents: Runs | None = None
    """None: the recording does not tell."""


@dataclass
class Outcome:
    """What a step answered.

    Attributes
    ----------
    ret : int
    errno : str or None
    vals : list
    scan : dict or None
        Of a pagemap_scan step.
    state : dict
        Process to `Snapshot`.
    """

    ret: int
    errno: str | None
    vals: list[Any]
    scan: dict[str, Any] | None
    state: dict[int, Snapshot]


@dataclass
class _Raw:
    """One process before numbering."""

    page: NDArray[np.int64]
    """Pages with a visible frame."""
    status: NDArray[np.uint64]
    frame: NDArray[np.int64]
    holes: list[tuple[int, int, int]]
    """(first page, pages, pagemap word) of entries without a frame."""
    entries: list[tuple[int, NDArray[np.int64], NDArray[np.uint64]]] = field(default_factory=list)
    """(level, pages, raw entries)"""

    def places(self) -> Iterator[tuple[int, int]]:
        """(page, frame) of those with a visible frame."""
        return zip(self.page.tolist(), self.frame.tolist(), strict=True)


class Recorder:
    """Takes snapshots of a kernel, step by step.

    Parameters
    ----------
    kernel : Kernel
    raw_tables : bool
        Also take `tables` and `ptes`.
    """

    def __init__(self, kernel: MachineState, *, raw_tables: bool) -> None:
        self.kernel = kernel
        self.raw_tables = raw_tables
        self._few = FewRules(kernel)
        self._frames = FrameNumbers()
        self._tables = Numbering()
        self._slots = Numbering()
        self._letters: dict[int, str] = {}
        self._kinds: dict[int, str] = {}
        self._names: dict[int, tuple[str, list[str]]] = {}
        self._areas: dict[tuple[int, int, int], dict[str, Any]] = {}
        """Start, end and flags to what was told of areas of processes without huge pages."""
        self._table_flags: dict[int, str] = {}

    def take(self, *, contents: bool = False) -> dict[int, Snapshot]:
        """Snapshots of all live processes.

        Whether a frame or table that was allocated after others had been freed in the same step is one of those is a
        choice of the recorded kernel (`Choices`).

        Parameters
        ----------
        contents : bool
            Also take the checksums of pages.
        """
        kernel = self.kernel
        processes = [kernel.processes[who] for who in sorted(kernel.processes)]
        raws = self._collected(processes)
        reborn = bool(kernel.frames.born) and kernel.choices.known
        taken = self._reused_frames(processes, raws) if reborn else {}
        numbers = self._numbers(raws, taken)
        table_numbers: dict[int, int] = {}
        slot_numbers: dict[int, int] = {}
        upper: dict[int, list[tuple[int, int, int, int]]] = {}
        if self.raw_tables:
            tables: list[int] = []
            slots: list[int] = []
            for process, raw in zip(processes, raws, strict=True):
                upper[process.who] = process.mm.tables.upper_entries(kernel.base, kernel.base + WINDOW_PAGES)
                tables.append(process.mm.tables.root)
                tables.extend([frame for _, _, _, frame in upper[process.who]])
                slots.extend(self._slots_of(raw))
            taken = self._reused_tables(upper) if reborn else {}
            table_numbers = self._tables.number(tables, taken)
            slot_numbers = self._slots.number(slots)
        sums = Contents(kernel) if contents else None
        return {
            process.who: Snapshot(
                self._page_runs(raw, numbers),
                [self._area(process, vma) for vma in process.mm.areas],
                table_numbers.get(process.mm.tables.root, 0),
                self._table_list(upper[process.who], table_numbers) if self.raw_tables else [],
                self._entry_runs(raw, numbers, slot_numbers) if self.raw_tables else [],
                self._contents(raw, sums) if sums else None,
            )
            for process, raw in zip(processes, raws, strict=True)
        }

    def _reused(self, numbering: Numbering | FrameNumbers, seen: Iterable[tuple[int, int | None]]) -> dict[int, int]:
        """Of (new frame, recorded id) pairs: which freed frame the new one is, where that is possible."""
        frames = self.kernel.frames
        owner = numbering.owners()
        freed = {frame: position for position, frame in enumerate(frames.freed)}
        found: dict[int, int] = {}
        for frame, number in seen:
            old = owner.get(number) if number is not None else None
            if old is not None and freed.get(old, frames.born[frame]) < frames.born[frame]:
                found[frame] = old
        return found

    def _numbers(self, raws: list[_Raw | Few], taken: dict[int, int]) -> Any:
        """The numbers of the frames that are seen: a mapping for few, else an array."""
        few = [raw for raw in raws if isinstance(raw, Few)]
        if len(few) == len(raws):
            return self._frames.number_few([frame for raw in few for _, _, frame in raw.seen], taken)
        order = np.concatenate([raw.frame for raw in raws if isinstance(raw, _Raw)])
        return self._frames.number(order, self.kernel.frames.next, taken)

    def _reused_frames(self, processes: list[Process], raws: list[_Raw | Few]) -> dict[int, int]:
        born = self.kernel.frames.born
        pairs: list[tuple[int, int | None]] = []
        for process, raw in zip(processes, raws, strict=True):
            for at, frame in raw.places():
                if frame in born:
                    pairs.append((frame, self.kernel.choices.frame(process.who, at)))
        return self._reused(self._frames, pairs)

    def _reused_tables(self, upper: dict[int, list[tuple[int, int, int, int]]]) -> dict[int, int]:
        born = self.kernel.frames.born
        pairs: list[tuple[int, int | None]] = []
        for who, tables in upper.items():
            ids = self.kernel.choices.tables(who)
            for level, at, _entry, frame in tables:
                if frame in born:
                    pairs.append((frame, ids.get((level, at - self.kernel.base))))
        return self._reused(self._tables, pairs)

    # Pages.

    def _collected(self, processes: list[Process]) -> list[_Raw | Few]:
        """The processes entry by entry where all have few, else by arrays."""
        found: list[_Raw | Few] = []
        for process in processes:
            few = self._few.of(process)
            if few is None:
                return [self._collect(process) for process in processes]
            found.append(few)
        return found

    def _collect(self, process: Process) -> _Raw:
        """Pagemap words, as the file has them, and raw entries of one process."""
        kernel, mm = self.kernel, process.mm
        pages: list[NDArray[np.int64]] = [_EMPTY]
        words: list[NDArray[np.uint64]] = [_NO_WORDS]
        entries: list[tuple[int, NDArray[np.int64], NDArray[np.uint64]]] = []
        for vma in mm.areas:
            found, mapped = pagemap.read_area(mm, vma, show_frames=process.sees_frames)
            told = (found if kernel.pagemap_v2 else found != pagemap.V1_SHIFT).nonzero()[0]
            pages.append(told + (vma.start - kernel.base))
            words.append(found[told])
            for piece, used, content in mapped:
                if piece.leaf:
                    entries.append((piece.level, _place(piece.head - kernel.base), np.array([piece.leaf], np.uint64)))
                elif len(used):
                    entries.append((1, used + (piece.first - kernel.base), content[used]))
        page, word = np.concatenate(pages), np.concatenate(words)
        present = (word & pagemap.PRESENT) != 0
        if not pagemap.shows_frames(kernel, privileged=process.sees_frames):
            present[:] = False
        holes = [(int(page[first]), last - first, int(word[first])) for first, last in starts(page, word, ~present)]
        return _Raw(
            page[present],
            word[present] & np.uint64(_STATUS),
            (word[present] & pagemap.FRAME).astype(np.int64),
            holes,
            entries,
        )

    def _page_runs(self, raw: _Raw | Few, numbers: Any) -> Runs:
        """`pages` of the format."""
        runs: Runs = []
        if isinstance(raw, Few):
            runs = [
                [at, count, self.letters(key & _STATUS), self._kind(key & ~_STATUS), number, step]
                for at, count, key, number, step in self._few.page_runs(raw, numbers)
            ]
        elif len(raw.page):
            frames = raw.frame
            ids = numbers[frames]
            kinds = kpage.visible(self.kernel, frames) & np.uint16(KINDS)
            for first, last, step in group(raw.page, (raw.status, kinds), ids):
                runs.append(
                    [
                        int(raw.page[first]),
                        last - first,
                        self.letters(int(raw.status[first])),
                        self._kind(int(kinds[first])),
                        int(ids[first]),
                        step,
                    ]
                )
        if not raw.holes:
            return runs
        shows_slots = pagemap.shows_frames(self.kernel, privileged=False)
        for start, count, word in merge_holes(raw.holes):
            run: list[Any] = [start, count, self.letters(word & _STATUS), "", None, 0]
            if shows_slots and word & int(pagemap.SWAP):
                frame = word & int(pagemap.FRAME)
                run += [frame & (1 << PAGEMAP_SWAP_TYPE_BITS) - 1, frame >> PAGEMAP_SWAP_TYPE_BITS, 0]
            runs.append(run)
        runs.sort(key=lambda r: int(r[0]))
        return runs

    def letters(self, word: int) -> str:
        """Letters of a pagemap word's status bits; "1" for the first layout."""
        found = self._letters.get(word)
        if found is None:
            v1 = word & int(pagemap.V1_SHIFT) == int(pagemap.V1_SHIFT) and not self.kernel.pagemap_v2
            found = "".join(
                letter for bit, letter in PAGEMAP_LETTERS if word >> bit & 1 and not (v1 and letter in "GWXD")
            ) + ("1" if v1 else "")
            self._letters[word] = found
        return found

    def _kind(self, flags: int) -> str:
        found = self._kinds.get(flags)
        if found is None:
            found = "".join(letter for bit, letter in _KINDS if flags & bit)
            self._kinds[flags] = found
        return found

    def _contents(self, raw: _Raw | Few, sums: Contents) -> Runs:
        """`contents` of the format."""
        return sums.runs(self._few.mapped(raw) if isinstance(raw, Few) else sums.mapped(raw.entries))

    # Areas.

    def _area(self, process: Process, vma: Vma) -> dict[str, Any]:
        """One area's smaps."""
        start = stack.shown_start(process.mm, vma)
        leaves = process.mm.tables.any_leaf()
        asked = start, vma.end, vma.flags
        known = None if leaves else self._areas.get(asked)
        if known is not None:
            return known | {"flags": known["flags"].copy()}
        named = self._names.get(vma.flags)
        if named is None:
            names = [name for name in smaps.flag_names(vma) if name in _SHOWN_FLAGS]
            named = self._names[vma.flags] = smaps.permissions(vma), names
        told = {
            "page": start - self.kernel.base,
            "n": vma.end - start,
            "perm": named[0],
            "anon_huge_kb": 2048 * len(smaps.huge_pages(process.mm, vma)) if leaves else 0,
            "shmem_huge_kb": 2048 * len(smaps.shmem_huge_pages(process.mm, vma)) if leaves else 0,
            "flags": named[1].copy(),
        }
        if not leaves:
            if len(self._areas) >= _MOST_AREAS:
                self._areas.clear()
            self._areas[asked] = told | {"flags": named[1]}
        return told

    # Tables and entries.

    def _table_list(self, tables: list[tuple[int, int, int, int]], numbers: dict[int, int]) -> list[list[Any]]:
        """`tables` of the format."""
        base, texts = self.kernel.base, self._table_flags
        rows: list[list[Any]] = []
        for level, at, entry, frame in tables:
            flags = entry & ~FRAME_AT[1]
            text = texts.get(flags)
            if text is None:
                text = texts[flags] = format(flags, "x")
            rows.append([level, at - base, text, numbers[frame]])
        return rows

    def _slots_of(self, raw: _Raw | Few) -> list[int]:
        """Swap slots that a process's entries name, in order."""
        if isinstance(raw, Few):
            return raw.slots
        entries = self.kernel.entries
        found: list[int] = []
        for level, _, content in raw.entries:
            if level != 1:
                continue
            swapped = content[(content & np.uint64(P | PROTNONE)) == 0]
            for pte in swapped.tolist():
                if entries.swp_type(pte) < FIRST_SPECIAL_SWAP_TYPE:
                    found.append(entries.swp_offset(pte) << 5 | entries.swp_type(pte))
        return found

    def _entry_runs(self, raw: _Raw | Few, numbers: Any, slots: dict[int, int]) -> Runs:
        """`ptes` of the format; an id is None where no process shows the frame."""
        if isinstance(raw, Few):
            return self._few.entry_runs(raw, numbers, slots)
        entries = self.kernel.entries
        depth = self.kernel.levels
        swap = self.kernel.entries.swap_layout
        offset_field = ((1 << swap.offset_bits) - 1) << swap.offset_low
        runs: Runs = []
        for level, where, content in raw.entries:
            upper = ".".join([format(TABLE_FLAGS, "x")] * (depth - level))
            if level > 1:
                entry = int(content[0])
                text, leaf_id = self._huge_entry(entry, level, numbers)
                runs.append([int(where[0]), 1 << INDEX_BITS * (level - 1), level, text, upper, leaf_id, 1])
                continue
            present = (content & np.uint64(P | PROTNONE)) != 0
            field_mask = np.where(present, np.uint64(FRAME_AT[1]), np.uint64(offset_field))
            flags = content & ~field_mask
            pfns = np.where(present, entries.pte_pfn(content), np.uint64(0)).astype(np.int64)
            ids = numbers[pfns]
            for position in (~present).nonzero()[0].tolist():
                pte = int(content[position])
                kind, offset = entries.swp_type(pte), entries.swp_offset(pte)
                ids[position] = offset if kind >= FIRST_SPECIAL_SWAP_TYPE else slots[offset << 5 | kind]
            for first, last, step in group(where, (flags, present, ids != 0), ids):
                number = int(ids[first])
                known = number or not present[first]
                runs.append(
                    [
                        int(where[first]),
                        last - first,
                        1,
                        format(int(flags[first]), "x"),
                        upper,
                        number if known else None,
                        step,
                    ]
                )
        return join_entries(runs)

    def _huge_entry(self, entry: int, level: int, numbers: NDArray[np.int64]) -> tuple[str, int | None]:
        """Flags and id of a leaf above level 1."""
        entries = self.kernel.entries
        if entries.pte_present(entry):
            frame = entries.pte_pfn(entry, level)
            return format(entry & ~FRAME_AT[level], "x"), int(numbers[frame]) or None
        swap = self.kernel.entries.swap_layout
        field_mask = ((1 << swap.offset_bits) - 1) << swap.offset_low
        return format(entry & ~field_mask, "x"), entries.swp_offset(entry)


_EMPTY: Final[NDArray[np.int64]] = np.zeros(0, np.int64)
_NO_WORDS: Final[NDArray[np.uint64]] = np.zeros(0, np.uint64)


def _place(page: int) -> NDArray[np.int64]:
    """A page as an array of one."""
    return np.array([page], np.int64)
