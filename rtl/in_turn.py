"""A queue whose head stands in a register."""

from amaranth.hdl import Module
from amaranth.lib import data, fifo
from amaranth.lib.wiring import Component, In, Out

__all__ = ["InTurn"]


class InTurn(Component):
    """Holds what waits its turn, in order; what is pushed into an empty one is at its head in the next cycle.

    Parameters
    ----------
    payload : data.StructLayout
    depth : int
        At most so many and one more may wait.

    Members
    -------
    push : In(1), new : In(payload)
    valid : Out(1), head : Out(payload)
        From registers.
    take : In(1)
        The head goes; only with `valid`.
    """

    def __init__(self, payload: data.StructLayout, *, depth: int) -> None:
        self._payload, self._depth = payload, depth
        super().__init__({"push": In(1), "new": In(payload), "valid": Out(1), "head": Out(payload), "take": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.behind = behind = fifo.SyncFIFO(width=self._payload.size, depth=self._depth)
        m.d.comb += behind.w_data.eq(self.new)
        with m.If(~self.valid | self.take):
            m.d.comb += behind.r_en.eq(1)
            m.d.sync += self.valid.eq(self.push | behind.r_rdy)
            with m.If(behind.r_rdy):
                m.d.comb += behind.w_en.eq(self.push)
                m.d.sync += self.head.eq(behind.r_data)
            with m.Else():
                m.d.sync += self.head.eq(self.new)
        with m.Else():
            m.d.comb += behind.w_en.eq(self.push)
        return m
