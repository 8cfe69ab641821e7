"""Short numbers for PCIDs: handed out by counting, so that a PCID's translations die with its number."""

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86

__all__ = ["PcidSlots"]


class PcidSlots(Component):
    """Which slot stands for which PCID.

    A slot that died is not handed out again before the count has come round; as it does, the caller must forget all
    that is not global, in the same cycle. After a reset slot 0 stands for PCID 0, and is the current one.

    Parameters
    ----------
    slot_bits : int
        2**slot_bits slots.
    few_resets : bool
        True: what counts beneath a bit that a reset clears takes none; default False.

    Members
    -------
    pcid : In(12), look : In(1)
        Is looked for; what follows is about it, in the next cycle alone.
    found : Out(1), slot : Out(slot_bits)
        It has a live slot.
    use : In(1)
        Its live slot becomes the current one.
    renew : In(1)
        It gets the next slot, which becomes the current one; its old one dies.
    end : In(1)
        Its slot dies.
    wraps : Out(1)
        With `renew`: the count comes round.
    current : Out(slot_bits)

    Attributes
    ----------
    live, following, table : Signal, Signal, list of Signal
        Slots that are live; the next number; PCID of each slot. Proofs look at them.
    asked, matches : Signal
        What was looked for, and the slots that stand for it.
    """

    def __init__(self, slot_bits: int, *, few_resets: bool = False) -> None:
        self._slot_bits = slot_bits
        self.live = Signal(1 << slot_bits, init=1)
        self.following = Signal(slot_bits, init=1)
        # After a reset the first alone is live.
        self.table = [
            Signal(x86.PCID_BITS, name=f"pcid_{slot}", reset_less=few_resets and slot > 0)
            for slot in range(1 << slot_bits)
        ]
        self.asked = Signal(x86.PCID_BITS, reset_less=few_resets)
        self.matches = Signal(1 << slot_bits)
        super().__init__(
            {
                "pcid": In(x86.PCID_BITS),
                "look": In(1),
                "found": Out(1),
                "slot": Out(slot_bits),
                "use": In(1),
                "renew": In(1),
                "end": In(1),
                "wraps": Out(1),
                "current": Out(slot_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = 1 << self._slot_bits
        live, following, table = self.live, self.following, self.table
        asked, matches = self.asked, self.matches
        with m.If(self.look):
            m.d.sync += [asked.eq(self.pcid), matches.eq(Cat(pcid == self.pcid for pcid in table) & live)]
        m.d.comb += [
            self.found.eq(matches.any()),
            self.slot.eq(_number(matches)),
            self.wraps.eq(self.renew & (following == 0)),
        ]
        new = Signal(count)
        m.d.comb += new.eq(1 << following)
        with m.If(self.renew):
            m.d.sync += [
                Array(table)[following].eq(asked),
                live.eq(new | (live & ~matches & (following != 0).replicate(count))),
                following.eq(following + 1),
                self.current.eq(following),
            ]
        with m.Elif(self.use):
            m.d.sync += self.current.eq(self.slot)
        with m.Elif(self.end):
            m.d.sync += live.eq(live & ~matches)
        return m


def _number(one_hot: Value) -> Value:
    """The place of the one bit that is set; 0 when none is."""
    bits = max(1, (len(one_hot) - 1).bit_length())
    return Cat(Cat(one_hot[place] for place in range(len(one_hot)) if place >> bit & 1).any() for bit in range(bits))
