"""Pages of hugetlb: pools of one size, and what mappings set aside of them (mm/hugetlb.c)."""

from __future__ import annotations


class Reservation:
    """Pool pages set aside for a mapping (struct resv_map).

    Parameters
    ----------
    unused : set of int
        File offsets whose page was not used yet.
    """

    def __init__(self, unused: set[int]) -> None:
        self.unused = unused


class Pool:
    """The reserved pages of one size.

    Parameters
    ----------
    total : int
        Pages in the pool.

    Attributes
    ----------
    used, reserved : int
        Pages in use, and set aside beside them.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self.reserved = 0

    def free(self) -> int:
        """Pages that are neither in use nor set aside."""
        return self.total - self.used - self.reserved

    def take(self, reservation: Reservation | None, offset: int) -> bool:
        """Use one page, that of an area's reservation when it has one left for `offset`; False when there is none."""
        if reservation and offset in reservation.unused:
            reservation.unused.discard(offset)
            self.reserved -= 1
        elif self.free() <= 0:
            return False
        self.used += 1
        return True

    def give_back(self) -> None:
        """One page is free again."""
        self.used -= 1
