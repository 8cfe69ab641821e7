"""Which pages did a LiteX SoC's master write? Asked over its UARTBone: python host.py /dev/ttyUSB0

It maps pages for the SoC's bus, stores through the bridge, clears soft-dirty, stores elsewhere, and reads pagemap.
Nobody but the MMU sets a mark.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, Protocol

from ptewalk.cosim.driver.lines import Port, UartBone, UartRegisters
from ptewalk.cosim.driver.steps import run
from ptewalk.cosim.driver.tables import AddressSpace
from ptewalk.cosim.driver.unit import BridgeFault, Unit
from ptewalk.model.linux import PagemapBit, Track
from ptewalk.model.x86 import PAGE_BYTES

LINEAR, REGISTERS = 0x4000_0000, 0x8000_0000
"""As in soc.py."""
SCRATCH, TABLES, DATA = 0, 0x1000, 0x8000
"""Frame 0 is for the self-test, frames 1 to 7 are for tables, 8 to 15 for data."""
PAGES, READ_ONLY = 8, 7
BEFORE, AFTER = (0, 1, 5), (2, 5)
"""Pages that are stored to before the clear and after it."""


class Found(NamedTuple):
    """What the program saw: dirty pages, what is in memory, and the store that was refused."""

    before: list[int]
    after: list[int]
    words: list[int]
    fault: BridgeFault | None


def program(port: Port) -> Found:
    """All of it, over a serial port."""
    bone, registers = UartBone(port), UartRegisters(port, REGISTERS)
    unit = run(registers, Unit.open(scratch=SCRATCH))
    space = AddressSpace(unit, iter(range(TABLES, DATA, PAGE_BYTES)), zeroed=True, levels=4, track=Track.NATIVE)
    run(registers, space.create())
    for page in range(PAGES):
        steps = space.map(LINEAR + page * PAGE_BYTES, DATA + page * PAGE_BYTES, write=page != READ_ONLY)
        run(registers, steps)
    run(registers, space.enter())
    run(registers, unit.bridge())
    found = []
    for pages in (BEFORE, AFTER):
        for page in pages:
            bone.write(LINEAR + page * PAGE_BYTES + 4 * page, 0x100 + page)
        words = run(registers, space.pagemap(LINEAR, PAGES))
        found.append([page for page, word in enumerate(words) if word >> PagemapBit.SOFT_DIRTY & 1])
        run(registers, space.clear(LINEAR, PAGES))
    bone.write(LINEAR + READ_ONLY * PAGE_BYTES, 0x666)
    fault = run(registers, unit.pop_bridge_fault())
    stored = [bone.read(DATA + page * PAGE_BYTES + 4 * page)[0] for page in range(PAGES)]
    return Found(found[0], found[1], stored, fault)


class LitexClient(Protocol):
    """LiteX's own client: CommUART, or RemoteClient of a litex_server."""

    def read(self, addr: int) -> int:
        """A word."""

    def write(self, addr: int, data: int) -> Any:
        """Write one."""


def with_litex(client: LitexClient) -> tuple[int, int]:
    """The unit's ID and a word behind the bridge, by LiteX's own client, once the program has run."""
    client.write(LINEAR + 0x20, 0x1234_5678)
    return client.read(REGISTERS), client.read(DATA + 0x20)


def main() -> None:
    from serial import Serial

    if len(sys.argv) != 2:
        sys.exit("usage: host.py DEVICE, such as /dev/ttyUSB0")
    found = program(Serial(sys.argv[1], 115_200, timeout=1))
    print(f"dirty before the clear: {found.before}; after it: {found.after}")
    print(f"refused: {found.fault}")


if __name__ == "__main__":
    main()
