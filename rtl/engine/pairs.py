"""Pairs of lines in flight: entries of one go to the same places of the other, source first. Told in order."""

from enum import IntEnum
from types import SimpleNamespace
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.engine.stream_net import StreamSignature

__all__ = ["LinePairs", "PairLayout", "PairOutcome"]


_IN_LUTS: Final = {"ram_style": "distributed"}
"""Few as the rows are, they stand in no flip-flops."""


class PairOutcome(IntEnum):
    """How a pair ended."""

    DONE = 0
    """All that was there is moved."""
    STAYS = 1
    """Nothing was taken: a place is occupied, the bus refused a read, or the source was written meanwhile."""
    HALF = 2
    """All was taken, and nothing put: the target was written meanwhile."""
    UNKNOWN = 3
    """The bus refused a swap: what was to be moved may stand here, there, or nowhere."""


class PairLayout(data.StructLayout):
    """Two lines, and which of their entries are moved.

    Members
    -------
    source, target : unsigned
        Addresses, in lines.
    range : unsigned(entries)
        By place.
    count : unsigned
        How many.
    """

    def __init__(self, line_address_bits: int, entries: int) -> None:
        line = unsigned(line_address_bits)
        count = unsigned(entries.bit_length())
        super().__init__({"source": line, "target": line, "range": unsigned(entries), "count": count})


class LinePairs(Component):
    """A ring of pairs, in order; each has two tags of the line port.

    Both lines are read with a link. If no entry of the source goes where another is, the source's are swapped to 0, all
    at once, and then the target's from 0. Nothing is tried twice.

    Parameters
    ----------
    pairs : int
        A power of two. Tags: two times a pair's number for its source, and one more for its target.
    physical_bits, data_bits, line_bytes, tag_bits : int

    Members
    -------
    drops_markers : In(1)
        As in a move; held while a pair is here.
    net : Out(StreamSignature)
        What an entry becomes on its way.
    jobs : In(stream of PairLayout)
    port : Out(LinePortSignature)
        Only `reads`, `data`, `swaps` and `swapped`.
    valid : Out(1), told : Out(PairLayout), outcome : Out(PairOutcome), there : Out(unsigned)
        The oldest pair is over; how; which of its source's entries were there.
    release : In(1)
        It is not needed any more.
    place : In, entry : Out(64)
        A cycle later: what was at this place of the oldest pair's source.
    head : Out
        The pair that is taken next: its tags are free.
    none, still : Out(1)
        No pair is here; all that are here are over.
    took_global : Out(1)
        In this cycle an entry is taken that is global.
    """

    def __init__(self, *, pairs: int, physical_bits: int, data_bits: int, line_bytes: int, tag_bits: int) -> None:
        self._pairs, self._lanes, self._entries = pairs, data_bits // 64, line_bytes // 8
        self._beats = self._entries // self._lanes
        self._pair_bits = (pairs - 1).bit_length()
        self._line_shift = (line_bytes - 1).bit_length()
        self._physical_bits, self._tag_bits = physical_bits, tag_bits
        self._layout = PairLayout(physical_bits - self._line_shift, self._entries)
        port = LinePortSignature(
            physical_bits=physical_bits, data_bits=data_bits, line_bytes=line_bytes, tag_bits=tag_bits
        )
        super().__init__(
            {
                "drops_markers": In(1),
                "net": Out(StreamSignature(self._lanes)),
                "jobs": In(stream.Signature(self._layout)),
                "port": Out(port),
                "valid": Out(1),
                "told": Out(self._layout),
                "outcome": Out(PairOutcome),
                "there": Out(self._entries),
                "release": In(1),
                "place": In((self._entries - 1).bit_length()),
                "entry": Out(64),
                "head": Out(self._pair_bits),
                "none": Out(1),
                "still": Out(1),
                "took_global": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        r = SimpleNamespace(
            tail=Signal(self._pair_bits),
            used=Signal(range(self._pairs + 1)),
            over=Signal(self._pairs, init=(1 << self._pairs) - 1),
            outcomes=[Signal(PairOutcome, name=f"outcome_{number}") for number in range(self._pairs)],
            puts=Signal(self._pairs),  # something of it is put
            came=Signal(2 * self._pairs),  # by tag
            # The next pairs that are taken, and put.
            takes=SimpleNamespace(valid=Signal(), pair=Signal(self._pair_bits)),
            put=SimpleNamespace(valid=Signal(), pair=Signal(self._pair_bits)),
        )
        m.submodules.rows_jobs = r.jobs = Memory(shape=self._layout, depth=self._pairs, init=[], attrs=_IN_LUTS)
        m.submodules.rows_there = r.there = Memory(
            shape=unsigned(self._entries), depth=self._pairs, init=[], attrs=_IN_LUTS
        )
        m.submodules.buffer = r.buffer = Memory(
            shape=unsigned(64 * self._lanes), depth=self._pairs * self._beats, init=[]
        )
        depth = max(2, self._pairs)
        m.submodules.to_take = r.to_take = fifo.SyncFIFO(width=max(1, self._pair_bits), depth=depth)
        m.submodules.to_put = r.to_put = fifo.SyncFIFO(width=max(1, self._pair_bits), depth=depth)
        taken = self._take(m, r)
        ends = [self._arrive(m, r), self._answered(m, r)]
        self._swap(m, r)
        for number in range(self._pairs):
            with m.If(taken & (self.head == number)):
                m.d.sync += [r.over[number].eq(0), r.puts[number].eq(0), r.came[2 * number : 2 * number + 2].eq(0)]
            for event, pair, outcome in ends:
                with m.If(event & (pair == number)):
                    m.d.sync += [r.over[number].eq(1), r.outcomes[number].eq(outcome)]
        told, there = self._row(m, r.jobs, r.tail), self._row(m, r.there, r.tail)
        m.d.comb += [
            *(self.valid.eq((r.used != 0) & r.over.bit_select(r.tail, 1)), self.told.eq(told), self.there.eq(there)),
            *(self.none.eq(r.used == 0), self.still.eq(r.over.all())),
        ]
        with m.Switch(r.tail):
            for number, outcome in enumerate(r.outcomes):
                with m.Case(number):
                    m.d.comb += self.outcome.eq(outcome)
        m.d.sync += [r.tail.eq(r.tail + self.release), r.used.eq(r.used + taken - self.release)]
        return m

    def _row(self, m: Module, memory: Memory, pair: Value) -> Value:
        port = memory.read_port(domain="comb")
        m.d.comb += port.addr.eq(pair)
        value: Value = port.data
        return value

    def _take(self, m: Module, r: SimpleNamespace) -> Signal:
        """A pair takes the next place; its two reads are sent. Whether one does."""
        taken, reads = Signal(), self.port.reads
        asks, pair = Signal(2), Signal(self._pair_bits)
        writer = r.jobs.write_port()
        job, side = self._row(m, r.jobs, pair), ~asks[0]
        line = Mux(side, job.target, job.source)
        m.d.comb += [
            self.jobs.ready.eq(((r.used != self._pairs) | self.release) & ~asks.any()),
            taken.eq(self.jobs.valid & self.jobs.ready),
            *(writer.addr.eq(self.head), writer.data.eq(self.jobs.payload), writer.en.eq(taken)),
            *(reads.valid.eq(asks.any()), reads.payload.line.eq(1), reads.payload.link.eq(1)),
            reads.payload.tag.eq(Cat(side, pair)),
            reads.payload.address.eq(Cat(Const(0, self._line_shift), line)),
        ]
        with m.If(taken):
            m.d.sync += [asks.eq(0b11), pair.eq(self.head), self.head.eq(self.head + 1)]
        with m.Elif(reads.valid & reads.ready):
            m.d.sync += asks.eq(Mux(side, 0, 0b10))
        return taken

    def _arrive(self, m: Module, r: SimpleNamespace) -> tuple[Value, Value, Value]:
        """Beats of lines: what is there, by place; when both lines have come, what becomes of the pair."""
        found, beat, came = self.port.data, Signal.like(self.port.data.payload), Signal()
        pair, side = Signal(self._pair_bits), beat.tag[0]
        m.d.sync += [came.eq(found.valid & (found.payload.tag < 2 * self._pairs)), beat.eq(found.payload)]
        known_layout = data.StructLayout(
            {"beat": unsigned(max(1, (self._beats - 1).bit_length())), "error": 1, "there": unsigned(self._entries)}
        )
        m.submodules.rows_known = rows = Memory(shape=known_layout, depth=2 * self._pairs, init=[])
        tag, keeper = Signal(self._pair_bits + 1), rows.write_port()
        # Looked up as the beat comes, to stand in registers beside it; what is kept in that very cycle is newer.
        next_tag = found.payload.tag[: len(tag)]
        known, other = Signal(known_layout, name="known"), Signal(known_layout, name="other")
        for row, of in ((known, next_tag), (other, next_tag ^ 1)):
            m.d.sync += row.eq(Mux(came & (tag == of), keeper.data, self._row(m, rows, of)))
        wanted = Signal(self._entries, name="wanted")
        m.d.sync += wanted.eq(self._row(m, r.jobs, next_tag[1:]).range)
        inside = Signal(2 * self._pairs)  # some beats of a tag's line have come, and not all: a reset ends that
        number = Mux(inside.bit_select(tag, 1), known.beat, 0) if self._beats > 1 else Const(0, 1)
        here, first, there, error = Signal(self._entries), Signal(), Signal(self._entries), Signal()
        any_of = Signal(self._lanes)
        m.d.sync += any_of.eq(Cat(found.payload.value.word_select(lane, 64).any() for lane in range(self._lanes)))
        buffer = r.buffer.write_port()
        m.d.comb += [
            *(tag.eq(beat.tag), pair.eq(beat.tag[1:])),
            first.eq(number == 0),
            here.eq(any_of << (number * self._lanes)),
            there.eq(Mux(first, 0, known.there) | here),
            error.eq(beat.error | (known.error & ~first)),
            *(keeper.addr.eq(tag), keeper.en.eq(came)),
            *(keeper.data.beat.eq(number + 1), keeper.data.error.eq(error)),
            keeper.data.there.eq(there),
            *(buffer.addr.eq(Cat(number, pair) if self._beats > 1 else pair), buffer.data.eq(beat.value)),
            # What others read by these tags, while the pair is over, is theirs.
            buffer.en.eq(came & ~side & ~r.over.bit_select(pair, 1)),
        ]
        with m.If(came):
            m.d.sync += inside.bit_select(tag, 1).eq(~beat.last)
        ends, both = Signal(), Signal()
        m.d.comb += [
            ends.eq(came & beat.last & ~r.over.bit_select(pair, 1)),
            both.eq(ends & r.came.bit_select(tag ^ 1, 1)),
        ]
        for place in range(2 * self._pairs):
            with m.If(ends & (tag == place)):
                m.d.sync += r.came[place].eq(1)
        source = Mux(side, other.there, there) & wanted
        target = Mux(side, there, other.there)
        decided = SimpleNamespace(valid=Signal(), pair=Signal(self._pair_bits), stays=Signal(), any=Signal())
        writer = r.there.write_port()
        m.d.comb += [writer.addr.eq(pair), writer.data.eq(source), writer.en.eq(both)]
        m.d.sync += [
            *(decided.valid.eq(both), decided.pair.eq(pair), decided.any.eq(source.any())),
            decided.stays.eq(error | other.error | (source & target).any()),
        ]
        takes = decided.valid & decided.any & ~decided.stays
        m.d.comb += [r.to_take.w_en.eq(takes), r.to_take.w_data.eq(decided.pair)]
        self._next(m, r.takes, r.to_take)
        return decided.valid & ~takes, decided.pair, Mux(decided.stays, PairOutcome.STAYS, PairOutcome.DONE)

    def _next(self, m: Module, one: SimpleNamespace, queue: fifo.SyncFIFO) -> None:
        """The queue's end; what is written stands there in the next cycle; its first of several beats may go now."""
        at_once = queue.w_en if self._beats > 1 else Const(0, 1)
        m.d.comb += [
            one.valid.eq(queue.r_rdy | at_once),
            one.pair.eq(Mux(queue.r_rdy, queue.r_data, queue.w_data)),
        ]

    def _swap(self, m: Module, r: SimpleNamespace) -> None:
        """Pairs of which both lines came, or the source was taken: swapped beat by beat. What is put goes first."""
        item = data.StructLayout(
            {"valid": 1, "put": 1, "last": 1, "pair": unsigned(self._pair_bits), "lanes": unsigned(self._lanes)}
        )
        begun, read, raw, out = (Signal(item, name=name) for name in ("begun", "read", "raw", "out"))
        free = Signal()
        inside, puts = Signal(), Signal()
        beat = Signal(range(self._beats) if self._beats > 1 else 1)
        reader, swaps = r.buffer.read_port(), self.port.swaps
        going = Signal()
        m.d.comb += [
            puts.eq(Mux(inside, going, r.put.valid)),
            free.eq(~out.valid | swaps.ready),
            *(begun.valid.eq(Mux(puts, r.put.valid, r.takes.valid)), begun.put.eq(puts)),
            begun.pair.eq(Mux(puts, r.put.pair, r.takes.pair)),
            begun.last.eq(beat == self._beats - 1),
            begun.lanes.eq(self._row(m, r.there, begun.pair).word_select(beat, self._lanes)),
            r.to_put.r_en.eq(puts & free & begun.last),
            r.to_take.r_en.eq(~puts & free & begun.last),
        ]
        with m.If(free):
            m.d.sync += [read.eq(begun), raw.eq(read), out.eq(raw)]
            with m.If(begun.valid):
                m.d.sync += [beat.eq(Mux(begun.last, 0, beat + 1)), inside.eq(~begun.last), going.eq(puts)]
        # The buffer's output is also what `place` asks for, when nothing is swapped.
        lane_bits = (self._lanes - 1).bit_length()
        looked, lane = Mux(begun.valid, begun.pair, r.tail), Signal.like(self.place[:lane_bits])
        looked_beat = Mux(begun.valid, beat, self.place[lane_bits:])
        m.d.sync += lane.eq(self.place[:lane_bits])
        m.d.comb += [
            reader.en.eq(free),
            reader.addr.eq(Cat(looked_beat[: len(beat)], looked) if self._beats > 1 else looked),
            self.entry.eq(reader.data.word_select(lane, 64) if self._lanes > 1 else reader.data),
        ]
        job = self._row(m, r.jobs, out.pair)
        payload = swaps.payload
        line = Mux(out.put, job.target, job.source)
        m.d.comb += [
            *(swaps.valid.eq(out.valid), payload.line.eq(1), payload.last.eq(out.last)),
            payload.tag.eq(Cat(out.put, out.pair)),
            payload.address.eq(Cat(Const(0, self._line_shift), line)),
            *(self.net.passes.eq(free), self.net.beat.eq(reader.data)),
        ]
        stays, shared = Signal(self._lanes), Signal(self._lanes)
        for lane_number in range(self._lanes):
            part = slice(64 * lane_number, 64 * lane_number + 64)
            entry, made = self.net.old[part], self.net.made[lane_number]
            m.d.comb += [
                payload.old[part].eq(Mux(out.put, 0, entry)),
                payload.new[part].eq(Mux(out.put, made.new, 0)),
                stays[lane_number].eq(out.lanes[lane_number] & ~(self.drops_markers & made.bare)),
                shared[lane_number].eq(out.lanes[lane_number] & entry[x86.EntryBit.P] & entry[x86.EntryBit.G]),
            ]
        m.d.comb += [
            payload.changed.eq(Mux(out.put, stays, out.lanes)),
            self.took_global.eq(out.valid & ~out.put & shared.any()),
        ]
        for number in range(self._pairs):
            with m.If(out.valid & ~out.put & (out.pair == number)):
                m.d.sync += r.puts[number].eq(r.puts[number] | stays.any())

    def _answered(self, m: Module, r: SimpleNamespace) -> tuple[Value, Value, Value]:
        """What was taken is put, if there is something; all else is over."""
        answer = self.port.swapped.payload
        side, pair = answer.tag[0], answer.tag[1 : 1 + self._pair_bits]
        mine, puts = Signal(), Signal()
        m.d.comb += [
            # What others swap by these tags, while the pair is over, is theirs.
            mine.eq(self.port.swapped.valid & (answer.tag < 2 * self._pairs) & ~r.over.bit_select(pair, 1)),
            puts.eq(mine & answer.done & ~side & r.puts.bit_select(pair, 1)),
            *(r.to_put.w_en.eq(puts), r.to_put.w_data.eq(pair)),
        ]
        self._next(m, r.put, r.to_put)
        failed = Mux(side, PairOutcome.HALF, PairOutcome.STAYS)
        outcome = Mux(answer.error, PairOutcome.UNKNOWN, Mux(answer.done, PairOutcome.DONE, failed))
        return mine & ~puts, pair, outcome
