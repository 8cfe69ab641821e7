"""Two AXI4 managers on one bus."""

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import AxiSignature

__all__ = ["AxiJoin"]


class AxiJoin(Component):
    """Addresses of both in turn, write bursts one after the other; costs no cycle.

    The bursts of W go out in the order of their addresses, and neither channel waits for the other.

    Parameters
    ----------
    address_bits, data_bits, id_bits : int
        Of the bus.
    ids : int
        Of `s_axi`: 0 to `ids` - 1 are the same on the bus.
    alone : int
        What the only ID of `t_axi`, 0, is on the bus: none of `s_axi`'s.
    atomic : bool
        `s_axi` and the bus have AWATOP; default False.

    Members
    -------
    s_axi, t_axi : In(AxiSignature)
    m_axi : Out(AxiSignature)
    """

    def __init__(
        self, *, address_bits: int, data_bits: int, id_bits: int, ids: int, alone: int, atomic: bool = False
    ) -> None:
        self._alone = alone
        widths = {"address_bits": address_bits, "data_bits": data_bits}
        super().__init__(
            {
                "s_axi": In(AxiSignature(**widths, id_bits=max(1, (ids - 1).bit_length()), atomic=atomic)),
                "t_axi": In(AxiSignature(**widths, id_bits=1, atomic=False)),
                "m_axi": Out(AxiSignature(**widths, id_bits=id_bits, atomic=atomic)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, managers = self.m_axi, (self.s_axi, self.t_axi)
        self._answers(m, bus.r, [one.r for one in managers])
        self._answers(m, bus.b, [one.b for one in managers])

        reader = self._turn(m, "reader", [one.ar.valid for one in managers], bus.ar.valid & bus.ar.ready)
        self._offer(m, bus.ar, [one.ar for one in managers], reader, enabled=Const(1))

        # A write burst: its address and its last beat, whichever is taken first.
        r = SimpleNamespace(addressed=Signal(), ended=Signal(), inside=Signal())
        addressed, ended, over = Signal(), Signal(), Signal()
        m.d.comb += [
            addressed.eq(r.addressed | (bus.aw.valid & bus.aw.ready)),
            ended.eq(r.ended | (bus.w.valid & bus.w.ready & bus.w.payload.last)),
            over.eq(addressed & ended),
        ]
        m.d.sync += [r.addressed.eq(addressed & ~over), r.ended.eq(ended & ~over)]
        begins = (bus.aw.valid & bus.aw.ready) | (bus.w.valid & bus.w.ready)
        m.d.sync += r.inside.eq((r.inside | begins) & ~over)
        asks = [one.aw.valid | one.w.valid for one in managers]
        writer = self._turn(m, "writer", asks, over, held=r.inside)
        self._offer(m, bus.aw, [one.aw for one in managers], writer, enabled=~r.addressed)
        self._offer(m, bus.w, [one.w for one in managers], writer, enabled=~r.ended)
        return m

    @staticmethod
    def _turn(m: Module, name: str, asks: list[Value], served: Value, *, held: Value | int = 0) -> Signal:
        """Whose turn it is: nobody is changed for the other before it is served."""
        turn, last, kept = Signal(name=name), Signal(name=f"{name}_last"), Signal(name=f"{name}_kept")
        m.d.comb += turn.eq(Mux(kept, last, Mux(last, ~asks[0] & asks[1], asks[1] | ~asks[0])))
        m.d.sync += [last.eq(turn), kept.eq((Cat(*asks).any() | held) & ~served)]
        return turn

    def _offer(self, m: Module, channel: Any, managers: list[Any], turn: Signal, *, enabled: Value) -> None:
        """The channel of whose turn it is."""
        for number, manager in enumerate(managers):
            with m.If((turn == number) & enabled):
                m.d.comb += [channel.valid.eq(manager.valid), manager.ready.eq(channel.ready)]
                m.d.comb += [channel.payload[name].eq(manager.payload[name]) for name, _ in manager.payload.shape()]
                if number and "id" in dict(channel.payload.shape()):
                    m.d.comb += channel.payload.id.eq(self._alone)

    def _answers(self, m: Module, channel: Any, managers: list[Any]) -> None:
        """To whom the ID says."""
        for number, manager in enumerate(managers):
            with m.If((channel.payload.id == self._alone) == number):
                m.d.comb += [manager.valid.eq(channel.valid), channel.ready.eq(manager.ready)]
            m.d.comb += [manager.payload[name].eq(channel.payload[name]) for name, _ in manager.payload.shape()]
            if number:
                m.d.comb += manager.payload.id.eq(0)
