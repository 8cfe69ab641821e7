"""What no rule determines: the choices of a recorded kernel, taken from its recording.

A kernel may take any free swap slot, may or may not have a huge page at hand, and may give a frame that was just freed
to whatever comes next; linux-6.18 and later read a number of a page table that nobody set; the LRU batches are emptied
when a page is written that is on no list yet, which goes by all that the machine allocates; and ksmd leaves out pages
that it scanned in vain. A replay does as the recording shows, in these six things and in nothing else; without a
recording there are no choices, and the model makes its own. Besides, some recordings of 3.11 do not say which of two
kernels answered, and that is told from what they show. The recorded state is the `state` of a step in
docs/scenario-format.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

State = Mapping[str, Any]
"""Process, as text, to what was recorded of it."""
_SWAPPED_FIELDS = 9
"""Fields of a run of `pages` that tells its swap slots."""
_BLOCK_SHIFT = 9
"""log2 of the pages that a page table maps."""


class Choices:
    """The choices that a recording shows, step by step."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._before: State | None = None
        self._slots: dict[tuple[int, int], tuple[int, int]] | None = None
        self._refused: set[tuple[int, int]] | None = None
        self._counted: dict[int, bool] = {}

    def take(self, state: State | None) -> None:
        """Those of the next step.

        Parameters
        ----------
        state : mapping or None
            What was recorded after it; None: nothing was.
        """
        self._before, self._state = self._state, state
        self._slots = self._refused = None

    @property
    def known(self) -> bool:
        """Is there a recording to take them from?"""
        return self._state is not None

    def slots(self, places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The swap slots, (type, offset), that the recording shows at some of the (process, page of the window)."""
        if self._slots is None:  # few steps ask
            self._slots = {
                (int(who), run[0] + j): (run[6], run[7] + j * run[8])
                for who, seen in (self._state or {}).items()
                for run in seen.get("pages") or ()
                if len(run) == _SWAPPED_FIELDS
                for j in range(run[1])
            }
        return [self._slots[place] for place in places if place in self._slots]

    def huge_page_to_be_had(self, who: int, page: int) -> bool:
        """Can there be a huge page at a page of the window? Where the recording shows small entries there was none."""
        if self._refused is None:
            self._refused = {
                (int(who), run[0] >> _BLOCK_SHIFT)
                for who, seen in (self._state or {}).items()
                for run in seen.get("ptes") or ()
                if run[2] == 1
            }
        return (who, page >> _BLOCK_SHIFT) not in self._refused

    def frame(self, who: int, page: int) -> int | None:
        """The number of the frame that the recording shows at a page of the window."""
        return _frame(self._seen(who, "pages"), page)

    def keeps_frame(self, who: int, page: int) -> bool:
        """Does the recording show the same frame at a page of the window as after the step before?"""
        frame = self.frame(who, page)
        return frame is not None and frame == _frame(_of(self._before, who, "pages"), page)

    def letters(self, who: int, page: int) -> str | None:
        """The letters that the recording shows of a page of the window in pagemap; None: it shows no pagemap."""
        runs = ((self._state or {}).get(str(who)) or {}).get("pages")
        if runs is None:
            return None
        return next((str(run[2]) for run in runs if run[0] <= page < run[0] + run[1]), "")

    def counted(self, table: int, shown: bool | None) -> bool:
        """Is a table, named by its frame, counted as shared though it is not?

        It stays what the recording showed first, for as long as the table lives.

        Parameters
        ----------
        shown : bool or None
            What the recording shows of this step; None: nothing.
        """
        return self._counted.get(table, False) if shown is None else self._counted.setdefault(table, shown)

    def tables(self, who: int) -> dict[tuple[int, int], int]:
        """(level, first page) of an entry to the number of the table that the recording shows below it."""
        return {(row[0], row[1]): row[3] for row in self._seen(who, "tables")}

    def _seen(self, who: int, key: str) -> list[list[Any]]:
        return _of(self._state, who, key)


def _of(state: State | None, who: int, key: str) -> list[list[Any]]:
    return ((state or {}).get(str(who)) or {}).get(key) or []


def _frame(runs: list[list[Any]], page: int) -> int | None:
    for run in runs:
        if run[0] <= page < run[0] + run[1]:
            return None if run[4] is None else int(run[4] + (page - run[0]) * run[5])
    return None


def keeps_first_layout(steps: Iterable[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> bool:
    """Was this recorded on the seed commit alone, whose pagemap never changes its layout?

    Told by entries of the first layout behind a clear_refs 4. No file says which commits a kernel has.

    Parameters
    ----------
    steps : iterable of (operation, what was recorded or None)
    """
    cleared = False
    for op, recorded in steps:
        answer = recorded or {}
        cleared = cleared or (op["op"] == "clear_refs" and op["value"] == "4" and answer.get("ret") == 1)
        for seen in (answer.get("state") or {}).values():
            if cleared and any("1" in run[2] for run in seen.get("pages") or ()):
                return True
    return False
