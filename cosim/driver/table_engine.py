"""The table engine by registers: what /proc and mremap do to tables, as commands of the unit.

A command's masks are those of the golden model for one kernel (`engine_masks.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.driver.engine_masks import ageing, clearing, looking, moving, protecting, taking_written, telling
from ptewalk.cosim.driver.steps import DriverError, Read, Steps, Wait, Write
from ptewalk.cosim.driver.unit import POLLS, Unit
from ptewalk.model.dirty_log import LOG_SIZES
from ptewalk.model.engine import Pages
from ptewalk.model.linux import PagemapBit
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import ENTRY_BYTES, INDEX_BITS, LEVELS_5, PAGE_BYTES, PAGE_SHIFT
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.report import LARGEST_UNIT, Report
from ptewalk.rtl.registers.map import BY_NAME, Command

__all__ = [
    "Listed",
    "ListTold",
    "TableEngine",
    "changing",
    "regions_of",
    "taking_words",
    "clearing_list",
    "moving_to",
    "telling_bits",
    "words_of",
    "telling_words",
]

_KINDS: Final = ("present", "hidden", "swap")
_MASKS: Final = ("clear", "set", "match")
_WORD_PAGES: Final = 64
"""Pages of a word of a bitmap."""
_PAGE_SIZES: Final = tuple(PAGE_BYTES << power for power in range(LARGEST_UNIT + 1))
"""Bytes that a bit of a bitmap may tell of."""
_UFFD_WP: Final = np.uint64(1 << PagemapBit.UFFD_WP)
_FAILED: Final = ("failed", "given_up", "lost", "homeless")


def changing(pages: Pages, change: Mapping[str, Any], rules: Entries, *, splits: bool = False) -> dict[str, Any]:
    """A command that changes the entries of a range, by the names of `CommandLayout`."""
    return _over(pages, change, rules) | {"range": _range(pages, changes=True, splits=splits)}


def telling_words(pages: Pages, rules: Entries, address: int, *, marks: bool = True) -> dict[str, Any]:
    """One that writes the pagemap words of a range to `address`, which is where its first entry is modulo a line."""
    command = _over(pages, looking(), rules, marks=marks)
    return command | {"report": Report.WORDS, "address": address}


def taking_words(pages: Pages, rules: Entries, address: int) -> dict[str, Any]:
    """One that does, and in the same pass write-protects what is not."""
    command = changing(pages, taking_written(rules), rules)
    return command | {"report": Report.WORDS, "address": address}


def regions_of(words: NDArray[np.uint64], first: int) -> list[tuple[int, int]]:
    """First page and number of pages of each run that a `take_written` from page `first` on took."""
    taken = np.concatenate(([False], words & _UFFD_WP == 0, [False]))
    edges = np.flatnonzero(taken[1:] != taken[:-1]).tolist()
    return [(first + start, stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def telling_bits(
    pages: Pages,
    rules: Entries,
    address: int,
    *,
    clears: bool = True,
    permit: bool = True,
    ors: bool = False,
    page_size: int = PAGE_BYTES,
) -> dict[str, Any]:
    """One that writes a bit for each page of a range, 1 where it is soft-dirty, and clears that or leaves it.

    `ors`: bits that are set stay. `page_size`: bytes that a bit tells of, a power of two from 4096 to 2 MiB; ValueError
    where it is none.
    """
    if page_size not in _PAGE_SIZES:
        raise ValueError(f"page_size must be a power of two from 4096 to {_PAGE_SIZES[-1]}, not {page_size}")
    command = _over(pages, clearing(rules, permit=permit, change=clears), rules)
    command |= {"range": _range(pages, changes=clears), "ors": int(ors), "unit": _PAGE_SIZES.index(page_size)}
    return command | {"report": Report.BITMAP, "address": address}


def moving_to(
    pages: Pages, target: int, level: int, rules: Entries, *, marks: bool, unprotects: bool
) -> dict[str, Any]:
    """One that moves entries of tables of `level` to where those of the page `target` and on stand."""
    entries = pages.last - pages.first >> INDEX_BITS * (level - 1)
    where = {"target": target, "level": level, "entries": entries, "drops_markers": int(unprotects)}
    command = _over(pages, moving(rules, marks=marks, unprotects=unprotects), rules)
    return command | {"range": _range(pages, changes=True), "moves": 1, "move": where}


@dataclass(frozen=True)
class Listed:
    """Records of a ring: where it is, how many it has, and which of them, as the log counts them."""

    base: int
    size: int
    first: int
    count: int


class ListTold(NamedTuple):
    """What a list did: how many entries were soft-dirty, and how many records name a page that nothing maps."""

    changed: int
    absent: int


def clearing_list(
    listed: Listed, space: Pages, rules: Entries, room: int, *, permit: bool = True, whole: bool = False
) -> dict[str, Any]:
    """A command that clears what records name, and writes a bit for each that found its page soft-dirty to `room`."""
    span = Pages(space.root, space.levels, 0, 0)
    where = {"base": listed.base >> PAGE_SHIFT, "size": listed.size.bit_length() - 1}
    command = _over(span, clearing(rules, permit=permit), rules)
    command |= {"range": _range(span, changes=True) | {"whole_leaves": int(whole)}}
    command |= {"report": Report.BITMAP, "address": room}
    return command | {"lists": 1, "list": where, "list_first": listed.first, "list_count": listed.count}


def _over(pages: Pages, change: Mapping[str, Any], rules: Entries, *, marks: bool = True) -> dict[str, Any]:
    words = telling(rules, marks=marks)
    return {"range": _range(pages), "change": change, "words": words, "report": Report.NONE, "address": 0}


def _range(pages: Pages, *, changes: bool = False, splits: bool = False) -> dict[str, int]:
    where = {"root": pages.root, "la57": int(pages.levels == LEVELS_5), "page": pages.first}
    flags = {"changes": int(changes), "splits": int(splits), "whole_leaves": 0}
    return {**where, "pages": pages.last - pages.first, **flags}


class TableEngine:
    """Commands of the engine beside the unit's MMU: each has ended, and is in force for every store, as it returns.

    Parameters
    ----------
    unit : Unit
    polls : int
        How often a command is asked for whether it told something.

    Raises
    ------
    ValueError
        It was built without one.
    """

    def __init__(self, unit: Unit, *, polls: int = POLLS) -> None:
        if not unit.built["engine"]:
            raise ValueError("this unit was built without a table engine: CAPS.engine is 0")
        self._unit, self._polls = unit, polls
        self._told: list[dict[str, int]] = []  # by the command in work, which `end` has not given yet

    def run(self, command: Mapping[str, Any], *, pcid: int = 0) -> Steps[list[dict[str, int]]]:
        """A command by the names of `CommandLayout`, of an address space: `begin`, and `end`."""
        yield from self.begin(command, pcid=pcid)
        return (yield from self.end())

    def begin(self, command: Mapping[str, Any], *, pcid: int = 0) -> Steps[None]:
        """Give a command; `end` must be awaited before the next one.

        Raises
        ------
        ValueError
            An address or a number does not fit, or the unit has no lists, no such bitmaps, or cannot do it.
        """
        if (command.get("ors") or command.get("unit")) and not self._unit.built["bitmaps"]:
            raise ValueError("this unit writes bitmaps of a bit a page over what is there: CAPS.bitmaps is 0")
        if command["change"]["written"] and not self._unit.built["written"]:
            raise ValueError("this unit cannot leave what is write-protected as it is: CAPS.written is 0")
        if command.get("lists") and not self._unit.built["lists"]:
            raise ValueError("this unit was built without lists: CAPS.lists is 0")
        bits, lists = self._unit.built["physical_bits"], bool(self._unit.built["lists"])
        for offset, word in words_of(command, pcid, bits, lists=lists):
            if self._unit.staged.get(offset) != word:
                yield Write(offset, word)
                self._unit.staged[offset] = word
        self._told = []
        yield from self._unit.begin(Command.TABLE)

    def end(self) -> Steps[list[dict[str, int]]]:
        """Wait until the command has ended.

        Returns
        -------
        list of dict of str to int
            Its completions, by the names of `CompletionLayout`. Before the last come those with `more`: entries without
            a home.

        Raises
        ------
        DriverError
            It does not end within its polls, as one of a long range may not: the end can be awaited again, and then
            gives what came before too.
        """
        while not self._told or self._told[-1]["more"]:
            self._told.append((yield from self._completion()))
        yield from self._unit.await_end(Command.TABLE)
        told, self._told = self._told, []
        return told

    def abort(self) -> Steps[None]:
        """The command in work begins nothing more: it ends at the page that `end` tells, from which it can go on."""
        yield Write(BY_NAME["DO"].offset, BY_NAME["DO"].pack(abort_table=1))

    def _completion(self) -> Steps[dict[str, int]]:
        shown = BY_NAME["TABLE_TOLD"]
        for _ in range(self._polls):
            found = shown.unpack((yield Read(shown.offset)))
            if found.pop("valid"):
                break
            yield Wait()
        else:
            text = "is a grant not retired? Of a long range, await the end again"
            raise DriverError(f"TABLE was not told after {self._polls} polls; {text}")
        wide = {"page": "STOP", "homeless": "HOMELESS"}
        if not found["more"]:
            wide |= {"changed": "CHANGED"}
            wide |= {"failed_page": "FAILED"} if found["failed"] else {}
            wide |= {"given_up_page": "GIVEN_UP"} if found["given_up"] else {}
        for name, register in wide.items():
            low = yield Read(BY_NAME[f"TABLE_{register}_LO"].offset)
            high = yield Read(BY_NAME[f"TABLE_{register}_HI"].offset)
            found[name] = low | high << 32
        if self._unit.built["lists"]:
            listed = BY_NAME["TABLE_LIST_TOLD"]
            found |= listed.unpack((yield Read(listed.offset)))
        yield Write(BY_NAME["DO"].offset, BY_NAME["DO"].pack(pop_table=1))
        return found

    # What /proc and mremap do ------------------------------------------------------------------------------------

    def clear(
        self, pages: Pages, rules: Entries, *, pcid: int = 0, permit: bool = True, splits: bool = False
    ) -> Steps[tuple[int, int]]:
        """clear_refs 4 (fs/proc/task_mmu.c:clear_soft_dirty); `permit` and `splits` as in `model.engine.Engine`.

        Returns
        -------
        (int, int)
            The first page that was not dealt with, and how many entries were changed.
        """
        command = changing(pages, clearing(rules, permit=permit), rules, splits=splits)
        return (yield from self._change(command, pages, pcid, splits=splits))

    def scan(
        self,
        pages: Pages,
        rules: Entries,
        room: int,
        *,
        pcid: int = 0,
        clears: bool = True,
        permit: bool = True,
        or_: bool = False,
        page_size: int = PAGE_BYTES,
    ) -> Steps[int]:
        """Which pages are soft-dirty: a bitmap as KVM_GET_DIRTY_LOG and IOMMU_HWPT_GET_DIRTY_BITMAP give.

        Parameters
        ----------
        pages : Pages
            Without `or_` the first is a multiple of 64 times as many as a bit tells of.
        rules : Entries
        room : int
            Physical address of the word that holds the first page's bit, 8-byte aligned: little-endian 64-bit words,
            bit n modulo 64 of which tells of unit n of `page_size` bytes of linear addresses.
        pcid : int
        or_ : bool
            Bits that are set stay, and none is cleared, as iommufd's; nobody else writes to these words until it is
            done. False: all bits of the words are written over, as KVM's; those beyond the last page are 0.
        page_size : int
            Bytes that a bit tells of, a power of two from 4096 to 2 MiB: 1 where one of its pages is dirty.
        clears : bool
            False: pages stay as they are (IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR).
        permit : bool
            As in `clear`.

        Returns
        -------
        int
            How many entries were changed.

        Raises
        ------
        ValueError
            `room` is not aligned, the first page is no such multiple, or `page_size` is none.
        """
        flags: dict[str, Any] = {"clears": clears, "permit": permit, "ors": or_, "page_size": page_size}
        command = telling_bits(pages, rules, room, **flags)
        multiple = 1 if or_ else _WORD_PAGES << command["unit"]
        if pages.first % multiple or room % ENTRY_BYTES:
            at = f"page {pages.first:#x} to {room:#x}"
            raise ValueError(f"a bitmap is from a multiple of {multiple} pages on, and 8-byte aligned, not from {at}")
        told = yield from self.run(command, pcid=pcid)
        _all_done("a scan", pages, told[-1])
        return told[-1]["changed"]

    def make_old(self, pages: Pages, rules: Entries, *, pcid: int = 0, splits: bool = False) -> Steps[tuple[int, int]]:
        """clear_refs 1 to 3: A off, but for level-1 entries without a struct page. As `clear`."""
        return (yield from self._change(changing(pages, ageing(), rules, splits=splits), pages, pcid, splits=splits))

    def protect(self, pages: Pages, rules: Entries, *, pcid: int = 0) -> Steps[tuple[int, int]]:
        """Write-protect each page (fs/proc/task_mmu.c:make_uffd_wp_pte). As `clear`."""
        return (yield from self._change(changing(pages, protecting(rules), rules), pages, pcid, splits=False))

    def take_written(self, pages: Pages, rules: Entries, room: int, *, pcid: int = 0) -> Steps[tuple[int, int]]:
        """Write-protect what is not, and tell the pagemap words of all, in one pass (PM_SCAN_WP_MATCHING of WRITTEN).

        Each word is of the value that the swap replaced, or of one that was write-protected and stays; pages whose word
        says no UFFD_WP were taken. A store that was granted before the end is told by a word, of this pass or of an
        earlier one; one that comes after it meets the protection. `regions_of` forms regions.

        Parameters
        ----------
        pages : Pages
            No more than there is room for: an engine that met the end of its room would have protected pages of which
            nothing is told.
        rules : Entries
        room : int
            As in `words`.
        pcid : int

        Returns
        -------
        (int, int)
            Where the first word is, and how many entries were changed.

        Raises
        ------
        ValueError
            `room` is no multiple of a line.
        DriverError
            Not all pages were dealt with. Those before the page that it names were, and their words are at that place
            all the same, but for a report that the bus refused: then all pages must be taken for written.
        """
        address = self._room(pages, room)
        told = yield from self.run(taking_words(pages, rules, address), pcid=pcid)
        _all_done("a write-protection", pages, told[-1])
        return address, told[-1]["changed"]

    def report_words(self, pages: Pages) -> int:
        """Of the room for a report of words: how many come before the first page's, which begins so far in a line."""
        return pages.first % (self._unit.built["engine_line_bytes"] // ENTRY_BYTES)

    def words(self, pages: Pages, rules: Entries, room: int, *, pcid: int = 0, marks: bool = True) -> Steps[int]:
        """The pagemap words, without FILE and EXCLUSIVE, into memory.

        Parameters
        ----------
        pages : Pages
        rules : Entries
        room : int
            Physical address of room for them, a multiple of a line: so many words more than pages as `report_words`
            says.
        pcid : int
        marks : bool
            Soft-dirty is told.

        Returns
        -------
        int
            Where the first word is.

        Raises
        ------
        ValueError
            `room` is no multiple of a line.
        """
        address = self._room(pages, room)
        told = yield from self.run(telling_words(pages, rules, address, marks=marks), pcid=pcid)
        _all_done("pagemap", pages, told[-1])
        return address

    def _room(self, pages: Pages, room: int) -> int:
        """Where the first word of a report goes."""
        line = self._unit.built["engine_line_bytes"]
        if room % line:
            raise ValueError(f"room for words must be a multiple of {line}, not {room:#x}")
        return room + ENTRY_BYTES * self.report_words(pages)

    def clear_list(
        self,
        listed: Listed,
        space: Pages,
        rules: Entries,
        room: int,
        *,
        pcid: int = 0,
        permit: bool = True,
        whole: bool = False,
    ) -> Steps[ListTold]:
        """clear_refs 4 of the pages that records of a dirty log name; those of another PCID are passed over.

        Parameters
        ----------
        listed : Listed
        space : Pages
            Where the tables begin; the range does not count.
        rules : Entries
        room : int
            Physical address of a bit for each record, a multiple of 8: whether it found its page soft-dirty.
        pcid : int
        permit : bool
            As in `clear`.
        whole : bool
            A leaf above level 1 is cleared for one of its pages; False: it is an error, for software to split.

        Raises
        ------
        ValueError
            The unit has no lists, or a value does not fit.
        DriverError
            Not all records were dealt with, or what it is of one of them is not known.
        """
        if listed.size not in LOG_SIZES:
            raise ValueError(f"size must be a power of two from 512 to 262144 records, not {listed.size}")
        command = clearing_list(listed, space, rules, room, permit=permit, whole=whole)
        (told,) = yield from self.run(command, pcid=pcid)
        failed = [*_failures(told), *(["bad"] if told["bad"] else [])]
        if told["stopped"] != Stop.DONE or told["page"] != listed.count or failed:
            why = " ".join([Stop(told["stopped"]).name, *failed])
            raise DriverError(f"a list ended as {why} at record {told['page']}, before {listed.count}")
        return ListTold(told["changed"], told["absent"])

    def move(
        self,
        pages: Pages,
        target: int,
        level: int,
        rules: Entries,
        *,
        marks: bool,
        unprotects: bool,
        pcid: int = 0,
    ) -> Steps[int]:
        """Entries move to where those of other pages stand (mm/mremap.c:move_ptes): see `model.engine.Engine`.

        Returns
        -------
        int
            How many moved.
        """
        command = moving_to(pages, target, level, rules, marks=marks, unprotects=unprotects)
        told = yield from self.run(command, pcid=pcid)
        homeless = [one for one in told if one["homeless"]]
        if homeless:
            raise DriverError(f"move: the entry of page {homeless[0]['page']:#x} was taken, and put nowhere")
        _all_done("move", pages, told[-1])
        return told[-1]["changed"]

    def _change(self, command: Mapping[str, Any], pages: Pages, pcid: int, *, splits: bool) -> Steps[tuple[int, int]]:
        (told,) = yield from self.run(command, pcid=pcid)
        if splits and told["stopped"] == Stop.NEED_SPLIT and not _failures(told):
            return told["page"], told["changed"]
        _all_done("a change", pages, told)
        return pages.last, told["changed"]


def _failures(told: Mapping[str, int]) -> list[str]:
    """What went wrong before a command stopped, for whatever reason it did."""
    return [name for name in _FAILED if told.get(name)]


def _all_done(what: str, pages: Pages, told: Mapping[str, int]) -> None:
    """A command must have dealt with all pages."""
    failed = _failures(told)
    if told["stopped"] != Stop.DONE or told["page"] != pages.last or failed:
        why = " ".join([Stop(told["stopped"]).name, *failed])
        raise DriverError(f"{what} ended as {why} at page {told['page']:#x}, before {pages.last:#x}")


def words_of(command: Mapping[str, Any], pcid: int, physical_bits: int, *, lists: bool) -> Iterator[tuple[int, int]]:
    """Offset and word of each register that a command needs; what the unit would cut off is refused."""
    span, change, move = command["range"], command["change"], command.get("move", {})
    wide = {"PAGE": span["page"], "PAGES": span["pages"], "ADDRESS": command["address"], "EMPTY": change["empty"]}
    wide |= {"ROOT": span["root"] << 12, "TARGET": move.get("target", 0), "ENTRIES": move.get("entries", 0)}
    if lists:
        ring = command.get("list", {})
        wide["LIST_BASE"] = ring.get("base", 0) << PAGE_SHIFT
    for name, value in wide.items():
        low, high = (BY_NAME[f"TABLE_{name}_{half}"] for half in ("LO", "HI"))
        bits = physical_bits if name in ("ROOT", "ADDRESS", "LIST_BASE") else 32 + high.fields[0].width
        if value >> bits or value < 0:
            raise ValueError(f"TABLE_{name} has {bits} bits: {value:#x} does not fit")
        yield low.offset, value & 0xFFFF_FFFF
        yield high.offset, value >> 32
    flags = {name: span[name] for name in ("la57", "changes", "splits", "whole_leaves")}
    flags |= {name: change[name] for name in ("only_matching", "arm", "save_dirty", "written")}
    flags |= {"moves": command.get("moves", 0), "report": command["report"], "pcid": pcid}
    flags |= {"ors": command.get("ors", 0), "unit": command.get("unit", 0)}
    flags |= {"move_level": move.get("level", 0), "drops_markers": move.get("drops_markers", 0)}
    words = dict(command["words"])
    swap = {name: words.pop(f"swap_{name}") for name in ("soft_dirty", "uffd_wp")}
    named = {"TABLE": flags, "TABLE_WORDS": words, "TABLE_SWAP_WORDS": swap, "TABLE_SPARES": change["spares"]}
    named |= {f"TABLE_{kind}_{mask}".upper(): change[kind][mask] for kind in _KINDS for mask in _MASKS}
    if lists:
        named["TABLE_LIST"] = {"size": ring.get("size", 0), "lists": command.get("lists", 0)}
        named |= {
            f"TABLE_LIST_{name}": {"value": command.get(f"list_{name.lower()}", 0)} for name in ("FIRST", "COUNT")
        }
    for name, fields in named.items():
        yield BY_NAME[name].offset, BY_NAME[name].pack(**fields)
