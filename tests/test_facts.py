"""The shared facts against literals typed by hand from the manual and the kernel's headers.

Two guards. Each fact stands here again, as a number read in the cited source. And each bit position that a walk depends
on is shifted by one, whereupon walks typed by hand, whose entries are plain numbers, must come out wrong.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptewalk.model import linux, paging, x86

# Intel SDM volume 3A unless another source is named. An enumeration is a dict of its members.
X86: dict[str, Any] = {
    "PAGE_SHIFT": 12,  # 4.2
    "PAGE_BYTES": 4096,  # 4.2
    "ENTRY_BYTES": 8,  # 4.2, table 4-2
    "INDEX_BITS": 9,  # 4.2, table 4-2: bits 47:39, 38:30, 29:21, 20:12
    "TABLE_ENTRIES": 512,  # 4.2
    "MAX_PHYSICAL_BITS": 52,  # 4.1.4
    "LEVELS_4": 4,  # 4.5
    "LEVELS_5": 5,  # 4.5
    "LEVEL_SHIFT": {1: 12, 2: 21, 3: 30, 4: 39, 5: 48},  # 4.2, table 4-2
    "LEVEL_NAME": {1: "PTE", 2: "PDE", 3: "PDPTE", 4: "PML4E", 5: "PML5E"},  # 4.2, table 4-2
    "LINEAR_BITS": {4: 48, 5: 57},  # 4.5; volume 1, 3.3.7.1
    # tables 4-14 to 4-20
    "EntryBit": dict(P=0, RW=1, US=2, PWT=3, PCD=4, A=5, D=6, PS=7, G=8, PAT_LARGE=12, XD=63),
    "PAT_4K": 7,  # table 4-20
    "FRAME_LOW": 12,  # table 4-20
    "FRAME_HIGH": 51,  # table 4-20: (M-1):12 with M at most 52
    "PKEY_LOW": 59,  # tables 4-16, 4-18, 4-20: 62:59
    "PKEY_BITS": 4,
    "LARGE_RESERVED": {2: (13, 20), 3: (13, 29)},  # tables 4-18 and 4-16
    "ErrorBit": {"P": 0, "WR": 1, "US": 2, "RSVD": 3, "ID": 4, "PK": 5, "SS": 6, "HLAT": 7, "SGX": 15},  # figure 4-12
    "Access": {"READ": 0, "WRITE": 1, "RMW": 2, "FETCH": 3, "PROBE": 4},  # ptewalk's own
    "Outcome": {"OK": 0, "PAGE_FAULT": 1, "GENERAL_PROTECTION": 2, "BUS_ERROR": 3},  # ptewalk's own
    "Wait": {"NONE": 0, "STORES": 1, "ALL": 2},  # our own
    "Invalidation": {"ADDRESS": 0, "PCID": 1, "ALL": 2, "NOT_GLOBAL": 3, "INVLPG": 4},  # 2A, INVPCID; 4 is our own
    "PCID_BITS": 12,  # 4.10.1
    # the walk format's key c
    "Control": dict(WP=0, NXE=1, SMEP=2, SMAP=3, PKE=4, PKS=5, PGE=6, LA57=7, AC=8),
}
# Linux: arch/x86/include/asm/pgtable_types.h unless another file is named.
LINUX: dict[str, Any] = {
    # _PAGE_BIT_SPECIAL is SOFTW1, _PAGE_BIT_UFFD_WP SOFTW2, _PAGE_BIT_SOFT_DIRTY SOFTW3 (3.11: _PAGE_BIT_HIDDEN), and
    # _PAGE_BIT_SAVED_DIRTY SOFTW5 on 64 bits (6.6 and later). ARM is ptewalk's own.
    "SoftBit": {"SPECIAL": 9, "UFFD_WP": 10, "SOFT_DIRTY": 11, "ARM": 52, "SAVED_DIRTY": 58},
    "Track": {"OFF": 0, "FAULT": 1, "NATIVE": 2},  # ptewalk's own
    # include/uapi/linux/kernel-page-flags.h; 34 is include/linux/kernel-page-flags.h
    "KpageflagsBit": dict(
        **dict(UPTODATE=3, DIRTY=4, BUDDY=10, MMAP=11, ANON=12, SWAPCACHE=13, SWAPBACKED=14, COMPOUND_HEAD=15),
        **dict(COMPOUND_TAIL=16, HUGE=17, NOPAGE=20, KSM=21, THP=22, ZERO_PAGE=24, PGTABLE=26, RESERVED=32),
        MAPPEDTODISK=34,
    ),
}


def fact(module: ModuleType, name: str) -> Any:
    """A fact as the tables above write it."""
    value = getattr(module, name)
    if isinstance(value, type) and issubclass(value, IntEnum):
        return {key: int(member) for key, member in value.__members__.items()}
    return value


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [(x86, name, value) for name, value in X86.items()] + [(linux, name, value) for name, value in LINUX.items()],
)
def test_literal(module: ModuleType, name: str, expected: Any) -> None:
    assert fact(module, name) == expected


# include/linux/mm.h, VM_*: numbers of the bits.
AREA_FLAGS = dict(
    **dict(READ=0, WRITE=1, EXEC=2, SHARED=3, MAYREAD=4, MAYWRITE=5, MAYEXEC=6, MAYSHARE=7, GROWSDOWN=8),
    **dict(UFFD_MISSING=9, MAYBE_GUARD=11, UFFD_WP=12, LOCKED=13, SEQ_READ=15, RAND_READ=16, DONTCOPY=17),
    **dict(DONTEXPAND=18, ACCOUNT=20, NORESERVE=21, HUGETLB=22, NONLINEAR=23, WIPEONFORK=25, DONTDUMP=26),
    **dict(SOFTDIRTY=27, HUGEPAGE=29, NOHUGEPAGE=30, MERGEABLE=31),
)


def test_flags_of_areas() -> None:
    known = {name: value for name, value in vars(linux.VmFlag).items() if name.isupper()}
    assert known.pop("PKEY_LOW") == 32
    assert known == {name: 1 << bit for name, bit in AREA_FLAGS.items()}


def public_names(module: ModuleType) -> set[str]:
    """The names that a module of facts defines itself."""
    imported = {"Final", "IntEnum", "NamedTuple"}
    return {name for name in vars(module) if not name.startswith("_")} - imported


def test_every_x86_fact_has_a_literal() -> None:
    assert public_names(x86) == set(X86)


# Walks typed by hand.


@dataclass(frozen=True)
class Vector:
    """One walk in plain numbers: entries before, what it must give, and the entries it must change."""

    entries: dict[int, int]
    linear: int
    expected: tuple[Any, ...]
    """("OK", physical, level, pwt, pcd, pat), ("PF", code) or ("GP",)."""
    changed: dict[int, int] = field(default_factory=dict)
    access: int = 0
    control: int = 0
    user: bool = True
    pkru: int = 0
    pkrs: int = 0
    track: int = 0
    saved_dirty: bool = False


# Indexes 0x101, 0x82, 0x43, 0x24 and offset 0x567; through tables at 0x1000 (root), 0x2000, 0x3000 and 0x4000.
LINEAR = 0xFFFF_80A0_8862_4567
UPPER = {0x1808: 0x2027, 0x2410: 0x3027, 0x3218: 0x4027}


def page(pte: int, expected: tuple[Any, ...], after: int | None = None, **more: Any) -> Vector:
    """A walk of LINEAR to the entry `pte` at 0x4120."""
    changed = {} if after is None else {0x4120: after}
    return Vector({**UPPER, 0x4120: pte}, LINEAR, expected, changed, **more)


def large(at: int, entry: int, expected: tuple[Any, ...], **more: Any) -> Vector:
    """A walk of LINEAR that ends at the large page `entry` at `at`."""
    return Vector(
        {place: value for place, value in UPPER.items() if place < at} | {at: entry}, LINEAR, expected, **more
    )


def ok(physical: int, level: int = 1, pwt: bool = False, pcd: bool = False, pat: bool = False) -> tuple[Any, ...]:
    return ("OK", physical, level, pwt, pcd, pat)


VECTORS = {
    "a page": page(0x00FF_FFFF_F027, ok(0xFF_FFFF_F567)),
    "bit 11 is no address": Vector({**UPPER, 0x1808: 0x2827, 0x4120: 0x9027}, LINEAR, ok(0x9567)),
    "five levels": Vector({0x5FF0: 0x1027, **UPPER, 0x4120: 0x9027}, 0xFFFE_80A0_8862_4567, ok(0x9567), control=0x80),
    "five levels, not canonical": Vector({}, 0x0180_0000_0000_0000, ("GP",), control=0x80),
    "five levels, canonical": Vector({}, 0x0080_0000_0000_0000, ("PF", 4), control=0x80),
    "five levels, high and not canonical": Vector({}, 0x0100_0000_0000_0000, ("GP",), control=0x80),
    "five levels, the sign alone": Vector({}, 0xFF00_0000_0000_0000, ("PF", 4), control=0x80),
    "four levels, not canonical": Vector({}, 0x0000_8000_0000_0000, ("GP",)),
    "four levels, the sign alone": Vector({}, 0xFFFF_8000_0000_0000, ("PF", 4)),
    "2 MiB page": large(0x3218, 0x0000_00AB_CDE0_00A7, ok(0xAB_CDE2_4567, 2)),
    "1 GiB page": large(0x2410, 0x0000_00AB_C000_00A7, ok(0xAB_C862_4567, 3)),
    "2 MiB page, bit 12": large(0x3218, 0x10A7, ok(0x2_4567, 2, pat=True)),
    "2 MiB page, bit 13": large(0x3218, 0x20A7, ("PF", 13)),
    "2 MiB page, bit 20": large(0x3218, 0x10_00A7, ("PF", 13)),
    "2 MiB page, bit 21": large(0x3218, 0x20_00A7, ok(0x22_4567, 2)),
    "1 GiB page, bit 12": large(0x2410, 0x10A7, ok(0x862_4567, 3, pat=True)),
    "1 GiB page, bit 13": large(0x2410, 0x20A7, ("PF", 13)),
    "1 GiB page, bit 29": large(0x2410, 0x2000_00A7, ("PF", 13)),
    "1 GiB page, bit 30": large(0x2410, 0x4000_00A7, ok(0x4862_4567, 3)),
    "PWT": page(0x902F, ok(0x9567, pwt=True)),
    "PCD": page(0x9037, ok(0x9567, pcd=True)),
    "PAT": page(0x90A7, ok(0x9567, pat=True)),
    "G is no PAT": page(0x9127, ok(0x9567)),
    "bit 51 is reserved": page(0x0008_0000_0000_9027, ("PF", 13)),
    "bit 52 is ignored": page(0x0010_0000_0000_9027, ok(0x9567)),
    "not present": page(0xFFFF_FFFF_FFFF_FFFE, ("PF", 4)),
    "not present, write": page(0, ("PF", 6), access=1),
    "not present, supervisor": page(0, ("PF", 0), user=False),
    "not present, fetch": page(0, ("PF", 20), access=3, control=0x02),
    "A is set": page(0x9007, ok(0x9567), 0x9027),
    "A and D are set": page(0x9007, ok(0x9567), 0x9067, access=1),
    "read-only": page(0x9025, ("PF", 7), access=1),
    "read-only, WP": page(0x9021, ("PF", 3), access=1, user=False, control=0x01),
    "read-only, no WP": page(0x9021, ok(0x9567), 0x9061, access=1, user=False),
    "supervisor page": page(0x9023, ("PF", 5)),
    "XD, fetch": page(0x8000_0000_0000_9027, ("PF", 21), access=3, control=0x02),
    "XD, no NXE": page(0x8000_0000_0000_9027, ("PF", 13)),
    "SMEP": page(0x9027, ("PF", 17), access=3, user=False, control=0x04),
    "SMAP": page(0x9027, ("PF", 1), user=False, control=0x08),
    "PKRU, key 5": page(0xA800_0000_0000_9027, ("PF", 0x25), control=0x12, pkru=0x400),
    "PKRU, another key": page(0x2800_0000_0000_9027, ok(0x9567), control=0x12, pkru=0xFFFFF3FF),
    "PKRU, key 13": page(0x6800_0000_0000_9027, ("PF", 0x25), control=0x12, pkru=0x400_0000),
    "PKRS, key 5": page(0x2800_0000_0000_9023, ("PF", 0x21), control=0x22, user=False, pkrs=0x400),
    "native": page(0x9007, ok(0x9567), 0x9867, access=1, track=2),
    "mend": page(0x0410_0000_0000_9005, ok(0x9567), 0x9867, access=1, track=1, saved_dirty=True),
    "mend, bit 58 is another's": page(0x0410_0000_0000_9005, ok(0x9567), 0x0400_0000_0000_9867, access=1, track=1),
}


def failures(module: ModuleType) -> list[str]:
    """The names of the vectors that come out wrong by the translation of `module`."""
    return [name for name, vector in VECTORS.items() if not _holds(module, vector)]


def _holds(module: ModuleType, vector: Vector) -> bool:
    memory = _Words(vector.entries)
    root = 0x5000 if vector.control & 0x80 else 0x1000
    try:
        # Plain numbers compare equal to the members of Access and Track.
        state = module.State(root, vector.control, vector.pkru, vector.pkrs, vector.track, vector.saved_dirty)
        request = module.Request(vector.linear, vector.access, vector.user)
        result = module.translate(memory, state, request)
    except (ValueError, KeyError, AssertionError):
        return False
    if isinstance(result, module.Translated):
        seen: tuple[Any, ...] = ok(result.physical, result.level, result.pwt, result.pcd, result.pat)
    elif isinstance(result, module.PageFault):
        seen = ("PF", result.code)
    else:
        seen = ("GP",)
    return seen == vector.expected and memory.words == {**vector.entries, **vector.changed}


class _Words:
    """Memory of 40 bits that is a dict."""

    physical_bits = 40

    def __init__(self, words: dict[int, int]) -> None:
        self.words = dict(words)

    def load(self, address: int) -> int:
        return self.words.get(address, 0)

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        if self.load(address) != old:
            return False
        self.words[address] = new
        return True


def test_vectors_hold_as_the_facts_stand() -> None:
    assert failures(paging) == []


# One bit position off.

SHIFTED = [
    *((x86, f"EntryBit.{name}") for name in ("P", "RW", "US", "PWT", "PCD", "A", "D", "PS", "PAT_LARGE", "XD")),
    *((x86, f"ErrorBit.{name}") for name in ("P", "WR", "US", "RSVD", "ID", "PK")),
    *((x86, f"Control.{name}") for name in ("WP", "NXE", "SMEP", "SMAP", "PKE", "PKS", "LA57")),
    *((linux, f"SoftBit.{name}") for name in ("SOFT_DIRTY", "ARM", "SAVED_DIRTY")),
    *((x86, name) for name in ("PAT_4K", "FRAME_LOW", "FRAME_HIGH", "PKEY_LOW", "PKEY_BITS", "INDEX_BITS")),
    *((x86, f"LEVEL_SHIFT[{level}]") for level in (1, 2, 3, 4, 5)),
    *((x86, f"LINEAR_BITS[{levels}]") for levels in (4, 5)),
    *((x86, f"LARGE_RESERVED[{level}][{end}]") for level in (2, 3) for end in (0, 1)),
]
"""(module, fact): every bit position that a walk depends on."""
LOWEST = {"EntryBit.P", "ErrorBit.P", "Control.WP"}
"""Bit positions 0, which have none below."""
SHIFTS = [(module, place, by) for module, place in SHIFTED for by in (1, -1) if by > 0 or place not in LOWEST]
UNUSED = {
    "EntryBit": {"G"},  # for a TLB
    "ErrorBit": {"SS", "HLAT", "SGX"},  # features that are not implemented
    "Control": {"PGE", "AC"},  # for a TLB; a field of the request
    "SoftBit": {"SPECIAL", "UFFD_WP"},  # software's alone
}
"""Bit positions that no walk depends on: held by their literals."""


class _Shift(ast.NodeTransformer):
    """Adds `by` to one number of a module of facts."""

    def __init__(self, place: str, by: int) -> None:
        self.place, self.by, self.done = place, by, 0
        self.scope = ""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.scope = f"{node.name}."
        self.generic_visit(node)
        self.scope = ""
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        self._value(self.scope + ast.unparse(node.targets[0]), node.value)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        if node.value is not None:
            self._value(self.scope + ast.unparse(node.target), node.value)
        return node

    def _value(self, place: str, node: ast.expr) -> None:
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                self._value(f"{place}[{ast.unparse(key)}]" if key else place, value)
        elif isinstance(node, ast.Tuple):
            for index, value in enumerate(node.elts):
                self._value(f"{place}[{index}]", value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int) and place == self.place:
            node.value += self.by
            self.done += 1


def translation_with(module: ModuleType, place: str, by: int, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fresh ptewalk.model.paging that was imported with one fact changed."""
    assert module.__file__ and paging.__file__
    shift = _Shift(place, by)
    tree = ast.fix_missing_locations(shift.visit(ast.parse(Path(module.__file__).read_text())))
    assert shift.done == 1, f"{place} must stand once in {module.__name__}"
    changed = ModuleType(module.__name__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, changed)
        exec(compile(tree, module.__file__, "exec"), vars(changed))
        spec = importlib.util.spec_from_file_location("shifted_paging", paging.__file__)
        assert spec and spec.loader
        fresh = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "shifted_paging", fresh)
        spec.loader.exec_module(fresh)
    return fresh


@pytest.mark.parametrize(("module", "place", "by"), SHIFTS)
def test_a_shifted_fact_is_caught(module: ModuleType, place: str, by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = translation_with(module, place, by, monkeypatch)
    assert failures(fresh), f"no vector misses {place}"


def test_unshifted_copy_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failures(translation_with(x86, "EntryBit.RW", 0, monkeypatch)) == []


def test_every_bit_is_shifted_or_named_as_unused() -> None:
    for name, module in (("EntryBit", x86), ("ErrorBit", x86), ("Control", x86), ("SoftBit", linux)):
        shifted = {place.partition(".")[2] for _, place in SHIFTED if place.startswith(f"{name}.")}
        assert shifted | UNUSED[name] == set(fact(module, name))
        assert not shifted & UNUSED[name]
