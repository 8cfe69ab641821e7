"""Plain reads and writes of single words on AXI4, one at a time."""

from amaranth.hdl import Const, Module, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature

from ptewalk.rtl.bus.axi import AxiSignature, Burst, check_widths
from ptewalk.rtl.bus.slots import CACHE, WORD

__all__ = ["PlainWords", "PlainWordsSignature"]


class PlainWordsSignature(Signature):
    """Accesses to words of 64 bits, one in flight, seen from who makes them.

    Parameters
    ----------
    physical_bits : int
        Width of an address, a multiple of 8.

    Members
    -------
    asked : Out(stream of {write, address, value})
        Taken together with its answer.
    answered : In(stream of {value, error}, always ready)
        `value` counts for a read, `error`: the bus refused.
    """

    def __init__(self, physical_bits: int) -> None:
        asked = data.StructLayout({"write": 1, "address": unsigned(physical_bits), "value": unsigned(64)})
        answered = data.StructLayout({"value": unsigned(64), "error": 1})
        super().__init__(
            {
                "asked": Out(stream.Signature(asked)),
                "answered": In(stream.Signature(answered, always_ready=True)),
            }
        )


class PlainWords(Component):
    """An AXI4 manager of ID 0 for them.

    Parameters
    ----------
    address_bits, data_bits : int
        Of the bus.
    prot : int
        AxPROT of every access.

    Members
    -------
    words : In(PlainWordsSignature)
        `error`: SLVERR or DECERR.
    m_axi : Out(AxiSignature)
    """

    def __init__(self, *, address_bits: int, data_bits: int, prot: int = 0b001) -> None:
        check_widths(address_bits=address_bits, data_bits=data_bits)
        self._lanes, self._prot = data_bits // 64, prot
        super().__init__(
            {
                "words": In(PlainWordsSignature(address_bits)),
                "m_axi": Out(AxiSignature(address_bits=address_bits, data_bits=data_bits, id_bits=1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, found = self.m_axi, self.m_axi.r.payload.data
        asked, answered = self.words.asked, self.words.answered
        wanted = asked.payload
        lane = wanted.address[3 : 3 + (self._lanes - 1).bit_length()]
        read, addressed, sent = Signal(), Signal(), Signal()  # what the bus has taken of this access
        for channel, valid, taken in (
            (bus.ar, asked.valid & ~wanted.write, read),
            (bus.aw, asked.valid & wanted.write, addressed),
            (bus.w, asked.valid & wanted.write, sent),
        ):
            m.d.comb += channel.valid.eq(valid & ~taken)
            m.d.sync += taken.eq((taken | (channel.valid & channel.ready)) & ~answered.valid)
        for channel in (bus.ar, bus.aw):
            m.d.comb += [
                *(channel.payload.addr.eq(wanted.address), channel.payload.size.eq(WORD)),
                *(channel.payload.burst.eq(Burst.INCR), channel.payload.cache.eq(CACHE)),
                channel.payload.prot.eq(self._prot),
            ]
        m.d.comb += [
            bus.w.payload.data.eq(wanted.value.replicate(self._lanes)),
            *(bus.w.payload.strb.eq(Const(0xFF, self._lanes * 8) << (lane << 3)), bus.w.payload.last.eq(1)),
            *(bus.r.ready.eq(1), bus.b.ready.eq(1)),
            answered.valid.eq((bus.r.valid & read) | (bus.b.valid & addressed & sent)),
            answered.payload.value.eq(found.word_select(lane, 64) if self._lanes > 1 else found),
            answered.payload.error.eq(bus.r.valid & bus.r.payload.resp[1] | bus.b.valid & bus.b.payload.resp[1]),
            asked.ready.eq(answered.valid),
        ]
        return m
