"""Entries that a list names: records of a dirty log, each looked up in the tables and handed on as a job."""

from enum import IntEnum
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.model import x86
from ptewalk.rtl.engine.fetcher import Fetcher, Stop
from ptewalk.rtl.engine.jobs import JobKind
from ptewalk.rtl.log.layouts import COUNT_BITS, SIZES, RecordLayout

__all__ = ["ListLayout", "ListingFetcher"]

_SIZE_BITS = SIZES[-1].bit_length()
_LINEAR_4 = x86.LINEAR_BITS[x86.LEVELS_4] - x86.PAGE_SHIFT


class ListLayout(data.StructLayout):
    """A ring of records, and whose count.

    Members
    -------
    base : unsigned(physical_bits - 12)
        Frame number of the ring's first byte.
    size : unsigned(5)
        Binary logarithm of its records, 9 to 18.
    pcid : unsigned(12)
        Records of another one are passed over.
    """

    def __init__(self, physical_bits: int) -> None:
        frame = unsigned(physical_bits - x86.PAGE_SHIFT)
        super().__init__({"base": frame, "size": unsigned(_SIZE_BITS), "pcid": unsigned(x86.PCID_BITS)})


class State(IntEnum):
    """What is done with the next record."""

    IDLE = 0
    LOOK = 1
    """It is looked for in the line that is kept."""
    FETCH = 2
    """Its line is asked for."""
    WAIT = 3
    DECIDE = 4
    WALK = 5
    """Its page is a range of one page, gone through."""
    PASS = 6
    """It is none of this address space: a job that changes nothing."""


class ListingFetcher(Component):
    """A `Fetcher`, which goes through a range, or through the pages of a ring's records, in their order.

    Records are read by lines, between two pages. Each page is a range of its own; lines of upper tables that were read
    for one are kept for the next, until a pause. Each record that is dealt with is one job, of one page.

    Parameters
    ----------
    physical_bits, data_bits, line_bytes, tag_bits, tag : int
        As in `Fetcher`.

    Members
    -------
    Those of `Fetcher`, and
    lists : In(1), list : In(ListLayout), first : In(COUNT_BITS), count : In(COUNT_BITS)
        The range's `page` and `pages` do not count: so many records do, from that number on, as the log counts them.
    bad : Out(1)
        It stopped at a record whose phase is not that of its number.
    """

    def __init__(self, *, physical_bits: int, data_bits: int, line_bytes: int, tag_bits: int, tag: int) -> None:
        self._physical_bits, self._tag = physical_bits, tag
        self._lanes, self._entries = data_bits // 64, line_bytes // 8
        widths = {"physical_bits": physical_bits, "data_bits": data_bits, "line_bytes": line_bytes}
        self._fetcher = Fetcher(**widths, tag_bits=tag_bits, tag=tag, keeps=True)
        members = {name: member for name, member in self._fetcher.signature.members.items() if name != "goes_on"}
        super().__init__(
            {
                **members,
                "lists": In(1),
                "list": In(ListLayout(physical_bits)),
                "first": In(COUNT_BITS),
                "count": In(COUNT_BITS),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fetcher = fetcher = self._fetcher
        r = SimpleNamespace(
            state=Signal(State),
            number=Signal(COUNT_BITS),  # of the next record
            left=Signal(COUNT_BITS),
            have=Signal(),  # its line is kept
            record=Signal(RecordLayout()),
            stopped=Signal(Stop),
            ends=Signal(),  # no more records are begun
            follows=Signal(),  # a page of this list was gone through already
        )
        beats = self._entries // self._lanes
        beat_bits, lane_bits = (beats - 1).bit_length(), (self._lanes - 1).bit_length()
        m.submodules.kept = kept = Memory(shape=unsigned(64 * self._lanes), depth=beats, init=[])
        begins, nexts = Signal(), Signal()
        self._pass_on(m, r, begins)

        port, found = self.port, self.port.data
        mask = ((Const(1, COUNT_BITS) << self.list.size) - 1)[: COUNT_BITS - 1]
        line = (r.number & mask)[self._entries.bit_length() - 1 :]
        reader, writer, beat = kept.read_port(domain="comb"), kept.write_port(), Signal(range(max(2, beats)))
        word = reader.data.word_select(r.number[:lane_bits], 64) if lane_bits else reader.data
        m.d.comb += [
            reader.addr.eq(r.number[lane_bits : lane_bits + beat_bits]),
            *(writer.addr.eq(beat), writer.data.eq(found.payload.value)),
            writer.en.eq(found.valid & (found.payload.tag == self._tag) & (r.state == State.WAIT)),
        ]
        with m.If(r.state == State.FETCH):
            m.d.comb += [
                *(port.reads.valid.eq(1), port.reads.payload.line.eq(1), port.reads.payload.link.eq(0)),
                port.reads.payload.address.eq(Cat(Const(0, x86.PAGE_SHIFT), self.list.base) + line * 8 * self._entries),
            ]

        with m.Switch(r.state):
            with m.Case(State.IDLE):
                with m.If(self.start & self.lists):
                    m.d.sync += [
                        *(r.number.eq(self.first), r.left.eq(self.count), r.have.eq(0), r.follows.eq(0)),
                        *(r.ends.eq(0), r.stopped.eq(Stop.DONE), self.bad.eq(0), r.state.eq(State.LOOK)),
                    ]
            with m.Case(State.LOOK):
                m.d.sync += r.record.eq(word)
                with m.If((r.left == 0) | r.ends):
                    m.d.sync += r.state.eq(State.IDLE)
                with m.Else():
                    m.d.sync += r.state.eq(Mux(r.have, State.DECIDE, State.FETCH))
            with m.Case(State.FETCH):
                m.d.sync += beat.eq(0)
                with m.If(port.reads.ready):
                    m.d.sync += [r.have.eq(1), r.state.eq(State.WAIT)]
            with m.Case(State.WAIT):
                with m.If(found.valid & (found.payload.tag == self._tag)):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(found.payload.error):
                        m.d.sync += [r.stopped.eq(Stop.BUS_ERROR), r.ends.eq(1)]
                    with m.If(found.payload.last):
                        m.d.sync += r.state.eq(State.LOOK)
            with m.Case(State.DECIDE):
                mine = Cat(r.record.tag_low, r.record.tag_high[: x86.PCID_BITS - 6]) == self.list.pcid
                with m.If(r.record.phase == r.number.bit_select(self.list.size, 1)):
                    m.d.sync += [self.bad.eq(1), r.ends.eq(1), r.stopped.eq(Stop.ABORTED), r.state.eq(State.LOOK)]
                with m.Elif(r.ends):
                    m.d.sync += r.state.eq(State.LOOK)
                with m.Elif(~mine):
                    m.d.sync += r.state.eq(State.PASS)
                with m.Elif(~self.pause):
                    m.d.comb += begins.eq(1)
                    m.d.sync += [r.follows.eq(1), r.state.eq(State.WALK)]
            with m.Case(State.WALK):
                with m.If(fetcher.idle):
                    with m.If(fetcher.stopped != Stop.DONE):
                        m.d.sync += [r.ends.eq(1), r.stopped.eq(fetcher.stopped), r.state.eq(State.LOOK)]
                    with m.Else():
                        m.d.comb += nexts.eq(1)
            with m.Case(State.PASS):
                m.d.comb += nexts.eq(self.jobs.valid & self.jobs.ready)
        with m.If(nexts):
            m.d.sync += [
                *(r.number.eq(r.number + 1), r.left.eq(r.left - 1), r.state.eq(State.LOOK)),
                r.have.eq(~r.number[: lane_bits + beat_bits].all()),
            ]
        with m.If(self.stop & (r.state != State.IDLE) & ~r.ends):
            m.d.sync += [r.ends.eq(1), r.stopped.eq(self.because)]
        return m

    def _pass_on(self, m: Module, r: SimpleNamespace, begins: Value) -> None:
        """The fetcher's ports, and what they are while records are gone through."""
        fetcher = self._fetcher
        connect(m, fetcher.port, flipped(self.port))
        page = r.record.page
        for name in ("start", "range", "made", "stop", "because", "pause"):
            m.d.comb += getattr(fetcher, name).eq(getattr(self, name))
        for name in ("entry", "paused", "changed", "touched", "met_global", "passed", "stopped"):
            m.d.comb += getattr(self, name).eq(getattr(fetcher, name))
        m.d.comb += [
            *(self.jobs.valid.eq(fetcher.jobs.valid), self.jobs.payload.eq(fetcher.jobs.payload)),
            fetcher.jobs.ready.eq(self.jobs.ready),
            self.idle.eq(fetcher.idle & (r.state == State.IDLE)),
        ]
        with m.If(self.lists):
            m.d.comb += [
                *(fetcher.start.eq(begins), fetcher.goes_on.eq(r.follows), fetcher.range.pages.eq(1)),
                fetcher.range.page.eq(Mux(self.range.la57, page, page[:_LINEAR_4])),
                self.stopped.eq(r.stopped),
            ]
        with m.If(r.state == State.PASS):
            m.d.comb += [
                self.jobs.valid.eq(~self.pause),
                *(self.jobs.payload.kind.eq(JobKind.HOLE), self.jobs.payload.pages.eq(1)),
            ]
