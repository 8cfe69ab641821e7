"""The dirty log: room is reserved before a mark's swap, the record comes after it, the tail moves in order."""

from dataclasses import dataclass
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.entry import EntryLayout
from ptewalk.rtl.interfaces import ID_BITS
from ptewalk.rtl.layouts import EntryWrittenLayout, SwapLayout
from ptewalk.rtl.log.layouts import (
    COUNT_BITS,
    PML_ENTRIES,
    SIZES,
    LogMode,
    LogSignature,
    RecordLayout,
    RecordPortSignature,
)

__all__ = ["DirtyLog", "LogConfig"]

_MOST_MARKS = 8
"""Swaps in flight."""


@dataclass(frozen=True)
class LogConfig:
    """Parameters of a dirty log.

    Parameters
    ----------
    records : int
        Records on their way to memory at most: 2, 4 (default), 8 or 16.
    """

    records: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.records, int) or self.records not in (2, 4, 8, 16):
            raise ValueError(f"records must be 2, 4, 8 or 16, not {self.records!r}")

    @property
    def id_bits(self) -> int:
        """Width of what tells writes in flight apart."""
        return (self.records - 1).bit_length()


class DirtyLog(Component):
    """Stands in the channel of swaps, and lets a mark pass when there is room for its record.

    A mark is a swap that makes an entry soft-dirty. One that fails gives its room back, and one that is done has a
    record: the next one, whichever mark reserved room first. Without room it waits, or goes on without a record.

    Parameters
    ----------
    config : LogConfig
    physical_bits, tag_bits : int
        As in `WalkerConfig`.

    Members
    -------
    marks : In(stream of SwapLayout), swaps : Out(stream of SwapLayout)
        The channel: what goes in comes out in the same cycle, if it may.
    written : In(stream of EntryWrittenLayout, always ready)
        One for each swap, as it is answered; `marks` may be answered in any order.
    pcid : In(12)
        Of the address space.
    drains : In(1), again : Out(1)
        Somebody waits for the walk whose swap is on offer; it is put back, since it waits for room.
    closes : In(1), closed : Out(1)
        Held until `closed`: each record is written whose mark was done before.
    quiet : Out(1)
        No mark is on its way, and every record is written.
    software : Out(LogSignature)
    records : Out(RecordPortSignature)
    """

    def __init__(self, config: LogConfig = LogConfig(), *, physical_bits: int = 40, tag_bits: int = 8) -> None:  # noqa: B008 - frozen
        self.config = config
        self._bits = physical_bits
        swap = SwapLayout(physical_bits, ID_BITS)
        super().__init__(
            {
                "marks": In(stream.Signature(swap)),
                "swaps": Out(stream.Signature(swap)),
                "written": In(stream.Signature(EntryWrittenLayout(physical_bits, tag_bits), always_ready=True)),
                "pcid": In(x86.PCID_BITS),
                "drains": In(1),
                "again": Out(1),
                "closes": In(1),
                "closed": Out(1),
                "quiet": Out(1),
                "software": Out(LogSignature(physical_bits)),
                "records": Out(RecordPortSignature(physical_bits, config.id_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        software = self.software
        setup = Signal(software.setups.payload.shape())
        r = SimpleNamespace(
            next=Signal(COUNT_BITS, name="next"),  # records that have a place
            issued=Signal(COUNT_BITS, name="issued"),  # and that memory was given
            sent=Signal(range(_MOST_MARKS + 1), name="sent"),  # marks on their way
            reserved=Signal(range(_MOST_MARKS + 1), name="reserved"),  # and room for so many of them
        )
        off, ring = setup.mode == LogMode.OFF, setup.mode == LogMode.RING
        room, forced, held, takes = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            room.eq(self._room(setup, r)),
            # A record is on its way: that is waited for in any case, and is no matter of room in the ring.
            held.eq((r.next - software.tail)[:COUNT_BITS] + r.reserved >= self.config.records),
            self.quiet.eq((r.sent == 0) & (r.next == software.tail)),
            software.setups.ready.eq(self.quiet),
            takes.eq(software.setups.valid & self.quiet),
        ]

        # A mark on offer: with room, or forced.

        mark, credited, passes, waits, kept = Signal(), Signal(), Signal(), Signal(), Signal(name="kept")
        m.d.comb += [
            mark.eq(self.marks.valid & _marks(self.marks.payload)),
            credited.eq(room & ~held),
            passes.eq(kept | (~software.setups.valid & (off | credited | (forced & ~room)))),
            waits.eq(mark & ~kept & ~room & ~off & ~forced),
            self.again.eq(mark & ~passes & self.drains),
            self.swaps.payload.eq(self.marks.payload),
            self.swaps.valid.eq(self.marks.valid & (~mark | passes)),
            self.marks.ready.eq(self.swaps.ready & (~mark | passes)),
        ]
        m.d.sync += kept.eq(mark & passes & ~self.swaps.ready)  # what is on offer stays
        sends = mark & passes & ~kept
        event = self.written.payload
        answered, done = Signal(), Signal()
        m.d.comb += [answered.eq(self.written.valid & _marks(event)), done.eq(answered & event.done)]
        has_room = r.reserved != 0
        m.d.sync += [
            r.sent.eq(r.sent + sends - answered),
            r.reserved.eq(r.reserved + (sends & room & ~off) - (answered & has_room)),
        ]

        # A mark is done: its record has the next place.

        record, appends, appended = Signal(RecordLayout()), Signal(), software.appends.payload
        own = Signal()
        linear, tag = Mux(own, event.linear, appended.linear), Cat(self.pcid, software.epoch)
        m.d.comb += [
            own.eq(done & has_room),
            software.appends.ready.eq(credited & ~own & ~mark & ~software.setups.valid),
            appends.eq(own | (software.appends.valid & software.appends.ready)),
            record.phase.eq(~r.next.bit_select(setup.size, 1)),
            record.level.eq(Mux(own, event.level, appended.level)),
            record.software.eq(~own),
            *(record.tag_low.eq(tag[:6]), record.tag_high.eq(tag[6:])),
            record.page.eq(linear[x86.PAGE_SHIFT :]),
        ]
        m.submodules.values = values = Memory(shape=64, depth=self.config.records, init=[])
        bare = Cat(Const(0, x86.PAGE_SHIFT), linear[x86.PAGE_SHIFT :])
        write = values.write_port()
        m.d.comb += [
            *(write.addr.eq(r.next), write.en.eq(appends)),
            write.data.eq(Mux(ring, Value.cast(record), bare)),
        ]
        m.d.sync += r.next.eq(r.next + appends)
        failed = self._write(m, setup, r, values)
        self._force(m, setup, waits, room, forced, sends)

        # What software sees.

        lost = done & ~has_room & ~off
        unread = (software.tail - software.head)[:COUNT_BITS]
        status = software.status
        m.d.comb += [
            status.watermark.eq(ring & (setup.watermark != 0) & (unread >= setup.watermark)),
            status.stalled.eq(waits),
            software.index.eq(setup.index - software.tail),
        ]
        bad_size = (software.setups.payload.size < SIZES[0]) | (software.setups.payload.size > SIZES[-1])
        mode = Value.cast(software.setups.payload.mode)
        refuses = takes & ((mode > LogMode.PML) | ((mode == LogMode.RING) & bad_size))
        raised = {"overflow": lost, "incomplete": failed | (answered & event.error & ~off), "refused": refuses}
        for name, happens in raised.items():
            m.d.sync += status[name].eq(happens | (status[name] & ~software.clear[name]))
        with m.If(lost & (~status.overflow | software.clear.overflow)):
            m.d.sync += software.lost.eq(event.linear)
        with m.If(takes):
            m.d.sync += [
                setup.eq(software.setups.payload),
                *(counter.eq(0) for counter in (r.next, r.issued, software.tail)),
            ]
            with m.If(refuses):
                m.d.sync += setup.mode.eq(LogMode.OFF)
        return m

    def _room(self, setup: data.View, r: SimpleNamespace) -> Value:
        """Whether one more mark may have a record, beside those that reserved room."""
        used = (r.next - self.software.head)[:COUNT_BITS]
        in_ring = used + r.reserved < (Const(1, COUNT_BITS) << setup.size)[:COUNT_BITS]
        in_buffer = (setup.index < PML_ENTRIES) & (r.next + r.reserved <= setup.index)
        return ((setup.mode == LogMode.RING) & in_ring) | ((setup.mode == LogMode.PML) & in_buffer)

    def _write(self, m: Module, setup: data.View, r: SimpleNamespace, values: Memory) -> Value:
        """Records go to memory, and the tail over those whose write was answered; whether one was refused."""
        writes, written, tail = self.records.writes, self.records.written, self.software.tail
        bits = self.config.id_bits
        read = values.read_port(domain="comb")
        mask = ((Const(1, COUNT_BITS) << setup.size) - 1)[: COUNT_BITS - 1]
        place = Mux(setup.mode == LogMode.RING, r.issued & mask, (setup.index - r.issued)[:16])
        m.d.comb += [
            read.addr.eq(r.issued),
            writes.valid.eq(r.issued != r.next),
            writes.payload.address.eq(Cat(Const(0, x86.PAGE_SHIFT), setup.base) + (place << 3)),
            writes.payload.value.eq(read.data),
            writes.payload.id.eq(r.issued),
        ]
        issues = Mux(writes.valid & writes.ready, Const(1, self.config.records) << writes.payload.id, 0)
        m.d.sync += r.issued.eq(r.issued + (writes.valid & writes.ready))
        flying = Signal(self.config.records)  # has no answer yet; others, of before a reset, count for nothing
        there = Signal(self.config.records)  # answered, and the tail has not passed it
        moves = Signal()
        m.d.comb += moves.eq(there.bit_select(tail[:bits], 1))
        came = Mux(written.valid, Const(1, self.config.records) << written.payload.id, 0) & flying
        m.d.sync += flying.eq((flying & ~came) | issues)
        gone = Mux(moves, Const(1, self.config.records) << tail[:bits], 0)
        m.d.sync += [there.eq((there | came) & ~gone), tail.eq(tail + moves)]

        # Whoever waits for records waits for those that had a place when he came.

        counts, left = Signal(), Signal(range(self.config.records + 1))
        m.d.sync += counts.eq(self.closes & ~self.closed)
        m.d.comb += self.closed.eq(counts & (left == 0))
        m.d.sync += left.eq(Mux(counts, left, (r.next - tail)[: len(left)]) - (moves & (~counts | (left != 0))))
        return came.any() & written.payload.error

    def _force(self, m: Module, setup: data.View, waits: Value, room: Value, forced: Value, sends: Value) -> None:
        """When a mark that finds a ring full goes on without a record.

        The time runs from the first mark that waits, put back or not, until there is room, or a mark went without.
        """
        status, timer, late = self.software.status, Signal.like(setup.time_out), Signal()
        ring = setup.mode == LogMode.RING
        ends = ~ring | room | sends
        timed_out = waits & ring & (setup.time_out != 0) & (timer == setup.time_out)
        runs = (waits | (timer != 0)) & (timer != setup.time_out)
        m.d.comb += forced.eq(ring & (~setup.stalls | status.overflow | late))
        m.d.sync += [
            timer.eq(Mux(ends, 0, timer + runs)),
            late.eq((late | timed_out) & ~ends),
            status.timed_out.eq(timed_out | (status.timed_out & ~self.software.clear.timed_out)),
        ]


def _marks(swap: data.View) -> Value:
    """Whether a swap, or what is told of it, makes an entry soft-dirty."""
    old, new = (data.View(EntryLayout(), swap[name]) for name in ("old", "new"))
    marks: Value = ~old.soft_dirty & new.soft_dirty
    return marks
