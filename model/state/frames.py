"""Physical frames and what the kernel knows of each (struct page), as arrays indexed by frame number.

Everybody reads these; flags, counts and places are written here and nowhere else, by methods that have the kernel's
names.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import HUGE_PAGES
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT

ANON: Final = 1
"""PageAnon"""
EXCLUSIVE: Final = 2
"""PageAnonExclusive"""
FILE: Final = 4
"""In a file's page cache."""
KSM: Final = 8
HUGETLB: Final = 16
COMPOUND: Final = 32
"""Part of a transparent huge page."""
ZERO: Final = 64
"""A shared zero page: no struct page as far as mappings are concerned."""
DIRTY: Final = 128
"""PageDirty"""
LAZYFREE: Final = 256
"""Anonymous and no longer swap-backed (MADV_FREE)."""
REFERENCED: Final = 512
"""PageReferenced"""
ACTIVE: Final = 1024
"""PageActive"""


_ALL: Final = 0xFFFF
_BYTE: Final = 0xFF
Pages = int | slice | NDArray[np.int64]
"""One frame, a run of frames, or some."""


def _blocks(head: int, pages: int) -> range:
    """The blocks of 512 frames that these lie in, as `Frames.private_blocks` tells of."""
    return range(head // HUGE_PAGES, (head + pages - 1) // HUGE_PAGES + 1)


def by_page(address: int, length: int) -> Iterator[tuple[int, int]]:
    """The parts (address, length) of a range of bytes that lie in one page each."""
    end = address + length
    while address < end:
        stop = min(end, address - address % PAGE_BYTES + PAGE_BYTES)
        yield address, stop - address
        address = stop


class Frames:
    """The allocator, and flags and counts of every frame.

    Which freed frame a kernel would take next follows no rule: a frame number is not given out twice, unless `reuse`.

    Parameters
    ----------
    memory : SparseMemory
        Where contents live; a frame without a row there is all zero.
    reuse : bool
        Single frames that were freed before the last `begin_step` are given out again, first freed first.

    Attributes
    ----------
    flags : uint16 array
    maps : int32 array
        Entries that map the frame; a 2 MiB entry counts in `huge_maps` instead.
    index : int64 array
        Page offset in the anonymous area or file that the frame belongs to.
    head : int64 array
        First frame of the compound page, or the frame itself.
    folios : dict
        First frame of a compound page of less than 2 MiB to its number of pages.
    partly_mapped : set of int
        First frames of compound pages that count as mapped in parts although all is (folio_test_partially_mapped).
    huge_maps : dict
        First frame of a compound page to the number of 2 MiB (or 1 GiB) entries that map it.
    pins : dict
        Frame to its FOLL_PIN count.
    waiting : Counter
        Frame to the references of `lru.LruBatches`.
    cached_slot : dict
        Frame to the swap slot, (type, offset), whose swap-cache page it is.
    freed : list of int
        Frames freed since `begin_step`, in order.
    born : dict
        Frame allocated since then to the number of frames freed before it: any of those it may be in a real machine.
    owner : int64 array
        Identity of the file, or of the root anon_vma, that the frame belongs to.
    """

    def __init__(self, memory: SparseMemory, *, reuse: bool = False) -> None:
        self.memory = memory
        self._spare: deque[int] | None = deque() if reuse else None
        self.next = 16
        self.flags: NDArray[np.uint16] = np.zeros(1024, np.uint16)
        self.maps: NDArray[np.int32] = np.zeros(1024, np.int32)
        self.index: NDArray[np.int64] = np.zeros(1024, np.int64)
        self.owner: NDArray[np.int64] = np.zeros(1024, np.int64)
        self.head: NDArray[np.int64] = np.arange(1024, dtype=np.int64)
        self._private: NDArray[np.bool_] = np.ones(0, np.bool_)
        """Of each 512 frames in a row, what `private_blocks` said when it was asked last."""
        self._shared_before: NDArray[np.int64] = np.zeros(1, np.int64)
        self._changed: set[int] = set()
        """Those that entries of have come or gone since."""
        self.folios: dict[int, int] = {}
        self.partly_mapped: set[int] = set()
        self.huge_maps: dict[int, int] = {}
        self.pins: dict[int, int] = {}
        self.waiting: Counter[int] = Counter()
        self.cached_slot: dict[int, tuple[int, int]] = {}
        self.freed: list[int] = []
        self.born: dict[int, int] = {}
        self.zero = self.alloc(ZERO)
        self.huge_zero = 0

    def begin_step(self) -> None:
        """Forget what was freed and allocated."""
        if self._spare is not None:
            self._spare.extend(self.freed)
        self.freed.clear()
        self.born.clear()

    def _grow(self, frames: int) -> None:
        while len(self.flags) < frames:
            old = len(self.flags)
            self.flags = np.concatenate([self.flags, np.zeros(old, np.uint16)])
            self.maps = np.concatenate([self.maps, np.zeros(old, np.int32)])
            self.index = np.concatenate([self.index, np.zeros(old, np.int64)])
            self.owner = np.concatenate([self.owner, np.zeros(old, np.int64)])
            self.head = np.concatenate([self.head, np.arange(old, 2 * old, dtype=np.int64)])

    def alloc(self, flags: int) -> int:
        """A new frame, all zero."""
        if self._spare:
            frame = self._spare.popleft()
            self.flags[frame] = flags
            self.maps[frame] = self.index[frame] = self.owner[frame] = 0
            self.head[frame] = frame
            return frame
        frame = self.next
        self.next = frame + 1
        if self.next > len(self.flags):
            self._grow(self.next)
        self.flags[frame] = flags
        if self.freed:
            self.born[frame] = len(self.freed)
        return frame

    def alloc_compound(self, flags: int, pages: int = HUGE_PAGES) -> int:
        """`pages` new frames in a row, aligned to their number; the first is returned."""
        head = -(-self.next // pages) * pages
        self.next = head + pages
        self._grow(self.next)
        self.flags[head : head + pages] = flags
        self.head[head : head + pages] = head
        if pages < HUGE_PAGES:
            self.folios[head] = pages
        if self.freed:
            self.born.update(dict.fromkeys(range(head, head + pages), len(self.freed)))
        return head

    def folio(self, frame: int) -> range:
        """The frames of the transparent huge page, of any size, that a frame is part of; else the frame alone."""
        if not self.flags[frame] & COMPOUND:
            return range(frame, frame + 1)
        head = int(self.head[frame])
        return range(head, head + self.folios.get(head, HUGE_PAGES))

    def folio_slice(self, frame: int) -> slice:
        """The same as a slice."""
        folio = self.folio(frame)
        return slice(folio.start, folio.stop)

    def mark_partly_mapped(self, head: int) -> None:
        """The compound page is to be split when somebody asks next (deferred_split_folio)."""
        self.partly_mapped.add(head)

    def is_partly_mapped(self, head: int) -> bool:
        """folio_test_partially_mapped, of an anonymous compound page that is mapped without gaps"""
        return head in self.partly_mapped

    def get_huge_zero(self) -> int:
        """The shared huge zero page."""
        if not self.huge_zero:
            self.huge_zero = self.alloc_compound(ZERO | COMPOUND)
        return self.huge_zero

    def free(self, frame: int) -> None:
        """Give a frame's memory back."""
        self.flags[frame] = 0
        self._changed.add(frame // HUGE_PAGES)
        self.freed.append(frame)
        if frame in self.memory.row_of_frame:
            self.memory.remove_frame(frame)

    def free_many(self, frames: NDArray[np.int64]) -> None:
        """As `free` for many frames, in this order (free_unref_page_list)."""
        self.flags[frames] = 0
        self._changed.update(np.unique(frames // HUGE_PAGES).tolist())
        listed = frames.tolist()
        self.freed.extend(listed)
        for frame in self.memory.row_of_frame.keys() & set(listed):
            self.memory.remove_frame(frame)

    def free_compound(self, head: int, pages: int = HUGE_PAGES) -> None:
        """As `free` for all frames of a huge page (free_compound_page, free_huge_page)."""
        self.flags[head : head + pages] = 0
        self._changed.update(_blocks(head, pages))
        self.folios.pop(head, None)
        self.partly_mapped.discard(head)
        self.freed.extend(range(head, head + pages))
        for frame in [f for f in self.memory.row_of_frame if head <= f < head + pages]:
            self.memory.remove_frame(frame)

    def split_compound(self, head: int) -> None:
        """The huge page at `head` is pages of their own, none of them freed (__split_huge_page)."""
        run = self.folio_slice(head)
        self.folios.pop(head, None)
        self.partly_mapped.discard(head)
        self.flags[run] &= _ALL ^ COMPOUND
        self.head[run] = np.arange(run.start, run.stop)

    def split_around(self, head: int, frame: int) -> None:
        """The large page at `head` is halved, and so is each half with `frame`, until that is alone (folio_split)."""
        first, size = head, len(self.folio(head))
        self.split_compound(head)
        while size > 1:
            size //= 2
            upper = frame >= first + size
            self._make_folio(first if upper else first + size, size)
            first += size * upper

    def _make_folio(self, head: int, pages: int) -> None:
        """These pages are one large page (prep_compound_page); a single one stays as it is."""
        if pages > 1:
            run = slice(head, head + pages)
            self.flags[run] |= COMPOUND
            self.head[run] = head
            self.folios[head] = pages

    def migrate(self, old: int, new: int, pages: int) -> None:
        """Everything that is known of a page, and what it contains, is the new one's; the old one is freed.

        migrate_page_copy, and the rmap of the entries that are made anew.
        """
        source, target = slice(old, old + pages), slice(new, new + pages)
        for known in (self.flags, self.index, self.owner, self.maps):
            known[target] = known[source]
        self.maps[source] = 0
        self._changed.update(_blocks(new, pages))
        if old in self.huge_maps:
            self.huge_maps[new] = self.huge_maps.pop(old)
        if old in self.cached_slot:
            self.cached_slot[new] = self.cached_slot.pop(old)
        for frame in [f for f in self.memory.row_of_frame if old <= f < old + pages]:
            self.copy(frame, frame - old + new)
        self.free_compound(old, pages)

    def copy(self, source: int, target: int) -> None:
        """Copy contents."""
        if source in self.memory.row_of_frame:
            target_row = self.memory.add_frame(target)
            target_row[:] = self.memory.frame(source)

    def word(self, frame: int, offset: int) -> int:
        """The 64-bit word at byte `offset` of a frame, without making the frame exist."""
        return self.memory.load(frame << PAGE_SHIFT | offset) if frame in self.memory.row_of_frame else 0

    def load(self, frame: int, offset: int, length: int) -> bytes:
        """Bytes of a frame from `offset` on, without making the frame exist."""
        row = self.memory.row_of_frame.get(frame)
        return (
            bytes(length) if row is None else self.memory.words[row].view(np.uint8)[offset : offset + length].tobytes()
        )

    def store(self, frame: int, offset: int, data: bytes) -> None:
        """Store bytes in a frame from `offset` on."""
        row = self.memory.add_frame(frame).view(np.uint8)
        row[offset : offset + len(data)] = np.frombuffer(data, np.uint8)

    def load_byte(self, frame: int, offset: int) -> int:
        """The byte of a frame at `offset`, without making the frame exist."""
        row = self.memory.row_of_frame.get(frame)
        return 0 if row is None else self.memory.words.item(row, offset >> 3) >> 8 * (offset & 7) & _BYTE

    def store_byte(self, frame: int, offset: int, value: int) -> None:
        """Store a byte in a frame at `offset`."""
        row, place, up = self.memory.add_frame(frame), offset >> 3, 8 * (offset & 7)
        row[place] = row.item(place) & ~(_BYTE << up) | value << up

    # Mappings (mm/rmap.c).

    def add_new_anon_rmap(self, frame: int, owner: int, index: int) -> None:
        """A small entry maps a new anonymous page, exclusive to it (page_add_new_anon_rmap)."""
        self.flags[frame] |= ANON | EXCLUSIVE
        self.maps[frame] += 1
        self._changed.add(frame // HUGE_PAGES)
        self.owner[frame] = owner
        self.index[frame] = index

    def add_new_huge_anon_rmap(self, head: int, owner: int, index: int, pages: int = HUGE_PAGES) -> None:
        """As `add_new_anon_rmap` for a huge leaf (hugepage_add_new_anon_rmap of hugetlb)."""
        run = slice(head, head + pages)
        self.flags[run] |= ANON | EXCLUSIVE
        self.owner[run] = owner
        self.index[run] = np.arange(index, index + pages)
        self.add_huge_rmap(head)

    def add_anon_rmap(self, frame: int, owner: int, index: int) -> None:
        """A small entry maps an anonymous page that came back from swap (page_add_anon_rmap, __page_set_anon_rmap)."""
        self.maps[frame] += 1
        self._changed.add(frame // HUGE_PAGES)
        self.owner[frame] = owner
        self.index[frame] = index

    def add_rmap(self, frame: int) -> None:
        """A small entry more maps the page (page_add_file_rmap, page_dup_rmap)."""
        self.maps[frame] += 1
        self._changed.add(frame // HUGE_PAGES)

    def share_rmaps(self, frames: NDArray[np.int64]) -> None:
        """fork copies small entries of these pages, none of which is exclusive any more (page_try_dup_anon_rmap)."""
        np.add.at(self.maps, frames, 1)
        self._changed.update(np.unique(frames // HUGE_PAGES).tolist())
        self.clear_exclusive(frames)

    def remove_rmap(self, frame: int) -> None:
        """A small entry less maps the page (page_remove_rmap)."""
        self.maps[frame] -= 1
        self._changed.add(frame // HUGE_PAGES)

    def remove_rmaps(self, frames: NDArray[np.int64]) -> None:
        """As `remove_rmap` for many small entries."""
        np.subtract.at(self.maps, frames, 1)
        self._changed.update(np.unique(frames // HUGE_PAGES).tolist())

    def add_huge_rmap(self, head: int) -> None:
        """A huge leaf more maps the huge page (page_dup_rmap with compound, page_add_file_rmap)."""
        self.huge_maps[head] = self.huge_maps.get(head, 0) + 1
        self._changed.add(head // HUGE_PAGES)

    def share_huge_rmap(self, head: int) -> None:
        """fork copies a huge leaf of an anonymous page, which is not exclusive any more (page_try_dup_anon_rmap)."""
        self.add_huge_rmap(head)
        self.clear_exclusive(slice(head, head + HUGE_PAGES))

    def remove_huge_rmap(self, head: int) -> bool:
        """A huge leaf less maps the huge page; was it the last (page_remove_rmap)?"""
        self.huge_maps[head] -= 1
        if self.huge_maps[head]:
            return False
        del self.huge_maps[head]
        self._changed.add(head // HUGE_PAGES)
        return True

    def split_huge_rmap(self, head: int) -> None:
        """512 small entries map the huge page in place of a leaf (__split_huge_pmd_locked)."""
        self.maps[head : head + HUGE_PAGES] += 1
        self.remove_huge_rmap(head)

    def move_anon_rmap(self, frame: int, owner: int) -> None:
        """The page belongs to one area alone from now on (page_move_anon_rmap)."""
        self.set_exclusive(frame)
        self.owner[frame] = owner

    def set_exclusive(self, pages: Pages) -> None:
        """SetPageAnonExclusive"""
        self.flags[pages] |= EXCLUSIVE

    def clear_exclusive(self, pages: Pages) -> None:
        """ClearPageAnonExclusive, by fork or KSM (page_try_share_anon_rmap)."""
        self.flags[pages] &= _ALL ^ EXCLUSIVE

    # Contents: what a page is to be written back for.

    def mark_dirty(self, pages: Pages) -> None:
        """folio_mark_dirty"""
        self.flags[pages] |= DIRTY

    def is_dirty(self, frame: int) -> bool:
        """folio_test_dirty, of a file's page"""
        return bool(self.flags[self.head[frame]] & DIRTY)

    def clear_dirty(self, pages: Pages) -> None:
        """folio_clear_dirty"""
        self.flags[pages] &= _ALL ^ DIRTY

    def mark_lazyfree(self, pages: Pages) -> None:
        """MADV_FREE: the contents may be dropped (lru_lazyfree_fn)."""
        self.flags[pages] |= LAZYFREE

    def set_swapbacked(self, pages: Pages) -> None:
        """The contents were written again: MADV_FREE is forgotten (folio_set_swapbacked)."""
        self.flags[pages] &= _ALL ^ LAZYFREE

    def set_stable(self, frame: int) -> None:
        """The page is in KSM's stable tree (set_page_stable_node)."""
        self.flags[frame] |= KSM

    # Caches.

    def add_to_page_cache(self, head: int, owner: int, index: int, pages: int = 1) -> None:
        """The pages are those of a file from offset `index` on (filemap_add_folio)."""
        run = slice(head, head + pages)
        self.flags[run] |= FILE
        self.owner[run] = owner
        self.index[run] = np.arange(index, index + pages)

    def delete_from_page_cache(self, pages: Pages) -> None:
        """They are no file's any more; who maps them goes on to do so (filemap_remove_folio)."""
        self.flags[pages] &= _ALL ^ FILE

    def add_to_swap_cache(self, frame: int, slot: tuple[int, int]) -> None:
        """The page is the one of a swap slot."""
        self.cached_slot[frame] = slot

    def delete_from_swap_cache(self, frame: int) -> None:
        """It is no slot's any more."""
        self.cached_slot.pop(frame, None)

    # References.

    def pin(self, frame: int) -> None:
        """A reference of a device (try_grab_folio with FOLL_PIN)."""
        self.pins[frame] = self.pins.get(frame, 0) + 1

    def unpin(self, frame: int) -> bool:
        """The device lets go of it; was it the last (gup_put_folio)?"""
        self.pins[frame] -= 1
        if self.pins[frame]:
            return False
        del self.pins[frame]
        return True

    def enter_batch(self, frame: int) -> None:
        """A batch of `lru.LruBatches` has a reference (folio_get)."""
        self.waiting[frame] += 1

    def leave_batch(self, frame: int) -> None:
        """It has not any more (folios_put)."""
        self.waiting[frame] -= 1
        if not self.waiting[frame]:
            del self.waiting[frame]

    def set_referenced(self, frame: int) -> None:
        """An access was seen (folio_set_referenced)."""
        self.flags[frame] |= REFERENCED

    def clear_referenced(self, frame: int) -> None:
        """No access was seen since (folio_clear_referenced)."""
        self.flags[frame] &= _ALL ^ REFERENCED

    def set_active(self, frame: int) -> None:
        """folio_set_active"""
        self.flags[frame] |= ACTIVE

    def deactivate(self, frame: int) -> None:
        """The page is inactive, and no access was seen (lru_deactivate_fn, lru_lazyfree_fn)."""
        self.flags[frame] &= _ALL ^ (ACTIVE | REFERENCED)

    # Counts.

    def mapcount(self, frame: int) -> int:
        """page_mapcount: entries that map this page, alone or as part of a huge page."""
        count = self.maps.item(frame)
        return count + self.huge_maps.get(self.head.item(frame), 0) if self.huge_maps else count

    def mapcounts(self, frames: NDArray[np.int64]) -> NDArray[np.int32]:
        """`mapcount` of many frames."""
        counts = self.maps.take(frames)
        if self.huge_maps:
            heads = np.array(sorted(self.huge_maps), np.int64)
            huge = np.array([self.huge_maps[head] for head in heads.tolist()], np.int32)
            of = self.head[frames]
            place = np.minimum(np.searchsorted(heads, of), len(heads) - 1)
            counts = counts + np.where(heads[place] == of, huge[place], 0).astype(np.int32)
        return counts

    def huge_maps_by_head(self) -> NDArray[np.int32]:
        """`huge_maps` as an array, 0 where there are none; empty when there are none at all."""
        if not self.huge_maps:
            return np.zeros(0, np.int32)
        counts = np.zeros(len(self.maps), np.int32)
        counts[list(self.huge_maps)] = list(self.huge_maps.values())
        return counts

    def private_blocks(self) -> NDArray[np.bool_]:
        """Of each 512 frames in a row: are all that are mapped anonymous, and mapped by one small entry alone?"""
        self._tell_blocks()
        return self._private

    def shared_before(self) -> NDArray[np.int64]:
        """How many blocks before each are not as `private_blocks` asks; what is behind the last counts as one more."""
        self._tell_blocks()
        return self._shared_before

    def _tell_blocks(self) -> None:
        """Look again at the blocks whose entries have come or gone since it was done last, and at new ones."""
        count, known = -(-self.next // HUGE_PAGES), len(self._private)
        if count == known and not self._changed:
            return
        asked = np.array(sorted(self._changed | set(range(known, count))), np.int64)
        private = np.ones(count, np.bool_)
        private[:known] = self._private
        anonymous = (self.flags.reshape(-1, HUGE_PAGES)[asked] & ANON).astype(np.int32)  # 1
        private[asked] = np.all(self.maps.reshape(-1, HUGE_PAGES)[asked] <= anonymous, axis=1)
        others = [self.zero, self.huge_zero, *self.huge_maps]  # zero pages, and pages that leaves above level 1 map
        private[np.array(others) // HUGE_PAGES] = False  # of a page of 1 GiB no small entry maps any part
        before = np.zeros(count + 2, np.int64)
        np.cumsum(~private, out=before[1:-1])
        before[-1] = before[-2] + 1
        self._private, self._shared_before = private, before
        self._changed.clear()

    def references(self, frame: int) -> int:
        """References to the page or its whole compound page: mappings, page cache, swap cache, LRU batches and pins.

        folio_ref_count.
        """
        head = int(self.head[frame])
        flags = int(self.flags[frame])
        if flags & (COMPOUND | HUGETLB):
            end = head + self.folios.get(head, HUGE_PAGES)
            count = int(self.maps[head:end].sum()) + self.huge_maps.get(head, 0)
            pins = sum(self.pins.get(f, 0) for f in range(head, end)) if self.pins else 0
        else:
            count = int(self.maps[frame])
            pins = self.pins.get(frame, 0) if self.pins else 0
        if flags & FILE:
            count += 1
        if head in self.folios:
            count += sum(member in self.cached_slot for member in self.folio(head))
        elif frame in self.cached_slot:
            count += 1
        count += self.waiting[frame]
        return count + 1024 * pins

    def is_pinned(self, frame: int) -> bool:
        """page_maybe_dma_pinned"""
        if not self.pins:
            return False
        head = int(self.head[frame])
        if int(self.flags[frame]) & (COMPOUND | HUGETLB):
            return any(int(self.head[pinned]) == head for pinned in self.pins)
        return frame in self.pins
