"""The golden MMU: requests in order, ended by the first that has no translation."""

from __future__ import annotations

import pytest

from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.paging import GeneralProtection, PageFault, Request, State, Translated
from ptewalk.model.x86 import Access

READ, WRITE = Access.READ, Access.WRITE


def two_pages() -> SparseMemory:
    """Page 0 read-only, page 1 writable, at physical 0xa000 and 0xb000; the root is 0x1000."""
    memory = SparseMemory(40)
    for address, value in (
        (0x1000, 0x2007),
        (0x2000, 0x3007),
        (0x3000, 0x4007),
        (0x4000, 0xA005),
        (0x4008, 0xB007),
    ):
        memory.store(address, value)
    return memory


def test_results_come_in_order() -> None:
    memory = two_pages()
    mmu: Mmu = ModelMmu(memory)
    results = mmu.run(State(0x1000), [Request(0x1234, WRITE), Request(0x8, READ)])
    assert results == [Translated(0xB234, 1, False, False, False), Translated(0xA008, 1, False, False, False)]
    assert memory.load(0x4008) == 0xB067
    assert memory.load(0x4000) == 0xA025


@pytest.mark.parametrize(
    ("linear", "end"), [(0x10, PageFault(7)), (0x2000, PageFault(6)), (1 << 63, GeneralProtection())]
)
def test_first_that_is_not_translated_is_the_last(linear: int, end: PageFault | GeneralProtection) -> None:
    memory = two_pages()
    results = ModelMmu(memory).run(State(0x1000), [Request(0x1000, READ), Request(linear, WRITE), Request(0, READ)])
    assert results == [Translated(0xB000, 1, False, False, False), end]
    assert memory.load(0x4000) == 0xA005, "the third request was not begun"


def test_nothing_asked_nothing_answered() -> None:
    assert ModelMmu(two_pages()).run(State(0x1000), []) == []


def test_a_changed_entry_is_seen_with_and_without_invalidate() -> None:
    memory = two_pages()
    mmu = ModelMmu(memory)
    request = Request(0x1000, WRITE)
    assert isinstance(mmu.run(State(0x1000), [request])[0], Translated)
    memory.store(0x4008, 0)
    assert mmu.run(State(0x1000), [request]) == [PageFault(6)]
    mmu.invalidate(0x1000)
    mmu.invalidate()
    assert mmu.run(State(0x1000), [request]) == [PageFault(6)]


@pytest.mark.parametrize(("eager", "root_entry"), [(True, 0x2027), (False, 0x2007)])
def test_eager_is_handed_on(eager: bool, root_entry: int) -> None:
    memory = two_pages()
    assert ModelMmu(memory, eager=eager).run(State(0x1000), [Request(0, WRITE)]) == [PageFault(7)]
    assert memory.load(0x1000) == root_entry


def test_root_is_checked() -> None:
    with pytest.raises(ValueError, match=r"root must be below 2\*\*40"):
        ModelMmu(two_pages()).run(State(1 << 40), [Request(0, READ)])
