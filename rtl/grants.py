"""Which tags have a grant outstanding."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

__all__ = ["MOST_TAG_BITS", "GrantTable"]

MOST_TAG_BITS = 10
"""Bits of a tag at most: the table has a bit for each tag, and clears them one by one after a reset."""


class GrantTable(Component):
    """A set of tags, one bit each, in two memories: the bits of a tag differ while its grant is outstanding.

    Each memory has one writer, so that a tag can be granted and another retired in one cycle.

    Parameters
    ----------
    tag_bits : int
        1 to `MOST_TAG_BITS`.

    Members
    -------
    cleared : Out(tag_bits + 1)
        Tags cleared since the reset, one a cycle.
    ready : Out(1)
        All are: nothing may be granted before.
    look_tag : In(tag_bits), taken, bit : Out(1)
        The tag has a grant outstanding; its bit in the memory of retirements.
    grant, grant_tag, grant_bit : In(1), In(tag_bits), In(1)
        A grant of this tag, which has none outstanding, and its `bit`.
    retire, retire_tag : In(1), In(tag_bits)
        The grant of this tag retires; the one that is made in the same cycle, if it is that tag's.
    stray : Out(1)
        There is none: nothing is done.
    count : Out(tag_bits + 1)
        Tags with a grant outstanding.

    Attributes
    ----------
    granted, retired : amaranth.lib.memory.Memory
        The bits; proofs add read ports of their own.
    """

    def __init__(self, tag_bits: int) -> None:
        super().__init__(
            {
                "cleared": Out(unsigned(tag_bits + 1)),
                "ready": Out(1),
                "look_tag": In(tag_bits),
                "taken": Out(1),
                "bit": Out(1),
                "grant": In(1),
                "grant_tag": In(tag_bits),
                "grant_bit": In(1),
                "retire": In(1),
                "retire_tag": In(tag_bits),
                "stray": Out(1),
                "count": Out(unsigned(tag_bits + 1)),
            }
        )
        self.granted = Memory(shape=1, depth=1 << tag_bits, init=[])
        self.retired = Memory(shape=1, depth=1 << tag_bits, init=[])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.granted = self.granted
        m.submodules.retired = self.retired
        looked = [memory.read_port(domain="comb") for memory in (self.granted, self.retired)]
        at_retirement = [memory.read_port(domain="comb") for memory in (self.granted, self.retired)]
        write_granted, write_retired = self.granted.write_port(), self.retired.write_port()

        m.d.comb += self.ready.eq(self.cleared[-1])
        with m.If(~self.ready):
            m.d.sync += self.cleared.eq(self.cleared + 1)

        for port in looked:
            m.d.comb += port.addr.eq(self.look_tag)
        for port in at_retirement:
            m.d.comb += port.addr.eq(self.retire_tag)
        passing = Signal()  # granted and retired in one cycle
        retires = Signal()
        m.d.comb += [
            self.taken.eq(looked[0].data ^ looked[1].data),
            self.bit.eq(looked[1].data),
            passing.eq(self.grant & self.retire & (self.grant_tag == self.retire_tag)),
            retires.eq(self.retire & self.ready & (at_retirement[0].data ^ at_retirement[1].data)),
            self.stray.eq(self.retire & ~retires & ~passing),
            write_granted.addr.eq(self.grant_tag),
            write_granted.data.eq(~self.grant_bit),
            write_granted.en.eq(self.grant & ~passing),
            write_retired.addr.eq(self.retire_tag),
            write_retired.data.eq(at_retirement[0].data),
            write_retired.en.eq(retires),
        ]
        m.d.sync += self.count.eq(self.count + (self.grant & ~passing) - retires)
        with m.If(~self.ready):
            for port in (write_granted, write_retired):
                m.d.comb += [port.addr.eq(self.cleared), port.data.eq(0), port.en.eq(1)]
        return m
