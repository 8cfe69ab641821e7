"""An MMU that keeps translations until it is told to forget them: a double for what real ones, and a TLB, may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import ModelMmu
from ptewalk.model.paging import Request, Result, State, Translated
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, Access


class CachingMmu:
    """Each page that was translated for a kind of access answers the same again, whatever the tables say by then.

    An address space is known by its PCID alone.

    The cache has no end. `hits` counts the answers that came from it.
    """

    def __init__(self, memory: SparseMemory) -> None:
        self._walks = ModelMmu(memory)
        self._known: dict[tuple[int, int, bool, Access, int], Translated] = {}
        self.hits = 0

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`."""
        results: list[Result] = []
        for request in requests:
            key = (request.linear >> PAGE_SHIFT, state.pcid, request.user, request.access, state.pkru)
            known = self._known.get(key)
            if known is not None:
                self.hits += 1
                offset = request.linear & PAGE_BYTES - 1
                results.append(replace(known, physical=known.physical & -PAGE_BYTES | offset))
                continue
            result = self._walks.run(state, [request])[0]
            results.append(result)
            if not isinstance(result, Translated):
                break
            self._known[key] = result
        return results

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """As `Mmu.invalidate`."""
        own = [key for key in self._known if key[1] == pcid]
        gone = [key for key in own if linear is None or key[0] == linear >> PAGE_SHIFT]
        for key in gone:
            del self._known[key]
