"""Registers from a host: bytes on a serial line, typed by hand, and a mapped file."""

from pathlib import Path

import pytest

from ptewalk.cosim.driver.lines import MappedRegisters, UartBone, UartRegisters
from ptewalk.cosim.driver.steps import DriverError, run
from ptewalk.cosim.driver.unit import Unit
from ptewalk.rtl.registers.map import BY_NAME


class Line:
    """A serial port whose other end answers what it was given, in pieces."""

    def __init__(self, answer: bytes = b"", piece: int = 3) -> None:
        self.sent = b""
        self._answer, self._piece = answer, piece

    def write(self, data: bytes) -> None:
        self.sent += data

    def read(self, size: int) -> bytes:
        size = min(size, self._piece)
        data, self._answer = self._answer[:size], self._answer[size:]
        return data


def test_bytes_of_uartbone() -> None:
    """As LiteX's client writes them: command, length, word address, words, big-endian."""
    line = Line(bytes.fromhex("0102030480000001"))
    bone = UartBone(line)
    bone.write(0x8000_002C, 5)
    assert line.sent == bytes.fromhex("01 01 2000000b 00000005")
    assert bone.read(0x8000_0000, 2) == [0x0102_0304, 0x8000_0001]
    assert line.sent[10:] == bytes.fromhex("02 02 20000000")
    bone.write(8, 1, 0xFFFF_FFFF)
    assert line.sent[16:] == bytes.fromhex("01 02 00000002 00000001 ffffffff")


def test_a_unit_on_a_line() -> None:
    line = Line(bytes.fromhex("57455450 00010000 00000001 00000528 00000000 00000000 00000000"))
    unit = run(UartRegisters(line, 0x8000_0000), Unit.open())
    assert (unit.built["physical_bits"], unit.built["levels"], unit.built["soft_dirty"]) == (40, 5, 1)
    assert line.sent[:12] == bytes.fromhex("02 01 20000000 02 01 20000001")


def test_what_a_line_refuses() -> None:
    with pytest.raises(DriverError, match="read of 0x10: 3 bytes of 4, then silence"):
        UartBone(Line(b"abc")).read(0x10)
    with pytest.raises(ValueError, match="a multiple of 4 below 2"):
        UartBone(Line()).write(2, 0)
    with pytest.raises(ValueError, match="1 to 255 words, not 256"):
        UartBone(Line()).read(0, 256)


def test_mapped(tmp_path: Path) -> None:
    """A file of two pages: the second is the registers."""
    path = tmp_path / "registers"
    path.write_bytes(bytes(4096) + b"PTEW" + (1 << 16).to_bytes(4, "little") + bytes(4088))
    with MappedRegisters(path, 4096) as bus:
        unit = run(bus, Unit.open())
        bus.wait()
        assert unit.built["engine"] == 0
        run(bus, unit.enable_interrupts("fault"))
    assert path.read_bytes()[4096 + BY_NAME["IRQ_MASK"].offset] == 1
