"""The table of registers for readers: a page of documentation, a C header, SystemRDL [Accellera SystemRDL 2.0]."""

from collections.abc import Mapping
from typing import Final

from ptewalk.rtl.registers.table import Access, Field, Register, Reserved

__all__ = ["c_header", "markdown", "system_rdl"]

_RDL_ACCESS: Final = {
    Access.RO: "sw = r; hw = w;",
    Access.RW: "sw = rw; hw = r;",
    Access.W1C: "sw = rw; onwrite = woclr; hw = rw;",
    Access.W1S: "sw = w; onwrite = woset; hw = r;",
    Access.WO: "sw = w; hw = r;",
}
Built = Mapping[tuple[str, str], int]
"""(register, field) to the value of a field that says what was built."""


def _bits(field: Field) -> str:
    return str(field.low) if field.width == 1 else f"{field.high}:{field.low}"


def markdown(registers: tuple[Register, ...], reserved: tuple[Reserved, ...]) -> str:
    """The tables of docs/registers.md: every register with its fields, and what is reserved."""
    lines = ["| offset | register | bits | field | access | reset | meaning |", "|---|---|---|---|---|---|---|"]
    for register in registers:
        lines.append(f"| {register.offset:03x} | `{register.name}` | | | | | {register.text} |")
        for field in register.fields:
            reset = "built" if field.reset is None else f"{field.reset:#x}" if field.reset else "0"
            access = field.access.value.upper()
            lines.append(f"| | | {_bits(field)} | `{field.name}` | {access} | {reset} | {field.text} |")
    lines += ["", "| reserved | for |", "|---|---|"]
    lines += [f"| {space.start:03x} to {space.stop - 4:03x} | {space.text} |" for space in reserved]
    return "\n".join(lines) + "\n"


def c_header(registers: tuple[Register, ...]) -> str:
    """Offsets, and lowest bit and mask of each field, as C macros."""
    lines = ["/* The registers of ptewalk's unit: offsets in bytes, and fields. */", "#ifndef PTEWALK_REGISTERS_H"]
    lines += ["#define PTEWALK_REGISTERS_H", ""]
    for register in registers:
        lines.append(f"/* {register.text} */")
        lines.append(f"#define PTEWALK_{register.name} {register.offset:#05x}u")
        for field in register.fields:
            name = f"PTEWALK_{register.name}_{field.name.upper()}"
            lines.append(f"#define {name}_SHIFT {field.low}")
            lines.append(f"#define {name}_MASK {field.mask:#010x}u /* {field.access.value}: {field.text} */")
    return "\n".join([*lines, "", "#endif"]) + "\n"


def system_rdl(registers: tuple[Register, ...], *, name: str = "ptewalk", built: Built | None = None) -> str:
    """The map in SystemRDL.

    Parameters
    ----------
    name : str
        Of the address map.
    built : mapping, optional
        Reset values of the fields that say what was built; without it they have none.
    """
    lines = [f"addrmap {name} {{", "  default regwidth = 32;", "  default accesswidth = 32;"]
    lines += ["  addressing = regalign;", "  littleendian;"]
    for register in registers:
        lines.append("  reg {")
        lines.append(f"    desc = {_quoted(register.text)};")
        for field in register.fields:
            value = (built or {}).get((register.name, field.name), field.reset)
            reset = "" if value is None else f" = {field.width}'h{value:x}"
            body = f"{_RDL_ACCESS[field.access]} desc = {_quoted(field.text)};"
            lines.append(f"    field {{ {body} }} {field.name}[{field.high}:{field.low}]{reset};")
        lines.append(f"  }} {register.name} @ {register.offset:#05x};")
    return "\n".join([*lines, "};"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
