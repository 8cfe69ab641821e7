"""The records of a dirty log on AXI4."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import AxiSignature, Burst, check_widths
from ptewalk.rtl.bus.slots import CACHE, WORD
from ptewalk.rtl.log.layouts import RecordPortSignature

__all__ = ["RecordPort"]


class RecordPort(Component):
    """Plain writes of eight bytes, all of AXI ID 0: they are answered in order.

    Parameters
    ----------
    address_bits, data_bits : int
        Of the bus.
    id_bits : int
        Of the log's writes in flight.
    prot : int
        AxPROT of every write.

    Members
    -------
    records : In(RecordPortSignature)
        `error`: SLVERR or DECERR.
    m_axi : Out(AxiSignature)
    """

    def __init__(self, *, address_bits: int, data_bits: int, id_bits: int, prot: int = 0b001) -> None:
        check_widths(address_bits=address_bits, data_bits=data_bits)
        self._lanes, self._prot = data_bits // 64, prot
        super().__init__(
            {
                "records": In(RecordPortSignature(address_bits, id_bits)),
                "m_axi": Out(AxiSignature(address_bits=address_bits, data_bits=data_bits, id_bits=1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        aw, w, b = self.m_axi.aw, self.m_axi.w, self.m_axi.b
        writes, written = self.records.writes, self.records.written
        wanted, answered = writes.payload, Signal.like(writes.payload.id)
        flying, takes = Signal(len(answered) + 1), Signal()
        # A register each: neither waits for the other's ready.
        m.d.comb += [
            writes.ready.eq((~aw.valid | aw.ready) & (~w.valid | w.ready)),
            takes.eq(writes.valid & writes.ready),
            w.payload.last.eq(1),
            *(aw.payload.size.eq(WORD), aw.payload.burst.eq(Burst.INCR)),
            *(aw.payload.cache.eq(CACHE), aw.payload.prot.eq(self._prot)),
            *(b.ready.eq(1), written.valid.eq(b.valid)),
            *(written.payload.id.eq(answered), written.payload.error.eq(b.payload.resp[1])),
        ]
        with m.If(aw.ready):
            m.d.sync += aw.valid.eq(0)
        with m.If(w.ready):
            m.d.sync += w.valid.eq(0)
        with m.If(takes):
            lane = wanted.address[3 : 3 + (self._lanes - 1).bit_length()]
            m.d.sync += [
                *(aw.valid.eq(1), w.valid.eq(1)),
                aw.payload.addr.eq(wanted.address),
                w.payload.data.eq(wanted.value.replicate(self._lanes)),
                w.payload.strb.eq(Const(0xFF, self._lanes * 8) << (lane << 3)),
            ]
        # The log counts its writes up, as they are answered here; it begins anew only when all are.
        m.d.sync += flying.eq(flying + takes - b.valid)
        with m.If(b.valid):
            m.d.sync += answered.eq(answered + 1)
        with m.Elif(takes & (flying == 0)):
            m.d.sync += answered.eq(wanted.id)
        return m
