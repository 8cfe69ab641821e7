"""A buffer of beats in block RAM, whose first beat is on offer without a cycle's delay."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["BeatBuffer"]


class BeatBuffer(Component):
    """First in, first out, one beat a cycle; the oldest stands in a register or in the RAM's output.

    Parameters
    ----------
    width : int
    depth : int
        Beats that the RAM holds, a power of two; one more may be on offer.
    passing : bool
        True: what comes while nothing waits is on offer in the same cycle. Otherwise in the next.

    Members
    -------
    taken : In(stream of width bits)
    offered : Out(stream of width bits)
    """

    def __init__(self, *, width: int, depth: int, passing: bool) -> None:
        self._depth, self._passing = depth, passing
        self.ram = Memory(shape=unsigned(width), depth=depth, init=[])
        super().__init__(
            {"taken": In(stream.Signature(unsigned(width))), "offered": Out(stream.Signature(unsigned(width)))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = self.ram
        writer, reader = self.ram.write_port(), self.ram.read_port()
        taken, offered = self.taken, self.offered
        kept = Signal(range(self._depth + 1))  # in the RAM; none is while nothing is on offer
        some = Signal()  # `kept` is not 0
        full, in_ram = Signal(), Signal()  # a beat is on offer; it is the RAM's output
        held = Signal.like(taken.payload, reset_less=True)
        comes, goes, moves, direct = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            taken.ready.eq(~kept[-1]),
            comes.eq(taken.valid & taken.ready),
            offered.valid.eq(full),
            offered.payload.eq(Mux(in_ram, reader.data, held)),
            goes.eq(full & offered.ready),
            moves.eq(goes & some),
            direct.eq(comes & Mux(full, goes & ~some, 1)),
            writer.data.eq(taken.payload),
            writer.en.eq(comes & full & ~direct),
            reader.en.eq(moves),
        ]
        if self._passing:
            with m.If(~full):
                m.d.comb += [offered.valid.eq(taken.valid), offered.payload.eq(taken.payload)]
                m.d.comb += direct.eq(comes & ~offered.ready)
        more = kept > 1
        m.d.sync += [kept.eq(kept + writer.en - moves), some.eq(Mux(moves, more, some) | writer.en)]
        # Whether it is this beat that is on offer then, the flags say.
        with m.If(~full | in_ram | offered.ready):
            m.d.sync += held.eq(taken.payload)
        with m.If(writer.en):
            m.d.sync += writer.addr.eq(writer.addr + 1)
        with m.If(moves):
            m.d.sync += [reader.addr.eq(reader.addr + 1), in_ram.eq(1)]
        with m.Elif(direct):
            m.d.sync += [in_ram.eq(0), full.eq(1)]
        with m.Elif(goes):
            m.d.sync += full.eq(0)
        return m
