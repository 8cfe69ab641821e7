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
    on_node : sequence of int
        Pages that lie free on each memory node.

    Attributes
    ----------
    total, used, reserved : int
        Pages in the pool, in use, and set aside beside them.
    restored : set of int
        Frames in use whose reservation was given back already: they are set aside as soon as they are free.
    """

    def __init__(self, *on_node: int) -> None:
        self.total = sum(on_node)
        self.used = 0
        self.reserved = 0
        self.restored: set[int] = set()
        self._on_node = list(on_node)

    def free(self) -> int:
        """Pages that are neither in use nor set aside."""
        return self.total - self.used - self.reserved

    def take(self, reservation: Reservation | None, offset: int) -> int | None:
        """Use one page, that of an area's reservation when it has one left for `offset`.

        Returns
        -------
        int or None
            The node that it lies on, the nearest that has one; None: there is no page.
        """
        has_reserve = reservation is not None and offset in reservation.unused
        if self.used == self.total or (not has_reserve and self.free() <= 0):
            return None
        if reservation is not None and has_reserve:
            reservation.unused.discard(offset)
            self.reserved -= 1
        self.used += 1
        node = next(node for node, pages in enumerate(self._on_node) if pages)
        self._on_node[node] -= 1
        return node

    def give_back(self, frame: int, node: int) -> None:
        """The page at `frame`, which lies on `node`, is free again."""
        self.used -= 1
        self._on_node[node] += 1
        if frame in self.restored:
            self.restored.discard(frame)
            self.reserved += 1

    def migrate(self, old: int, new: int) -> None:
        """A page in use moves from node `old` to node `new`: into a free one there, or one made for it."""
        if self.free() > 0 and self._on_node[new]:
            self._on_node[new] -= 1
            self._on_node[old] += 1
