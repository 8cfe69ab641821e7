"""Translation of one linear address, in the order of Intel SDM volume 3A, chapter 4.

`translate` reads paging-structure entries root first, finds the *cause* of a failure (`Cause`), and only then maps a
cause to its exception (`_page_fault`). Entries are changed by compare-exchange alone: an entry that another writer
changed in between is read and checked again. There is no TLB here: every call walks.

Not implemented: shadow stacks (an entry with RW=0, D=1 is an ordinary read-only entry), HLAT, SGX, nested paging.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, Protocol

from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import BusError
from ptewalk.model.x86 import (
    ENTRY_BYTES,
    FRAME_HIGH,
    FRAME_LOW,
    INDEX_BITS,
    LARGE_RESERVED,
    LEVEL_SHIFT,
    LEVELS_4,
    LEVELS_5,
    LINEAR_BITS,
    PAGE_BYTES,
    PAT_4K,
    PCID_BITS,
    PKEY_BITS,
    PKEY_LOW,
    Access,
    Control,
    EntryBit,
    ErrorBit,
)

_P: Final = 1 << EntryBit.P
_RW: Final = 1 << EntryBit.RW
_US: Final = 1 << EntryBit.US
_PWT: Final = 1 << EntryBit.PWT
_PCD: Final = 1 << EntryBit.PCD
_A: Final = 1 << EntryBit.A
_D: Final = 1 << EntryBit.D
_PS: Final = 1 << EntryBit.PS
_XD: Final = 1 << EntryBit.XD
_SOFT_DIRTY: Final = 1 << SoftBit.SOFT_DIRTY
_ARM: Final = 1 << SoftBit.ARM
_SAVED_DIRTY: Final = 1 << SoftBit.SAVED_DIRTY

_WP: Final = 1 << Control.WP
_NXE: Final = 1 << Control.NXE
_SMEP: Final = 1 << Control.SMEP
_SMAP: Final = 1 << Control.SMAP
_PKE: Final = 1 << Control.PKE
_PKS: Final = 1 << Control.PKS
_LA57: Final = 1 << Control.LA57

_ERROR_P: Final = 1 << ErrorBit.P
_ERROR_WR: Final = 1 << ErrorBit.WR
_ERROR_US: Final = 1 << ErrorBit.US
_ERROR_RSVD: Final = 1 << ErrorBit.RSVD
_ERROR_ID: Final = 1 << ErrorBit.ID
_ERROR_PK: Final = 1 << ErrorBit.PK


def _field(low: int, high: int) -> int:
    """Mask of the bits `low` to `high`, both included; 0 when `high` is below `low`."""
    return (1 << high + 1) - (1 << low) if high >= low else 0


_FRAME: Final = _field(FRAME_LOW, FRAME_HIGH)
_INDEX: Final = _field(0, INDEX_BITS - 1)
_PKEY: Final = _field(0, PKEY_BITS - 1)
_LEVELS: Final = {
    count: tuple((level, LEVEL_SHIFT[level]) for level in range(count, 0, -1)) for count in (LEVELS_4, LEVELS_5)
}
"""Number of levels to the levels of a walk, root first: (level, lowest bit of its index)."""


@dataclass(frozen=True, slots=True)
class State:
    """Control state that a translation depends on.

    Attributes
    ----------
    root : int
        Physical address of the top-level table (CR3[51:12] << 12), a multiple of 4096 below 2**52. `translate` also
        requires it to be below the memory's 2**physical_bits.
    control : int
        Control bits, ``1 << x86.Control.WP`` to ``1 << x86.Control.LA57``. LA57 selects five levels. AC belongs to the
        request.
    pkru, pkrs : int
        The 32-bit key registers: access-disable at bit 2k, write-disable at bit 2k+1 of key k. In force with CR4.PKE
        and CR4.PKS.
    track : Track
        Who tracks written pages.
    saved_dirty : bool
        True: the profile has the software bit SAVED_DIRTY, and a mend clears it.
    soft_dirty : bool
        False: no soft-dirty at all (CONFIG_MEM_SOFT_DIRTY=n); its bit is never touched and `track` has no effect.
    gigabyte_pages : bool
        False: the processor has no 1 GiB pages (CPUID.80000001H:EDX.Page1GB), and PS is reserved in a PDPTE.
    pcid : int
        CR3[11:0] with CR4.PCIDE: under which number translations are cached. No walk depends on it.

    Raises
    ------
    ValueError
        An attribute is out of its range.
    """

    root: int
    control: int = 0
    pkru: int = 0
    pkrs: int = 0
    track: Track = Track.OFF
    saved_dirty: bool = False
    soft_dirty: bool = True
    gigabyte_pages: bool = True
    pcid: int = 0

    def __post_init__(self) -> None:
        if self.root & ~_FRAME:
            raise ValueError(f"root must be a multiple of {PAGE_BYTES} below 2**{FRAME_HIGH + 1}, not {self.root:#x}")
        if self.control >> Control.AC:
            raise ValueError(
                f"control must hold the bits WP to LA57 only (below {1 << Control.AC:#x}), not {self.control:#x}"
            )
        if self.pkru >> 32:
            raise ValueError(f"pkru must be an unsigned 32-bit number, not {self.pkru:#x}")
        if self.pkrs >> 32:
            raise ValueError(f"pkrs must be an unsigned 32-bit number, not {self.pkrs:#x}")
        if self.pcid >> PCID_BITS:
            raise ValueError(f"pcid must be an unsigned number of {PCID_BITS} bits, not {self.pcid:#x}")


@dataclass(frozen=True, slots=True)
class Request:
    """One access to translate.

    Attributes
    ----------
    linear : int
        Linear address, unsigned 64 bits.
    access : Access
        What is done there. RMW is judged and marked as WRITE is; PROBE is judged as WRITE is and changes nothing.
    user : bool
        True: CPL is 3.
    implicit : bool
        True: an access to a system structure (GDT, LDT, IDT, TSS): a supervisor-mode access at any CPL, which ignores
        `ac`.
    ac : bool
        RFLAGS.AC.

    Raises
    ------
    ValueError
        `linear` does not fit 64 unsigned bits.
    """

    linear: int
    access: Access
    user: bool = True
    implicit: bool = False
    ac: bool = False

    def __post_init__(self) -> None:
        if self.linear >> 64:
            raise ValueError(f"linear must be an unsigned 64-bit number, not {self.linear:#x}")


@dataclass(frozen=True, slots=True)
class Translated:
    """The access is allowed.

    Attributes
    ----------
    physical : int
        Physical address, byte offset included.
    level : int
        Level of the leaf: 1 (4 KiB page), 2 (2 MiB), 3 (1 GiB).
    pwt, pcd, pat : bool
        The leaf's memory-type bits.
    """

    physical: int
    level: int
    pwt: bool
    pcd: bool
    pat: bool


@dataclass(frozen=True, slots=True)
class PageFault:
    """#PF with error code `code`; CR2 is the request's linear address."""

    code: int


_PAGE_FAULTS: Final = tuple(PageFault(code) for code in range(1 << ErrorBit.PK + 1))
"""By their codes."""


@dataclass(frozen=True, slots=True)
class GeneralProtection:
    """#GP(0): the linear address is not canonical. Nothing was read."""


@dataclass(frozen=True, slots=True)
class BusFault:
    """Memory answered a table access with an error."""


Result = Translated | PageFault | GeneralProtection | BusFault
"""How a translation ended."""


class Cause(Enum):
    """Why a canonical address has no translation, or the access no right to it."""

    NOT_PRESENT = "an entry has P=0"
    RESERVED = "a present entry has a reserved bit set"
    RIGHTS = "access rights deny, the protection key does not"
    KEY = "the protection key denies, alone or beside access rights"


class Memory(Protocol):
    """What a translation needs of physical memory."""

    @property
    def physical_bits(self) -> int:
        """Width of a physical address (MAXPHYADDR)."""

    def load(self, address: int, /) -> int:
        """The 64-bit word at byte `address`; `BusError` when no memory answers."""

    def compare_exchange(self, address: int, old: int, new: int, /) -> bool:
        """Write `new` at byte `address` if the word there is `old`; True when written; `BusError` when no memory
        answers.
        """


@lru_cache(maxsize=128)
def _reserved_masks(
    physical_bits: int, no_execute: bool, gigabyte_pages: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Reserved bits of an entry, by level (index 0 unused): of one that refers to a table, and of one with a page.

    PS is reserved at levels 4 and 5, and at level 3 without 1 GiB pages, so an entry that has it there is in neither
    form [SDM 3A 4.5, tables 4-14 to 4-20].
    """
    every = _field(physical_bits, FRAME_HIGH) | (0 if no_execute else _XD)
    table, page = [0], [0]
    for level in range(1, LEVELS_5 + 1):
        table.append(every)
        if level == 1:
            page.append(every)
        elif level in LARGE_RESERVED and (level == 2 or gigabyte_pages):
            page.append(every | _field(*LARGE_RESERVED[level]))
        else:
            page.append(every | _PS)
    return tuple(table), tuple(page)


def translate(memory: Memory, state: State, request: Request, *, eager: bool = True) -> Result:
    """Walk the tables for `request`, set the bits that the access sets, and return how it ended.

    Memory operations, in order: entries are read root first; a good entry above the leaf that lacks A gets it by one
    compare-exchange; the leaf gets everything it needs (A, D, soft-dirty, RW) by one compare-exchange. Where a
    compare-exchange fails, the same entry is read and checked again. An access that sets nothing writes nothing, and a
    PROBE never writes.

    Parameters
    ----------
    memory : Memory
        Physical memory; its `physical_bits` is MAXPHYADDR.
    state : State
        Control state.
    request : Request
        The access.
    eager : bool
        True: A is set in each entry above the leaf as soon as that entry was found good, so that a walk which faults
        may leave it set. False: only after the leaf was found good, in a second pass from the root; where another
        writer makes a compare-exchange of that pass fail, the walk starts again. Both are legal [SDM 3A 4.8].

    Returns
    -------
    Result
        `Translated`, `PageFault`, `GeneralProtection` or `BusFault`.

    Raises
    ------
    ValueError
        The root lies beyond the memory's physical addresses.
    """
    if state.root >> memory.physical_bits:
        raise ValueError(f"root must be below 2**{memory.physical_bits} (the memory's width), not {state.root:#x}")
    # Step 1: the linear address is canonical [SDM 3A 4.5.2; volume 1, 3.3.7.1].
    levels = LEVELS_5 if state.control & _LA57 else LEVELS_4
    sign = request.linear >> LINEAR_BITS[levels] - 1
    if sign and sign != (1 << 65 - LINEAR_BITS[levels]) - 1:
        return GeneralProtection()
    try:
        found = _walk(memory, state, request, levels, eager)
        while found is None:
            found = _walk(memory, state, request, levels, eager)
    except BusError:
        return BusFault()
    if isinstance(found, Cause):
        return _page_fault(found, state, request)
    return found


def _walk(memory: Memory, state: State, request: Request, levels: int, eager: bool) -> Translated | Cause | None:
    """Steps 2 to 7 for a canonical address; None when another writer overtook a walk that is not eager."""
    linear, control = request.linear, state.control
    changes = request.access != Access.PROBE
    table_reserved, page_reserved = _reserved_masks(memory.physical_bits, bool(control & _NXE), state.gigabyte_pages)
    table = state.root
    above = _RW | _US
    above_no_execute = 0
    passed: list[tuple[int, int]] = []
    for level, shift in _LEVELS[levels]:
        address = table + (linear >> shift & _INDEX) * ENTRY_BYTES
        while True:
            # Step 2: read the entry; P=0 ends the walk whatever else the entry holds [SDM 3A 4.5.4].
            entry = memory.load(address)
            if not entry & _P:
                return Cause.NOT_PRESENT
            # Step 3: reserved bits of a present entry, before the next level and before any right [SDM 3A 4.5.4, 4.7].
            is_leaf = level == 1 or bool(entry & _PS)
            if entry & (page_reserved if is_leaf else table_reserved)[level]:
                return Cause.RESERVED
            # Step 4: rights combine over the levels: RW and US as AND, XD as OR [SDM 3A 4.6].
            rights = above & entry
            no_execute = above_no_execute | entry & _XD
            if is_leaf:
                # Step 5: may this access be done here [SDM 3A 4.6.1, 4.6.2]?
                cause = _denial(state, request, rights, no_execute, entry)
                mend = cause is not None and _mends(state, request, above, no_execute, entry)
                if cause is not None and not mend:
                    return cause
                # Step 6: accessed and dirty flags, and the tracked bits [SDM 3A 4.8].
                for passed_address, passed_entry in passed:
                    if not memory.compare_exchange(passed_address, passed_entry, passed_entry | _A):
                        return None
                marked = _marked(state, request, entry, mend)
                if changes and marked != entry and not memory.compare_exchange(address, entry, marked):
                    continue
                # Step 7: the physical address [SDM 3A 4.5.4].
                offset = _field(0, shift - 1)
                return Translated(
                    entry & _FRAME & ~offset | linear & offset,
                    level,
                    bool(entry & _PWT),
                    bool(entry & _PCD),
                    bool(entry >> (PAT_4K if level == 1 else EntryBit.PAT_LARGE) & 1),
                )
            if changes and not entry & _A:
                if not eager:
                    passed.append((address, entry))
                elif not memory.compare_exchange(address, entry, entry | _A):
                    continue
            break
        table = entry & _FRAME
        above, above_no_execute = rights, no_execute
    raise AssertionError("level 1 always ends a walk")


def _denial(state: State, request: Request, rights: int, no_execute: int, leaf: int) -> Cause | None:
    """What denies the access; None when nothing does.

    `rights` holds RW and US combined over all levels, `no_execute` is XD combined; `leaf` gives the protection key.
    """
    control, access = state.control, request.access
    user_mode_access = request.user and not request.implicit
    user_mode_address = bool(rights & _US)
    protect = bool(control & _WP)

    # Instruction fetches [SDM 3A 4.6.1]. Keys do not affect them [SDM 3A 4.6.2].
    if access == Access.FETCH:
        if user_mode_access and not user_mode_address:
            return Cause.RIGHTS
        if not user_mode_access and user_mode_address and control & _SMEP:
            return Cause.RIGHTS
        return Cause.RIGHTS if no_execute else None

    # Protection keys, of data accesses [SDM 3A 4.6.2].
    writes = access != Access.READ
    register = 0
    if user_mode_address:
        if control & _PKE:
            register = state.pkru
    elif control & _PKS and not user_mode_access:
        register = state.pkrs
    if register:
        disabled = register >> 2 * (leaf >> PKEY_LOW & _PKEY)
        if disabled & 1 or (disabled & 2 and writes and (user_mode_access or protect)):
            return Cause.KEY

    # Data accesses by access rights [SDM 3A 4.6.1].
    if user_mode_access:
        if not user_mode_address or (writes and not rights & _RW):
            return Cause.RIGHTS
        return None
    if user_mode_address and control & _SMAP and (request.implicit or not request.ac):
        return Cause.RIGHTS
    if writes and protect and not rights & _RW:
        return Cause.RIGHTS
    return None


def _mends(state: State, request: Request, above: int, no_execute: int, leaf: int) -> bool:
    """Is `leaf` armed, and its RW=0 all that denies this write?"""
    if not state.soft_dirty or state.track != Track.FAULT or leaf & (_RW | _ARM) != _ARM:
        return False
    if request.access == Access.READ or request.access == Access.FETCH:
        return False
    return _denial(state, request, above & (leaf | _RW), no_execute, leaf) is None


def _marked(state: State, request: Request, leaf: int, mend: bool) -> int:
    """`leaf` as the allowed access leaves it."""
    marked = leaf | _A
    if request.access == Access.READ or request.access == Access.FETCH:
        return marked
    marked |= _D
    if state.soft_dirty and state.track != Track.OFF:
        marked |= _SOFT_DIRTY
    if mend:
        marked = (marked | _RW) & ~_ARM
        if state.saved_dirty:
            marked &= ~_SAVED_DIRTY
    return marked


def _page_fault(cause: Cause, state: State, request: Request) -> PageFault:
    """The #PF of `cause`, with its error code [SDM 3A 4.7]. W/R, U/S and I/D describe the access, not the entry."""
    code = 0
    if cause != Cause.NOT_PRESENT:
        code |= _ERROR_P
    if cause == Cause.RESERVED:
        code |= _ERROR_RSVD
    if cause == Cause.KEY:
        code |= _ERROR_PK
    if request.access == Access.FETCH:
        if state.control & (_NXE | _SMEP):
            code |= _ERROR_ID
    elif request.access != Access.READ:
        code |= _ERROR_WR
    if request.user and not request.implicit:
        code |= _ERROR_US
    return _PAGE_FAULTS[code]
