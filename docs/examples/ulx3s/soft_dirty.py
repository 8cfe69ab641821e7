"""Which pages were written? Asked of a unit on an ULX3S, over its serial line: python soft_dirty.py /dev/ttyUSB0

It maps eight pages, stores into some of them through the MMU, clears soft-dirty, stores into two others, and reads
pagemap. Nobody but the MMU sets a mark. A unit with a table engine clears and reads pagemap by its commands.
"""

from __future__ import annotations

import os
import sys
import termios

from ptewalk.cosim.driver.lines import UartRegisters
from ptewalk.cosim.driver.steps import Steps, run
from ptewalk.cosim.driver.tables import AddressSpace
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.linux import PagemapBit, Track
from ptewalk.model.x86 import PAGE_BYTES
from ptewalk.rtl.board.top import REGISTERS_AT

BASE = 0x7F00_0000_0000
PAGES = 8
WORDS = range(0x7000, 0x8000)
"""Where the engine writes pagemap words."""
FIRST_DATA = 0x8000
"""Frames 1 to 6 are for tables, 8 to 15 for data."""
BEFORE, AFTER = (0, 1, 2, 5), (2, 6)
"""Pages that are stored to before the clear and after it."""


def program(*, zeroed: bool = False) -> Steps[tuple[list[int], list[int], dict[str, int], bool]]:
    """The steps; gives the pages that are dirty before and after the clear, the unit's counters, and whether there is
    a table engine.

    Parameters
    ----------
    zeroed : bool
        The memory is all 0: as after configuration.
    """
    unit = yield from Unit.open()
    frames = iter(range(PAGE_BYTES, WORDS.start, PAGE_BYTES))
    space = AddressSpace(unit, frames, zeroed=zeroed, track=Track.NATIVE, room=WORDS)
    yield from space.create()
    for page in range(PAGES):
        yield from space.map(BASE + page * PAGE_BYTES, FIRST_DATA + page * PAGE_BYTES)
    yield from space.enter()
    yield from unit.counters(clear=True)
    found = []
    for pages in (BEFORE, AFTER):
        for page in pages:
            yield from unit.store(BASE + page * PAGE_BYTES + 8 * page, page)
        words = yield from space.pagemap(BASE, PAGES)
        found.append([page for page, word in enumerate(words) if word >> PagemapBit.SOFT_DIRTY & 1])
        yield from space.clear(BASE, PAGES)
    counters = yield from unit.counters()
    return found[0], found[1], counters, bool(unit.built["engine"])


class SerialPort:
    """A serial device of the host at 1 Mbaud; a read gives up after a second."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_NOCTTY)
        mode = termios.tcgetattr(self._file)
        mode[0] = mode[1] = mode[3] = 0
        mode[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
        mode[4] = mode[5] = termios.B1000000
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 0, 10
        termios.tcsetattr(self._file, termios.TCSAFLUSH, mode)

    def write(self, data: bytes) -> None:
        os.write(self._file, data)

    def read(self, size: int) -> bytes:
        return os.read(self._file, size)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: soft_dirty.py DEVICE, such as /dev/ttyUSB0")
    before, after, counters, engine = run(UartRegisters(SerialPort(sys.argv[1]), REGISTERS_AT), program())
    print(f"dirty before the clear: {before}; after it: {after}")
    print(f"cleared and told by {'the table engine' if engine else 'reads and swaps of entries'}")
    print(f"marks: {counters['marks']}, TLB hits: {counters['hits']}")


if __name__ == "__main__":
    main()
