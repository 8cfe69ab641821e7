"""The table of registers: the one source of gateware, driver, documentation, C header and SystemRDL.

It is plain Python, so that a driver needs nothing else. `map.py` is the map.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["BYTES", "Access", "Field", "Register", "Reserved", "check", "fields_of", "said", "wide", "word"]

BYTES: Final = 4096
"""Bytes that the registers take of an address space."""
WORD_BITS: Final = 32


class Access(Enum):
    """What software may do to a field."""

    RO = "ro"
    """Read: what the hardware says."""
    RW = "rw"
    """Read and written: it is kept."""
    W1C = "w1c"
    """Read; a bit that is written 1 is cleared, unless it is set in the same cycle."""
    W1S = "w1s"
    """A bit that is written 1 is set elsewhere; reads 0."""
    WO = "wo"
    """Written: it is done at once, and reads 0."""


@dataclass(frozen=True)
class Field:
    """Bits of a register.

    Attributes
    ----------
    name : str
        In lower case; none of SystemRDL's keywords.
    low, width : int
        Lowest bit and number of bits.
    access : Access
    text : str
        What it means.
    reset : int or None
        After a reset; None: what the hardware says.
    """

    name: str
    low: int
    width: int
    access: Access
    text: str
    reset: int | None = 0

    @property
    def high(self) -> int:
        """Highest bit."""
        return self.low + self.width - 1

    @property
    def mask(self) -> int:
        """Its bits in the register."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """A register of 32 bits.

    Attributes
    ----------
    name : str
        In upper case. Two whose names end in _LO and _HI are one value of 64 bits.
    offset : int
        In bytes, a multiple of 4.
    fields : tuple of Field
        From the lowest bit on.
    text : str
        A sentence.
    refusable : bool
        True: a write may be answered SLVERR, and then does nothing.
    zeroed : bool
        True: the hardware may make its RW fields 0.
    kept : bool
        True: a reset by software leaves its RW fields.
    """

    name: str
    offset: int
    fields: tuple[Field, ...]
    text: str
    refusable: bool = False
    zeroed: bool = False
    kept: bool = False

    def __getitem__(self, name: str) -> Field:
        """The field of that name; KeyError when there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name}: {', '.join(field.name for field in self.fields)}")

    def pack(self, **values: int) -> int:
        """The word in which the named fields have these values, and all others 0.

        Raises
        ------
        KeyError
            There is no such field.
        ValueError
            A value does not fit.
        """
        word = 0
        for name, value in values.items():
            field = self[name]
            if not 0 <= value < 1 << field.width:
                raise ValueError(f"{self.name}.{name} has {field.width} bits: {value:#x} does not fit")
            word |= value << field.low
        return word

    def unpack(self, word: int) -> dict[str, int]:
        """Field name to value in a word that was read."""
        return {field.name: (word & field.mask) >> field.low for field in self.fields}


@dataclass(frozen=True)
class Reserved:
    """Offsets, from `start` up to but not with `stop`, that read as 0 and ignore writes, and what they are kept for."""

    start: int
    stop: int
    text: str


def said(name: str, low: int, width: int, text: str) -> Field:
    """A field that says what was built."""
    return Field(name, low, width, Access.RO, text, None)


def word(access: Access, text: str, low: int = 0, width: int = 32) -> tuple[Field, ...]:
    """The fields of a register that is one number."""
    return (Field("value", low, width, access, text),)


def wide(name: str, offset: int, access: Access, text: str, bits: int = 64) -> tuple[Register, Register]:
    """A value of more than 32 bits, in two registers."""
    return (
        Register(f"{name}_LO", offset, word(access, "Bits 31:0."), text),
        Register(f"{name}_HI", offset + 4, word(access, f"Bits {bits - 1}:32.", 0, bits - 32), text),
    )


def fields_of(registers: tuple[Register, ...], *accesses: Access) -> Iterator[tuple[Register, Field]]:
    """The fields with one of these accesses, in order."""
    for register in registers:
        for field in register.fields:
            if field.access in accesses:
                yield register, field


def check(registers: tuple[Register, ...], reserved: tuple[Reserved, ...]) -> None:
    """Refuse a map that contradicts itself.

    Raises
    ------
    ValueError
        Names the register: two at one offset, in a reserved range or out of order; fields that overlap, are out of
        order or do not fit; half of a value of 64 bits.
    """
    offsets = {register.name: register.offset for register in registers}
    if len(offsets) != len(registers):
        raise ValueError("two registers have one name")
    last = -4
    for register in registers:
        name, offset = register.name, register.offset
        if offset % 4 or not last < offset < BYTES:
            raise ValueError(f"{name} at {offset:#05x} is not after {last:#05x}, below {BYTES:#x} and a multiple of 4")
        last = offset
        if any(space.start <= offset < space.stop for space in reserved):
            raise ValueError(f"{name} at {offset:#05x} is in a reserved range")
        if name.endswith("_LO") and offsets.get(f"{name[:-2]}HI") != offset + 4:
            raise ValueError(f"{name} has no {name[:-2]}HI after it")
        free = 0
        for field in register.fields:
            if field.low < free or field.width < 1 or field.high >= WORD_BITS:
                raise ValueError(f"{name}.{field.name} overlaps, is out of order or does not fit")
            if field.reset is not None and not 0 <= field.reset < 1 << field.width:
                raise ValueError(f"{name}.{field.name}: its reset value does not fit")
            free = field.high + 1
