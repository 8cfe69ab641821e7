"""The MMU as the operating system's model sees it: requests in, results out.

`Mmu` is what every memory-management unit offers; `ModelMmu` is the golden one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, Result, State, Translated, translate


class Mmu(Protocol):
    """A memory-management unit over a physical memory that software also reads and writes."""

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """Translate `requests` in order.

        Parameters
        ----------
        state : State
            Control state, the same for all of them.
        requests : sequence of Request
            The accesses.

        Returns
        -------
        list of Result
            One result for each request up to the first that is not `Translated`, which is the last of the list; the
            requests after it were not begun.
        """

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """Forget what is cached of an address space: of the page of `linear`, or when None all of it.

        `pcid` says which address space: `State.pcid` of its accesses. INVLPG does the first for the one that runs,
        INVPCID 0 for any, and INVPCID 1 the second. What leads to the page is forgotten too, upper entries of other
        pages among it. To be called after an entry was made to allow less. When it returns, no later request uses what
        was forgotten.
        """


class ModelMmu:
    """The golden MMU: each request is one walk by `translate`, and nothing is cached.

    Parameters
    ----------
    memory : SparseMemory
        The tables, and the width of a physical address.
    eager : bool
        When A is set in entries above the leaf; see `translate`.
    """

    def __init__(self, memory: SparseMemory, *, eager: bool = True) -> None:
        self.memory = memory
        self.eager = eager

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`. Raises ValueError when the root lies beyond the memory's physical addresses."""
        results: list[Result] = []
        for request in requests:
            result = translate(self.memory, state, request, eager=self.eager)
            results.append(result)
            if not isinstance(result, Translated):
                break
        return results

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """As `Mmu.invalidate`: nothing is cached here, so nothing is forgotten."""
