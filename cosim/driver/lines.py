"""Registers from a host: by a serial line that speaks LiteX's UARTBone, or mapped into memory."""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from typing import Final, Protocol

from ptewalk.cosim.driver.steps import DriverError
from ptewalk.rtl.registers.table import BYTES

__all__ = ["MappedRegisters", "Port", "UartBone", "UartRegisters"]

WRITE: Final = 1
READ: Final = 2
"""Commands of UARTBone: words from an address on."""
PAUSE: Final = 0.001
"""Seconds of a wait."""


class Port(Protocol):
    """A serial port, as that of pyserial: with a timeout, or a read never gives up."""

    def write(self, data: bytes, /) -> object:
        """Send bytes."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer when the time is up."""


class UartBone:
    """Words of 32 bits on a bus behind LiteX's UARTBone.

    A message is command, number of words, and the address in words; then the words written. All numbers are big-endian.

    Parameters
    ----------
    port : Port
    """

    def __init__(self, port: Port) -> None:
        self._port = port

    def read(self, address: int, words: int = 1) -> list[int]:
        """The `words`, 1 to 255, at a byte address; DriverError when the line is silent."""
        self._port.write(self._head(READ, address, words))
        data = b""
        while len(data) < 4 * words:
            more = self._port.read(4 * words - len(data))
            if not more:
                raise DriverError(f"read of {address:#x}: {len(data)} bytes of {4 * words}, then silence")
            data += more
        return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]

    def write(self, address: int, *words: int) -> None:
        """Write 1 to 255 words from a byte address on."""
        data = b"".join(word.to_bytes(4, "big") for word in words)
        self._port.write(self._head(WRITE, address, len(words)) + data)

    @staticmethod
    def _head(command: int, address: int, words: int) -> bytes:
        if address % 4 or not 0 <= address < 1 << 32:
            raise ValueError(f"an address must be a multiple of 4 below 2**32, not {address:#x}")
        if not 1 <= words <= 255:
            raise ValueError(f"a message has 1 to 255 words, not {words}")
        return bytes((command, words)) + (address >> 2).to_bytes(4, "big")


class UartRegisters:
    """A `Bus` over a serial line; what takes time takes longer than the line's own.

    Parameters
    ----------
    port : Port
    base : int
        Byte address of the registers on the bus behind it.
    """

    def __init__(self, port: Port, base: int) -> None:
        self._bone, self._base = UartBone(port), base

    def read(self, offset: int) -> int:
        return self._bone.read(self._base + offset)[0]

    def write(self, offset: int, value: int) -> None:
        self._bone.write(self._base + offset, value)

    def wait(self) -> None:
        """The next read lets enough time pass."""


class MappedRegisters:
    """A `Bus` on registers that a host can map: /dev/mem, a uio device, or a plain file for a test.

    Parameters
    ----------
    path : Path
    offset : int
        Of the registers in it, a multiple of the page size; default 0.

    It is a context manager. Each access is one of 32 bits in the host's byte order, which must be little-endian.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), BYTES, offset=offset)
        self._words = memoryview(self._map).cast("I")

    def read(self, offset: int) -> int:
        return self._words[offset >> 2]

    def write(self, offset: int, value: int) -> None:
        self._words[offset >> 2] = value

    def wait(self) -> None:
        time.sleep(PAUSE)

    def close(self) -> None:
        """Unmap them."""
        self._words.release()
        self._map.close()

    def __enter__(self) -> MappedRegisters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
