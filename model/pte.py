"""Page-table entries under the kernel's helper names, for one profile.

The helpers take and give Python integers or uint64 arrays alike. Without CONFIG_MEM_SOFT_DIRTY (`soft_dirty=False`)
the mask of
soft-dirty is 0, which makes every helper the fallback of include/asm-generic/pgtable.h: the tests answer 0, the setters
change nothing.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import NotPresentBit, PteMarker, SoftBit, Track, VmFlag
from ptewalk.model.profile import Profile
from ptewalk.model.x86 import FRAME_HIGH, FRAME_LOW, LARGE_RESERVED, PKEY_BITS, PKEY_LOW, EntryBit

E = TypeVar("E", int, NDArray[Any])
"""An entry, or a uint64 array of entries."""

ALL: Final = (1 << 64) - 1
P: Final = 1 << EntryBit.P
RW: Final = 1 << EntryBit.RW
US: Final = 1 << EntryBit.US
A: Final = 1 << EntryBit.A
D: Final = 1 << EntryBit.D
PSE: Final = 1 << EntryBit.PS
NX: Final = 1 << EntryBit.XD
PROTNONE: Final = 1 << NotPresentBit.PROTNONE
SPECIAL: Final = 1 << SoftBit.SPECIAL
UFFD_WP: Final = 1 << SoftBit.UFFD_WP
FRAME: Final = (1 << FRAME_HIGH + 1) - (1 << FRAME_LOW)
"""PTE_PFN_MASK"""
_RW_BIT: Final = int(EntryBit.RW)
_D_BIT: Final = int(EntryBit.D)
_SAVED_BIT: Final = int(SoftBit.SAVED_DIRTY)
"""Plain integers: numpy takes an enumeration's members for 64-bit signed numbers."""


def _huge_frame(level: int) -> int:
    """Mask of a leaf's frame field at `level`."""
    return FRAME & ~((1 << LARGE_RESERVED[level][1] + 1) - 1) if level in LARGE_RESERVED else FRAME


FRAME_AT: Final = {level: _huge_frame(level) for level in (1, 2, 3)}
"""Level to the frame field of a leaf there."""


class Entries:
    """The helpers of one kernel.

    Parameters
    ----------
    profile : Profile
        The kernel.
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    track : Track
        Who tracks. Only FAULT has the bit ARM, which software clears wherever it clears RW.
    """

    def __init__(self, profile: Profile, *, soft_dirty: bool = True, track: Track = Track.OFF) -> None:
        self.profile = profile
        self.soft_dirty = soft_dirty
        self.track = track if soft_dirty else Track.OFF
        self.SOFT_DIRTY = 1 << SoftBit.SOFT_DIRTY if soft_dirty else 0
        self.ARM = 1 << SoftBit.ARM if self.track == Track.FAULT else 0
        self.SAVED_DIRTY = 1 << _SAVED_BIT if profile.pte_saved_dirty else 0
        self.DIRTY_BITS = D | self.SAVED_DIRTY
        self.VM_SOFTDIRTY = VmFlag.SOFTDIRTY if profile.pte_vm_softdirty and soft_dirty else 0
        keep = FRAME
        for bit in profile.pte_keep_bits:
            keep |= 1 << bit
        if not soft_dirty:
            keep &= ~(1 << SoftBit.SOFT_DIRTY)
        self.keep = keep
        self.inverts_prot_none = profile.pte_inverts_prot_none
        self.swap_layout = swap = profile.pte_swap
        self._offset_mask = (1 << swap.offset_bits) - 1
        self._type_mask = (1 << swap.type_bits) - 1
        self.SWP_SOFT_DIRTY = 1 << swap.soft_dirty if swap.soft_dirty is not None and soft_dirty else 0
        self.SWP_UFFD_WP = 1 << swap.uffd_wp if swap.uffd_wp is not None else 0
        self.SWP_EXCLUSIVE = 1 << swap.exclusive if swap.exclusive is not None else 0

    # Tests of a present entry (arch/x86/include/asm/pgtable.h).

    @staticmethod
    def pte_present(pte: E) -> E:
        """P, or PROT_NONE (bit 8)."""
        return pte & (P | PROTNONE)

    def pte_write(self, pte: int) -> bool:
        """May this entry be written through now?

        `native`: what authorises a write is RW and soft-dirty together, for an entry that is only RW is still to be
        marked.
        """
        if self.track == Track.NATIVE:
            return pte & (RW | self.SOFT_DIRTY) == RW | self.SOFT_DIRTY
        return bool(pte & RW)

    def pte_shares_write(self, pte: E) -> E:
        """RW or ARM: the test of who decides sharing or protection (fork, mprotect, uffd-wp, KSM, mkclean)."""
        return pte & (RW | self.ARM)

    def pte_dirty(self, pte: E) -> E:
        """D, or SAVED_DIRTY where the profile has it."""
        return pte & self.DIRTY_BITS

    def pte_soft_dirty(self, pte: E) -> E:
        """The seed commit's pte_soft_dirty."""
        return pte & self.SOFT_DIRTY

    def pmd_soft_dirty(self, pmd: E) -> E:
        """The seed commit's pmd_soft_dirty."""
        return pmd & self.SOFT_DIRTY

    # Changes of a present entry.

    def _save_dirty(self, pte: E) -> E:
        """6.12's pte_mksaveddirty: D of a read-only entry moves to SAVED_DIRTY."""
        if not self.SAVED_DIRTY:
            return pte
        read_only = (pte >> _RW_BIT & 1) ^ 1
        moved = (pte >> _D_BIT) & read_only
        return (pte | moved << _SAVED_BIT) & ((moved << _D_BIT) ^ ALL)

    def _unsave_dirty(self, pte: E) -> E:
        """6.12's pte_clear_saveddirty: SAVED_DIRTY of a writable entry moves back to D."""
        if not self.SAVED_DIRTY:
            return pte
        moved = (pte >> _SAVED_BIT) & (pte >> _RW_BIT) & 1
        return (pte | moved << _D_BIT) & ((moved << _SAVED_BIT) ^ ALL)

    def pte_mkdirty(self, pte: E) -> E:
        """D and soft-dirty (the seed commit's hunk)."""
        return self._save_dirty(pte | (D | self.SOFT_DIRTY))

    def pmd_mkdirty(self, pmd: E) -> E:
        """D and soft-dirty (the seed commit's hunk)."""
        return self.pte_mkdirty(pmd)

    def pte_mkclean(self, pte: E) -> E:
        """D off, soft-dirty stays."""
        return pte & (ALL ^ self.DIRTY_BITS)

    @staticmethod
    def pte_mkyoung(pte: E) -> E:
        """A on."""
        return pte | A

    @staticmethod
    def pte_mkold(pte: E) -> E:
        """A off."""
        return pte & (ALL ^ A)

    def pte_mkwrite(self, pte: E) -> E:
        """RW on; what ARM promised is done."""
        return self._unsave_dirty((pte | RW) & (ALL ^ self.ARM))

    def pte_wrprotect(self, pte: E) -> E:
        """RW off, and ARM with it."""
        return self._save_dirty(pte & (ALL ^ (RW | self.ARM)))

    def pte_mksoft_dirty(self, pte: E) -> E:
        """The seed commit's pte_mksoft_dirty."""
        return pte | self.SOFT_DIRTY

    def pmd_mksoft_dirty(self, pmd: E) -> E:
        """The seed commit's pmd_mksoft_dirty."""
        return pmd | self.SOFT_DIRTY

    def pte_clear_soft_dirty(self, pte: E) -> E:
        """Soft-dirty off."""
        return pte & (ALL ^ self.SOFT_DIRTY)

    @staticmethod
    def pte_mkspecial(pte: E) -> E:
        """No struct page."""
        return pte | SPECIAL

    @property
    def uffd_wp_protects(self) -> bool:
        """Write-protection by userfaultfd takes the right to write from the entry as well."""
        return self.profile.pte_uffd_wp_protects

    def pte_mkuffd_wp(self, pte: E) -> E:
        """Write-protected by userfaultfd; later kernels clear RW in the same helper."""
        return self.pte_wrprotect(pte | UFFD_WP) if self.uffd_wp_protects else pte | UFFD_WP

    @staticmethod
    def pte_clear_uffd_wp(pte: E) -> E:
        """No longer write-protected by userfaultfd."""
        return pte & (ALL ^ UFFD_WP)

    # Frames and protection.

    def pte_pfn(self, pte: E, level: int = 1) -> E:
        """Frame number; a PROT_NONE entry's is complemented where the profile does so."""
        field = FRAME_AT[level]
        if self.inverts_prot_none:
            if isinstance(pte, int):
                if not pte & P:
                    pte ^= field
            else:
                pte = pte ^ np.where(pte & np.uint64(P), np.uint64(0), np.uint64(field))
        return (pte & field) >> FRAME_LOW

    def vm_normal_page(self, pte: int) -> int:
        """Frame of a present entry that has a struct page; 0 for the zero page."""
        return 0 if pte & SPECIAL else self.pte_pfn(pte)

    def pfn_pte(self, pfn: int, prot: int, level: int = 1) -> int:
        """The entry for frame `pfn` with protection `prot`."""
        field = (pfn << FRAME_LOW) & FRAME
        if self.inverts_prot_none and prot and not prot & P:
            field ^= FRAME_AT[level]
        return self._save_dirty(field | prot)

    def pte_modify(self, pte: E, prot: int, level: int = 1) -> E:
        """New protection; what _PAGE_CHG_MASK names (and PS of a huge entry) stays (flip_protnone_guard included)."""
        keep = self.keep | (PSE if level > 1 else 0)
        new = pte & keep | prot & (ALL ^ keep)
        if self.inverts_prot_none:
            field = FRAME_AT[level]
            new_inverted = bool(prot and not prot & P)
            if isinstance(pte, int):
                if (not pte & P) != new_inverted:
                    new ^= field
            else:
                flips = ((pte & np.uint64(P)) == 0) != new_inverted
                new = new ^ np.where(flips, np.uint64(field), np.uint64(0))
        return self._unsave_dirty(self._save_dirty(new))

    def vm_page_prot(self, flags: int) -> int:
        """Protection of an area's pages (arch/x86/mm/pgprot.c:protection_map, vm_get_page_prot)."""
        prot: int
        if not flags & (VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC):
            prot = PROTNONE | A
        else:
            prot = P | US | A
            if flags & VmFlag.WRITE and flags & VmFlag.SHARED:
                prot |= RW
            if not flags & VmFlag.EXEC:
                prot |= NX
        key = flags >> VmFlag.PKEY_LOW & (1 << PKEY_BITS) - 1
        return prot | key << PKEY_LOW

    # Swap-like entries (arch/x86/include/asm/pgtable_64.h).

    def swp_entry_to_pte(self, kind: int, offset: int) -> int:
        """The entry of swap type `kind`, slot `offset`."""
        swap = self.swap_layout
        field = offset ^ self._offset_mask if swap.inverted else offset
        return (field & self._offset_mask) << swap.offset_low | kind << swap.type_low

    def swp_offset(self, pte: E) -> E:
        """Slot of a swap-like entry."""
        swap = self.swap_layout
        field = pte >> swap.offset_low & self._offset_mask
        return field ^ self._offset_mask if swap.inverted else field

    def swp_type(self, pte: E) -> E:
        """Type of a swap-like entry."""
        return pte >> self.swap_layout.type_low & self._type_mask

    def pte_to_swp_entry(self, pte: int) -> tuple[int, int]:
        """(type, slot) of a swap-like entry."""
        return self.swp_type(pte), self.swp_offset(pte)

    def pte_swp_soft_dirty(self, pte: E) -> E:
        """Soft-dirty of a swap-like entry."""
        return pte & self.SWP_SOFT_DIRTY

    def pte_swp_mksoft_dirty(self, pte: E) -> E:
        """Soft-dirty on, of a swap-like entry.

        Without a bit of its own there the mark sets bit 2 of the slot's number: rule A30 of linux-seed.
        """
        return pte | (self.SOFT_DIRTY if self.swap_layout.soft_dirty is None else self.SWP_SOFT_DIRTY)

    def is_marker(self, pte: int) -> bool:
        """A PTE marker?"""
        return bool(pte) and not self.pte_present(pte) and self.swp_type(pte) == self.swap_layout.marker_type

    def make_uffd_marker(self) -> int:
        """The marker of a write-protected empty entry of a file mapping."""
        marker = self.swap_layout.marker_type
        if marker is None:
            raise ValueError(f"profile {self.profile.name!r} has no PTE markers")
        return self.swp_entry_to_pte(marker, PteMarker.UFFD_WP)

    def make_guard_marker(self) -> int:
        """The marker of a guard region."""
        return self.swp_entry_to_pte(self.swap_layout.marker_type or 0, PteMarker.GUARD)

    def is_guard(self, pte: int) -> bool:
        """The marker of a guard region?"""
        return self.is_marker(pte) and bool(self.swp_offset(pte) & PteMarker.GUARD)
