"""The bridge beside its MMU: bursts in, requests to the MMU, bursts out."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.model import x86
from ptewalk.rtl.bridge.bursts import AskLayout
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.layouts import BridgeControlLayout, BridgeStatusLayout, FaultRecordLayout
from ptewalk.rtl.bridge.reads import ReadSide
from ptewalk.rtl.bridge.writes import WriteSide
from ptewalk.rtl.bus.axi import AxiSignature
from ptewalk.rtl.interfaces import RequesterSignature

__all__ = ["Bridge"]

_CROWD = 4
"""Reads that wait to retire, at which no store is asked about any more."""
_PATIENCE = 16
"""Stores that retire while a read waits, after which none is asked about until it has retired; a power of two."""


def _axi(address_bits: int, config: BridgeConfig) -> AxiSignature:
    return AxiSignature(
        address_bits=address_bits, data_bits=config.data_bits, id_bits=config.id_bits, user_bits=config.user_bits
    )


class Bridge(Component):
    """AXI4 in, AXI4 out, and an MMU beside it that is asked once for each burst. Meaning: docs/bridge.md.

    Parameters
    ----------
    config : BridgeConfig

    Members
    -------
    s_axi : In(AxiSignature)
        Linear addresses.
    m_axi : Out(AxiSignature)
        Physical ones.
    mmu : Out(RequesterSignature, with retires)
        Answers are taken at once.
    control : In(BridgeControlLayout), status : Out(BridgeStatusLayout)
    faults : Out(stream of FaultRecordLayout)

    Attributes
    ----------
    ended, waited, crowded : SyncFIFO, Signal, Signal
        Reads that have ended and not retired, where they are granted; stores that retired while the oldest waits; no
        store is asked about. Proofs look at them.
    """

    def __init__(self, config: BridgeConfig = BridgeConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.reads, self.writes = ReadSide(config), WriteSide(config)
        ended = SyncFIFO(width=(config.reads - 1).bit_length(), depth=config.reads) if config.read_grants else None
        self.ended: SyncFIFO | None = ended
        self.waited, self.crowded = Signal(range(_PATIENCE + 1)), Signal()
        super().__init__(
            {
                "s_axi": In(_axi(config.linear_bits, config)),
                "m_axi": Out(_axi(config.physical_bits, config)),
                "mmu": Out(
                    RequesterSignature(physical_bits=config.physical_bits, tag_bits=config.tag_bits, retires=True)
                ),
                "control": In(BridgeControlLayout()),
                "status": Out(BridgeStatusLayout()),
                "faults": Out(stream.Signature(FaultRecordLayout(config.id_bits))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reads = reads = self.reads
        m.submodules.writes = writes = self.writes
        control, above, below = self.control, self.s_axi, self.m_axi
        for side, channels in ((reads, ("ar", "r")), (writes, ("aw", "w", "b"))):
            m.d.comb += side.control.eq(control)
            for name in channels:
                outward = "from" if name in ("r", "b") else "to"
                connect(m, flipped(getattr(above, name)), getattr(side, name))
                connect(m, getattr(side, f"{outward}_{name}"), flipped(getattr(below, name)))
        self._ask(m)
        self._retire(m)
        self._record(m)
        return m

    def _ask(self, m: Module) -> None:
        """Both directions take turns; the MMU's answers.

        What is asked stands in a register, and in a second one where the MMU does not take the first.
        """
        reads, writes, control = self.reads, self.writes, self.control
        requests, responses = self.mmu.requests, self.mmu.responses
        ask = data.StructLayout({"of": AskLayout(self.config.slot_bits), "is_write": 1})
        asks, first, second = Signal(ask), Signal(ask, reset_less=True), Signal(ask, reset_less=True)
        asked, comes, turn = first.of, Signal(), Signal()  # the write goes first
        free, picks = Signal(init=1), Signal()  # the second is
        m.d.comb += [
            # A read that has just come is not waited for: it comes too late.
            picks.eq(writes.wants & ~self.crowded & (turn | ~reads.wanted)),
            reads.asks.eq(free & reads.wants & ~picks),
            writes.asks.eq(free & picks),
            *(requests.payload[name].eq(asked[name]) for name in ("linear", "access", "user")),
            requests.payload.ac.eq(control.ac),
            requests.payload.tag.eq(Cat(asked.slot, first.is_write)),
            responses.ready.eq(1),
            comes.eq((reads.asks & reads.lawful) | (writes.asks & writes.lawful)),
            *(asks.of.eq(Mux(picks, writes.ask, reads.ask)), asks.is_write.eq(picks)),
        ]
        with m.If(free):
            m.d.sync += second.eq(asks)
        with m.If(~requests.valid | requests.ready):
            m.d.sync += [requests.valid.eq(~free | comes), first.eq(Mux(free, asks, second)), free.eq(1)]
        with m.Elif(comes):
            m.d.sync += free.eq(0)
        with m.If(reads.asks | writes.asks):
            m.d.sync += turn.eq(~picks)
        found = responses.payload
        for side, mine in ((reads, ~found.tag[-1]), (writes, found.tag[-1])):
            m.d.comb += [
                side.answered.eq(responses.valid & mine),
                side.answered_slot.eq(found.tag),
                side.verdict.frame.eq(found.physical[x86.PAGE_SHIFT :]),
                *(side.verdict[name].eq(found[name]) for name in ("outcome", "code", "pwt", "pcd", "pat")),
            ]

    def _retire(self, m: Module) -> None:
        """Stores retire at once, reads between them. Where many reads wait, or one long, no store is asked about."""
        reads, writes, retired = self.reads, self.writes, self.mmu.retired
        m.d.comb += [
            retired.valid.eq(writes.ends),
            retired.payload.tag.eq(writes.ended | 1 << self.config.slot_bits),
        ]
        read = self.ended
        if read is None:
            m.d.comb += [reads.frees.eq(reads.ends), reads.freed.eq(reads.ended)]
            return
        m.submodules.read = read
        m.d.comb += [
            read.w_data.eq(reads.ended),
            read.w_en.eq(reads.ends),
            read.r_en.eq(~writes.ends),
            *(reads.frees.eq(read.r_rdy & read.r_en), reads.freed.eq(read.r_data)),
        ]
        with m.If(~writes.ends):
            m.d.comb += [retired.valid.eq(read.r_rdy), retired.payload.tag.eq(read.r_data)]
        m.d.sync += [
            self.waited.eq(Mux(read.r_rdy & writes.ends, self.waited + ~self.waited[-1], 0)),
            self.crowded.eq((read.level >= _CROWD) | self.waited[-1]),
        ]

    def _record(self, m: Module) -> None:
        """The queue of faults, and what software is told."""
        reads, writes, control, status = self.reads, self.writes, self.control, self.status
        record = Signal(self.faults.payload.shape(), reset_less=True)
        turn, room, told = Signal(), Signal(), Signal()  # of a write; for a record; one was told, and found room
        m.submodules.queue = queue = SyncFIFO(width=record.shape().size, depth=self.config.fault_depth)
        reports = Mux(turn, writes.reports, reads.reports)
        m.d.sync += [
            turn.eq(~turn),
            record.eq(Mux(turn, writes.record, reads.record)),
            told.eq(reports & room),
        ]
        m.d.comb += [
            *(reads.reported.eq(~turn), writes.reported.eq(turn)),
            room.eq(Mux(told, queue.level < self.config.fault_depth - 1, queue.w_rdy)),
            *(side.room.eq(room) for side in (reads, writes)),
            queue.w_data.eq(record),
            queue.w_en.eq(told),
            self.faults.valid.eq(queue.r_rdy),
            self.faults.payload.eq(queue.r_data),
            queue.r_en.eq(self.faults.ready),
            status.fault.eq(queue.r_rdy),
            status.stalled_read.eq(reads.stalled),
            status.stalled_write.eq(writes.stalled),
            status.busy.eq(reads.busy | writes.busy),
        ]
        raised = {
            "fault_overflow": (reports & ~room, control.clear_overflow),
            "stall_timeout": (reads.times_out | writes.times_out, control.clear_timeout),
        }
        for name, (event, clear) in raised.items():
            with m.If(event):
                m.d.sync += status[name].eq(1)
            with m.Elif(clear):
                m.d.sync += status[name].eq(0)
