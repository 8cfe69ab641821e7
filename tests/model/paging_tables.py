"""Page tables of one page each for a walk, and the bits of entries, typed from the manual."""

from __future__ import annotations

from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import (
    Request,
    Result,
    State,
    translate,
)
from ptewalk.model.x86 import Access

READ, WRITE, RMW, FETCH, PROBE = Access.READ, Access.WRITE, Access.RMW, Access.FETCH, Access.PROBE
WP, NXE, SMEP, SMAP, PKE, PKS, LA57 = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x80
P, RW, US, A, D, PS = 0x1, 0x2, 0x4, 0x20, 0x40, 0x80
# One address per size; 4-level indexes 1, 2, 3, 4 and byte offset 0x678.
LINEAR = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x678
ROOT, PDPT, PD, PT, PML4 = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT = 0x1008, 0x2010, 0x3018, 0x4020
PAGE = 0x12_3456_7000
ALL = P | RW | US


class LoggedMemory(SparseMemory):
    """Notes each operation; `meddle` maps an operation's number to (address, value) stored just before it."""

    def __init__(self, meddle: dict[int, tuple[int, int]] | None = None) -> None:
        super().__init__(40)
        self.log: list[tuple[str, int]] = []
        self.meddle = meddle or {}

    def load(self, address: int) -> int:
        self._note("load", address)
        return super().load(address)

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        self._note("swap", address)
        return super().compare_exchange(address, old, new)

    def _note(self, what: str, address: int) -> None:
        if len(self.log) in self.meddle:
            self.store(*self.meddle[len(self.log)])
        self.log.append((what, address))


def tables(leaf: int, upper: int = ALL | A, *, memory: SparseMemory | None = None) -> SparseMemory:
    """Four levels that lead to the PTE `leaf`."""
    memory = memory or LoggedMemory()
    memory.store(PML4E_AT, PDPT | upper)
    memory.store(PDPTE_AT, PD | upper)
    memory.store(PDE_AT, PT | upper)
    memory.store(PTE_AT, leaf)
    return memory


def run(memory: SparseMemory, access: Access = READ, control: int = NXE, **more: object) -> Result:
    """Translate LINEAR; `more` are fields of State or Request, and eager."""
    eager = bool(more.pop("eager", True))
    names = {"user", "implicit", "ac"}
    request = Request(LINEAR, access, **{name: more.pop(name) for name in names & more.keys()})  # type: ignore[arg-type]
    return translate(memory, State(ROOT, control, **more), request, eager=eager)  # type: ignore[arg-type]
