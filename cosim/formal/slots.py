"""What is proved of the PCID slots."""

from __future__ import annotations

from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Signal

from ptewalk.cosim.formal.harness import Harness
from ptewalk.rtl.slots import PcidSlots

__all__ = ["PcidSlotsHarness"]


class PcidSlotsHarness(Harness):
    """No PCID has two live slots, and no number is given out twice before the count comes round."""

    title = "pcid-slots"
    assumptions: tuple[str, ...] = (
        "maintenance: the current slot is not ended",
        "maintenance: one thing is asked at a time, in the cycle after the PCID was looked for",
    )
    depth = 2
    search_depth = 12
    SLOT_BITS = 2

    def __init__(self, *, searching: bool = False) -> None:
        self.slots = PcidSlots(self.SLOT_BITS)
        super().__init__(self.slots, searching=searching)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slots = slots = self.slots
        count = 1 << self.SLOT_BITS
        looked = Signal()
        m.d.sync += looked.eq(slots.look)
        acts = slots.use | slots.renew | slots.end
        m.d.comb += [
            Assume(~acts | (looked & ~slots.look)),
            Assume((slots.use + slots.renew + slots.end) <= 1),
            Assume(~slots.use | slots.found),
            Assume(~slots.end | ~slots.found | (slots.slot != slots.current)),
        ]
        given = Signal(count, init=1)  # numbers, since the count came round
        following = Signal(count)  # the next one
        m.d.comb += following.eq(1 << slots.following)
        with m.If(slots.renew):
            m.d.sync += given.eq(following | (given & ~slots.wraps.replicate(count)))
            m.d.comb += Assert(slots.wraps | ((given & following) == 0))
        twice = [
            slots.live[one] & slots.live[other] & (slots.table[one] == slots.table[other])
            for one in range(count)
            for other in range(one)
        ]
        m.d.comb += [
            *(Assert(~pair) for pair in twice),
            Assert(slots.live.bit_select(slots.current, 1)),
            Assert((slots.live & ~given) == 0),
        ]
        if not self.searching:
            found = Cat(pcid == slots.asked for pcid in slots.table) & slots.live
            m.d.comb += Assert(~looked | (slots.matches == found))
            m.d.comb += Assert(((given + 1)[:count] == following) | (given.all() & (slots.following == 0)))
        m.d.comb += [
            Cover(slots.wraps & (slots.asked == 0xABC) & slots.found),
            Cover(slots.use & (slots.slot == 3)),
            Cover(slots.end & slots.found),
        ]
        return m
