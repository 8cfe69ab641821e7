"""Layouts of what the gateware reads, writes and exchanges.

Bit positions come from `ptewalk.model.x86` and `ptewalk.model.linux`, the project's only shared facts.
"""

from amaranth.hdl import Shape, ShapeLike, unsigned
from amaranth.lib import data

from ptewalk.model import linux, x86

__all__ = [
    "ControlLayout",
    "EntryLayout",
    "FaultLayout",
    "RequestLayout",
    "ResponseLayout",
    "SwapLayout",
    "TraceLayout",
]


class EntryLayout(data.FlexibleLayout):
    """A paging-structure entry, 64 bits, with the manual's field names in lower case.

    `ps` and `pat` of a 4 KiB leaf are one bit under two names; `pat_large` is the PAT of a large leaf.

    Parameters
    ----------
    soft_dirty : bool
        False: software's bits have no names.
    """

    def __init__(self, *, soft_dirty: bool = True) -> None:
        bits = {bit.name.lower(): int(bit) for bit in x86.EntryBit}
        if soft_dirty:
            bits |= {bit.name.lower(): int(bit) for bit in linux.SoftBit}
        bits["pat"] = x86.PAT_4K
        fields = {name: data.Field(1, position) for name, position in bits.items()}
        fields["pkey"] = data.Field(unsigned(x86.PKEY_BITS), x86.PKEY_LOW)
        super().__init__(64, fields)


class ControlLayout(data.FlexibleLayout):
    """The control bits that a walk depends on and that do not travel with a request (CR0, CR4 and EFER)."""

    def __init__(self) -> None:
        bits = [bit for bit in x86.Control if bit is not x86.Control.AC]
        super().__init__(len(bits), {bit.name.lower(): data.Field(1, int(bit)) for bit in bits})


class RequestLayout(data.StructLayout):
    """One access to translate.

    Members
    -------
    linear : unsigned(64)
        Linear address, in bytes.
    access : unsigned(3)
        `x86.Access`.
    user : 1
        The access is made at CPL 3.
    implicit : 1
        An implicit supervisor access (descriptor tables, TSS): a supervisor access at any CPL, and AC does not help it.
    ac : 1
        RFLAGS.AC.
    tag : unsigned(tag_bits)
        Comes back with the response.
    """

    def __init__(self, tag_bits: int) -> None:
        super().__init__(
            {
                "linear": unsigned(64),
                "access": Shape.cast(x86.Access),
                "user": 1,
                "implicit": 1,
                "ac": 1,
                "tag": unsigned(tag_bits),
            }
        )


class ResponseLayout(data.StructLayout):
    """The answer to one request.

    Members
    -------
    outcome : unsigned(2)
        `x86.Outcome`. The fields below count only as said.
    code : unsigned(16)
        Page-fault error code; 0 unless the outcome is a page fault.
    physical : unsigned(physical_bits)
        Physical address of the access; counts when OK.
    level : unsigned(3)
        Level of the leaf, 1 to 3; on a page fault the level of the entry that ended the walk.
    pwt, pcd, pat : 1
        Memory-type bits of the leaf; count when OK.
    tag : unsigned(tag_bits)
        The request's.
    """

    def __init__(self, physical_bits: int, tag_bits: int) -> None:
        super().__init__(
            {
                "outcome": Shape.cast(x86.Outcome),
                "code": unsigned(16),
                "physical": unsigned(physical_bits),
                "level": unsigned(3),
                "pwt": 1,
                "pcd": 1,
                "pat": 1,
                "tag": unsigned(tag_bits),
            }
        )


class SwapLayout(data.StructLayout):
    """A conditional write: the word at `address` becomes `new` if and only if it is `old`."""

    def __init__(self, physical_bits: int) -> None:
        super().__init__({"address": unsigned(physical_bits), "old": unsigned(64), "new": unsigned(64)})


class FaultLayout(data.StructLayout):
    """A delivered page fault: `linear` is what CR2 gets, `code` the error code, `tag` the request's."""

    def __init__(self, tag_bits: int) -> None:
        super().__init__({"linear": unsigned(64), "code": unsigned(16), "tag": unsigned(tag_bits)})


class TraceLayout(data.StructLayout):
    """One record of the trace port.

    Members
    -------
    kind : 1
        0: a walk completed (`outcome`, `code`, `physical` count). 1: a swap was answered (`address`, `old`, `new`,
        `done` count).
    linear, tag, level : as in the request and the response
        The walk that the record belongs to, and the level it had reached.
    """

    def __init__(self, physical_bits: int, tag_bits: int) -> None:
        super().__init__(
            {
                "kind": 1,
                "linear": unsigned(64),
                "tag": unsigned(tag_bits),
                "level": unsigned(3),
                "outcome": Shape.cast(x86.Outcome),
                "code": unsigned(16),
                "physical": unsigned(physical_bits),
                "address": unsigned(physical_bits),
                "old": unsigned(64),
                "new": unsigned(64),
                "done": 1,
            }
        )


def flat_fields(layout: ShapeLike) -> dict[str, Shape] | None:
    """Field name to shape of a struct layout, in order; None for any other shape."""
    if not isinstance(layout, data.StructLayout):
        return None
    return {str(name): Shape.cast(field.shape) for name, field in layout}
