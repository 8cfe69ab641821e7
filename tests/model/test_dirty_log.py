"""The golden log: its records typed by hand, and what a mark does that finds no room."""

from __future__ import annotations

import pytest

from ptewalk.model.dirty_log import COUNTS, DirtyLog, LogFull, LoggingMmu, record_of
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, Translated
from ptewalk.model.x86 import Access, Control

LINEAR = 0xFFFF_8000_0020_1234
SD = 1 << 11


def test_a_record_and_its_place() -> None:
    log = DirtyLog(0x9000)
    assert log.mark(LINEAR, 1, pcid=0xABC, epoch=1)
    # Bits 56:12 of the address; PCID 0xABC is 0b101010_111100; epoch is bit 63; phase 1, level 1.
    word = 1 << 63 | 0b101010 << 57 | 0x1FF_8000_0020_1000 | 0b111100 << 6 | 1 << 1 | 1
    assert log.written == {0x9000: word}
    assert record_of(word) == (0x1FF_8000_0020_1, 1, 0xABC, 1, False, 1)


def test_the_second_round_has_the_other_phase() -> None:
    log = DirtyLog(0x9000)
    for number in range(514):
        log.head = log.tail
        log.mark(number << 12, 1)
    assert log.order[511:] == [0x9000 + 8 * 511, 0x9000, 0x9008]
    assert [log.written[at] & 1 for at in (0x9000 + 8 * 511, 0x9000)] == [1, 0]


def test_a_full_ring() -> None:
    log = DirtyLog(0x9000, head=COUNTS - 511)
    log.mark(0x1000, 1)
    with pytest.raises(LogFull):
        log.mark(0x2000, 1)
    log.waits = False
    assert not log.mark(0x3000, 1) and log.lost == [0x3000]
    log.head = 0
    assert log.mark(0x4000, 1) and len(log.written) == 2


def test_a_buffer() -> None:
    log = DirtyLog(0x9000, pml=True, index=1)
    log.mark(LINEAR, 2)
    log.mark(0x5FFF, 1)
    assert log.index == 0xFFFF and log.written == {0x9008: 0xFFFF_8000_0020_1000, 0x9000: 0x5000}
    with pytest.raises(LogFull):
        log.mark(0x1000, 1)


def test_an_access_that_finds_no_room_is_not_made() -> None:
    """Nothing is written of its leaf; with room it is marked once."""
    memory = SparseMemory()
    for address, entry in ((0x1800, 0x2067), (0x2000, 0x3067), (0x3008, 0x4067), (0x4008, 0x5067)):
        memory.store(address, entry)
    mmu = LoggingMmu(memory, DirtyLog(0x9000, pml=True, index=0xFFFF))
    state = State(0x1000, control=1 << Control.WP, track=Track.NATIVE, pcid=3)
    request = Request(LINEAR, Access.WRITE, user=True)
    with pytest.raises(LogFull):
        mmu.run(state, [request])
    assert memory.load(0x4008) == 0x5067
    mmu.log.index = 7
    assert isinstance(mmu.run(state, [request, request])[1], Translated)
    assert memory.load(0x4008) == 0x5067 | SD and mmu.log.written == {0x9038: LINEAR & ~0xFFF}


def test_a_size_that_is_none() -> None:
    with pytest.raises(ValueError, match="512 to 262144"):
        DirtyLog(0x9000, size=1000)
