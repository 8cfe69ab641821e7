"""clear_refs, scan and pagemap over any range of linear addresses, as a stream over its page tables."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.rtl.bus.line_port import LinePortSignature, check_line
from ptewalk.rtl.engine.change import ChangeLayout, EntryChange, MadeLayout, WordsLayout
from ptewalk.rtl.engine.fetcher import Fetcher, RangeLayout, Stop
from ptewalk.rtl.engine.hold import Hold
from ptewalk.rtl.engine.jobs import PAGES_BITS, JobKind
from ptewalk.rtl.engine.lines import Lines
from ptewalk.rtl.engine.lister import ListingFetcher, ListLayout
from ptewalk.rtl.engine.mover import MoveLayout, Mover
from ptewalk.rtl.engine.report import UNIT_BITS, Report, Reporter
from ptewalk.rtl.engine.stream_net import StreamNet
from ptewalk.rtl.log.layouts import COUNT_BITS

__all__ = ["OF_INVALIDATIONS", "CommandLayout", "CompletionLayout", "EngineConfig", "TableEngine"]


@dataclass(frozen=True)
class EngineConfig:
    """Parameters of a `TableEngine`.

    Parameters
    ----------
    physical_bits : int
        Of an address, 32 to 52; default 40.
    data_bits : int
        Of the line port: 64 (default), 128, 256 or 512.
    line_bytes : int
        64 or 128 (default).
    lines : int
        Lines in flight, a power of two from 2 to 64; default 8.
    lists : bool
        Commands may go through the records of a ring instead of a range; default False.
    """

    physical_bits: int = 40
    data_bits: int = 64
    line_bytes: int = 128
    lines: int = 8
    lists: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.physical_bits, int) or not 32 <= self.physical_bits <= 52:
            raise ValueError(f"physical_bits must be an integer from 32 to 52, not {self.physical_bits!r}")
        check_line(data_bits=self.data_bits, line_bytes=self.line_bytes)
        if not isinstance(self.lines, int) or not 2 <= self.lines <= 64 or self.lines & self.lines - 1:
            raise ValueError(f"lines must be a power of two from 2 to 64, not {self.lines!r}")
        if not isinstance(self.lists, bool):
            raise ValueError(f"lists must be True or False, not {self.lists!r}")

    @property
    def tag_bits(self) -> int:
        """Width of a tag of the line port: one for each line, one for upper tables, and one for what a bitmap was."""
        return self.lines.bit_length()


class CommandLayout(data.StructLayout):
    """An operation over a range.

    Members
    -------
    range : RangeLayout
    change : ChangeLayout, words : WordsLayout
    report : Report
    ors : 1, unit : unsigned(UNIT_BITS)
        Of a bitmap: bits that are set in what is there stay, and nobody else writes to its words meanwhile; a bit tells
        of 2**unit pages, those whose numbers are equal but for so many low bits, at most `LARGEST_UNIT`.
    moves : 1, move : MoveLayout
        Entries are moved, from the range's first page on; its number of pages does not count, nor `report`.
    address : unsigned(physical_bits)
        Where the report goes, 8-byte aligned. A bitmap's first word is that which holds the first page's bit, and the
        bits before it are told as 0; of words the address and eight times the number of the first page are equal modulo
        a line.
    lists : 1, list : ListLayout, list_first, list_count : unsigned(COUNT_BITS)
        Only with `lists` of `EngineConfig`: pages that records name are dealt with, of so many records from that number
        on; the range's `page` and `pages` do not count. A bitmap has a bit a record; words are not told.
    """

    def __init__(self, physical_bits: int, *, lists: bool = False) -> None:
        count = unsigned(COUNT_BITS)
        listed = {"lists": 1, "list": ListLayout(physical_bits), "list_first": count, "list_count": count}
        super().__init__(
            {
                "range": RangeLayout(physical_bits),
                "change": ChangeLayout(),
                "words": WordsLayout(),
                "report": Report,
                "ors": 1,
                "unit": unsigned(UNIT_BITS),
                "moves": 1,
                "move": MoveLayout(),
                "address": unsigned(physical_bits),
                **(listed if lists else {}),
            }
        )


class CompletionLayout(data.StructLayout):
    """How a command ended.

    Members
    -------
    stopped : Stop
        DONE, or why not all was done.
    page : unsigned(PAGES_BITS)
        The number of the first page that was not dealt with: where to go on.
    changed : unsigned(PAGES_BITS)
        Entries that were changed, or moved.
    failed : 1, failed_page : unsigned(PAGES_BITS)
        The bus refused a line of entries, and it is not known whether they were written; the first page of the first
        such line. They are reported as matching.
    given_up : 1, given_up_page : unsigned(PAGES_BITS)
        The swap of an entry failed too often, and it is as it was; the first page of the first line, or leaf.
    lost : 1
        The bus refused a line of the report.
    homeless : unsigned(64)
        Of a move: an entry, that of `page`, that was taken from the source, or may have been, and is not at the target.
    more : 1
        Of a move: only `page` and `homeless` count, those of a further such entry, and the command is not over: another
        completion follows.
    absent : unsigned(COUNT_BITS), bad : 1
        Only with `lists` of `EngineConfig`: records that were dealt with and whose page no table or leaf maps, or which
        are of another PCID; the record of number `page` is none, by its phase, and `stopped` is ABORTED. Of a list
        `page`, `failed_page` and `given_up_page` count records, from its first one on.
    """

    def __init__(self, *, lists: bool = False) -> None:
        page = unsigned(PAGES_BITS)
        super().__init__(
            {
                "stopped": Stop,
                "page": page,
                "changed": page,
                "failed": 1,
                "failed_page": page,
                "given_up": 1,
                "given_up_page": page,
                "lost": 1,
                "homeless": unsigned(64),
                "more": 1,
                **({"absent": unsigned(COUNT_BITS), "bad": 1} if lists else {}),
            }
        )


class State(IntEnum):
    """What the engine does."""

    IDLE = 0
    RUN = 1
    FLUSH = 2
    """All entries are dealt with; the report is not written to its end."""
    ANSWER = 3
    MOVE = 4


OF_INVALIDATIONS: Final = ("pause", "paused", "stepped", "met_global", "met_leaf")
"""Members that are for an MMU beside it."""


class TableEngine(Component):
    """Goes through a range in the order of addresses, with some lines of entries in flight.

    Each entry: what is told is of the very value that the swap replaced. Of the range there is no snapshot: a store
    marked before the command began is in this report or an earlier one, a store granted after it ended marks anew, and
    one in between is in this report or the next, perhaps in both, never in neither.

    Nothing of A is changed or needed in upper entries.

    Parameters
    ----------
    config : EngineConfig

    Members
    -------
    commands : In(stream of CommandLayout)
        Held while it is worked on; taken together with its completion, the last one where there are several.
    completions : Out(stream of CompletionLayout)
    abort : In(1)
        Nothing more is begun; what is in flight ends and is told.
    pause : In(1), paused : Out(1)
        Nothing is on its way to tables, and none will be before `pause` is 0 again; what was read of upper tables is
        forgotten. While it is, `pause` is held until `paused`.
    stepped : Out(1)
        In this cycle entries are begun or passed over, or there is nothing to do.
    met_global, met_leaf : Out(1)
        The command changed an entry that is global, or may have, or moved a table, in which some may be; it changed a
        leaf above level 1, or may have, or moves such entries. Valid with its completion.
    port : Out(LinePortSignature)

    Attributes
    ----------
    singles : Signal
        Driven by who has memory that reserves single words only: no swap is of a line. Held while a command is here;
        else 0.
    """

    def __init__(self, config: EngineConfig = EngineConfig()) -> None:  # noqa: B008 - frozen
        self.config, self.singles = config, Signal(name="singles")
        widths: Any = {
            "physical_bits": config.physical_bits,
            "data_bits": config.data_bits,
            "line_bytes": config.line_bytes,
        }
        self._fetcher: Any = (ListingFetcher if config.lists else Fetcher)(
            **widths, tag_bits=config.tag_bits, tag=config.lines
        )
        self._lines = Lines(**widths, tag_bits=config.tag_bits, slots=config.lines, singly=config.lists)
        # Neither upper tables nor lines are on their way while entries are moved: the tags are the mover's then.
        self._mover = Mover(**widths, tag_bits=config.tag_bits, lines=config.lines)
        self._reporter = Reporter(**widths, slot_bits=self._lines.slot_bits, beat_bits=self._lines.beat_bits)
        super().__init__(
            {
                "commands": In(stream.Signature(CommandLayout(config.physical_bits, lists=config.lists))),
                "completions": Out(stream.Signature(CompletionLayout(lists=config.lists))),
                "abort": In(1),
                "pause": In(1),
                "paused": Out(1, init=1),
                "stepped": Out(1),
                "met_global": Out(1),
                "met_leaf": Out(1),
                "port": Out(LinePortSignature(**widths, tag_bits=config.tag_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fetcher = fetcher = self._fetcher
        m.submodules.lines = lines = self._lines
        m.submodules.reporter = reporter = self._reporter
        m.submodules.mover = mover = self._mover
        m.submodules.stream_net = stream_net = StreamNet(self.config.data_bits // 64)
        connect(m, stream_net.lines, lines.net)
        connect(m, stream_net.pairs, mover.net)
        m.submodules.net = net = EntryChange()
        single, made = Signal(64), Signal(MadeLayout())
        command, told = self.commands.payload, self.completions.payload
        state, begins, start, moving, handed = Signal(State), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            begins.eq((state == State.IDLE) & self.commands.valid),
            *(
                start.eq(begins & ~command.moves),
                mover.start.eq(begins & command.moves),
                moving.eq(state == State.MOVE),
            ),
            *(mover.root.eq(command.range.root), mover.la57.eq(command.range.la57), mover.page.eq(command.range.page)),
            mover.move.eq(command.move),
            *(mover.stop.eq(self.abort), mover.pause.eq(self.pause), fetcher.pause.eq(self.pause)),
            self.paused.eq(fetcher.paused & mover.paused & lines.quiet),
            handed.eq(fetcher.jobs.valid & fetcher.jobs.ready),
            self.stepped.eq(handed | fetcher.passed | mover.passed | (fetcher.idle & mover.idle)),
            *(fetcher.start.eq(start), fetcher.range.eq(command.range)),
            *(net.entry.eq(single), net.change.eq(command.change)),
            net.words.eq(command.words),
            # What is changed one by one is not zero; and what is spared is of level 1.
            *(net.change.empty.eq(0), fetcher.made.eq(made), mover.made.eq(made)),
            *(stream_net.change.eq(command.change), stream_net.words.eq(command.words), stream_net.moving.eq(moving)),
            *(lines.change.eq(command.change), lines.words.eq(command.words)),
            lines.changes.eq(command.range.changes),
            *(reporter.start.eq(start), reporter.report.eq(command.report), reporter.address.eq(command.address)),
            *(reporter.page.eq(command.range.page), reporter.flush.eq(state == State.FLUSH)),
            *(reporter.ors.eq(command.ors & (command.report == Report.BITMAP)), reporter.unit.eq(command.unit)),
            *(lines.jobs.valid.eq(fetcher.jobs.valid), lines.jobs.payload.eq(fetcher.jobs.payload)),
            fetcher.jobs.ready.eq(lines.jobs.ready),
            *(reporter.told.valid.eq(lines.told.valid), reporter.told.payload.eq(lines.told.payload)),
            lines.told.ready.eq(reporter.told.ready),
            *(lines.look.eq(reporter.look), lines.look_slot.eq(reporter.look_slot)),
            *(lines.look_beat.eq(reporter.look_beat), lines.look_lanes.eq(reporter.look_lanes)),
            *(reporter.looked.eq(lines.looked), reporter.words_valid.eq(lines.words_valid)),
            *(reporter.words_lanes.eq(lines.words_lanes), reporter.beat_words.eq(lines.beat_words)),
            lines.release.eq(reporter.release),
            *(lines.singles.eq(self.singles), mover.singles.eq(self.singles)),
        ]
        with m.If(~moving):
            m.d.comb += net.change.spares.eq(0)
        if self.config.lists:
            self._list(m)
        m.d.sync += [single.eq(Mux(moving, mover.entry, fetcher.entry)), *net.into(made)]
        self._share(m, moving)
        counted = Signal.like(told)
        # Of the job that was told in the last cycle, and so many entries were changed by then.
        ends, over, changed = Signal(), Signal.like(lines.told.payload), Signal(range(4 * self._lines.entries))
        m.d.sync += [
            *(ends.eq(lines.told.valid & lines.told.ready), over.eq(lines.told.payload)),
            changed.eq(lines.changed + fetcher.changed + mover.moved),
        ]
        broken = ends & over.error
        m.d.comb += [
            fetcher.stop.eq(self.abort | broken),
            fetcher.because.eq(Mux(broken, Stop.BUS_ERROR, Stop.ABORTED)),
            self.completions.valid.eq((state == State.ANSWER) | mover.tells),
            *(told.more.eq(mover.tells), mover.heard.eq(mover.tells & self.completions.ready)),
            self.commands.ready.eq((state == State.ANSWER) & self.completions.ready),
            told.stopped.eq(Mux(counted.failed & (fetcher.stopped == Stop.DONE), Stop.BUS_ERROR, fetcher.stopped)),
            *(told.page.eq(reporter.page_now), told.lost.eq(reporter.failed)),
        ]
        with m.If(command.moves):
            m.d.comb += [told.stopped.eq(mover.stopped), told.page.eq(mover.page_now), told.lost.eq(0)]
            m.d.comb += told.homeless.eq(mover.homeless)
        with m.If(mover.tells):
            m.d.comb += [told.page.eq(mover.tells_page), told.homeless.eq(mover.tells_entry)]
        m.d.comb += [told[name].eq(counted[name]) for name in ("changed", "failed", "failed_page")]
        m.d.comb += [told[name].eq(counted[name]) for name in ("given_up", "given_up_page")]
        m.d.sync += counted.changed.eq(counted.changed + changed)
        with m.If(begins):
            m.d.sync += [self.met_global.eq(0), self.met_leaf.eq(command.moves & (command.move.level != 1))]
        with m.Else():
            m.d.sync += [
                self.met_global.eq(self.met_global | lines.met_global | fetcher.met_global | mover.took_global),
                self.met_leaf.eq(self.met_leaf | fetcher.touched),
            ]
        gives_up = ends & over.given_up
        first = Signal(PAGES_BITS)  # of the job that is told
        for name, event in (("failed", broken), ("given_up", gives_up)):
            with m.If(event & ~counted[name]):
                m.d.sync += [counted[name].eq(1), counted[f"{name}_page"].eq(first)]
        with m.If(ends):
            m.d.sync += first.eq(first + over.pages)
        if self.config.lists:
            m.d.comb += [told.absent.eq(counted.absent), told.bad.eq(fetcher.bad & command.lists)]
            with m.If(ends & (over.kind == JobKind.HOLE)):
                m.d.sync += counted.absent.eq(counted.absent + 1)
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(start):
                    m.d.sync += [counted.eq(0), first.eq(reporter.page), state.eq(State.RUN)]
                with m.Elif(mover.start):
                    m.d.sync += [counted.eq(0), state.eq(State.MOVE)]
            with m.Case(State.MOVE):
                with m.If(mover.idle):
                    m.d.sync += state.eq(State.ANSWER)
            with m.Case(State.RUN):
                with m.If(fetcher.idle & lines.idle):
                    m.d.sync += state.eq(State.FLUSH)
            with m.Case(State.FLUSH):
                with m.If(reporter.idle):
                    m.d.sync += state.eq(State.ANSWER)
            with m.Case(State.ANSWER):
                with m.If(self.completions.ready):
                    m.d.sync += state.eq(State.IDLE)
        return m

    def _list(self, m: Module) -> None:
        """Records instead of a range: what is told of a page is told of its record, whichever line it is in."""
        command, fetcher, reporter, lines = self.commands.payload, self._fetcher, self._reporter, self._lines
        m.d.comb += [
            *(fetcher.lists.eq(command.lists), fetcher.list.eq(command.list)),
            *(fetcher.first.eq(command.list_first), fetcher.count.eq(command.list_count)),
            lines.alone.eq(command.lists),
        ]
        with m.If(command.lists):
            told_of = Mux(command.report == Report.BITMAP, Report.BITMAP, Report.NONE)
            m.d.comb += [reporter.page.eq(0), reporter.report.eq(told_of), reporter.unit.eq(0)]
            with m.If(lines.told.payload.kind == JobKind.LINE):
                told = reporter.told.payload
                m.d.comb += [told.kind.eq(JobKind.LEAF), told.error.eq(0)]
                matches = lines.told.payload.matches.bit_select(lines.told.payload.first, 1)
                m.d.comb += told.matches.eq(matches | lines.told.payload.error)

    def _share(self, m: Module, moving: Signal) -> None:
        """The port: reads of a report go before those of upper tables, these before lines'; swaps of lines go first."""
        fetcher, lines, port = self._fetcher.port, self._lines.port, self.port
        # What the port takes ends at these: else it would go through all that waits for it in one cycle.
        m.submodules.reads = held_reads = Hold(port.reads.payload.shape())
        m.submodules.swaps = held_swaps = Hold(port.swaps.payload.shape())
        connect(m, held_reads.taken, flipped(port.reads))
        connect(m, held_swaps.taken, flipped(port.swaps))
        reads, swaps = held_reads.offered, held_swaps.offered
        reporter, inside = self._reporter, Signal()  # a swap of a line that was begun
        with m.If(reporter.reads.valid):
            asked = {"address": reporter.reads.payload.address, "line": 1, "link": 0, "tag": self.config.lines + 1}
            m.d.comb += [reads.valid.eq(1), *(reads.payload[name].eq(value) for name, value in asked.items())]
            m.d.comb += reporter.reads.ready.eq(reads.ready)
        with m.Elif(fetcher.reads.valid):
            m.d.comb += [reads.valid.eq(1), reads.payload.eq(fetcher.reads.payload)]
            m.d.comb += fetcher.reads.ready.eq(reads.ready)
        with m.Else():
            m.d.comb += [reads.valid.eq(lines.reads.valid), reads.payload.eq(lines.reads.payload)]
            m.d.comb += lines.reads.ready.eq(reads.ready)
        m.d.comb += lines.swaps.ready.eq(swaps.ready)
        with m.If(lines.swaps.valid | inside):
            m.d.comb += [swaps.valid.eq(lines.swaps.valid), swaps.payload.eq(lines.swaps.payload)]
            with m.If(lines.swaps.valid & swaps.ready):
                m.d.sync += inside.eq(~lines.swaps.payload.last)
        with m.Else():
            m.d.comb += [swaps.valid.eq(fetcher.swaps.valid), swaps.payload.eq(fetcher.swaps.payload)]
            m.d.comb += fetcher.swaps.ready.eq(swaps.ready)
        mover = self._mover.port
        with m.If(moving):
            m.d.comb += [
                *(reads.valid.eq(mover.reads.valid), reads.payload.eq(mover.reads.payload)),
                *(swaps.valid.eq(mover.swaps.valid), swaps.payload.eq(mover.swaps.payload)),
                *(mover.reads.ready.eq(reads.ready), mover.swaps.ready.eq(swaps.ready)),
            ]
        for one, on in ((fetcher, ~moving), (lines, ~moving), (mover, moving)):
            m.d.comb += [one.data.valid.eq(port.data.valid & on), one.data.payload.eq(port.data.payload)]
            m.d.comb += [one.swapped.valid.eq(port.swapped.valid & on), one.swapped.payload.eq(port.swapped.payload)]
        connect(m, reporter.writes, flipped(port.writes))
        connect(m, flipped(port.written), reporter.written)
        found = port.data.payload
        m.d.comb += [
            reporter.old.valid.eq(port.data.valid & (found.tag == self.config.lines + 1)),
            *(reporter.old.payload[name].eq(found[name]) for name in ("value", "error", "last")),
        ]
