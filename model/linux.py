"""Facts of Linux's page-table software bits, by kernel profile, as inert tables: no function, no condition.

Sources: arch/x86/include/asm/pgtable_types.h of each kernel.
"""

from enum import IntEnum
from typing import Final


class SoftBit(IntEnum):
    """Software bits of a present entry that every profile and the gateware share."""

    SPECIAL = 9
    UFFD_WP = 10
    SOFT_DIRTY = 11
    """_PAGE_BIT_SOFT_DIRTY, the seed commit's bit (_PAGE_BIT_HIDDEN there)."""
    ARM = 52
    """ptewalk's own: the entry may be made writable by a mend. Linux leaves bit 52 unused."""
    SAVED_DIRTY = 58
    """_PAGE_BIT_SAVED_DIRTY of 6.6 and later: dirty, of a read-only entry."""


class Track(IntEnum):
    """Who tracks: the ways the MMU treats soft-dirty."""

    OFF = 0
    """A plain x86 MMU: soft-dirty is software's."""
    FAULT = 1
    """The seed's mechanism without the trap: a write to an armed entry mends it."""
    NATIVE = 2
    """Soft-dirty as a second dirty bit: no write-protection at all."""
