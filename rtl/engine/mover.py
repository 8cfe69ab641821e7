"""Moves entries from one place in the tables to another: what mremap does to them."""

from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.model import x86
from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.engine.change import MadeLayout
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.jobs import PAGES_BITS
from ptewalk.rtl.engine.lines import ENTRY_FAILURES
from ptewalk.rtl.engine.pairs import LinePairs, PairOutcome
from ptewalk.rtl.engine.stream_net import StreamSignature

__all__ = ["MoveLayout", "Mover"]

_TOP_LEVELS = (2, 3, 4, 5)
_MOVED_LEVELS = (1, 2, 3)
_LEAVES = max(_MOVED_LEVELS)
"""The highest level that has leaves."""
_FEW = 4
"""Entries of a line that are moved by lines, at least."""


class MoveLayout(data.StructLayout):
    """What is moved where; the root is the range's, and so is the first page of the source.

    Members
    -------
    target : unsigned(PAGES_BITS)
        The number of the page to which the first entry goes.
    level : unsigned(2)
        Of the tables whose entries are moved, 1 to 3: above 1 leaves, or whole tables below.
    entries : unsigned(PAGES_BITS)
        How many; source and target do not overlap.
    drops_markers : 1
        A marker that is no guard is taken, and not put anywhere.
    """

    def __init__(self) -> None:
        pages = unsigned(PAGES_BITS)
        super().__init__({"target": pages, "level": unsigned(2), "entries": pages, "drops_markers": 1})


class State(IntEnum):
    """What the mover does."""

    IDLE = 0
    NEXT = 1
    """At the next entry, or at the end."""
    UPPER = 2
    """Reads an upper entry of each side that has no table yet."""
    UPPER_WAIT = 3
    READ = 4
    """Reads the entry, and where it goes, both with a link."""
    READ_WAIT = 5
    TAKE = 6
    """Swaps the source to 0: what it held is final."""
    TAKE_WAIT = 7
    PUT = 8
    """Swaps the target from 0."""
    PUT_WAIT = 9
    LOOK = 10
    """The target was written meanwhile: what is there now?"""
    LOOK_WAIT = 11
    HOME = 12
    """Something else is there. Reads the source, to put the entry back."""
    HOME_WAIT = 13
    BACK = 14
    """Swaps the source from 0."""
    BACK_WAIT = 15
    CATCH_UP = 16
    """At the oldest pair of lines, one by one, after one that did not end well."""
    LOAD = 17
    """At an entry of a line that was taken and not put."""
    TELL = 18
    """A further one has no home."""
    OFFER = 19
    """A pair of lines, until there is room for it."""
    TURN_BACK = 20
    """To the oldest pair."""


class Mover(Component):
    """Source first: a swap to 0 gives the final value, and the target is swapped from 0 only then.

    The target is seen to be 0 before the source is taken. Where it is not, or not any more, the entry stays, or is put
    back, and the operation stops. Entries that are 0 are passed over, and so is what the source has no table for.

    Source and target are walked, and read, at once. Where both are of level 1 and stand at the same places of lines
    of two tables, whole lines are moved, some in flight. When one does not end well no more are begun once its turn
    comes, and those that were are gone through in order: entries of one that stayed are moved one by one, those of
    one that was taken are put one by one. All else goes one by one too; the next entry of the same tables is read
    while this one is put.

    Parameters
    ----------
    physical_bits, data_bits, line_bytes, tag_bits : int
    lines : int
        In flight, two of a pair. Their tags are the first ones; one more is of the source's single entries.

    Members
    -------
    start : In(1), root : In, la57 : In(1), page : In(PAGES_BITS), move : In(MoveLayout)
        Begins; all is held until `idle`.
    entry : Out(64), made : In(MadeLayout)
        Two cycles later: what it becomes on its way.
    net : Out(StreamSignature)
        The same, of lines.
    stop : In(1)
        No further entry is begun.
    pause : In(1), paused : Out(1)
        Between two entries: nothing is read or swapped, and of upper tables nothing is kept but the root.
    port : Out(LinePortSignature)
        Without writes.
    idle : Out(1), stopped : Out(Stop), page_now : Out(PAGES_BITS)
        There is nothing to do; why; the first page that was not dealt with.
    moved : Out(unsigned)
        So many entries have left their source for good in the last cycle.
    took_global : Out(1)
        In this cycle one was taken that is global, or a table, in which some may be.
    passed : Out(1)
        In this cycle one is passed over, or what has no table, or one was moved.
    homeless : Out(64)
        An entry, that of `page_now`, that was taken from the source, or may have been, and could neither be put nor put
        back: another wrote there meanwhile, or the bus refused.
    tells : Out(1), tells_page : Out(PAGES_BITS), tells_entry : Out(64), heard : In(1)
        Another such one, of a line of which some are; until it is heard.

    Attributes
    ----------
    singles : Signal
        Driven by who has memory that reserves single words only: entries are moved one by one. Held until `idle`.
    """

    def __init__(self, *, physical_bits: int, data_bits: int, line_bytes: int, tag_bits: int, lines: int) -> None:
        self._physical_bits, self._lanes, self._tag = physical_bits, data_bits // 64, lines
        self.singles = Signal(name="singles")
        self._lane_bits = (self._lanes - 1).bit_length()
        self._entries = line_bytes // 8
        self._place_bits = (self._entries - 1).bit_length()
        widths = {"physical_bits": physical_bits, "data_bits": data_bits, "line_bytes": line_bytes}
        port = LinePortSignature(**widths, tag_bits=tag_bits)
        self._pairs = LinePairs(**widths, tag_bits=tag_bits, pairs=lines // 2)
        super().__init__(
            {
                "start": In(1),
                "root": In(physical_bits - x86.PAGE_SHIFT),
                "la57": In(1),
                "page": In(PAGES_BITS),
                "move": In(MoveLayout()),
                "entry": Out(64),
                "made": In(MadeLayout()),
                "net": Out(StreamSignature(self._lanes)),
                "stop": In(1),
                "pause": In(1),
                "paused": Out(1),
                "port": Out(port),
                "idle": Out(1),
                "stopped": Out(Stop),
                "page_now": Out(PAGES_BITS),
                "moved": Out(self._entries.bit_length()),
                "took_global": Out(1),
                "passed": Out(1),
                "homeless": Out(64),
                "tells": Out(1),
                "tells_page": Out(PAGES_BITS),
                "tells_entry": Out(64),
                "heard": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        frame_bits = self._physical_bits - x86.PAGE_SHIFT
        r = SimpleNamespace(
            state=Signal(State),
            pages=[Signal(PAGES_BITS, name=f"page_{name}") for name in _SIDES],
            tables=[Signal(frame_bits, name=f"table_{name}") for name in _SIDES],
            have=Signal(len(_SIDES)),
            left=Signal(PAGES_BITS),
            entry=self.entry,
            failures=Signal(range(ENTRY_FAILURES)),
            walks=[Signal(frame_bits, name=f"walk_{name}") for name in _SIDES],  # of the walk: tables, and their level
            level=Signal(3),
            uppers=[Signal(frame_bits, name=f"upper_{name}") for name in _SIDES],  # the tables above `tables`
            near=Signal(len(_SIDES)),  # and whether they are known
            blocked=Signal(),  # the target's walk is at its end, and why
            because=Signal(Stop),
            asks=Signal(len(_SIDES)),  # sides whose read is not sent; whose answer has not come
            comes=Signal(len(_SIDES)),
            ahead=Signal(),  # they are of the next entry
            held=Signal(),  # they were, and it is this one now
            turn=Signal(),  # whose tag the target's is
            fetched=Signal(64),  # of the source
            seen=[Signal(_SeenLayout(), name=f"seen_{name}") for name in _SIDES],
            behind=Signal(),  # pairs are gone through in order
            half=Signal(),  # the oldest one was taken
            rest=Signal(range(self._entries + 1)),  # entries of it
            stopped=Signal(),
            one_moved=Signal(),
            all_moved=Signal(),
            settled=Signal(),  # what is told of the pages is of these
            # Pages go on, and the first that was not dealt with; a cycle later they do, by what is kept until then.
            goes=Signal(),
            deals=Signal(),
            gone=Signal(),
            dealt=Signal(),
            amount=Signal(PAGES_BITS),
            by=Signal(PAGES_BITS),
            fewer=Signal(PAGES_BITS),
            back=Signal(PAGES_BITS),  # from the pages to the oldest pair
        )
        m.submodules.pairs = pairs = self._pairs
        self._connect(m, r)
        here = self._here(m, r)
        self._go(m, r, here)
        self._read(m, r, here)
        busy = r.comes.any()
        port = self.port

        on_target = (r.state == State.PUT) | (r.state == State.PUT_WAIT)
        tag = Mux(on_target, r.turn, self._tag)
        place = Signal(self._physical_bits)
        lane = place[3 : 3 + self._lane_bits]
        table = (self.move.level != 1) & ~r.entry[x86.EntryBit.PS]
        alone, moving = pairs.none, r.gone | r.dealt
        still = (r.state == State.NEXT) & ~moving
        took = (r.state == State.TAKE_WAIT) & r.entry[x86.EntryBit.P] & (r.entry[x86.EntryBit.G] | table)
        m.d.comb += [
            place.eq(Mux(on_target, here.at[1], here.at[0])),
            self.took_global.eq(took | pairs.took_global),
            self.idle.eq((r.state == State.IDLE) & ~busy),
            self.paused.eq(((r.state == State.IDLE) | (still & self.pause)) & ~busy & alone),
            *(self.tells.eq(r.state == State.TELL), self.tells_page.eq(r.pages[0]), self.tells_entry.eq(r.entry)),
        ]
        with m.If(~pairs.port.swaps.valid):
            m.d.comb += [
                *(port.swaps.payload.address.eq(place), port.swaps.payload.tag.eq(tag), port.swaps.payload.last.eq(1)),
                port.swaps.payload.changed.eq(1 << lane if self._lanes > 1 else 1),
            ]

        def swaps(old: Value, new: Value, after: State) -> None:
            m.d.comb += [port.swaps.valid.eq(1), port.swaps.payload.old.eq(old.replicate(self._lanes))]
            m.d.comb += port.swaps.payload.new.eq(new.replicate(self._lanes))
            with m.If(port.swaps.ready):
                m.d.sync += r.state.eq(after)

        def asks(sides: Value | int, after: State) -> None:
            m.d.sync += [r.asks.eq(sides), r.comes.eq(sides), r.state.eq(after)]

        def ends(why: Value | Stop) -> None:
            """It stops here; what else was begun comes to its end."""
            m.d.sync += r.stopped.eq(1)
            with m.If(~r.stopped):
                m.d.sync += self.stopped.eq(why)
            with m.If(r.behind):
                self._advance(m, r, here, deals=False)
            with m.Else():
                m.d.sync += r.state.eq(State.IDLE)

        def loses(why: Stop) -> None:
            """The entry may be taken, and may stand nowhere."""
            with m.If(r.stopped):
                m.d.sync += r.state.eq(State.TELL)
            with m.Else():
                m.d.sync += self.homeless.eq(r.entry)
                ends(why)

        def fails(again: State, *, taken: bool = False) -> None:
            """A swap failed: from a read on, a number of times."""
            with m.If(r.failures == ENTRY_FAILURES - 1):
                loses(Stop.RETRY_LIMIT) if taken else ends(Stop.RETRY_LIMIT)
            with m.Else():
                m.d.sync += [r.failures.eq(r.failures + 1), r.state.eq(again)]

        dropped = Signal()
        m.d.comb += dropped.eq(self.move.drops_markers & self.made.bare)
        zero = Const(0, 64)
        answer = port.swapped.payload
        answered = port.swapped.valid & (answer.tag == tag)
        source, target = r.seen

        with m.Switch(r.state):
            with m.Case(State.IDLE):
                with m.If(self.start):
                    m.d.sync += [
                        *(r.pages[0].eq(self.page), r.pages[1].eq(self.move.target), r.left.eq(self.move.entries)),
                        *(r.have.eq(0), r.failures.eq(0), self.homeless.eq(0), self.stopped.eq(Stop.DONE)),
                        *(r.ahead.eq(0), r.held.eq(0), r.behind.eq(0), r.stopped.eq(0), r.near.eq(0)),
                        *(self.page_now.eq(self.page), r.state.eq(State.NEXT)),
                    ]
            with m.Case(State.NEXT):
                for walk, upper in zip(r.walks, r.uppers, strict=True):
                    m.d.sync += walk.eq(Mux(here.near, upper, self.root))
                top = Mux(self.la57, 5, 4)
                m.d.sync += [r.level.eq(Mux(here.near, self.move.level + 1, top)), r.blocked.eq(0)]
                with m.If(moving):
                    pass
                with m.Elif(r.behind):
                    self._next_behind(m, r, here, asks)
                with m.Elif(~alone & pairs.still & (pairs.outcome != PairOutcome.DONE)):
                    m.d.sync += r.state.eq(State.TURN_BACK)
                with m.Elif(self.pause):
                    m.d.sync += [r.have.eq(0), r.held.eq(0)]
                    m.d.sync += r.near.eq(0)  # as an upper table may be another now
                with m.Elif((r.left == 0) | self.stop):
                    with m.If(alone):
                        m.d.sync += r.state.eq(State.IDLE)
                        with m.If(r.left != 0):
                            ends(Stop.ABORTED)
                with m.Elif(r.held):
                    m.d.sync += [r.held.eq(0), r.state.eq(State.READ_WAIT)]
                with m.Elif(busy):  # with what was given up
                    pass
                with m.Elif(~r.have.all()):
                    with m.If(pairs.jobs.ready):  # the tags of the next pair are free
                        asks(~r.have, State.UPPER_WAIT)
                        with m.If(~here.near):
                            m.d.sync += r.near.eq(r.near & r.have)
                with m.Elif(~r.settled):
                    pass
                with m.Elif(here.by_lines & (r.tables[0] != r.tables[1])):
                    m.d.sync += r.state.eq(State.OFFER)
                with m.Elif(alone):
                    asks(0b11, State.READ_WAIT)
            with m.Case(State.OFFER):
                m.d.comb += pairs.jobs.valid.eq(1)
                with m.If(pairs.jobs.ready):
                    m.d.comb += r.goes.eq(1)
                    m.d.sync += [r.have.eq(r.have & ~here.line_ends), r.state.eq(State.NEXT)]
                with m.Elif(self.pause | self.stop | pairs.still):
                    m.d.sync += r.state.eq(State.NEXT)
            with m.Case(State.UPPER_WAIT):
                with m.If(~busy):
                    self._descend(m, r, here, asks, ends)
            with m.Case(State.CATCH_UP):
                self._catch_up(m, r)
            with m.Case(State.LOAD):
                m.d.sync += [r.entry.eq(pairs.entry), r.state.eq(State.LOOK)]
                with m.If(pairs.outcome == PairOutcome.UNKNOWN):
                    m.d.sync += r.state.eq(State.PUT_WAIT)
            with m.Case(State.TURN_BACK):
                m.d.comb += r.goes.eq(1)
                m.d.sync += [r.behind.eq(1), r.held.eq(0), r.state.eq(State.CATCH_UP)]
            with m.Case(State.TELL):
                with m.If(self.heard):
                    self._advance(m, r, here)
            with m.Case(State.READ):
                asks(0b11, State.READ_WAIT)
            with m.Case(State.READ_WAIT):
                with m.If(~busy):
                    m.d.sync += [r.entry.eq(r.fetched), r.state.eq(State.TAKE)]
                    with m.If(source.error):
                        ends(Stop.BUS_ERROR)
                    with m.Elif(~source.there):
                        m.d.comb += self.passed.eq(1)
                        self._advance(m, r, here)
                    with m.Elif(target.error):
                        ends(Stop.BUS_ERROR)
                    with m.Elif(target.there):
                        ends(Stop.OCCUPIED)
            with m.Case(State.TAKE):
                swaps(r.entry, zero, State.TAKE_WAIT)
            with m.Case(State.TAKE_WAIT):
                with m.If(answered):
                    with m.If(answer.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(~answer.done):
                        fails(State.READ)
                    with m.Else():
                        m.d.sync += [r.failures.eq(0), r.state.eq(State.PUT)]
                        with m.If((r.left != 1) & ~here.ends.any() & ~here.before_lines & ~r.behind):
                            m.d.sync += r.ahead.eq(1)
                            asks(0b11, State.PUT)
            with m.Case(State.PUT):
                with m.If(dropped):
                    m.d.comb += [r.one_moved.eq(1), self.passed.eq(1)]
                    self._advance(m, r, here)
                with m.Else():
                    swaps(zero, self.made.new, State.PUT_WAIT)
            with m.Case(State.PUT_WAIT):
                with m.If(r.half & (pairs.outcome == PairOutcome.UNKNOWN)):
                    loses(Stop.BUS_ERROR)
                with m.Elif(answered):
                    with m.If(answer.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(answer.done):
                        m.d.comb += [r.one_moved.eq(1), self.passed.eq(1)]
                        self._advance(m, r, here)
                    with m.Else():
                        fails(State.LOOK, taken=True)
            with m.Case(State.LOOK):
                with m.If(~busy):
                    m.d.sync += r.ahead.eq(0)
                    asks(0b10, State.LOOK_WAIT)
            with m.Case(State.LOOK_WAIT):
                with m.If(~busy):
                    m.d.sync += r.state.eq(Mux(target.there & ~dropped, State.HOME, State.PUT))
                    with m.If(target.error & ~dropped):
                        loses(Stop.BUS_ERROR)
            with m.Case(State.HOME):
                asks(0b01, State.HOME_WAIT)
            with m.Case(State.HOME_WAIT):
                with m.If(~busy):
                    m.d.sync += r.state.eq(State.BACK)
                    with m.If(source.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(source.there):
                        loses(Stop.OCCUPIED)
            with m.Case(State.BACK):
                swaps(zero, r.entry, State.BACK_WAIT)
            with m.Case(State.BACK_WAIT):
                with m.If(answered):
                    with m.If(answer.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(answer.done):
                        ends(Stop.OCCUPIED)
                    with m.Else():
                        fails(State.HOME, taken=True)
        return m

    def _here(self, m: Module, r: SimpleNamespace) -> SimpleNamespace:
        """Of each side the entry's place in its table, of the walk's too; pages of an entry, and to a table's end."""
        count = range(x86.TABLE_ENTRIES + 1)
        here = SimpleNamespace(
            step=Signal(PAGES_BITS),
            skipped=Signal(PAGES_BITS),  # pages to the end of the source's table, or of the range
            to_end=Signal(count),  # and entries
            index=[Signal(x86.INDEX_BITS, name=f"index_{name}") for name in _SIDES],
            walked=[Signal(x86.INDEX_BITS, name=f"walked_{name}") for name in _SIDES],
            ends=Signal(len(_SIDES)),  # it is the last of its table
            count=Signal(range(self._entries + 1)),  # entries to the end of its line, or of the range
            line_ends=Signal(len(_SIDES)),  # they are the last of their table
            by_lines=Signal(),
            before_lines=Signal(),  # the next line may be
            near=Signal(),  # where a table is looked for, that above it is known
        )
        in_table = Signal(count)
        # Two cycles later, as a table that is missing is not known before.
        m.d.sync += in_table.eq(x86.TABLE_ENTRIES - here.index[0])
        m.d.sync += here.to_end.eq(_least(r.left, in_table))
        m.d.comb += here.ends.eq(Cat(place == x86.TABLE_ENTRIES - 1 for place in here.index))
        for level, chosen, places in (
            (self.move.level, _MOVED_LEVELS, here.index),
            (r.level, _TOP_LEVELS, here.walked),
        ):
            with m.Switch(level):
                for number in chosen:
                    below = x86.LEVEL_SHIFT[number] - x86.PAGE_SHIFT
                    with m.Case(number):
                        for page, place in zip(r.pages, places, strict=True):
                            m.d.comb += place.eq(page[below : below + x86.INDEX_BITS])
                        if places is here.index:
                            above = below + x86.INDEX_BITS
                            # At the first entry of one another may have begun.
                            inside = Cat(page[above : above + x86.INDEX_BITS].any() for page in r.pages)
                            m.d.comb += here.near.eq(((r.near & inside) | r.have).all())
                            m.d.comb += [here.step.eq(1 << below), here.skipped.eq(here.to_end << below)]
        first, other = (page[: self._place_bits] for page in r.pages)  # of level 1
        in_line, fits, count = Signal(range(self._entries + 1)), Signal(), Signal.like(here.count)
        lines = [page[self._place_bits : x86.INDEX_BITS] for page in r.pages]
        every = Const(-1, self._entries)
        job = self._pairs.jobs.payload
        m.d.comb += [
            in_line.eq(self._entries - first),
            count.eq(_least(r.left, in_line)),
            fits.eq((self.move.level == 1) & (first == other)),
            job.count.eq(here.count),
            job.range.eq((every << first) & ~((every << first) << here.count)),
            job.source.eq(Cat(lines[0], r.tables[0])),
            job.target.eq(Cat(lines[1], r.tables[1])),
            self._pairs.place.eq(first),
        ]
        # Of the cycle before: the pages are to stand for one.
        m.d.sync += [
            here.count.eq(count),
            here.by_lines.eq(fits & (count >= _FEW) & ~self.singles),
            here.before_lines.eq(fits & first.all() & (r.tables[0] != r.tables[1]) & ~self.singles),
            here.line_ends.eq(Cat((count == in_line) & line.all() for line in lines)),
            r.settled.eq(~r.goes & ~r.gone),
            r.back.eq(self.page_now - r.pages[0]),
        ]
        here.at = [Cat(Const(0, 3), place, frame) for place, frame in zip(here.index, r.tables, strict=True)]
        return here

    def _read(self, m: Module, r: SimpleNamespace, here: SimpleNamespace) -> None:
        """What is asked for of either side is sent, the source's first, and kept when it comes."""
        reads, found, pairs = Signal.like(self.port.reads.payload), self.port.data.payload, self._pairs
        upper = r.state == State.UPPER_WAIT
        places = [Signal(x86.INDEX_BITS, name=f"read_{name}") for name in _SIDES]
        for place, index, walked in zip(places, here.index, here.walked, strict=True):
            m.d.comb += place.eq(Mux(upper, walked, index + (r.ahead | r.gone)))  # pages go on a cycle after `ahead`
        # No pair is here, or all are over, when entries are read; beside a walk the next pair's tags are free.
        tags = (Const(self._tag), Mux(upper, Cat(Const(1, 1), pairs.head), r.turn ^ r.ahead))
        tables = [Mux(upper, walk, table) for walk, table in zip(r.walks, r.tables, strict=True)]
        side = ~r.asks[0]
        m.d.comb += [
            *(reads.link.eq(~upper), reads.tag.eq(Mux(side, tags[1], tags[0]))),
            reads.address.eq(Cat(Const(0, 3), Mux(side, Cat(places[1], tables[1]), Cat(places[0], tables[0])))),
        ]
        port, waits = self.port.reads, Signal()  # a pair's read that was offered
        with m.If(r.asks.any() & ~waits):
            m.d.comb += [port.valid.eq(1), port.payload.eq(reads)]
            with m.If(port.ready):
                m.d.sync += r.asks.eq(Mux(side, 0, r.asks & 0b10))
        with m.Else():
            m.d.comb += [port.valid.eq(pairs.port.reads.valid), port.payload.eq(pairs.port.reads.payload)]
            m.d.comb += pairs.port.reads.ready.eq(port.ready)
            m.d.sync += waits.eq(pairs.port.reads.valid & ~port.ready)
        for number, (place, tag) in enumerate(zip(places, tags, strict=True)):
            value = Signal(64, name=f"value_{_SIDES[number]}")
            lane = place[: self._lane_bits]
            m.d.comb += value.eq(found.value.word_select(lane, 64) if self._lanes > 1 else found.value)
            frame = value[x86.FRAME_LOW : x86.FRAME_HIGH + 1]
            with m.If(self.port.data.valid & r.comes[number] & (found.tag == tag)):
                m.d.sync += [
                    *(r.comes[number].eq(0), r.walks[number].eq(frame)),
                    *(r.seen[number].error.eq(found.error), r.seen[number].there.eq(value.any())),
                    *(r.seen[number].present.eq(value[x86.EntryBit.P]), r.seen[number].leaf.eq(value[x86.EntryBit.PS])),
                    r.seen[number].beyond.eq(frame[len(r.walks[number]) :].any()),
                ]
                if number == 0:
                    m.d.sync += r.fetched.eq(value)

    def _descend(
        self,
        m: Module,
        r: SimpleNamespace,
        here: SimpleNamespace,
        asks: Callable[[Value, State], None],
        ends: Callable[[Value | Stop], None],
    ) -> None:
        """A level of the walk was read. Why the target has none is told only where the source has a table."""
        wrong = []
        for seen, missing in zip(r.seen, (Stop.DONE, Stop.NEED_TABLE), strict=True):
            leaf = (r.level <= _LEAVES) & seen.there & (~seen.present | seen.leaf)
            found = seen.error | leaf | ~seen.present | seen.beyond
            why = Mux(leaf, Stop.NEED_SPLIT, Mux(seen.present, Stop.BUS_ERROR, missing))
            wrong.append((found, Mux(seen.error, Stop.BUS_ERROR, why)))
        (source_wrong, source_why), (target_wrong, target_why) = wrong
        blocked = Signal()
        because = Mux(r.blocked, r.because, target_why)
        m.d.comb += blocked.eq(r.blocked | (~r.have[1] & target_wrong))
        passes = ~r.have[0] & source_wrong
        last = r.level == self.move.level + 1
        with m.If(self.pause | (~self._pairs.none & (passes | (last & blocked)))):
            # What was begun comes to its end first.
            m.d.sync += r.state.eq(State.NEXT)
        with m.Elif(passes):
            with m.If(source_why != Stop.DONE):
                ends(source_why)
            with m.Else():
                m.d.comb += [self.passed.eq(1), r.goes.eq(1), r.deals.eq(1)]
                m.d.sync += [r.have.eq(0), r.state.eq(State.NEXT)]
        with m.Elif(~last):
            m.d.sync += [r.level.eq(r.level - 1), r.blocked.eq(blocked), r.because.eq(because)]
            for number, (upper, walk) in enumerate(zip(r.uppers, r.walks, strict=True)):
                with m.If((r.level == self.move.level + 2) & ~(r.have[number] | (blocked if number else 0))):
                    m.d.sync += [upper.eq(walk), r.near[number].eq(1)]
            asks(~r.have & ~Cat(0, blocked), State.UPPER_WAIT)
        with m.Elif(blocked):
            ends(because)
        with m.Else():
            m.d.sync += [r.have.eq(0b11), r.state.eq(State.NEXT)]
            for number, (table, walk) in enumerate(zip(r.tables, r.walks, strict=True)):
                with m.If(~r.have[number]):
                    m.d.sync += table.eq(walk)

    def _advance(self, m: Module, r: SimpleNamespace, here: SimpleNamespace, *, deals: bool = True) -> None:
        """To the next entry, which may have been read; where a table ends, the next is looked for."""
        m.d.comb += [r.goes.eq(1), r.deals.eq(~r.stopped & deals)]
        m.d.sync += [r.rest.eq(r.rest - 1), r.failures.eq(0), r.state.eq(State.NEXT)]
        m.d.sync += [r.held.eq(r.ahead), r.ahead.eq(0), r.turn.eq(r.turn ^ r.ahead)]
        m.d.sync += r.have.eq(r.have & ~here.ends)

    def _go(self, m: Module, r: SimpleNamespace, here: SimpleNamespace) -> None:
        """Pages, and the entries that are left. By how much is told by the state alone, whether they go comes later.

        The first page that was not dealt with is that of the source wherever both go on, until something has stopped.
        """
        by_pair = self._pairs.told.count
        fewer = Signal(PAGES_BITS)
        m.d.comb += [r.amount.eq(here.step), fewer.eq(1)]
        with m.Switch(r.state):
            with m.Case(State.OFFER):
                m.d.comb += [r.amount.eq(here.count), fewer.eq(here.count)]
            with m.Case(State.UPPER_WAIT):
                m.d.comb += [r.amount.eq(here.skipped), fewer.eq(here.to_end)]
            with m.Case(State.CATCH_UP):
                m.d.comb += [r.amount.eq(by_pair), fewer.eq(by_pair)]
            with m.Case(State.TURN_BACK):
                m.d.comb += [r.amount.eq(r.back), fewer.eq(r.back)]
        pair_ended = Signal()
        m.d.comb += pair_ended.eq(~r.behind & self._pairs.valid & (self._pairs.outcome == PairOutcome.DONE))
        with m.If(pair_ended):
            self._ended(m, r)
        by_now = Signal(PAGES_BITS)
        m.d.sync += [
            *(r.gone.eq(r.goes), r.dealt.eq(pair_ended | r.deals), r.by.eq(r.amount), r.fewer.eq(fewer)),
            by_now.eq(Mux(pair_ended, by_pair, r.amount)),
        ]
        with m.If(r.gone):
            m.d.sync += [page.eq(page + r.by) for page in r.pages]
            m.d.sync += r.left.eq(r.left - r.fewer)
        with m.If(r.dealt):
            m.d.sync += self.page_now.eq(self.page_now + by_now)

    def _connect(self, m: Module, r: SimpleNamespace) -> None:
        """Pairs: what they swap, and what is told of the oldest while none is behind."""
        pairs, port, went = self._pairs, self.port, Signal(self._entries)
        connect(m, pairs.net, flipped(self.net))
        m.d.sync += went.eq(Mux(r.all_moved, pairs.there, r.one_moved))
        m.d.comb += [
            pairs.drops_markers.eq(self.move.drops_markers),
            *(pairs.port.data.valid.eq(port.data.valid), pairs.port.data.payload.eq(port.data.payload)),
            *(pairs.port.swapped.valid.eq(port.swapped.valid), pairs.port.swapped.payload.eq(port.swapped.payload)),
            self.moved.eq(sum(went[place] for place in range(self._entries))),
        ]
        with m.If(pairs.port.swaps.valid):
            m.d.comb += [port.swaps.valid.eq(1), port.swaps.payload.eq(pairs.port.swaps.payload)]
            m.d.comb += pairs.port.swaps.ready.eq(port.swaps.ready)

    def _ended(self, m: Module, r: SimpleNamespace) -> None:
        """The oldest pair is done."""
        m.d.comb += [self._pairs.release.eq(1), r.all_moved.eq(1), self.passed.eq(1)]

    def _catch_up(self, m: Module, r: SimpleNamespace) -> None:
        """The oldest pair: passed over if it is done, else gone through."""
        pairs = self._pairs
        frame = x86.INDEX_BITS - self._place_bits
        with m.If(pairs.none):
            m.d.sync += [r.behind.eq(0), r.half.eq(0), r.have.eq(0), r.near.eq(0)]
            m.d.sync += r.state.eq(Mux(r.stopped, State.IDLE, State.NEXT))
        with m.Elif(pairs.outcome == PairOutcome.DONE):
            self._ended(m, r)
            m.d.comb += [r.goes.eq(1), r.deals.eq(~r.stopped)]
        with m.Else():
            m.d.sync += [
                *(r.rest.eq(pairs.told.count), r.half.eq(pairs.outcome != PairOutcome.STAYS), r.state.eq(State.NEXT)),
                *(r.tables[0].eq(pairs.told.source[frame:]), r.tables[1].eq(pairs.told.target[frame:])),
            ]

    def _next_behind(
        self, m: Module, r: SimpleNamespace, here: SimpleNamespace, asks: Callable[[Value | int, State], None]
    ) -> None:
        """The next entry of the oldest pair; after a stop, what is left of one that stayed stays."""
        pairs = self._pairs
        with m.If(r.rest == 0):
            m.d.comb += pairs.release.eq(1)
            m.d.sync += r.state.eq(State.CATCH_UP)
        with m.Elif(r.half & pairs.there.bit_select(pairs.place, 1)):
            m.d.sync += r.state.eq(State.LOAD)
        with m.Elif(r.half | r.stopped):
            self._advance(m, r, here)
        with m.Else():
            asks(0b11, State.READ_WAIT)


_SIDES = ("source", "target")


def _least(many: Value, few: Signal) -> Value:
    """The lesser one; `few` is narrower by far, and so is what is compared."""
    low = many[: len(few)]
    value: Value = Mux(many[len(few) :].any() | (low >= few), few, low)
    return value


class _SeenLayout(data.StructLayout):
    """What is known of a word that was read."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(("error", "there", "present", "leaf", "beyond"), 1))
