"""Walks the upper tables of a range in the order of addresses, and makes jobs of what they say."""

from enum import IntEnum
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import linux, x86
from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.engine.change import MadeLayout
from ptewalk.rtl.engine.jobs import PAGES_BITS, JobKind, JobLayout
from ptewalk.rtl.engine.lines import ENTRY_FAILURES

__all__ = ["Fetcher", "RangeLayout", "Stop"]

_LEVELS = (2, 3, 4, 5)


class Stop(IntEnum):
    """Why no more jobs come."""

    DONE = 0
    """The range is at its end."""
    ABORTED = 1
    """It was told to stop."""
    NEED_SPLIT = 2
    """A leaf above level 1 is to be split first, by software."""
    PARTIAL = 3
    """A leaf above level 1 lies in the range only in part, and would change."""
    BUS_ERROR = 4
    """The bus refused, or a table lies beyond the physical addresses."""
    NEED_TABLE = 5
    """Of a move: where the entry goes there is no table."""
    OCCUPIED = 6
    """Of a move: where the entry goes there is another."""
    RETRY_LIMIT = 7
    """Of a move: swaps of an entry failed too often."""


class RangeLayout(data.StructLayout):
    """Where an operation goes.

    Members
    -------
    root : unsigned(physical_bits - 12)
        The frame of the table of the highest level.
    la57 : 1
        Five levels, not four.
    page : unsigned(PAGES_BITS)
        The number of the first page: the linear address above bit 11, below the sign bits.
    pages : unsigned(PAGES_BITS)
    changes : 1
        Entries may be changed; else they are only looked at.
    splits : 1
        A leaf above level 1 that would be changed stops the operation.
    whole_leaves : 1
        Such a leaf is changed though it is in the range only in part.
    """

    def __init__(self, physical_bits: int) -> None:
        super().__init__(
            {
                "root": unsigned(physical_bits - x86.PAGE_SHIFT),
                "la57": 1,
                "page": unsigned(PAGES_BITS),
                "pages": unsigned(PAGES_BITS),
                "changes": 1,
                "splits": 1,
                "whole_leaves": 1,
            }
        )


class State(IntEnum):
    """What the fetcher does."""

    IDLE = 0
    LOOK = 1
    """At the next entry, if its line is here."""
    FETCH = 2
    """Asks for the line."""
    WAIT = 3
    DECIDE = 4
    """What an entry leads to."""
    LINES = 5
    """Makes a job of each line of a table of level 1."""
    RELINK = 6
    """Reads a leaf again, with a link."""
    LEAF = 7
    """Waits for it."""
    SWAP = 8
    SWAPPED = 9
    HAND_ON = 10
    """Makes a job of the leaf."""
    BEGIN = 11
    HOLE = 12
    """Makes a job of what was passed over before an entry."""
    LOOKED = 13
    """The leaf was read again: what the operation makes of it is not there yet."""
    SHOWN = 14
    """Nor of one that is only looked at."""


class Fetcher(Component):
    """Reads each table above level 1 that the range meets, by lines, and each entry of it in the range once.

    A line of each level is kept, and one read or swap is in flight. Neighbouring pages that nothing maps are one job.
    A leaf above level 1 is read with a link and swapped here, until that succeeds, `ENTRY_FAILURES` times at most: then
    it is left as it is.

    Parameters
    ----------
    physical_bits, data_bits, line_bytes, tag_bits : int
    tag : int
        Of its reads and swaps.
    keeps : bool
        True: ranges of one root may follow one another with the lines of upper tables kept.

    Members
    -------
    start : In(1), range : In(RangeLayout)
        Begins; `range` is held until `idle`.
    goes_on : In(1)
        Only with `keeps`, with `start`: the lines that are kept are used. A pause between two ranges drops them.
    entry : Out(64), made : In(MadeLayout)
        Two cycles later: what the operation makes of it.
    stop : In(1), because : In(Stop)
        No more jobs are made; what was begun ends first.
    pause : In(1), paused : Out(1)
        Between two jobs: nothing is read, swapped or handed on, and of upper tables nothing is kept but the root.
    jobs : Out(stream of JobLayout)
    port : Out(LinePortSignature)
        Only `reads`, `data`, `swaps` and `swapped`.
    idle : Out(1), stopped : Out(Stop)
        There is nothing to do; why.
    changed : Out(1)
        In this cycle a leaf was changed.
    touched : Out(1), met_global : Out(1)
        One was changed, or may have been, since the bus refused its swap; and it is global.
    passed : Out(1)
        In this cycle entries are passed over that map nothing.
    """

    def __init__(
        self, *, physical_bits: int, data_bits: int, line_bytes: int, tag_bits: int, tag: int, keeps: bool = False
    ) -> None:
        self._physical_bits, self._tag, self._keeps = physical_bits, tag, keeps
        self._lanes, self._entries = data_bits // 64, line_bytes // 8
        self._beats = self._entries // self._lanes
        self._place_bits, self._lane_bits = (self._entries - 1).bit_length(), (self._lanes - 1).bit_length()
        port = LinePortSignature(
            physical_bits=physical_bits, data_bits=data_bits, line_bytes=line_bytes, tag_bits=tag_bits
        )
        super().__init__(
            {
                "start": In(1),
                "range": In(RangeLayout(physical_bits)),
                "entry": Out(64),
                "made": In(MadeLayout()),
                "stop": In(1),
                "because": In(Stop),
                "pause": In(1),
                "paused": Out(1),
                "jobs": Out(stream.Signature(JobLayout(physical_bits, self._entries))),
                "port": Out(port),
                "idle": Out(1),
                "stopped": Out(Stop),
                "changed": Out(1),
                "touched": Out(1),
                "met_global": Out(1),
                "passed": Out(1),
                **({"goes_on": In(1)} if keeps else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        frame_bits, line_bits = self._physical_bits - x86.PAGE_SHIFT, x86.INDEX_BITS - self._place_bits
        r = SimpleNamespace(
            state=Signal(State),
            page=Signal(PAGES_BITS),
            last=Signal(PAGES_BITS),  # the range's last page
            over=Signal(),  # `page` is behind it
            hole=Signal(),  # from `hole_from` to before `page` nothing is mapped, and that is not yet handed on
            hole_from=Signal(PAGES_BITS),
            level=Signal(range(len(_LEVELS))),  # less 2
            climbs=Signal(),  # `page` came up to a boundary: the table may end here
            entry=self.entry,
            final=Signal(),  # the last page is one of its
            span=Signal(PAGES_BITS),  # its pages that are in the range, less one
            partial=Signal(),  # and they are not all of its
            tables=[Signal(frame_bits, name=f"table_{level}") for level in _LEVELS],
            have=Signal(len(_LEVELS)),
            lines=[Signal(line_bits, name=f"line_{level}") for level in _LEVELS],
            beat=Signal(range(self._beats) if self._beats > 1 else 1),
            failed=Signal(),  # the bus refused a beat
            ends=Signal(),  # no more of the range is looked at
            failures=Signal(range(ENTRY_FAILURES)),
            given_up=Signal(),
            leaf=Signal(),  # `entry`, read again, is one
            shown=Signal(),  # for a cycle
            in_table=Signal(),  # `entry` is of level 2, and of the last page
        )
        m.submodules.kept = kept = Memory(shape=unsigned(64 * self._lanes), depth=4 * self._beats, init=[])
        made = self.made
        here = self._here(m, r)
        entry = self._kept_entry(m, r, kept, here)
        jobs, port, found = self.jobs.payload, self.port, self.port.data
        mine = found.valid & (found.payload.tag == self._tag)
        answered = port.swapped.valid & (port.swapped.payload.tag == self._tag)
        m.d.comb += [
            self.idle.eq(r.state == State.IDLE),
            self.paused.eq((r.state == State.IDLE) | ((r.state == State.LOOK) & self.pause)),
            port.reads.payload.link.eq(r.state == State.RELINK),
            port.reads.payload.line.eq(r.state == State.FETCH),
            port.reads.payload.tag.eq(self._tag),
            port.swaps.payload.tag.eq(self._tag),
            port.swaps.payload.address.eq(Cat(Const(0, 3), here.index, here.table)),
            port.swaps.payload.last.eq(1),
            port.swaps.payload.old.eq(r.entry.replicate(self._lanes)),
            port.swaps.payload.new.eq(made.new.replicate(self._lanes)),
            port.swaps.payload.changed.eq(1 << here.index[: self._lane_bits]),
        ]
        place = Mux(r.state == State.FETCH, 0, here.index[: self._place_bits])
        m.d.comb += port.reads.payload.address.eq(Cat(Const(0, 3), place, here.index[self._place_bits :], here.table))

        with m.Switch(r.state):
            with m.Case(State.IDLE):
                kept_lines = Mux(self.goes_on, r.have, 0) if self._keeps else 0
                if self._keeps:
                    with m.If(self.pause):
                        m.d.sync += r.have.eq(0)
                with m.If(self.start):
                    asked = self.range
                    top = Mux(asked.la57, 3, 2)
                    m.d.sync += [
                        *(r.page.eq(asked.page), r.last.eq(asked.page + asked.pages), r.hole.eq(0), r.level.eq(top)),
                        *(r.climbs.eq(0), r.have.eq(kept_lines), r.failures.eq(0), r.ends.eq(0)),
                        *(r.given_up.eq(0), r.state.eq(State.BEGIN)),
                        *(r.tables[-1].eq(asked.root), self.stopped.eq(Stop.DONE)),
                    ]
                    if self._keeps:
                        near = self.goes_on & r.in_table & ((asked.page ^ r.last)[x86.INDEX_BITS :] == 0)
                        m.d.sync += r.in_table.eq(near)
                        with m.If(near):
                            m.d.sync += r.level.eq(0)
                    with m.If(~asked.la57):
                        m.d.sync += r.tables[-2].eq(asked.root)
            with m.Case(State.BEGIN):
                m.d.sync += [r.last.eq(r.last - 1), r.over.eq(self.range.pages == 0)]
                m.d.sync += r.state.eq(Mux(r.in_table, State.LINES, State.LOOK) if self._keeps else State.LOOK)
            with m.Case(State.LOOK):
                self._look(m, r, here, entry)
            with m.Case(State.FETCH):
                m.d.comb += port.reads.valid.eq(1)
                with m.If(port.reads.ready):
                    m.d.sync += [r.state.eq(State.WAIT), r.beat.eq(0), r.failed.eq(0)]
            with m.Case(State.WAIT):
                with m.If(mine):
                    m.d.sync += [r.beat.eq(r.beat + 1), r.failed.eq(r.failed | found.payload.error)]
                    with m.If(found.payload.last):
                        m.d.sync += r.state.eq(State.LOOK)
                        with m.If(r.failed | found.payload.error):
                            m.d.sync += [self.stopped.eq(Stop.BUS_ERROR), r.ends.eq(1)]
                        with m.Else():
                            for number in range(len(_LEVELS)):
                                with m.If(r.level == number):
                                    m.d.sync += [
                                        r.have[number].eq(1),
                                        r.lines[number].eq(here.index[self._place_bits :]),
                                    ]
            with m.Case(State.DECIDE):
                self._decide(m, r, here)
            with m.Case(State.HOLE):
                self._hand_on_hole(m, r)
                with m.If(self.jobs.ready):
                    m.d.sync += r.state.eq(State.DECIDE)
            with m.Case(State.LINES):
                self._lines(m, r, here)
            with m.Case(State.RELINK):
                m.d.comb += port.reads.valid.eq(1)
                with m.If(port.reads.ready):
                    m.d.sync += r.state.eq(State.LEAF)
            with m.Case(State.LEAF):
                with m.If(mine):
                    m.d.sync += [
                        r.entry.eq(found.payload.value.word_select(here.index[: self._lane_bits], 64)),
                        r.state.eq(State.LOOKED),
                    ]
                    with m.If(found.payload.error):
                        m.d.sync += [self.stopped.eq(Stop.BUS_ERROR), r.ends.eq(1), r.state.eq(State.LOOK)]
            with m.Case(State.LOOKED):
                m.d.sync += [r.leaf.eq(self._is_leaf(r)), r.shown.eq(~r.shown)]
                with m.If(r.shown):
                    m.d.sync += r.state.eq(State.SWAP)
            with m.Case(State.SHOWN):
                m.d.sync += r.state.eq(State.HAND_ON)
            with m.Case(State.SWAP):
                # It is another by now: no leaf, or none that changes. What it leads to is decided anew.
                with m.If(~r.leaf):
                    m.d.sync += [r.have.eq(0), r.state.eq(State.LOOK)]
                with m.Elif(~made.changes):
                    m.d.sync += r.state.eq(State.HAND_ON)
                with m.Else():
                    m.d.comb += port.swaps.valid.eq(1)
                    with m.If(port.swaps.ready):
                        m.d.sync += r.state.eq(State.SWAPPED)
            with m.Case(State.SWAPPED):
                with m.If(answered):
                    self._swapped(m, r)
            with m.Case(State.HAND_ON):
                m.d.comb += [
                    self.jobs.valid.eq(1),
                    jobs.kind.eq(JobKind.LEAF),
                    jobs.pages.eq(r.span + 1),
                    jobs.giant.eq(r.level == 1),
                    jobs.matches.eq(made.matches),
                    jobs.word.eq(self._leaf_word(r, made)),
                    jobs.given_up.eq(r.given_up),
                ]
                with m.If(self.jobs.ready):
                    self._advance(m, r, here)
        if self._keeps:
            # What was read of upper tables is forgotten between two ranges, too.
            with m.If(self.pause):
                m.d.sync += r.in_table.eq(0)
        with m.If(self.stop & (r.state != State.IDLE) & ~r.ends):
            m.d.sync += [self.stopped.eq(self.because), r.ends.eq(1)]
        return m

    def _here(self, m: Module, r: SimpleNamespace) -> SimpleNamespace:
        """Of the level: table, index, whether its line is kept, and which pages of the entry, or line, are asked for.

        The entry, or line, ends where its lowest bits are ones, and the range ends in it where those above are the
        last page's: so no pages are counted to go on.
        """
        here = SimpleNamespace(
            table=Signal.like(r.tables[0]),
            index=Signal(x86.INDEX_BITS),
            line=Signal.like(r.lines[0]),
            kept=Signal(),
            final=Signal(),  # the range's last page is one of the entry's
            partial=Signal(),
            end=Signal(PAGES_BITS),  # the last page of the entry, or line, that is in the range
            ends=Signal(),  # and it is the range's last
            next=Signal(PAGES_BITS),  # the page behind
        )
        ones = Signal(PAGES_BITS)
        with m.Switch(r.level):
            for number, level in enumerate(_LEVELS):
                with m.Case(number):
                    below = x86.LEVEL_SHIFT[level] - x86.PAGE_SHIFT
                    m.d.comb += [
                        here.table.eq(r.tables[number]),
                        here.index.eq(r.page[below : below + x86.INDEX_BITS]),
                        here.line.eq(r.lines[number]),
                        here.kept.eq(r.have[number]),
                        here.final.eq(r.page[below:] == r.last[below:]),
                        here.partial.eq(r.page[:below].any() | (here.final & ~r.last[:below].all())),
                        ones.eq((1 << below) - 1),
                    ]
        lines = r.state == State.LINES
        with m.If(lines):
            m.d.comb += ones.eq(self._entries - 1)
        in_table = slice(self._place_bits, x86.INDEX_BITS)
        m.d.comb += [
            here.ends.eq(r.final & (~lines | (r.page[in_table] == r.last[in_table]))),
            here.end.eq(Mux(here.ends, r.last, r.page | ones)),
            here.next.eq(here.end + 1),
        ]
        m.d.sync += r.span.eq(here.end - r.page)
        return here

    def _kept_entry(self, m: Module, r: SimpleNamespace, kept: Memory, here: SimpleNamespace) -> Value:
        """The entry of the kept line; lines are kept as they come."""
        reader, writer = kept.read_port(domain="comb"), kept.write_port()
        found = self.port.data
        beat = here.index[self._lane_bits : self._place_bits]
        m.d.comb += [
            reader.addr.eq(Cat(beat, r.level)),
            writer.addr.eq(Cat(r.beat, r.level) if self._beats > 1 else r.level),
            writer.data.eq(found.payload.value),
            writer.en.eq(found.valid & (found.payload.tag == self._tag) & (r.state == State.WAIT)),
        ]
        entry: Value = reader.data.word_select(here.index[: self._lane_bits], 64) if self._lanes > 1 else reader.data
        return entry

    def _advance(self, m: Module, r: SimpleNamespace, here: SimpleNamespace) -> None:
        """Go on behind the entry, or line; what is above tells where the table ends."""
        m.d.sync += [
            *(r.page.eq(here.next), r.over.eq(here.ends), r.climbs.eq(1)),
            *(r.failures.eq(0), r.given_up.eq(0), r.state.eq(State.LOOK)),
        ]

    def _look(self, m: Module, r: SimpleNamespace, here: SimpleNamespace, entry: Value) -> None:
        """Up where a table ended; to the entry, if its line is here."""
        top = Mux(self.range.la57, 3, 2)
        with m.If(self.pause):
            m.d.sync += [r.level.eq(top), r.have.eq(0), r.climbs.eq(0)]
        with m.Elif(r.over | r.ends):
            self._hand_on_hole(m, r)
            with m.If(~r.hole):
                m.d.sync += r.state.eq(State.IDLE)
        with m.Elif(r.climbs & (here.index == 0) & (r.level != top)):
            m.d.sync += r.level.eq(r.level + 1)
        with m.Elif(~here.kept | (here.line != here.index[self._place_bits :])):
            m.d.sync += r.state.eq(State.FETCH)
        with m.Else():
            m.d.sync += [r.entry.eq(entry), r.final.eq(here.final), r.partial.eq(here.partial)]
            m.d.sync += r.state.eq(State.DECIDE)

    def _hand_on_hole(self, m: Module, r: SimpleNamespace) -> None:
        jobs = self.jobs.payload
        m.d.comb += [
            *(self.jobs.valid.eq(r.hole), jobs.kind.eq(JobKind.HOLE)),
            jobs.pages.eq((r.page - r.hole_from)[:PAGES_BITS]),
        ]
        with m.If(self.jobs.ready):
            m.d.sync += r.hole.eq(0)

    @staticmethod
    def _is_leaf(r: SimpleNamespace) -> Value:
        """A leaf of level 2 or 3: PS, or with P=0 anything that is not zero."""
        value: Value = (r.level < 2) & r.entry.any() & (~r.entry[0] | r.entry[x86.EntryBit.PS])
        return value

    def _decide(self, m: Module, r: SimpleNamespace, here: SimpleNamespace) -> None:
        frame = r.entry[x86.FRAME_LOW : x86.FRAME_HIGH + 1]
        asked = self.range
        with m.If(~r.entry.any()):
            self._pass_over(m, r, here)
        with m.Elif(r.hole):
            m.d.sync += r.state.eq(State.HOLE)
        with m.Elif(self._is_leaf(r)):
            with m.If(~asked.changes):
                m.d.sync += r.state.eq(State.SHOWN)
            with m.Elif(asked.splits):
                m.d.sync += [self.stopped.eq(Stop.NEED_SPLIT), r.ends.eq(1), r.state.eq(State.LOOK)]
            with m.Elif(r.partial & ~asked.whole_leaves):
                m.d.sync += [self.stopped.eq(Stop.PARTIAL), r.ends.eq(1), r.state.eq(State.LOOK)]
            with m.Else():
                m.d.sync += r.state.eq(State.RELINK)
        with m.Elif(~r.entry[0]):  # of a level that has no leaves
            self._pass_over(m, r, here)
        with m.Elif(frame[self._physical_bits - x86.PAGE_SHIFT :].any()):
            m.d.sync += [self.stopped.eq(Stop.BUS_ERROR), r.ends.eq(1), r.state.eq(State.LOOK)]
        with m.Elif(r.level == 0):
            m.d.sync += r.state.eq(State.LINES)
            if self._keeps:
                m.d.sync += r.in_table.eq(1)
        with m.Else():
            m.d.sync += [r.level.eq(r.level - 1), r.climbs.eq(0), r.state.eq(State.LOOK)]
            for number in range(len(_LEVELS) - 1):
                with m.If(r.level == number + 1):
                    same = r.have[number] & (r.tables[number] == frame[: len(r.tables[number])]) if self._keeps else 0
                    m.d.sync += [r.tables[number].eq(frame), r.have[number].eq(same)]

    def _pass_over(self, m: Module, r: SimpleNamespace, here: SimpleNamespace) -> None:
        """The entry maps nothing."""
        m.d.comb += self.passed.eq(1)
        m.d.sync += r.hole.eq(1)
        with m.If(~r.hole):
            m.d.sync += r.hole_from.eq(r.page)
        self._advance(m, r, here)

    def _lines(self, m: Module, r: SimpleNamespace, here: SimpleNamespace) -> None:
        """The next line of the table that `entry` points to."""
        jobs = self.jobs.payload
        place, line = r.page[: self._place_bits], r.page[self._place_bits : x86.INDEX_BITS]
        count = Signal(range(self._entries + 1))
        frame = r.entry[x86.FRAME_LOW : self._physical_bits]
        m.d.comb += [
            count.eq(here.end[: self._place_bits] - place + 1),
            self.jobs.valid.eq(~r.over & ~self.pause),
            *(jobs.kind.eq(JobKind.LINE), jobs.pages.eq(count), jobs.first.eq(place)),
            jobs.last.eq(here.end[: self._place_bits]),
            jobs.address.eq(Cat(Const(0, self._place_bits + 3), line, frame)),
        ]
        with m.If(r.over | self.pause):
            m.d.sync += r.state.eq(State.LOOK)
        with m.Elif(self.jobs.ready):
            self._advance(m, r, here)
            with m.If(~line.all() & ~r.ends):
                m.d.sync += r.state.eq(State.LINES)

    def _swapped(self, m: Module, r: SimpleNamespace) -> None:
        answer = self.port.swapped.payload
        m.d.comb += [
            self.touched.eq(answer.done | answer.error),
            self.met_global.eq(self.touched & r.entry[x86.EntryBit.G]),
        ]
        with m.If(answer.error):
            m.d.sync += [self.stopped.eq(Stop.BUS_ERROR), r.ends.eq(1), r.state.eq(State.LOOK)]
        with m.Elif(answer.done):
            m.d.comb += self.changed.eq(1)
            m.d.sync += r.state.eq(State.HAND_ON)
        with m.Elif(r.failures == ENTRY_FAILURES - 1):
            m.d.sync += [r.given_up.eq(1), r.state.eq(State.HAND_ON)]
        with m.Else():
            m.d.sync += [r.failures.eq(r.failures + 1), r.state.eq(State.RELINK)]

    @staticmethod
    def _leaf_word(r: SimpleNamespace, made: data.View) -> Value:
        """The word of the first page of the leaf: its frame field has PAT in its lowest bits, or nothing."""
        bits, index = linux.PAGEMAP_FRAME_BITS, x86.INDEX_BITS
        offset = Mux(r.level == 1, Const((1 << 2 * index) - 1, bits), Const((1 << index) - 1, bits))
        word: Value = Mux(made.word[linux.PagemapBit.PRESENT], Cat(made.word[:bits] & ~offset, made.word[bits:]), 0)
        return word
