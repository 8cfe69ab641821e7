"""A gate on an AXI interface: bursts that have begun end, and no other begins."""

from typing import Any

from amaranth.hdl import Module, Shape, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.rtl.bus.axi import AxiSignature

__all__ = ["AxiGate"]

_COUNT_BITS = 11
"""Of bursts outstanding, of which there are fewer than 2**10."""


class AxiGate(Component):
    """No more than wires, while `stop` is 0. While it is 1 nothing new passes, and what is outstanding ends.

    What was on offer stays on offer; a write of which AW or a beat of W was on offer is sent to its end.

    Parameters
    ----------
    address_bits, data_bits, id_bits, atomic, user_bits
        As in `AxiSignature`.

    Members
    -------
    s_axi : In(AxiSignature), m_axi : Out(AxiSignature)
    stop : In(1)
    quiet : Out(1)
        Nothing that passed is without its answer.
    """

    def __init__(
        self, *, address_bits: int, data_bits: int, id_bits: int, atomic: bool = False, user_bits: int = 0
    ) -> None:
        self._atomic = atomic
        axi = AxiSignature(
            address_bits=address_bits, data_bits=data_bits, id_bits=id_bits, atomic=atomic, user_bits=user_bits
        )
        super().__init__({"s_axi": In(axi), "m_axi": Out(axi), "stop": In(1), "quiet": Out(1, init=1)})

    @staticmethod
    def of(axi: Any) -> "AxiGate":
        """One as wide as an interface."""
        address, beat = axi.aw.payload.shape(), axi.w.payload.shape()
        return AxiGate(
            address_bits=Shape.cast(address["addr"].shape).width,
            data_bits=Shape.cast(beat["data"].shape).width,
            id_bits=Shape.cast(address["id"].shape).width,
            atomic="atop" in dict(address),
            user_bits=Shape.cast(address["user"].shape).width if "user" in dict(address) else 0,
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        above, below = self.s_axi, self.m_axi
        connect(m, flipped(above), flipped(below))
        # Bursts whose AR, whose AW, and of whose W something was on offer, and which are not answered.
        reads, addressed, begun = (Signal(_COUNT_BITS, name=name) for name in ("reads", "addressed", "begun"))
        inside = Signal()  # a burst of W
        passes, news = {}, {}
        for name, owed in (("ar", 0), ("aw", addressed < begun), ("w", inside | (begun < addressed))):
            source, sink = getattr(above, name), getattr(below, name)
            kept, passed, new = (Signal(name=f"{name}_{what}") for what in ("kept", "passes", "new"))
            m.d.comb += [
                passed.eq(~self.stop | kept | owed),
                *(sink.valid.eq(source.valid & passed), source.ready.eq(sink.ready & passed)),
                new.eq(sink.valid & ~kept),
            ]
            m.d.sync += kept.eq(sink.valid & ~sink.ready)
            passes[name], news[name] = passed, new
        with m.If(below.w.valid & below.w.ready):
            m.d.sync += inside.eq(~below.w.payload.last)
        read = below.r.valid & below.r.ready & below.r.payload.last
        written = below.b.valid & below.b.ready
        finds = news["aw"] & below.aw.payload.atop[5] if self._atomic else 0  # R answers it too
        m.d.sync += [
            reads.eq(reads + news["ar"] + finds - read),
            addressed.eq(addressed + news["aw"] - written),
            begun.eq(begun + (news["w"] & ~inside) - written),
        ]
        m.d.comb += self.quiet.eq((reads == 0) & (addressed == 0) & (begun == 0))
        return m
