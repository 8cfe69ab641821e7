"""Facts of the x86-64 paging architecture, as inert tables.

The one module, with model/linux.py, that the gateware and the golden model share. It holds numbers and names only:
no function, no condition, nothing that answers a question about an entry. Every decision is written twice, once in
rtl/ and once in the rest of model/. tests/test_facts.py holds each number against a literal typed by hand.

Source: Intel SDM volume 3A, chapter 4 (tables 4-14 to 4-20: formats of paging-structure entries; 4.7: error codes).
"""

from enum import IntEnum
from typing import Final

PAGE_SHIFT: Final = 12
"""log2 of the smallest page, in bytes."""
PAGE_BYTES: Final = 4096
"""Bytes of a 4 KiB page, and of a table."""
ENTRY_BYTES: Final = 8
"""Bytes of a paging-structure entry."""
INDEX_BITS: Final = 9
"""Bits of a linear address that select an entry, at each level."""
TABLE_ENTRIES: Final = 512
"""Entries of a table."""
MAX_PHYSICAL_BITS: Final = 52
"""Architectural limit of MAXPHYADDR [SDM 3A 4.1.4]."""

LEVELS_4: Final = 4
LEVELS_5: Final = 5
LEVEL_SHIFT: Final = {1: 12, 2: 21, 3: 30, 4: 39, 5: 48}
"""Level (1 = page table .. 5 = PML5) to the lowest linear-address bit of its index; also log2 of a leaf's bytes."""
LEVEL_NAME: Final = {1: "PTE", 2: "PDE", 3: "PDPTE", 4: "PML4E", 5: "PML5E"}
"""Level to the manual's name of its entry."""
LINEAR_BITS: Final = {4: 48, 5: 57}
"""Number of levels to the width of a canonical linear address [SDM 3A 4.5.2]."""


class EntryBit(IntEnum):
    """Bit positions of a paging-structure entry [SDM 3A tables 4-14 to 4-20]."""

    P = 0
    RW = 1
    US = 2
    PWT = 3
    PCD = 4
    A = 5
    D = 6
    PS = 7
    """Page size at levels 2 and 3; reserved at 4 and 5. At level 1 the same position is PAT."""
    G = 8
    PAT_LARGE = 12
    """PAT of a 2 MiB or 1 GiB leaf."""
    XD = 63


PAT_4K: Final = 7
"""PAT of a 4 KiB leaf (the position of PS in the levels above)."""
FRAME_LOW: Final = 12
FRAME_HIGH: Final = 51
"""Lowest and highest bit of an entry's physical-address field."""
PKEY_LOW: Final = 59
PKEY_BITS: Final = 4
"""Protection key of a leaf: bits 62:59."""
LARGE_RESERVED: Final = {2: (13, 20), 3: (13, 29)}
"""Level to (lowest, highest) reserved low address bit of a large leaf."""


class ErrorBit(IntEnum):
    """Bit positions of the page-fault error code [SDM 3A 4.7]."""

    P = 0
    WR = 1
    US = 2
    RSVD = 3
    ID = 4
    PK = 5
    SS = 6
    HLAT = 7
    SGX = 15


class Access(IntEnum):
    """What a request does at its linear address."""

    READ = 0
    WRITE = 1
    RMW = 2
    """A load that needs write rights (a locked read-modify-write): for the walk the same as a write."""
    FETCH = 3
    PROBE = 4
    """Would a write be allowed? Checks as a write does and changes nothing."""


class Outcome(IntEnum):
    """How a translation ended."""

    OK = 0
    PAGE_FAULT = 1
    GENERAL_PROTECTION = 2
    """Not canonical: #GP(0), no walk."""
    BUS_ERROR = 3
    """Memory answered a table access with an error; beats a page fault."""


class Control(IntEnum):
    """Bit positions of the walk's control word (the order that recorded walks use)."""

    WP = 0
    """CR0.WP"""
    NXE = 1
    """EFER.NXE"""
    SMEP = 2
    """CR4.SMEP"""
    SMAP = 3
    """CR4.SMAP"""
    PKE = 4
    """CR4.PKE"""
    PKS = 5
    """CR4.PKS"""
    PGE = 6
    """CR4.PGE"""
    LA57 = 7
    """CR4.LA57"""
    AC = 8
    """RFLAGS.AC, which travels with a request."""


class Invalidation(IntEnum):
    """What is to be forgotten of cached translations; 0 to 3 are INVPCID's types [SDM 2A, INVPCID]."""

    ADDRESS = 0
    """Of one address and PCID, but for global ones."""
    PCID = 1
    """Of one PCID, but for global ones."""
    ALL = 2
    """All, global ones too."""
    NOT_GLOBAL = 3
    """Of all PCIDs, but for global ones."""
    INVLPG = 4
    """INVLPG: of one address, of the current PCID and global ones. The number is the project's."""


class Wait(IntEnum):
    """What an invalidation waits for before it is complete; the project's own."""

    NONE = 0
    """Nothing."""
    STORES = 1
    """Requests before it are answered, and stores that they were granted have retired."""
    ALL = 2
    """And so have reads that they were granted."""


PCID_BITS: Final = 12
"""Width of a process-context identifier (CR3[11:0] with CR4.PCIDE)."""
