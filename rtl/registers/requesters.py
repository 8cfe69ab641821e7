"""The MMU with two requesters: the request window and the bridge."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.interfaces import RequesterSignature

__all__ = ["RequesterShare"]


class RequesterShare(Component):
    """Lets the window and the bridge ask one MMU, in turns; adds no cycle.

    The bridge's tags have 0 in their highest bit at the MMU, the window has the one tag that is 1 there and 0 below.
    A retirement of the window waits for a cycle in which the bridge has none.

    Parameters
    ----------
    physical_bits : int
    bridge_bits : int
        Width of the bridge's tags; the MMU's are one bit wider.

    Members
    -------
    window : In(RequesterSignature, with retires)
        Its tags are as wide as the MMU's, and do not count.
    bridge : In(RequesterSignature, with retires)
    mmu : Out(RequesterSignature, with retires)
    retiring : Out(1)
        A retirement of the window waits.
    """

    def __init__(self, *, physical_bits: int, bridge_bits: int) -> None:
        self._bridge_bits = bridge_bits
        wide = RequesterSignature(physical_bits=physical_bits, tag_bits=bridge_bits + 1, retires=True)
        narrow = RequesterSignature(physical_bits=physical_bits, tag_bits=bridge_bits, retires=True)
        super().__init__({"window": In(wide), "bridge": In(narrow), "mmu": Out(wide), "retiring": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        window, bridge, mmu = self.window, self.bridge, self.mmu
        own = Const(1 << self._bridge_bits, self._bridge_bits + 1)

        # What is on offer stays on offer; else they take turns.
        held, chosen, last, chooses = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            chooses.eq(window.requests.valid & (~bridge.requests.valid | ~last)),
            chosen.eq(Mux(held, last, chooses)),
            mmu.requests.valid.eq(Mux(chosen, window.requests.valid, bridge.requests.valid)),
            window.requests.ready.eq(mmu.requests.ready & chosen),
            bridge.requests.ready.eq(mmu.requests.ready & ~chosen),
        ]
        asked = mmu.requests.payload
        for name in ("linear", "access", "user", "implicit", "ac"):
            m.d.comb += asked[name].eq(Mux(chosen, window.requests.payload[name], bridge.requests.payload[name]))
        m.d.comb += asked.tag.eq(Mux(chosen, own, bridge.requests.payload.tag))
        with m.If(mmu.requests.valid):
            m.d.sync += [last.eq(chosen), held.eq(~mmu.requests.ready)]

        found = mmu.responses
        mine = found.payload.tag[-1]
        m.d.comb += [
            window.responses.valid.eq(found.valid & mine),
            bridge.responses.valid.eq(found.valid & ~mine),
            found.ready.eq(Mux(mine, window.responses.ready, bridge.responses.ready)),
        ]
        for side in (window, bridge):
            m.d.comb += [side.responses.payload[name].eq(found.payload[name]) for name, _ in found.payload.shape()]

        m.d.comb += [
            mmu.retired.valid.eq(bridge.retired.valid | self.retiring),
            mmu.retired.payload.tag.eq(Mux(bridge.retired.valid, bridge.retired.payload.tag, own)),
        ]
        m.d.sync += self.retiring.eq(window.retired.valid | (self.retiring & bridge.retired.valid))
        return m
