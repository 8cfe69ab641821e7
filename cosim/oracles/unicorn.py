"""The Unicorn engine (QEMU's TCG as a library) as an outside voice on page walks.

Each walk runs in the case's own tables. One more entry, in a slot of the top-level table that the walk does not use,
leads to the harness's pages: code, stack and descriptors. An iretq there loads CPL, AC and RIP, one instruction makes
the access, and an interrupt or a fault ends the run.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import unicorn
from unicorn import x86_const as reg

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.formats.walks import ARENAS, PHYSICAL_BITS, WalkCase
from ptewalk.model import x86
from ptewalk.model.paging import GeneralProtection, PageFault, Result, Translated

CPU_MODEL: Final = 26
"""Number of a CPU model with LA57, SMAP and PKU. The default model does not enforce SMAP."""
TABLES: Final = (0x201000, 0x205000)
"""First and last table page of recorded walks."""

_ENTRY: Final = struct.Struct("<Q")
_WORD: Final = struct.Struct("<I")
_P, _RW, _USER_BIT, _A, _D = (
    1 << bit for bit in (x86.EntryBit.P, x86.EntryBit.RW, x86.EntryBit.US, x86.EntryBit.A, x86.EntryBit.D)
)
_TABLE_BITS: Final = _P | _RW | _USER_BIT | _A
_PAGE_BITS: Final = _P | _RW | _A | _D

_HARNESS: Final = (1 << PHYSICAL_BITS) - (8 << x86.PAGE_SHIFT)
_HARNESS_PAGES: Final = tuple(range(_HARNESS, 1 << PHYSICAL_BITS, x86.PAGE_BYTES))
"""Physical addresses of the harness's pages: four tables, then the four that are mapped one after the other."""
_PML4, _PDPT, _PD, _PT, _KERNEL, _USER, _STACK, _DESCRIPTORS = _HARNESS_PAGES

_KERNEL_CODE: Final = bytes.fromhex("0f01ef 48cf")  # wrpkru; iretq
_WRPKRU, _IRETQ = 0, 3
_ACCESS_OFFSET: Final = {"R": 0x40, "W": 0x50, "I": 0x60}
_ACCESS_CODE: Final = {
    "R": bytes.fromhex("488b03 cd20"),  # mov rax, [rbx]; int 0x20
    "W": bytes.fromhex("c603b8 cd20"),  # mov byte [rbx], 0xb8, which is what stands there; int 0x20
    "I": bytes.fromhex("0f02c6 cd20"),  # lar eax, esi; int 0x20
}
_LOAD_AND_BREAK: Final = 0x9090CC00000000B8
"""A word of data as code: mov eax, number (at bits 39:8); int3; nop; nop."""

_DESCRIPTOR_WORDS: Final = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00AFFB000000FFFF, 0x00CFF3000000FFFF)
"""Global descriptors: null, 64-bit code and data of CPL 0, code and data of CPL 3, all with their accessed bit."""
_DESCRIPTOR_LIMIT: Final = 8 * len(_DESCRIPTOR_WORDS) - 1
_SELECTORS: Final = {False: (0x08, 0x10), True: (0x1B, 0x23)}
"""CPL is 3? to (CS, SS)."""
_LDT_SELECTOR, _LDT_LIMIT, _LDT_FLAGS = 0x28, 0xFFFF, 0x8200
_LDT_ENTRY: Final = 4
"""Selector of the first descriptor of the local table."""

_CR0, _CR0_WP = 0x80000033, 16  # PG, NE, ET, MP, PE
_CR4 = 1 << 5  # PAE
_CR4_BIT: Final = {
    x86.Control.SMEP: 20,
    x86.Control.SMAP: 21,
    x86.Control.PKE: 22,
    x86.Control.PGE: 7,
    x86.Control.LA57: 12,
}
_EFER_NUMBER, _EFER, _EFER_NXE = 0xC0000080, 0x501, 11  # LMA, LME, SCE
_FLAGS, _FLAGS_AC = 1 << 1, 18
_BREAKPOINT, _GENERAL_PROTECTION, _PAGE_FAULT, _DONE = 3, 13, 14, 0x20
_INSTRUCTIONS: Final = 16
"""More than any run executes: it bounds one that went astray."""


def _known_fault(code: int, kind: str, user: bool, control: int, *values: int) -> WalkCase:
    """A walk of linear address 0 through the entries `values`, level 4 first, that ends in #PF with `code`."""
    entries = tuple((0x204000 - depth * x86.PAGE_BYTES, value) for depth, value in enumerate(values))
    nothing = (0,) * len(entries)
    return WalkCase(0, "B", kind, user, control, 0, entries, x86.Outcome.PAGE_FAULT, code, nothing)


_KNOWN_FAULTS: Final = (
    _known_fault(0x00, "R", False, 0),
    _known_fault(0x06, "W", True, 0, 0x203007),
    _known_fault(0x05, "R", True, 0, 0x203007, 0x202007, 0x201007, 0x1000003),
    _known_fault(0x0D, "R", True, 0, 0x203007, 0x202007, 0x2002087),
    _known_fault(0x15, "X", True, 1 << x86.Control.NXE, 0x203007, 0x202007, 0x201007, 0x8000000001000007),
    _known_fault(0x07, "W", True, 0, 0x203007, 0x202007, 0x201007, 0x1000005),
)
"""Faults whose error code no one doubts, to find where this build of Unicorn keeps it."""


class UnicornError(ToolError):
    """Unicorn is not usable as set up here."""


class WalkNotRun(UnicornError):
    """Unicorn gave no answer to a walk.

    Attributes
    ----------
    reason : str
        Without the case's number.
    """

    def __init__(self, case: WalkCase, reason: str) -> None:
        super().__init__(f"case {case.number}: {reason}")
        self.reason = reason


class UnicornMmu:
    """Runs recorded or random walks on Unicorn, some thousands a second.

    Raises
    ------
    UnicornError
        The page-fault error code was not found in the engine's saved context (it has no register; its offset belongs to
        one build of Unicorn and is found at start with known faults).
    """

    def __init__(self) -> None:
        self._uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._uc.ctl_set_cpu_model(CPU_MODEL)
        self._pages: list[int] = []
        self._vector: int | None = None
        self._data: int | None = None
        self._map_memory()
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._on_interrupt)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, self._on_data)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self._start = self._uc.context_save()
        self._end = self._uc.context_save()
        self._error_offset = self._find_error_code()

    def skip_reason(self, case: WalkCase) -> str | None:
        """Why this walk cannot be asked of Unicorn; None when it can."""
        control = case.control
        if _pkrs_can_matter(case):
            return "Unicorn has no protection keys for supervisor pages (CR4.PKS)"
        lifted = control >> x86.Control.SMAP & control >> x86.Control.AC & 1
        if case.kind == "I" and not case.user and lifted and _may_be_user_mode(case):
            return "Unicorn lets AC=1 switch SMAP off for implicit accesses at CPL 0, against the manual"
        frames = case.table_frames()
        if frames[0] << x86.PAGE_SHIFT < TABLES[0] or frames[-1] << x86.PAGE_SHIFT > TABLES[1]:
            return f"its tables lie outside {TABLES[0]:#x} to {TABLES[1] + x86.PAGE_BYTES - 1:#x}"
        return None

    def run(self, case: WalkCase) -> tuple[Result, dict[int, int]]:
        """Make the access of `case`.

        Returns
        -------
        Result
            `Translated` (its level and memory type are not known to Unicorn: 0 and False), `PageFault` or
            `GeneralProtection`.
        dict of int to int
            Address to value of every word of the tables that is not 0 afterwards.

        Raises
        ------
        WalkNotRun
            The run ended in no way that a walk can end.
        """
        slot, base = self._write_tables(case)
        self._execute(case, base)
        result = self._result(case)
        after = self._read_tables()
        slot_address = case.table_root + slot * x86.ENTRY_BYTES
        if after.pop(slot_address, 0) != _harness_entry(case):
            raise WalkNotRun(case, f"the harness's own entry at {slot_address:#x} was changed")
        return result, after

    def _write_tables(self, case: WalkCase) -> tuple[int, int]:
        """Put the case's entries and the harness's own into memory; return the harness's slot and linear address."""
        uc, root, linear = self._uc, case.table_root, case.linear
        used = {linear >> x86.LEVEL_SHIFT[level] & x86.TABLE_ENTRIES - 1 for level in range(1, case.levels + 1)}
        used.add(linear % x86.PAGE_BYTES // x86.ENTRY_BYTES)
        used |= {address % x86.PAGE_BYTES // x86.ENTRY_BYTES for address, _ in case.entries}
        slot = next((slot for slot in range(1, x86.TABLE_ENTRIES // 2) if slot not in used), None)
        if slot is None:
            raise WalkNotRun(case, "its top-level table must have an unused slot below 256, it has none")
        uc.mem_write(TABLES[0], bytes(TABLES[1] + x86.PAGE_BYTES - TABLES[0]))
        for address, value in (*case.entries, (root + slot * x86.ENTRY_BYTES, _harness_entry(case))):
            uc.mem_write(address, _ENTRY.pack(value))
        return slot, slot << x86.LEVEL_SHIFT[case.levels]

    def _execute(self, case: WalkCase, base: int) -> None:
        """Load the control state and run until an interrupt or a fault; `base` is the harness's linear address."""
        uc, control = self._uc, case.control
        if case.kind == "X":
            target = case.linear
        else:
            target = base + (_USER if case.user else _KERNEL) - _KERNEL + _ACCESS_OFFSET[case.kind]
        flags = _FLAGS | (control >> x86.Control.AC & 1) << _FLAGS_AC
        code_selector, stack_selector = _SELECTORS[case.user]
        stack = base + _STACK - _KERNEL
        uc.mem_write(_STACK, struct.pack("<5Q", target, code_selector, flags, stack, stack_selector))

        uc.context_restore(self._start)  # else CPL stays 3
        cr0, cr4, efer = _CR0, _CR4, _EFER
        for name, bit in _CR4_BIT.items():
            cr4 |= (control >> name & 1) << bit
        cr0 |= (control >> x86.Control.WP & 1) << _CR0_WP
        efer |= (control >> x86.Control.NXE & 1) << _EFER_NXE
        for register, value in (
            (reg.UC_X86_REG_CR3, case.table_root),
            (reg.UC_X86_REG_CR4, cr4),
            (reg.UC_X86_REG_MSR, (_EFER_NUMBER, efer)),
            (reg.UC_X86_REG_CR0, cr0),
            (reg.UC_X86_REG_CR3, case.table_root),  # again, now with paging on: drops what is cached
            (reg.UC_X86_REG_GDTR, (0, base + _DESCRIPTORS - _KERNEL, _DESCRIPTOR_LIMIT, 0)),
            (reg.UC_X86_REG_LDTR, (_LDT_SELECTOR, case.linear, _LDT_LIMIT, _LDT_FLAGS)),
            (reg.UC_X86_REG_RSP, stack),
            (reg.UC_X86_REG_RAX, case.pkru),
            (reg.UC_X86_REG_RCX, 0),
            (reg.UC_X86_REG_RDX, 0),
            (reg.UC_X86_REG_RBX, case.linear),
            (reg.UC_X86_REG_RSI, _LDT_ENTRY),
        ):
            uc.reg_write(register, value)
        self._vector = self._data = None
        try:
            uc.emu_start(base + (_WRPKRU if control >> x86.Control.PKE & 1 else _IRETQ), 0, count=_INSTRUCTIONS)
        except unicorn.UcError as error:
            raise WalkNotRun(case, f"Unicorn stopped: {error}") from None

    def _result(self, case: WalkCase) -> Result:
        """What the run that just ended says."""
        uc, vector = self._uc, self._vector
        if vector == _PAGE_FAULT:
            address = uc.reg_read(reg.UC_X86_REG_CR2)
            if address != case.linear:
                raise WalkNotRun(case, f"Unicorn faults at another address ({address:#x})")
            context = self._saved_context()
            return PageFault(_WORD.unpack_from(context, self._error_offset)[0])
        if vector == _GENERAL_PROTECTION:
            return GeneralProtection()
        if vector == _DONE and self._data is not None:
            return Translated(self._data, 0, False, False, False)
        if vector == _BREAKPOINT:
            page, word = divmod(uc.reg_read(reg.UC_X86_REG_EAX), x86.TABLE_ENTRIES)
            return Translated(self._pages[page] + word * x86.ENTRY_BYTES, 0, False, False, False)
        raise WalkNotRun(case, f"Unicorn's run ended by vector {vector}, which no walk gives")

    def _saved_context(self) -> bytes:
        self._uc.context_update(self._end)
        return bytes(self._end)

    def _read_tables(self) -> dict[int, int]:
        words = np.frombuffer(self._uc.mem_read(TABLES[0], TABLES[1] + x86.PAGE_BYTES - TABLES[0]), "<u8")
        return {TABLES[0] + word * x86.ENTRY_BYTES: int(words[word]) for word in np.flatnonzero(words).tolist()}

    # Memory, and what the engine tells during a run.

    def _map_memory(self) -> None:
        uc = self._uc
        uc.mem_map(TABLES[0], TABLES[1] + x86.PAGE_BYTES - TABLES[0])
        for address, size in ARENAS:
            self._map_data(address, size)
        uc.mem_map(_HARNESS, len(_HARNESS_PAGES) * x86.PAGE_BYTES)
        for table, below in ((_PML4, _PDPT), (_PDPT, _PD), (_PD, _PT)):
            uc.mem_write(table, _ENTRY.pack(below | _TABLE_BITS))
        leaves = (_KERNEL | _PAGE_BITS, _USER | _PAGE_BITS | _USER_BIT, _STACK | _PAGE_BITS, _DESCRIPTORS | _PAGE_BITS)
        uc.mem_write(_PT, struct.pack("<4Q", *leaves))
        uc.mem_write(_KERNEL, _KERNEL_CODE)
        uc.mem_write(_DESCRIPTORS, struct.pack(f"<{len(_DESCRIPTOR_WORDS)}Q", *_DESCRIPTOR_WORDS))
        for kind, code in _ACCESS_CODE.items():
            for page in (_KERNEL, _USER):
                uc.mem_write(page + _ACCESS_OFFSET[kind], code)

    def _map_data(self, address: int, size: int) -> None:
        """Add `size` bytes of data: each word is code that loads its own number into EAX, then a breakpoint."""
        first = len(self._pages) * x86.TABLE_ENTRIES
        self._pages += range(address, address + size, x86.PAGE_BYTES)
        numbers = np.arange(first, len(self._pages) * x86.TABLE_ENTRIES, dtype=np.uint64)
        self._uc.mem_map(address, size)
        self._uc.mem_write(address, (numbers << np.uint64(8) | np.uint64(_LOAD_AND_BREAK)).tobytes())

    def _on_interrupt(self, uc: Any, vector: int, _: object) -> None:
        self._vector = vector
        uc.emu_stop()

    def _on_data(self, uc: Any, kind: int, address: int, size: int, value: int, _: object) -> None:
        if address < _HARNESS and self._data is None:
            self._data = address

    def _on_unmapped(self, uc: Any, kind: int, address: int, size: int, value: int, _: object) -> bool:
        if address >> PHYSICAL_BITS:
            return False
        self._map_data(address & -x86.PAGE_BYTES, x86.PAGE_BYTES)
        return True

    def _find_error_code(self) -> int:
        """The offset of the page-fault error code in a saved context: where each known fault left its code."""
        offsets = set(range(0, self._start.size - _WORD.size + 1, _WORD.size))
        for case in _KNOWN_FAULTS:
            slot, base = self._write_tables(case)
            self._execute(case, base)
            context = self._saved_context()
            offsets = {offset for offset in offsets if _WORD.unpack_from(context, offset)[0] == case.value}
        if len(offsets) != 1:
            raise UnicornError(
                "the page-fault error code must stand at one offset of Unicorn's saved context, not at "
                f"{len(offsets)} (unicorn {unicorn.__version__}; 2.1.4 is known to work)"
            )
        return offsets.pop()


def _may_be_user_mode(case: WalkCase) -> bool:
    """Every entry has U/S set, so the address is a user-mode one if the walk comes to its end."""
    return all(value >> x86.EntryBit.US & 1 for _, value in case.entries)


def _pkrs_can_matter(case: WalkCase) -> bool:
    """IA32_PKRS is in force, and may change the answer [SDM 3A 4.6.2].

    It judges the supervisor's data accesses, at addresses that some entry keeps from the user, by the leaf's key.
    """
    if case.kind == "X" or (case.user and case.kind != "I") or not case.control >> x86.Control.PKS & 1:
        return False
    if _may_be_user_mode(case):
        return False
    keys = {value >> x86.PKEY_LOW & (1 << x86.PKEY_BITS) - 1 for _, value in case.entries}
    return any(case.pkrs >> 2 * key & 3 for key in keys)


def _harness_entry(case: WalkCase) -> int:
    """The top-level entry that leads to the harness's pages."""
    return (_PML4 if case.levels == x86.LEVELS_5 else _PDPT) | _TABLE_BITS
