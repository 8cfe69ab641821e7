"""Moves entries from one place in the tables to another, one after the other: what mremap does to them."""

from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import linux, x86
from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.engine.change import ChangeLayout, EntryChange, EntryKind, WordsLayout
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.jobs import PAGES_BITS
from ptewalk.rtl.engine.lines import ENTRY_FAILURES

__all__ = ["MoveLayout", "Mover"]

_TOP_LEVELS = (2, 3, 4, 5)
_MOVED_LEVELS = (1, 2, 3)
_LEAVES = max(_MOVED_LEVELS)
"""The highest level that has leaves."""


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
    """Reads an upper entry."""
    UPPER_WAIT = 3
    READ = 4
    """Reads the entry, with a link."""
    READ_WAIT = 5
    PEEK = 6
    """Reads where it goes, with a link."""
    PEEK_WAIT = 7
    TAKE = 8
    """Swaps the source to 0: what it held is final."""
    TAKE_WAIT = 9
    PUT = 10
    """Swaps the target from 0."""
    PUT_WAIT = 11
    LOOK = 12
    """The target was written meanwhile: what is there now?"""
    LOOK_WAIT = 13
    HOME = 14
    """Something else is there. Reads the source, to put the entry back."""
    HOME_WAIT = 15
    BACK = 16
    """Swaps the source from 0."""
    BACK_WAIT = 17


class Mover(Component):
    """Source first: a swap to 0 gives the final value, and the target is swapped from 0 only then.

    The target is seen to be 0 before the source is taken. Where it is not, or not any more, the entry stays, or is put
    back, and the operation stops. Entries that are 0 are passed over, and so is what the source has no table for.

    Parameters
    ----------
    physical_bits, data_bits, line_bytes, tag_bits : int
    tags : tuple of (int, int)
        Of accesses to the source and to the target.

    Members
    -------
    start : In(1), root : In, la57 : In(1), page : In(PAGES_BITS), move : In(MoveLayout)
        Begins; all is held until `idle`.
    change : In(ChangeLayout), words : In(WordsLayout)
        What an entry becomes on its way, and how a marker is told.
    stop : In(1)
        No further entry is begun.
    pause : In(1), paused : Out(1)
        Between two entries: nothing is read or swapped, and of upper tables nothing is kept but the root.
    port : Out(LinePortSignature)
        Only words.
    idle : Out(1), stopped : Out(Stop), page_now : Out(PAGES_BITS)
        There is nothing to do; why; the first page that was not dealt with.
    moved : Out(1)
        In this cycle an entry has left its source for good.
    took_global : Out(1)
        In this cycle one was taken that is global, or a table, in which some may be.
    passed : Out(1)
        In this cycle one is passed over, or what has no table.
    homeless : Out(64)
        An entry that was taken from the source, or may have been, and could neither be put nor put back: another wrote
        there meanwhile, or the bus refused.
    """

    def __init__(
        self, *, physical_bits: int, data_bits: int, line_bytes: int, tag_bits: int, tags: tuple[int, int]
    ) -> None:
        self._physical_bits, self._lanes, self._tags = physical_bits, data_bits // 64, tags
        port = LinePortSignature(
            physical_bits=physical_bits, data_bits=data_bits, line_bytes=line_bytes, tag_bits=tag_bits
        )
        super().__init__(
            {
                "start": In(1),
                "root": In(physical_bits - x86.PAGE_SHIFT),
                "la57": In(1),
                "page": In(PAGES_BITS),
                "move": In(MoveLayout()),
                "change": In(ChangeLayout()),
                "words": In(WordsLayout()),
                "stop": In(1),
                "pause": In(1),
                "paused": Out(1),
                "port": Out(port),
                "idle": Out(1),
                "stopped": Out(Stop),
                "page_now": Out(PAGES_BITS),
                "moved": Out(1),
                "took_global": Out(1),
                "passed": Out(1),
                "homeless": Out(64),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        frame_bits = self._physical_bits - x86.PAGE_SHIFT
        state, side = Signal(State), Signal()  # side 1: the target
        pages = [Signal(PAGES_BITS, name=f"page_{name}") for name in ("source", "target")]
        tables = [Signal(frame_bits, name=f"table_{name}") for name in ("source", "target")]
        have = Signal(2)
        left, entry, failures = Signal(PAGES_BITS), Signal(64), Signal(range(ENTRY_FAILURES))
        walk, level = Signal(frame_bits), Signal(3)  # of the walk: a table, and its level
        m.submodules.net = net = EntryChange()
        m.d.comb += [net.entry.eq(entry), net.change.eq(self.change), net.words.eq(self.words)]
        port, found = self.port, self.port.data.payload

        step, skipped = Signal(PAGES_BITS), Signal(PAGES_BITS)  # pages of an entry; of those to the end of its table
        index = [Signal(x86.INDEX_BITS, name=f"index_{name}") for name in ("source", "target")]
        in_table, to_end = Signal(range(x86.TABLE_ENTRIES + 1)), Signal(range(x86.TABLE_ENTRIES + 1))
        m.d.comb += [in_table.eq(x86.TABLE_ENTRIES - index[0]), to_end.eq(Mux(left < in_table, left, in_table))]
        with m.Switch(self.move.level):
            for number in _MOVED_LEVELS:
                below = x86.LEVEL_SHIFT[number] - x86.PAGE_SHIFT
                with m.Case(number):
                    m.d.comb += [step.eq(1 << below), skipped.eq(to_end << below)]
                    for page, place in zip(pages, index, strict=True):
                        m.d.comb += place.eq(page[below : below + x86.INDEX_BITS])
        walk_index = Signal(x86.INDEX_BITS)
        walked_page = Mux(side, pages[1], pages[0])
        with m.Switch(level):
            for number in _TOP_LEVELS:
                below = x86.LEVEL_SHIFT[number] - x86.PAGE_SHIFT
                with m.Case(number):
                    m.d.comb += walk_index.eq(walked_page[below : below + x86.INDEX_BITS])

        at = [Cat(Const(0, 3), place, frame_of) for place, frame_of in zip(index, tables, strict=True)]
        here, mine, table = Signal(self._physical_bits), Signal(), Signal()
        upper = (state == State.UPPER) | (state == State.UPPER_WAIT)
        on_target = Signal()
        for one in (State.PEEK, State.PEEK_WAIT, State.PUT, State.PUT_WAIT, State.LOOK, State.LOOK_WAIT):
            with m.If(state == one):
                m.d.comb += on_target.eq(1)
        tag = Mux(on_target, self._tags[1], self._tags[0])
        m.d.comb += [
            here.eq(Mux(upper, Cat(Const(0, 3), walk_index, walk), Mux(on_target, at[1], at[0]))),
            *(port.reads.payload.address.eq(here), port.reads.payload.tag.eq(tag)),
            port.reads.payload.link.eq(~upper),
            *(port.swaps.payload.address.eq(here), port.swaps.payload.tag.eq(tag), port.swaps.payload.last.eq(1)),
            self.took_global.eq((state == State.TAKE_WAIT) & entry[x86.EntryBit.P] & (entry[x86.EntryBit.G] | table)),
            table.eq((self.move.level != 1) & ~entry[x86.EntryBit.PS]),
            *(self.idle.eq(state == State.IDLE), self.page_now.eq(pages[0])),
            self.paused.eq((state == State.IDLE) | ((state == State.NEXT) & self.pause)),
        ]
        lane_bits = (self._lanes - 1).bit_length()
        lane = here[3 : 3 + lane_bits]
        value = Signal(64)
        m.d.comb += [
            value.eq(found.value.word_select(lane, 64) if self._lanes > 1 else found.value),
            port.swaps.payload.changed.eq(1 << lane if self._lanes > 1 else 1),
            mine.eq(port.data.valid & (found.tag == tag)),
        ]

        def swaps(old: Value, new: Value) -> None:
            m.d.comb += [port.swaps.valid.eq(1), port.swaps.payload.old.eq(old.replicate(self._lanes))]
            m.d.comb += port.swaps.payload.new.eq(new.replicate(self._lanes))

        def asks(after: State) -> None:
            m.d.comb += port.reads.valid.eq(1)
            with m.If(port.reads.ready):
                m.d.sync += state.eq(after)

        def ends(why: Stop) -> None:
            m.d.sync += [self.stopped.eq(why), state.eq(State.IDLE)]

        def loses(why: Stop) -> None:
            """The entry may be taken, and may stand nowhere."""
            m.d.sync += self.homeless.eq(entry)
            ends(why)

        def fails(again: State, *, taken: bool = False) -> None:
            """A swap failed: from a read on, a number of times."""
            with m.If(failures == ENTRY_FAILURES - 1):
                loses(Stop.RETRY_LIMIT) if taken else ends(Stop.RETRY_LIMIT)
            with m.Else():
                m.d.sync += [failures.eq(failures + 1), state.eq(again)]

        kind = net.word[: linux.PAGEMAP_SWAP_TYPE_BITS]
        marker = self.words.has_marker & (net.kind == EntryKind.SWAP) & (kind == self.words.marker)
        drops = Signal()
        m.d.comb += drops.eq(self.move.drops_markers & marker & ~net.word[linux.PagemapBit.GUARD])
        zero = Const(0, 64)
        answer = port.swapped.payload
        answered = port.swapped.valid & (answer.tag == tag)

        frame = value[x86.FRAME_LOW : x86.FRAME_HIGH + 1]

        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.start):
                    m.d.sync += [
                        *(pages[0].eq(self.page), pages[1].eq(self.move.target), left.eq(self.move.entries)),
                        *(have.eq(0), failures.eq(0), self.homeless.eq(0), self.stopped.eq(Stop.DONE)),
                        state.eq(State.NEXT),
                    ]
            with m.Case(State.NEXT):
                m.d.sync += [walk.eq(self.root), level.eq(Mux(self.la57, 5, 4)), side.eq(have[0])]
                with m.If(self.pause):
                    m.d.sync += have.eq(0)
                with m.Elif(left == 0):
                    m.d.sync += state.eq(State.IDLE)
                with m.Elif(self.stop):
                    ends(Stop.ABORTED)
                with m.Elif(have.all()):
                    m.d.sync += state.eq(State.READ)
                with m.Else():
                    m.d.sync += state.eq(State.UPPER)
            with m.Case(State.UPPER):
                asks(State.UPPER_WAIT)
            with m.Case(State.UPPER_WAIT):
                with m.If(mine):
                    m.d.sync += [walk.eq(frame), level.eq(level - 1), state.eq(State.UPPER)]
                    with m.If(self.pause):
                        m.d.sync += state.eq(State.NEXT)
                    with m.Elif(found.error):
                        ends(Stop.BUS_ERROR)
                    with m.Elif((level <= _LEAVES) & (value != 0) & (~value[x86.EntryBit.P] | value[x86.EntryBit.PS])):
                        ends(Stop.NEED_SPLIT)
                    with m.Elif(~value[x86.EntryBit.P] & ~side):
                        m.d.comb += self.passed.eq(1)
                        m.d.sync += [
                            *(pages[0].eq(pages[0] + skipped), pages[1].eq(pages[1] + skipped)),
                            *(left.eq(left - to_end), have.eq(0), state.eq(State.NEXT)),
                        ]
                    with m.Elif(~value[x86.EntryBit.P]):
                        ends(Stop.NEED_TABLE)
                    with m.Elif(frame[frame_bits:].any()):
                        ends(Stop.BUS_ERROR)
                    with m.Elif(level == self.move.level + 1):
                        m.d.sync += state.eq(State.NEXT)
                        for number, found_table in enumerate(tables):
                            with m.If(side == number):
                                m.d.sync += [found_table.eq(frame), have[number].eq(1)]
            with m.Case(State.READ):
                asks(State.READ_WAIT)
            with m.Case(State.READ_WAIT):
                with m.If(mine):
                    m.d.sync += [entry.eq(value), state.eq(State.PEEK)]
                    with m.If(found.error):
                        ends(Stop.BUS_ERROR)
                    with m.Elif(value == 0):
                        m.d.comb += self.passed.eq(1)
                        self._advance(m, state, left, failures, have, pages, index, step)
            with m.Case(State.PEEK):
                asks(State.PEEK_WAIT)
            with m.Case(State.PEEK_WAIT):
                with m.If(mine):
                    m.d.sync += state.eq(State.TAKE)
                    with m.If(found.error):
                        ends(Stop.BUS_ERROR)
                    with m.Elif(value != 0):
                        ends(Stop.OCCUPIED)
            with m.Case(State.TAKE):
                swaps(entry, zero)
                with m.If(port.swaps.ready):
                    m.d.sync += state.eq(State.TAKE_WAIT)
            with m.Case(State.TAKE_WAIT):
                with m.If(answered):
                    with m.If(answer.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(~answer.done):
                        fails(State.READ)
                    with m.Elif(drops):
                        m.d.comb += self.moved.eq(1)
                        self._advance(m, state, left, failures, have, pages, index, step)
                    with m.Else():
                        m.d.sync += [failures.eq(0), state.eq(State.PUT)]
            with m.Case(State.PUT):
                swaps(zero, net.new)
                with m.If(port.swaps.ready):
                    m.d.sync += state.eq(State.PUT_WAIT)
            with m.Case(State.PUT_WAIT):
                with m.If(answered):
                    with m.If(answer.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(answer.done):
                        m.d.comb += self.moved.eq(1)
                        self._advance(m, state, left, failures, have, pages, index, step)
                    with m.Else():
                        fails(State.LOOK, taken=True)
            with m.Case(State.LOOK):
                asks(State.LOOK_WAIT)
            with m.Case(State.LOOK_WAIT):
                with m.If(mine):
                    m.d.sync += state.eq(Mux(value == 0, State.PUT, State.HOME))
                    with m.If(found.error):
                        loses(Stop.BUS_ERROR)
            with m.Case(State.HOME):
                asks(State.HOME_WAIT)
            with m.Case(State.HOME_WAIT):
                with m.If(mine):
                    m.d.sync += state.eq(State.BACK)
                    with m.If(found.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(value != 0):
                        loses(Stop.OCCUPIED)
            with m.Case(State.BACK):
                swaps(zero, entry)
                with m.If(port.swaps.ready):
                    m.d.sync += state.eq(State.BACK_WAIT)
            with m.Case(State.BACK_WAIT):
                with m.If(answered):
                    with m.If(answer.error):
                        loses(Stop.BUS_ERROR)
                    with m.Elif(answer.done):
                        ends(Stop.OCCUPIED)
                    with m.Else():
                        fails(State.HOME, taken=True)
        return m

    @staticmethod
    def _advance(
        m: Module,
        state: Signal,
        left: Signal,
        failures: Signal,
        have: Signal,
        pages: list[Signal],
        index: list[Signal],
        step: Signal,
    ) -> None:
        """To the next entry; where a table ends, the next is looked for."""
        m.d.sync += [left.eq(left - 1), failures.eq(0), state.eq(State.NEXT)]
        for number, (page, place) in enumerate(zip(pages, index, strict=True)):
            m.d.sync += page.eq(page + step)
            with m.If(place == x86.TABLE_ENTRIES - 1):
                m.d.sync += have[number].eq(0)
