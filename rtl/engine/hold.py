"""A stream whose `ready` comes from a register."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.data import Layout
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Hold"]


class Hold(Component):
    """What is offered is handed on in the same cycle; what is not taken then is kept, and none is taken meanwhile.

    Parameters
    ----------
    layout : Layout

    Members
    -------
    offered : In(stream of layout), taken : Out(stream of layout)
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__({"offered": In(stream.Signature(layout)), "taken": Out(stream.Signature(layout))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        offered, taken = self.offered, self.taken
        kept, payload = Signal(), Signal.like(offered.payload)
        m.d.comb += [
            offered.ready.eq(~kept),
            taken.valid.eq(offered.valid | kept),
            taken.payload.eq(Mux(kept, payload, offered.payload)),
        ]
        with m.If(~kept):
            m.d.sync += payload.eq(offered.payload)
        m.d.sync += kept.eq(taken.valid & ~taken.ready)
        return m
