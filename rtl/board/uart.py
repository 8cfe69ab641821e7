"""A UART: a start bit, eight bits of data from the lowest on, a stop bit; no parity."""

from amaranth.hdl import Cat, Const, Module, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Uart", "check_divider"]

DATA_BITS = 8


def check_divider(divider: object) -> None:
    """Refuse what is no divider: ValueError."""
    if not isinstance(divider, int) or not 4 <= divider <= 65535:
        raise ValueError(f"divider must be an integer from 4 to 65535, not {divider!r}")


class Uart(Component):
    """Bytes on two wires.

    Parameters
    ----------
    divider : int
        Cycles of a bit, 4 to 65535.

    Members
    -------
    rx : In(1), tx : Out(1)
        High while nothing is sent.
    received : Out(stream of 8 bits, always ready)
        A byte whose stop bit is low is dropped.
    sent : In(stream of 8 bits)
    """

    def __init__(self, *, divider: int) -> None:
        check_divider(divider)
        self._divider = divider
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "received": Out(stream.Signature(unsigned(DATA_BITS), always_ready=True)),
                "sent": In(stream.Signature(unsigned(DATA_BITS))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._receive(m)
        self._send(m)
        return m

    def _receive(self, m: Module) -> None:
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        count, left = Signal(range(self._divider)), Signal(range(DATA_BITS + 3))
        bits = Signal(DATA_BITS + 1)  # and the stop bit
        m.d.sync += self.received.valid.eq(0)
        with m.If(left == 0):
            with m.If(~line):
                m.d.sync += [left.eq(DATA_BITS + 2), count.eq(self._divider // 2 - 1)]
        with m.Elif(count != 0):
            m.d.sync += count.eq(count - 1)
        with m.Else():
            m.d.sync += [count.eq(self._divider - 1), left.eq(left - 1), bits.eq(Cat(bits[1:], line))]
            with m.If((left == DATA_BITS + 2) & line):
                m.d.sync += left.eq(0)  # it was no start bit
            with m.Elif(left == 1):
                m.d.sync += [self.received.valid.eq(line), self.received.payload.eq(bits[1:])]

    def _send(self, m: Module) -> None:
        count, left = Signal(range(self._divider)), Signal(range(DATA_BITS + 3))
        bits = Signal(DATA_BITS + 2, init=-1)
        m.d.comb += [self.sent.ready.eq(left == 0), self.tx.eq(bits[0])]
        with m.If(left == 0):
            with m.If(self.sent.valid):
                m.d.sync += [bits.eq(Cat(Const(0, 1), self.sent.payload, Const(1, 1)))]
                m.d.sync += [left.eq(DATA_BITS + 2), count.eq(self._divider - 1)]
        with m.Elif(count != 0):
            m.d.sync += count.eq(count - 1)
        with m.Else():
            m.d.sync += [count.eq(self._divider - 1), left.eq(left - 1), bits.eq(Cat(bits[1:], Const(1, 1)))]
