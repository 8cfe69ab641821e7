"""Batches in which pages wait to be moved on the LRU lists (mm/swap.c, mm/mlock.c).

A page that waits has a reference more, and a write fault copies a page with a reference too many. What the other
processes of a machine put there is not known; every batch that matters here is filled by a scenario's own operations.
"""

from __future__ import annotations

from enum import Enum

from ptewalk.model.profile import Profile
from ptewalk.model.state import frames as page
from ptewalk.model.state.frames import Frames


class Batch(Enum):
    """What pages wait for."""

    MLOCK = 0
    """A page enters when an area with VM_LOCKED maps it, and when such an area lets go of it."""
    LAZYFREE = 1
    """MADV_FREE"""
    DEACTIVATE = 2
    """MADV_COLD"""
    ACTIVATE = 3
    """get_user_pages found it referenced."""


class LruBatches:
    """The batches of the one processor.

    Parameters
    ----------
    frames : Frames
        Told of every reference (`Frames.waiting`).
    profile : Profile
    """

    def __init__(self, frames: Frames, profile: Profile) -> None:
        self._frames, self._profile = frames, profile
        self._batches: dict[Batch, list[int]] = {batch: [] for batch in Batch}

    def add(self, batch: Batch, frame: int) -> None:
        """A page waits; a full batch is emptied, and so is one with a huge page (folio_batch_add_and_move)."""
        if not self._profile.lru_batch:
            return
        self._batches[batch].append(frame)
        self._frames.enter_batch(frame)
        if len(self._batches[batch]) == self._profile.lru_batch or self._frames.flags[frame] & page.COMPOUND:
            self._empty(batch)

    def deactivate(self, frame: int) -> None:
        """MADV_COLD: generations move any page, the two lists of 6.1 an active one (folio_deactivate)."""
        if self._profile.lru_gen or self._frames.flags[frame] & page.ACTIVE:
            self.add(Batch.DEACTIVATE, frame)

    def mark_accessed(self, frame: int) -> bool:
        """An access of a page; True when it was the second of an inactive one (folio_mark_accessed)."""
        if self._profile.lru_gen or not self._profile.lru_batch:
            return False
        known = int(self._frames.flags[frame])
        self._frames.set_referenced(frame)
        return known & (page.REFERENCED | page.ACTIVE) == page.REFERENCED

    def activate(self, frame: int) -> None:
        """A page is to be active (folio_activate)."""
        self._frames.clear_referenced(frame)
        self.add(Batch.ACTIVATE, frame)

    def drain(self) -> None:
        """lru_add_drain"""
        for batch in Batch:
            self._empty(batch)

    def _empty(self, batch: Batch) -> None:
        frames = self._frames
        for frame in self._batches[batch]:
            frames.leave_batch(frame)
            if batch is Batch.ACTIVATE and frames.flags[frame]:
                frames.set_active(frame)
            elif batch in (Batch.DEACTIVATE, Batch.LAZYFREE):
                frames.deactivate(frame)
        self._batches[batch].clear()
