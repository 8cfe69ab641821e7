"""What an operation found, to memory: a bitmap, or pagemap words, gathered into lines."""

from enum import IntEnum
from types import SimpleNamespace
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.model import linux
from ptewalk.rtl.bus.line_port import LinePortSignature, check_line
from ptewalk.rtl.engine.jobs import PAGES_BITS, JobKind
from ptewalk.rtl.engine.lines import LOOK_CYCLES, DoneLayout, in_range

__all__ = ["LARGEST_UNIT", "UNIT_BITS", "LineWriter", "Report", "Reporter"]

LARGEST_UNIT: Final = 9
"""Binary logarithm of the pages that a bit of a bitmap tells of, at most: those of a table."""
UNIT_BITS: Final = LARGEST_UNIT.bit_length()
_WORD = 64
_PLACE_BITS = (_WORD - 1).bit_length()
_GATHERED = 8
"""Lines of a report that are gathered or sent: with two the one would wait for the other, and with narrow lines each
beat that is on its way may fill one."""
_LEAF_BITS = (linux.HUGE_PAGES.bit_length() - 1, linux.GIGANTIC_PAGES.bit_length() - 1)
"""Bits of a page's number in a leaf of level 2 and of level 3."""


class Report(IntEnum):
    """What is written of an operation."""

    NONE = 0
    BITMAP = 1
    """A bit a page, or for some pages, the first in bit 0 of the first 64-bit word: it matched, or one of them did."""
    WORDS = 2
    """A pagemap word a page, without FILE and EXCLUSIVE."""


class LineWriter(Component):
    """Gathers words at rising addresses into lines, and writes those, whole or with strobes.

    Parameters
    ----------
    physical_bits, data_bits, line_bytes : int

    Members
    -------
    start : In(1), address : In(physical_bits)
        Where the first word goes, 8-byte aligned.
    words : In(stream of {value, strobes})
        In the lanes of their addresses; strobes are neighbours, from the lane of the next address on.
    flush : In(1)
        A line that is not full is sent too.
    ors : In(1)
        Bits of what is there stay: each line is read before it is sent, and nobody else writes to it in between.
    writes, written
        As in `LinePortSignature`.
    reads : Out(stream of {address}), old : In(stream of {value, error, last}, always ready)
        Such a line, and its beats. One that the bus refuses is not written.
    room : Out(1)
        Whatever is on its way will be taken: each of `LOOK_CYCLES` beats, and two more, may fill a line.
    idle : Out(1)
        All is written that was taken; a line that is not full waits for `flush`.
    failed : Out(1)
        The bus refused a line since `start`.
    """

    def __init__(self, *, physical_bits: int, data_bits: int, line_bytes: int) -> None:
        check_line(data_bits=data_bits, line_bytes=line_bytes)
        self._lanes, self._entries = data_bits // _WORD, line_bytes // 8
        self._beats = self._entries // self._lanes
        self._physical_bits = physical_bits
        port = LinePortSignature(physical_bits=physical_bits, data_bits=data_bits, line_bytes=line_bytes, tag_bits=1)
        word = data.StructLayout({"value": unsigned(data_bits), "strobes": unsigned(self._lanes)})
        old = data.StructLayout({"value": unsigned(data_bits), "error": 1, "last": 1})
        super().__init__(
            {
                "start": In(1),
                "address": In(physical_bits),
                "words": In(stream.Signature(word)),
                "flush": In(1),
                "ors": In(1),
                "writes": port.members["writes"],
                "written": port.members["written"],
                "reads": Out(stream.Signature(data.StructLayout({"address": unsigned(physical_bits)}))),
                "old": In(stream.Signature(old, always_ready=True)),
                "room": Out(1),
                "idle": Out(1),
                "failed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane_bits, place_bits = (self._lanes - 1).bit_length(), (self._entries - 1).bit_length()
        count_bits = (_GATHERED - 1).bit_length()
        r = SimpleNamespace(
            place=Signal(place_bits),  # of the next word, in its line
            filling=Signal(count_bits),
            some=Signal(),  # the line that is filled has words
            partial=Signal(),  # and the last one that was closed is not full
            full=Signal(range(_GATHERED + 1)),
            first=Signal(place_bits),  # place of the first word in the line that is sent: 0 but for the very first
            line=Signal(self._physical_bits - 3 - place_bits),  # the line that is sent
            sending=Signal(count_bits),
            beat=Signal(range(self._beats) if self._beats > 1 else 1),
            under_way=Signal(16),
            there=Signal(),  # what is in memory of the line that is sent next was read
            refused=Signal(),  # and the bus refused it
        )
        m.submodules.buffer = buffer = Memory(
            shape=unsigned(_WORD * self._lanes), depth=_GATHERED * self._beats, init=[]
        )
        writer = buffer.write_port(granularity=_WORD) if self._lanes > 1 else buffer.write_port()
        words = self.words
        taken, ends, partial, closes, sent = (
            Signal(name=name) for name in ("taken", "ends", "partial", "closes", "sent")
        )
        count = sum(words.payload.strobes[lane] for lane in range(self._lanes))
        m.d.comb += [
            words.ready.eq((r.full != _GATHERED) & ~self.flush),
            self.room.eq(r.full < _GATHERED - LOOK_CYCLES - 2),
            taken.eq(words.valid & words.ready),
            ends.eq(taken & r.place[lane_bits:].all() & words.payload.strobes[-1]),
            partial.eq(self.flush & r.some & (r.full != _GATHERED)),
            closes.eq(ends | partial),
            writer.addr.eq(Cat(r.place[lane_bits:], r.filling) if self._beats > 1 else r.filling),
            writer.data.eq(words.payload.value),
            writer.en.eq(Mux(taken, words.payload.strobes, 0)),
        ]
        with m.If(taken):
            m.d.sync += [r.place.eq(r.place + count), r.some.eq(1)]
        with m.If(closes):
            m.d.sync += [r.some.eq(0), r.partial.eq(partial)]
        m.d.sync += [r.filling.eq(r.filling + closes), r.full.eq(r.full + closes - sent)]
        self._send(m, r, buffer, sent)
        m.d.sync += r.under_way.eq(r.under_way + sent - self.written.valid)
        m.d.comb += self.idle.eq((r.full == 0) & (r.under_way == 0) & ~(self.flush & r.some))
        with m.If(sent):
            m.d.sync += [r.line.eq(r.line + 1), r.first.eq(0)]
        with m.If(self.start):
            place, line = self.address[3 : 3 + place_bits], self.address[3 + place_bits :]
            m.d.sync += [r.place.eq(place), r.first.eq(place), r.line.eq(line), self.failed.eq(0)]
        with m.Elif((self.written.valid & self.written.payload.error) | (self.old.valid & self.old.payload.error)):
            m.d.sync += self.failed.eq(1)
        return m

    def _read(self, m: Module, r: SimpleNamespace, sending: Value, number: Value) -> Value:
        """Where bits of what is there stay it is read before the oldest full line is sent; the beat of that number."""
        old, beat, asked = self.old, Signal.like(r.beat), Signal()
        m.submodules.there = there = Memory(shape=unsigned(_WORD * self._lanes), depth=max(2, self._beats), init=[])
        writer, reader = there.write_port(), there.read_port(domain="comb")
        m.d.comb += [
            reader.addr.eq(number),
            self.reads.valid.eq(self.ors & (r.full != 0) & ~sending & ~asked & ~r.there),
            self.reads.payload.address.eq(Cat(Const(0, self._physical_bits - len(r.line)), r.line)),
            *(writer.addr.eq(beat), writer.data.eq(old.payload.value), writer.en.eq(old.valid)),
        ]
        with m.If(self.reads.valid & self.reads.ready):
            m.d.sync += [asked.eq(1), beat.eq(0), r.refused.eq(0)]
        with m.If(old.valid):
            m.d.sync += [beat.eq(beat + 1), r.refused.eq(r.refused | old.payload.error)]
            with m.If(old.payload.last):
                m.d.sync += [asked.eq(0), r.there.eq(1)]
        found: Value = Mux(self.ors, reader.data, 0)
        return found

    def _send(self, m: Module, r: SimpleNamespace, buffer: Memory, sent: Signal) -> None:
        """The oldest full line, beat by beat; `sent` when the last beat is taken."""
        reader = buffer.read_port()
        out = SimpleNamespace(valid=Signal(), last=Signal(), beat=Signal.like(r.beat))
        free, goes, last, left = Signal(), Signal(), Signal(), Signal(range(_GATHERED + 1))
        writes = self.writes
        m.d.comb += [
            free.eq(~out.valid | writes.ready),
            last.eq(r.beat == self._beats - 1),
            left.eq(r.full - (out.valid & out.last)),  # what was read to its end is still counted until it is taken
            goes.eq(free & (left != 0) & (~self.ors | r.there)),
            reader.en.eq(free),
            reader.addr.eq(Cat(r.beat, r.sending) if self._beats > 1 else r.sending),
            sent.eq(out.valid & out.last & writes.ready),
        ]
        with m.If(free):
            m.d.sync += [out.valid.eq(goes), out.last.eq(last), out.beat.eq(r.beat)]
        with m.If(goes):
            m.d.sync += [r.beat.eq(Mux(last, 0, r.beat + 1)), r.sending.eq(r.sending + last)]
            m.d.sync += r.there.eq(r.there & ~last)
        # All is written from the first word on, up to the next one.
        strobes, short, every = Signal(self._entries), r.partial & (r.full == 1), Const(-1, self._entries)
        m.d.comb += strobes.eq((every << r.first) & ~Mux(short, every << r.place, 0))
        payload, stays = writes.payload, self._read(m, r, out.valid, out.beat)
        m.d.comb += [
            writes.valid.eq(out.valid),
            payload.address.eq(Cat(Const(0, self._physical_bits - len(r.line)), r.line)),
            payload.value.eq(reader.data | stays),
            payload.strobes.eq(Mux(self.ors & r.refused, 0, strobes.word_select(out.beat, self._lanes))),
            payload.last.eq(out.last),
        ]


_OF_MEMORY = ("writes", "written", "reads", "old")
"""Of a `LineWriter`: what goes to memory."""


class _PartLayout(data.StructLayout):
    """Pages of a job that have room in a word of a bitmap, and their bits, `matches`, over and over.

    From bit `at` on, up to `end`, or with `open` to the word's end, and with `full` no further page has room.
    """

    def __init__(self, entries: int) -> None:
        bits = {name: unsigned(_PLACE_BITS) for name in ("at", "end")}
        super().__init__({"valid": 1, "full": 1, "open": 1, "matches": unsigned(entries), **bits})


class Reporter(Component):
    """Takes jobs that are over, in order, and makes the report of them.

    A bitmap begins with the word that holds the first page's bit: that of unit n is bit n modulo 64. Words stand in the
    lanes in which their entries stood: the report's address and eight times the first page are equal modulo a line.

    Parameters
    ----------
    physical_bits, data_bits, line_bytes, slot_bits, beat_bits : int

    Members
    -------
    start : In(1), address : In(physical_bits), report : In(Report), page : In(PAGES_BITS)
        A command begins: where the report goes, and the number of its first page. `report` is held.
    ors : In(1), unit : In(UNIT_BITS)
        Of a bitmap, held: bits that are set already stay; a bit tells of 2**`unit` pages, 1 where one of them matched.
    told : In(stream of DoneLayout)
    look, look_slot, look_beat, look_lanes, looked, words_valid, words_lanes, beat_words, release
        As in `Lines`.
    flush : In(1)
        There are no more jobs.
    writes, written, reads, old, idle, failed
        As in `LineWriter`.
    page_now : Out(PAGES_BITS)
        The first page that was not told yet.
    """

    def __init__(self, *, physical_bits: int, data_bits: int, line_bytes: int, slot_bits: int, beat_bits: int) -> None:
        self._lanes, self._entries = data_bits // _WORD, line_bytes // 8
        self._writer = LineWriter(physical_bits=physical_bits, data_bits=data_bits, line_bytes=line_bytes)
        members = self._writer.signature.members
        super().__init__(
            {
                "start": In(1),
                "address": In(physical_bits),
                "report": In(Report),
                "page": In(PAGES_BITS),
                "ors": In(1),
                "unit": In(UNIT_BITS),
                "told": In(stream.Signature(DoneLayout(self._entries, slot_bits))),
                "look": Out(1),
                "look_slot": Out(slot_bits),
                "look_beat": Out(beat_bits),
                "look_lanes": Out(self._lanes),
                "looked": In(1),
                "words_valid": In(1),
                "words_lanes": In(self._lanes),
                "beat_words": In(data_bits),
                "release": Out(1),
                "flush": In(1),
                **{name: members[name] for name in _OF_MEMORY},
                "idle": Out(1),
                "failed": Out(1),
                "page_now": Out(PAGES_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.writer = writer = self._writer
        # What is told stands in a register while it is worked on; what goes to the writer stands in one too.
        job, here = Signal(self.told.payload.shape(), name="job"), Signal()
        out = SimpleNamespace(
            valid=Signal(), value=Signal.like(writer.words.payload.value), strobes=Signal(self._lanes)
        )
        r = SimpleNamespace(
            left=Signal(PAGES_BITS),  # pages of the job
            pending=Signal(),
            looking=Signal(range(LOOK_CYCLES + 1)),
            part=Signal(_PartLayout(self._entries)),
        )
        moves, ends, worked = Signal(), Signal(), Signal()
        for name in _OF_MEMORY:
            connect(m, getattr(writer, name), flipped(getattr(self, name)))
        m.d.comb += [
            *(writer.start.eq(self.start), writer.address.eq(self.address), writer.ors.eq(self.ors)),
            worked.eq(~r.pending & ~r.part.valid & ~out.valid & (r.looking == 0)),
            *(writer.flush.eq(self.flush & worked), self.idle.eq(writer.idle & worked & ~here)),
            self.failed.eq(writer.failed),
            self.release.eq(moves & ends),
            self.told.ready.eq(~here | self.release),
            *(writer.words.valid.eq(out.valid), writer.words.payload.value.eq(out.value)),
            writer.words.payload.strobes.eq(out.strobes),
        ]
        with m.If(self.told.ready):
            m.d.sync += [here.eq(self.told.valid), job.eq(self.told.payload)]
        with m.If(writer.words.ready):
            m.d.sync += out.valid.eq(0)
        told = SimpleNamespace(valid=here, payload=job)
        split = self._split(m, r, moves, ends)
        with m.Switch(self.report):
            with m.Case(Report.BITMAP):
                self._bitmap(m, r, told, out, split)
            with m.Case(Report.WORDS):
                self._words(m, r, told, out, split.step, moves)
            with m.Default():
                m.d.comb += moves.eq(here)
        with m.If(self.start):
            m.d.sync += [self.page_now.eq(self.page), r.pending.eq(0)]
        return m

    def _split(self, m: Module, r: SimpleNamespace, moves: Signal, ends: Signal) -> SimpleNamespace:
        """How many pages of the job are told at once, up to the end of a word or a beat, and whether they reach it."""
        bitmap, all_at_once, room = Signal(), Signal(), Signal(range((_WORD << LARGEST_UNIT) + 1))
        step, full, behind = Signal.like(room), Signal(), Signal(PAGES_BITS)
        within = Signal(_PLACE_BITS + LARGEST_UNIT)  # bits of a page's number that say where it is in a word, or beat
        many, few = r.left[len(room) :].any(), r.left[: len(room)]
        m.d.sync += [
            bitmap.eq(self.report == Report.BITMAP),
            all_at_once.eq((self.report != Report.BITMAP) & (self.report != Report.WORDS)),
        ]
        in_unit = [self.unit > bit for bit in range(LARGEST_UNIT)]
        m.d.comb += [
            within.eq(Mux(self.report == Report.BITMAP, Cat(Const(-1, _PLACE_BITS), *in_unit), self._lanes - 1)),
            behind.eq(self.page_now + r.left),
            full.eq(~all_at_once & (many | (few >= room))),
            ends.eq(all_at_once | (~many & (few <= room))),
            step.eq(Mux(full, room, few)),
        ]
        with m.If(moves):
            m.d.sync += [r.left.eq(r.left - room), self.page_now.eq(Mux(full, (self.page_now | within) + 1, behind))]
            m.d.sync += room.eq(Mux(full, within + 1, room - few))
        with m.If(self.told.ready):
            m.d.sync += r.left.eq(self.told.payload.pages)
        with m.If(self.start):
            m.d.sync += room.eq((~self.page[: len(within)] & within) + 1)
        return SimpleNamespace(step=step, full=full, behind=behind, moves=moves)

    def _bitmap(
        self, m: Module, r: SimpleNamespace, told: SimpleNamespace, out: SimpleNamespace, split: SimpleNamespace
    ) -> None:
        """Bits of a line, or of many equal pages, into the word that is being made; a full word is written."""
        job, part = told.payload, r.part
        made, bits, value = (Signal(_WORD, name=name) for name in ("made", "bits", "value"))
        lane = Signal(range(self._lanes) if self._lanes > 1 else 1)
        free, puts, goes, every = Signal(), Signal(), Signal(), Const((1 << _WORD) - 1, _WORD)
        end = Signal(_PLACE_BITS + 1)
        m.d.comb += [
            end.eq(sum(self._unit_of(m, "unit_behind", split.behind))),
            free.eq(~out.valid | self._writer.words.ready),
            goes.eq(part.valid & (~part.full | free)),
            split.moves.eq(told.valid & (~part.valid | goes)),
        ]
        with m.If(goes):
            m.d.sync += part.valid.eq(0)
        with m.If(split.moves):
            m.d.sync += [
                *(
                    part.valid.eq(1),
                    part.full.eq(split.full),
                    part.at.eq(self._unit_of(m, "unit_now", self.page_now)[0]),
                ),
                *(part.end.eq(end), part.open.eq(split.full | end[_PLACE_BITS])),
                part.matches.eq(self._bits_of(m, job)),
            ]
        m.d.comb += [
            bits.eq(part.matches.replicate(_WORD // self._entries) & (every << part.at)),
            value.eq(made | (bits & ~Mux(part.open, 0, every << part.end))),
            puts.eq(free & Mux(part.valid, part.full, r.pending & self.flush)),
        ]
        with m.If(goes):
            m.d.sync += [made.eq(Mux(part.full, 0, value)), r.pending.eq(~part.full)]
        with m.Elif(puts):
            m.d.sync += [made.eq(0), r.pending.eq(0)]
        with m.If(puts):
            m.d.sync += [
                *(out.valid.eq(1), out.value.eq(Mux(part.valid, value, made).replicate(self._lanes))),
                *(out.strobes.eq(1 << lane if self._lanes > 1 else 1), lane.eq(lane + 1)),
            ]
        with m.If(self.start):
            m.d.sync += [made.eq(0), lane.eq(self.address[3:])]

    def _unit_of(self, m: Module, name: str, page: Value) -> tuple[Signal, Signal]:
        """The place in a word of a page's bit, and whether pages of that unit come before it."""
        place, inside = Signal(_PLACE_BITS, name=name), Signal(name=f"{name}_inside")
        with m.Switch(self.unit):
            for unit in range(LARGEST_UNIT + 1):
                with m.Case(unit):
                    m.d.comb += [place.eq(page[unit:]), inside.eq(page[:unit].any())]
        return place, inside

    def _bits_of(self, m: Module, job: data.View) -> Signal:
        """The bits of a job: of the units of a line, in their order, as often as there is room."""
        bits, entries = Signal(self._entries, name="bits_of"), self._entries
        folded = [Mux(job.error, in_range(job, entries), job.matches)]
        while len(folded[-1]) > 1:
            folded.append(Cat(folded[-1][place : place + 2].any() for place in range(0, len(folded[-1]), 2)))
        with m.If(job.kind != JobKind.LINE):
            m.d.comb += bits.eq(job.matches[0].replicate(entries))
        with m.Else():
            m.d.comb += bits.eq(folded[-1].replicate(entries))
            with m.Switch(self.unit):
                for unit, value in enumerate(folded[:-1]):
                    with m.Case(unit):
                        m.d.comb += bits.eq(value.replicate(entries // len(value)))
        return bits

    def _words(
        self, m: Module, r: SimpleNamespace, told: SimpleNamespace, out: SimpleNamespace, step: Signal, moves: Signal
    ) -> None:
        """The words of a beat, looked up; or of as many pages of one leaf or hole, when none is on its way."""
        job, lanes = told.payload, self._lanes
        lane_bits, place_bits = (lanes - 1).bit_length(), (self._entries - 1).bit_length()
        first, line, plain = self.page_now[:lane_bits], job.kind == JobKind.LINE, Signal()
        m.d.comb += [
            self.look.eq(told.valid & line & self._writer.room),
            self.look_slot.eq(job.slot),
            self.look_beat.eq(self.page_now[lane_bits:place_bits]),
            self.look_lanes.eq(((Const(1, lanes + 1) << step[: lanes.bit_length()]) - 1) << first),
            plain.eq(told.valid & ~line & self._writer.room & (r.looking == 0)),
            moves.eq(Mux(line, self.looked, plain)),
        ]
        m.d.sync += r.looking.eq(r.looking + self.looked - self.words_valid)
        with m.If(self.words_valid):
            m.d.sync += [out.valid.eq(1), out.value.eq(self.beat_words), out.strobes.eq(self.words_lanes)]
        with m.Elif(plain):
            m.d.sync += [out.valid.eq(1), out.strobes.eq(self.look_lanes)]
            for lane in range(lanes):
                low, giant = (Cat(Const(lane, lane_bits), self.page_now[lane_bits:bits]) for bits in _LEAF_BITS)
                word = job.word | Mux(job.word[linux.PagemapBit.PRESENT], Mux(job.giant, giant, low), 0)
                m.d.sync += out.value[_WORD * lane : _WORD * lane + _WORD].eq(Mux(job.kind == JobKind.LEAF, word, 0))
