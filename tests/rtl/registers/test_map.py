"""The map of registers, and what is made of it."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from systemrdl import RDLCompiler
from systemrdl.node import AddrmapNode

from ptewalk.rtl.presets import BUS
from ptewalk.rtl.registers.engine_map import TABLE_COMMAND
from ptewalk.rtl.registers.map import BY_NAME, REGISTERS, RESERVED
from ptewalk.rtl.registers.render import c_header, markdown, system_rdl
from ptewalk.rtl.registers.rings import DESCRIPTOR_WORDS
from ptewalk.rtl.registers.table import Access, Field, Register, check
from ptewalk.rtl.registers.unit import UnitConfig

ROOT = Path(__file__).resolve().parents[3]
OFFSETS = {
    "ID": 0x000,
    "VERSION": 0x004,
    "CAPS": 0x008,
    "PARAM0": 0x00C,
    "PARAM3": 0x018,
    "STATUS": 0x024,
    "DO": 0x028,
    "COMMAND": 0x02C,
    "IRQ_RAW": 0x040,
    "IRQ_MASK": 0x044,
    "IRQ_NOW": 0x048,
    "IRQ_SET": 0x04C,
    "CONTROL": 0x080,
    "INV_LINEAR_LO": 0x0C0,
    "FAULT": 0x100,
    "MEMORY_VALUE_HI": 0x13C,
    "TABLE_ROOT_LO": 0x140,
    "TABLE": 0x170,
    "TABLE_TOLD": 0x188,
    "TABLE_ID": 0x17C,
    "RING_BASE_LO": 0x1A0,
    "RING_HEAD": 0x1AC,
    "RING_TAIL": 0x1B0,
    "DONE_HEAD": 0x1BC,
    "LOG_BASE_LO": 0x1C0,
    "LOG_HEAD": 0x1D8,
    "LOG_TAIL": 0x1DC,
    "LOG_STATUS": 0x1EC,
    "LOG_LOST_LO": 0x1F0,
    "TABLE_PRESENT_CLEAR": 0x200,
    "TABLE_LIST_TOLD": 0x244,
    "TABLE_LIST": 0x250,
    "COUNT_CYCLES_LO": 0x400,
}
"""Typed by hand: what drivers in the field rely on."""
ACCESSES = {
    Access.RO: (True, False, None),
    Access.RW: (True, True, None),
    Access.W1C: (True, True, "woclr"),
    Access.W1S: (False, True, "woset"),
    Access.WO: (False, True, None),
}
"""Access to what SystemRDL says of software: readable, writable, what a written 1 does."""


def compiled(text: str, folder: Path) -> AddrmapNode:
    """SystemRDL as its compiler understands it."""
    path = folder / "ptewalk.rdl"
    path.write_text(text)
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    return compiler.elaborate().top


def test_offsets_stay_where_they_are() -> None:
    assert {name: BY_NAME[name].offset for name in OFFSETS} == OFFSETS


def test_the_page_is_made_from_the_map() -> None:
    """After a change: write what this compares."""
    page = (ROOT / "docs" / "registers.md").read_text()
    assert page.partition("## Map\n\n")[2] == markdown(REGISTERS, RESERVED)


def test_systemrdl_agrees(tmp_path: Path) -> None:
    """Every offset, bit, access and reset value, and nothing else."""
    config = BUS["unit"]
    assert isinstance(config, UnitConfig)
    built = config.built
    found = {}
    for register in compiled(system_rdl(REGISTERS, built=built), tmp_path).registers():
        assert register.get_property("regwidth") == 32
        for field in register.fields():
            told = field.get_property("onwrite")
            access = (field.is_sw_readable, field.is_sw_writable, told.name if told else None)
            place = (register.absolute_address, field.low, field.high)
            found[register.inst_name, field.inst_name] = (*place, *access, field.get_property("reset"))
    expected = {
        (register.name, field.name): (
            *(register.offset, field.low, field.high, *ACCESSES[field.access]),
            built.get((register.name, field.name), field.reset),
        )
        for register in REGISTERS
        for field in register.fields
    }
    assert found == expected
    assert len({name for name, _ in found}) == len(REGISTERS) > 60


def test_what_was_built_is_said_of_each_such_field() -> None:
    config = UnitConfig()
    built = config.built
    hardware = {("STATUS", "room"), ("FAULT", "tag"), ("FAULT", "code")}
    unset = {(r.name, f.name) for r in REGISTERS for f in r.fields if f.reset is None}
    assert built.keys() == unset - hardware
    assert all(value < 1 << BY_NAME[register][name].width for (register, name), value in built.items())


@pytest.mark.thorough
def test_the_c_header_compiles_and_agrees(tmp_path: Path) -> None:
    (tmp_path / "ptewalk.h").write_text(c_header(REGISTERS))
    lines = ["#include <stdio.h>", '#include "ptewalk.h"', "int main(void) {"]
    expected = []
    for register in REGISTERS:
        lines.append(f'printf("%x\\n", PTEWALK_{register.name});')
        expected.append(f"{register.offset:x}")
        for field in register.fields:
            name = f"PTEWALK_{register.name}_{field.name.upper()}"
            lines.append(f'printf("%d %x\\n", {name}_SHIFT, {name}_MASK);')
            expected.append(f"{field.low} {field.mask:x}")
    (tmp_path / "main.c").write_text("\n".join([*lines, "return 0; }"]))
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", "main", "main.c"], cwd=tmp_path, check=True)
    told = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert told.splitlines() == expected


WORD = (Field("value", 0, 32, Access.RO, ""),)
WRONG = {
    "two registers have one name": [Register("A", 0, WORD, ""), Register("A", 4, WORD, "")],
    "A at 0x002 is not": [Register("A", 2, WORD, "")],
    "B at 0x004 is not": [Register("A", 8, WORD, ""), Register("B", 4, WORD, "")],
    "A at 0x1000 is not": [Register("A", 4096, WORD, "")],
    "A at 0x1f8 is in a reserved range": [Register("A", 0x1F8, WORD, "")],
    "A_LO has no A_HI": [Register("A_LO", 0, WORD, ""), Register("A_HI", 8, WORD, "")],
    "A.y overlaps": [Register("A", 0, (Field("x", 0, 4, Access.RO, ""), Field("y", 3, 1, Access.RO, "")), "")],
    "A.x overlaps": [Register("A", 0, (Field("x", 30, 4, Access.RO, ""),), "")],
    "A.x: its reset": [Register("A", 0, (Field("x", 0, 1, Access.RW, "", 2),), "")],
}


@pytest.mark.parametrize("line", WRONG)
def test_maps_that_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=line.replace(".", r"\.")):
        check(tuple(WRONG[line]), RESERVED)


def test_a_descriptor_is_the_registers_of_a_command() -> None:
    """64 bytes from TABLE_ROOT_LO on, in the order of their offsets, with none between."""
    held = TABLE_COMMAND[: 2 * DESCRIPTOR_WORDS]
    assert [register.offset for register in held] == list(range(0x140, 0x180, 4)) and held[-1].name == "TABLE_ID"


def test_words() -> None:
    register = BY_NAME["INV"]
    assert register.pack(pcid=0x123, kind=4, wait=2) == 0x0204_0123
    assert register.unpack(0x0204_0123) == {"pcid": 0x123, "kind": 4, "wait": 2}
    with pytest.raises(ValueError, match="INV.kind has 3 bits: 0x8 does not fit"):
        register.pack(kind=8)
    with pytest.raises(KeyError, match="INV has no field other: pcid, kind, wait"):
        register.pack(other=1)
    assert replace(register, offset=0)["pcid"].mask == 0xFFF
