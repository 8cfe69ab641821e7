"""The heap: brk, by the rules of do_brk_flags."""

from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import VmFlag
from ptewalk.model.profiles import PROFILES
from ptewalk.model.x86 import Access

BSS, START = 0x600, 0x604


def machine() -> tuple[Kernel, object]:
    """A process with four pages of bss right below its heap."""
    kernel = Kernel(PROFILES["linux-6.1"])
    process = kernel.processes[0]
    kernel.mmap(process, BSS, START - BSS, "rw", "anon", 0, [])
    process.mm.start_brk = process.mm.brk = START
    return kernel, process


def areas(process) -> list[tuple[int, int]]:
    return [(vma.start, vma.end) for vma in process.mm.areas]


def test_the_first_growth_is_an_area_of_its_own_and_the_next_expands_it() -> None:
    kernel, process = machine()
    assert kernel.brk(process, START + 2) == START + 2
    assert areas(process) == [(BSS, START), (START, START + 2)]
    kernel.clear_refs(0, "4")
    assert kernel.brk(process, START + 5) == START + 5
    assert areas(process) == [(BSS, START), (START, START + 5)]
    assert process.mm.areas.lookup(START).flags & VmFlag.SOFTDIRTY
    assert not process.mm.areas.lookup(BSS).flags & VmFlag.SOFTDIRTY


def test_it_shrinks_and_keeps_what_is_below() -> None:
    kernel, process = machine()
    kernel.brk(process, START + 4)
    assert kernel.touch_pages(process, [START, START + 3], Access.WRITE, 7) == ["ok", "ok"]
    assert kernel.brk(process, START + 1) == START + 1
    assert areas(process)[-1] == (START, START + 1)
    assert kernel.touch_pages(process, [START], Access.READ) == [7]
    assert kernel.brk(process, START + 4) == START + 4
    assert kernel.touch_pages(process, [START + 3], Access.READ) == [0]
    assert kernel.brk(process, START) == START
    assert areas(process) == [(BSS, START)]


def test_where_there_is_no_room_it_stays() -> None:
    kernel, process = machine()
    kernel.mmap(process, START + 3, 1, "r", "anon", 0, [])
    assert kernel.brk(process, START + 4) == START
    assert kernel.brk(process, START - 1) == START
    assert kernel.brk(process, START + 3) == START + 3


def test_a_stack_above_it_keeps_its_gap() -> None:
    kernel, process = machine()
    kernel.mmap(process, START + 300, 1, "rw", "anon", 0, ["growsdown"])
    assert kernel.brk(process, START + 45) == START
    assert kernel.brk(process, START + 44) == START + 44
