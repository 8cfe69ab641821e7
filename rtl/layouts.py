"""Layouts of what the gateware's parts exchange.

Bit positions come from `ptewalk.model.x86` and `ptewalk.model.linux`, the project's only shared facts.
"""

from amaranth.hdl import Shape, ShapeLike, unsigned
from amaranth.lib import data

from ptewalk.model import linux, x86

__all__ = [
    "CompletionLayout",
    "ContextLayout",
    "ControlLayout",
    "EntryWrittenLayout",
    "FaultLayout",
    "InvalidationLayout",
    "RequestLayout",
    "ResponseLayout",
    "StartLayout",
    "StatusLayout",
    "SwapLayout",
    "TranslationLayout",
    "UpperEntryLayout",
    "UpperRightsLayout",
    "WalkedLayout",
    "flat_fields",
]


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


class ContextLayout(data.StructLayout):
    """The control state under which requests are judged.

    Members
    -------
    root : unsigned(physical_bits - 12)
        Frame number of the top-level table (CR3).
    control : ControlLayout
        Bits of CR0, CR4 and EFER.
    pkru, pkrs : unsigned(32)
        The protection-key registers.
    track : unsigned(2)
        `linux.Track`; only with `soft_dirty`.
    saved_dirty : 1
        The profile keeps the dirtiness of read-only entries in SAVED_DIRTY: a mend clears it. Only with `soft_dirty`.
    pcid : unsigned(12)
        CR3's PCID; only with `pcids`.
    keep : 1
        What is cached of the PCID stands (bit 63 of a write to CR3); only with `pcids`.
    """

    def __init__(self, physical_bits: int, *, soft_dirty: bool, pcids: bool = False) -> None:
        fields: dict[str, ShapeLike] = {
            "root": unsigned(physical_bits - x86.PAGE_SHIFT),
            "control": ControlLayout(),
            "pkru": unsigned(32),
            "pkrs": unsigned(32),
        }
        if soft_dirty:
            fields |= {"track": linux.Track, "saved_dirty": 1}
        if pcids:
            fields |= {"pcid": unsigned(x86.PCID_BITS), "keep": 1}
        super().__init__(fields)


class InvalidationLayout(data.StructLayout):
    """What is to be forgotten.

    Members
    -------
    kind : unsigned(3)
        `x86.Invalidation`.
    linear : unsigned(64)
        Counts for ADDRESS and INVLPG.
    pcid : unsigned(12)
        Counts for ADDRESS and PCID.
    wait : unsigned(2)
        `x86.Wait`; 3 is as ALL.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "kind": Shape.cast(x86.Invalidation),
                "linear": unsigned(64),
                "pcid": unsigned(x86.PCID_BITS),
                "wait": Shape.cast(x86.Wait),
            }
        )


class CompletionLayout(data.StructLayout):
    """An invalidation is complete that waited: `wait` is its own."""

    def __init__(self) -> None:
        super().__init__({"wait": Shape.cast(x86.Wait)})


class TranslationLayout(data.StructLayout):
    """What a walk that ended in OK found: enough to fill a cache of translations.

    Bits of the leaf are as they stand in memory when the walk ends, this walk's own swap included.

    Members
    -------
    frame : unsigned(physical_bits - 12)
        Frame number of the 4 KiB page that was accessed; bits below the leaf's size come from the linear address.
    level : unsigned(3)
        Level of the leaf, 1 to 3.
    rw, us, xd : 1
        R/W and U/S of all entries (AND), XD of all (OR).
    pkey : unsigned(4)
        The leaf's protection key.
    g : 1
        The leaf is global, as it says; CR4.PGE is not looked at.
    d, soft_dirty : 1
        The leaf's marks; `soft_dirty` only with `soft_dirty`.
    pwt, pcd, pat : 1
        Memory-type bits of the leaf.
    address : unsigned(physical_bits)
        Physical address of the leaf.
    """

    def __init__(self, physical_bits: int, *, soft_dirty: bool) -> None:
        marks = {"d": 1, **({"soft_dirty": 1} if soft_dirty else {})}
        super().__init__(
            {
                "frame": unsigned(physical_bits - x86.PAGE_SHIFT),
                "level": unsigned(3),
                "rw": 1,
                "us": 1,
                "xd": 1,
                "pkey": unsigned(x86.PKEY_BITS),
                "g": 1,
                **marks,
                "pwt": 1,
                "pcd": 1,
                "pat": 1,
                "address": unsigned(physical_bits),
            }
        )


class UpperRightsLayout(data.StructLayout):
    """The rights of the entries above the one at hand: R/W and U/S of all (AND), XD of all (OR)."""

    def __init__(self) -> None:
        super().__init__({"rw": 1, "us": 1, "xd": 1})


class StartLayout(data.StructLayout):
    """Where a walk begins.

    Members
    -------
    frame : unsigned(physical_bits - 12)
        Frame number of the table that is read first.
    at : unsigned(levels)
        Its level, one-hot: bit 0 is a page table.
    rights : UpperRightsLayout
        Of the entries above.
    cached : 1
        It is not the root.
    """

    def __init__(self, physical_bits: int, levels: int) -> None:
        super().__init__(
            {
                "frame": unsigned(physical_bits - x86.PAGE_SHIFT),
                "at": unsigned(levels),
                "rights": UpperRightsLayout(),
                "cached": 1,
            }
        )


class UpperEntryLayout(data.StructLayout):
    """An upper entry that a walk passed, as a cache may keep it.

    Members
    -------
    linear : unsigned(64)
        The address that is walked.
    at : unsigned(levels)
        The entry's level, one-hot.
    frame : unsigned(physical_bits - 12)
        Frame number of the table below.
    rights : UpperRightsLayout
        This entry's and those of all above it.
    """

    def __init__(self, physical_bits: int, levels: int) -> None:
        super().__init__(
            {
                "linear": unsigned(64),
                "at": unsigned(levels),
                "frame": unsigned(physical_bits - x86.PAGE_SHIFT),
                "rights": UpperRightsLayout(),
            }
        )


class SwapLayout(data.StructLayout):
    """A conditional write: the word at `address` becomes `new` if and only if it is `old`."""

    def __init__(self, physical_bits: int, id_bits: int) -> None:
        super().__init__(
            {"address": unsigned(physical_bits), "old": unsigned(64), "new": unsigned(64), "id": unsigned(id_bits)}
        )


class FaultLayout(data.StructLayout):
    """A delivered page fault: `linear` is what CR2 gets, `code` the error code, `tag` the request's."""

    def __init__(self, tag_bits: int) -> None:
        super().__init__({"linear": unsigned(64), "code": unsigned(16), "tag": unsigned(tag_bits)})


class StatusLayout(data.StructLayout):
    """What went wrong since it was cleared, a bit each.

    Members
    -------
    fault_overflow : 1
        A page fault was answered and its record lost, since the fault queue was full.
    tag_reused : 1
        A store was allowed whose tag has a grant outstanding; its answer waited until that grant retired.
    stray_retirement : 1
        A tag was retired that has no grant outstanding; it was ignored.
    """

    def __init__(self) -> None:
        super().__init__({"fault_overflow": 1, "tag_reused": 1, "stray_retirement": 1})


class EntryWrittenLayout(data.StructLayout):
    """The answer to one swap: the event that counters, log and checks follow.

    Members
    -------
    linear, tag : as in the request
        The access for which it was made.
    level : unsigned(3)
        Of the entry.
    address, old, new : as in the swap
    done : 1
        The entry was `old` and is `new`. 0: another writer was there first, and nothing was written; or `error`.
    error : 1
        The bus refused: whether it was written is not known.
    """

    def __init__(self, physical_bits: int, tag_bits: int) -> None:
        super().__init__(
            {
                "linear": unsigned(64),
                "tag": unsigned(tag_bits),
                "level": unsigned(3),
                "address": unsigned(physical_bits),
                "old": unsigned(64),
                "new": unsigned(64),
                "done": 1,
                "error": 1,
            }
        )


class WalkedLayout(data.StructLayout):
    """One completed walk: the response as it was taken, with the request's linear address."""

    def __init__(self, physical_bits: int, tag_bits: int) -> None:
        response = {str(name): field.shape for name, field in ResponseLayout(physical_bits, tag_bits)}
        super().__init__({"linear": unsigned(64), **response})


def flat_fields(layout: ShapeLike) -> dict[str, Shape] | None:
    """Field name to shape of a struct layout, in order; None for any other shape."""
    if not isinstance(layout, data.StructLayout):
        return None
    return {str(name): Shape.cast(field.shape) for name, field in layout}
