"""What is proved of the engine's walk of upper tables: in which tables it goes on, and what it swaps there."""

from __future__ import annotations

from types import SimpleNamespace

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory, ReadPort

from ptewalk.cosim.formal.harness import FLAT, Harness
from ptewalk.model import linux, x86
from ptewalk.rtl.engine.change import ChangeLayout, EntryChange, MadeLayout
from ptewalk.rtl.engine.fetcher import Fetcher, State
from ptewalk.rtl.engine.jobs import JobKind

__all__ = ["FetcherSwaps", "FetcherTables", "made_of"]

_BITS = 16
"""Of a physical address."""
_LANES, _BEATS = 4, 2
_TAG = 1
_LEVELS = 4
"""Above level 1."""


def made_of(entry: Value, change: data.View) -> Value:
    """What a command makes of an entry that is not zero and that it does not spare, as `ChangeLayout` says it."""

    def mask(name: str) -> Value:
        """Of the entry's kind, in the places of an entry: the frame is in none."""
        present, hidden, swap = (Value.cast(change[kind][name]) for kind in ("present", "hidden", "swap"))
        bits = Mux(entry[x86.EntryBit.P], present, Mux(entry[linux.NotPresentBit.PROTNONE], hidden, swap))
        low, frame = x86.FRAME_LOW, x86.FRAME_HIGH + 1 - x86.FRAME_LOW
        return Cat(bits[:low], Const(0, frame), bits[low:])

    maps = entry[x86.EntryBit.P] | entry[linux.NotPresentBit.PROTNONE]
    arms = maps & change.arm & entry[x86.EntryBit.RW]
    saves = maps & change.save_dirty & entry[x86.EntryBit.D]
    moved = (arms << linux.SoftBit.ARM) | (saves << linux.SoftBit.SAVED_DIRTY)
    new = (entry & ~mask("clear")) | mask("set") | moved
    return Mux(change.only_matching & ~(entry & mask("match")).any(), entry, new[:64])


class _Opened(Fetcher):
    """A fetcher whose registers are seen."""

    def _here(self, m: Module, r: SimpleNamespace) -> SimpleNamespace:
        self.inner = r
        return super()._here(m, r)

    def _kept_entry(self, m: Module, r: SimpleNamespace, kept: Memory, here: SimpleNamespace) -> Value:
        self.rows: list[ReadPort] = [kept.read_port(domain="comb") for _ in range(_LEVELS * _BEATS)]
        m.d.comb += [row.addr.eq(number) for number, row in enumerate(self.rows)]
        return super()._kept_entry(m, r, kept, here)


class FetcherHarness(Harness):
    """A fetcher, a command that it works on, and a memory that answers any value at every read."""

    assumptions: tuple[str, ...] = (
        "the port answers what was asked, each access once and in its beats",
        "a command is held until it is over",
    )
    depth = 1
    solver = "yices"
    script = FLAT

    def __init__(self, *, searching: bool = False) -> None:
        self.fetcher = _Opened(physical_bits=_BITS, data_bits=64 * _LANES, line_bytes=64, tag_bits=1, tag=_TAG)
        super().__init__(self.fetcher, searching=searching)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fetcher = self.fetcher
        opened = fetcher.elaborate(None)
        fetcher.elaborate = lambda platform: opened  # type: ignore[method-assign]
        m.submodules.fetcher = fetcher
        command = Value.cast(fetcher.range)
        began, held = Signal(name="began"), Signal.like(command, name="held")
        m.d.sync += [began.eq(~fetcher.idle | fetcher.start), held.eq(command)]
        m.d.comb += Assume(~began | fetcher.idle | (held == command))
        self._specify(m, self._port(m))
        return m

    def _specify(self, m: Module, port: SimpleNamespace) -> None:
        raise NotImplementedError

    def _port(self, m: Module) -> SimpleNamespace:
        """What is outstanding: one access at a time."""
        reads, found = self.fetcher.port.reads, self.fetcher.port.data
        swaps, swapped = self.fetcher.port.swaps, self.fetcher.port.swapped
        left, swapping = Signal(range(_BEATS + 1), name="left"), Signal(name="swapping")
        asks, sends = reads.valid & reads.ready, swaps.valid & swaps.ready
        mine, answered = Signal(name="its_beat"), Signal(name="its_answer")
        m.d.comb += [
            mine.eq(found.valid & (found.payload.tag == _TAG)),
            answered.eq(swapped.valid & (swapped.payload.tag == _TAG)),
            Assume(~mine | (left != 0)),
            Assume(~mine | (found.payload.last == (left == 1))),
            Assume(~answered | swapping),
            Assume(~(swapped.payload.done & swapped.payload.error)),
            Assert(~reads.valid | ((left == 0) & ~swapping)),
            Assert(~swaps.valid | ((left == 0) & ~swapping)),
            Assert(~reads.valid | (reads.payload.tag == _TAG)),
            Assert(~reads.valid | ~reads.payload.line | (reads.payload.address[:6] == 0)),
        ]
        with m.If(asks):
            m.d.sync += left.eq(Mux(reads.payload.line, _BEATS, 1))
        with m.Elif(mine):
            m.d.sync += left.eq(left - 1)
        m.d.sync += swapping.eq(sends | (swapping & ~answered))
        if not self.searching:
            r = self.fetcher.inner
            m.d.comb += [
                Assert(Value.cast(r.state) <= max(State)),
                Assert(left == Mux(r.state == State.WAIT, _BEATS - r.beat, r.state == State.LEAF)),
                Assert(swapping == (r.state == State.SWAPPED)),
            ]
        return SimpleNamespace(left=left, swapping=swapping, asks=asks, sends=sends, mine=mine, answered=answered)


class FetcherTables(FetcherHarness):
    """One arbitrary frame: the engine looks, swaps or works in it only if it found it since it last paused."""

    title = "fetcher-tables"
    constants = ("frame",)
    search_depth = 12

    def _specify(self, m: Module, port: SimpleNamespace) -> None:
        fetcher = self.fetcher
        frame = self.arbitrary(m, _BITS - x86.PAGE_SHIFT, "frame")
        fresh, paused = Signal(name="fresh"), Signal(name="paused_once")
        found, jobs, reads, swaps = fetcher.port.data, fetcher.jobs, fetcher.port.reads, fetcher.port.swaps
        forgets = fetcher.pause & fetcher.paused
        with m.If(forgets):
            m.d.sync += [fresh.eq(0), paused.eq(1)]
        with m.Elif(port.mine & self._named(found.payload.value, frame)):
            m.d.sync += fresh.eq(1)
        root = frame == fetcher.range.root
        works = jobs.valid & (jobs.payload.kind == JobKind.LINE)
        for valid, payload in ((reads.valid, reads.payload), (swaps.valid, swaps.payload), (works, jobs.payload)):
            there = valid & (payload.address[x86.PAGE_SHIFT :] == frame)
            m.d.comb += [Assert(~there | fresh | root), Cover(there & paused & ~root)]
        # Nothing is asked for, or on its way, while it is paused.
        nothing = ~(reads.valid | swaps.valid | jobs.valid) & (port.left == 0) & ~port.swapping
        m.d.comb += Assert(~forgets | nothing)
        if not self.searching:
            self._tie(m, frame, fresh)

    @staticmethod
    def _named(beat: Value, frame: Value) -> Value:
        """Whether one of these entries has this frame, in the bits that an address has."""
        entries = (beat[64 * lane : 64 * lane + 64] for lane in range(len(beat) // 64))
        return Cat(entry[x86.FRAME_LOW : _BITS] == frame for entry in entries).any()

    def _tie(self, m: Module, frame: Value, fresh: Signal) -> None:
        """What shortens the proof: all that is kept and may be used is fresh."""
        fetcher, r, asked = self.fetcher, self.fetcher.inner, self.fetcher.range
        runs = r.state != State.IDLE
        m.d.comb += [
            Assert(~runs | (r.level <= Mux(asked.la57, 3, 2))),
            Assert(~runs | (r.tables[-1] == asked.root)),
            Assert(~runs | asked.la57 | (r.tables[-2] == asked.root)),
        ]
        decides = Cat(r.state == state for state in (State.DECIDE, State.HOLE, State.LINES)).any()
        m.d.comb += Assert(~decides | ~self._named(r.entry, frame) | fresh)
        for number in range(_LEVELS):
            table = runs & (number >= r.level) & (r.tables[number] == frame)
            m.d.comb += Assert(~table | fresh | (frame == asked.root))
            for beat in range(_BEATS):
                came = (r.state == State.WAIT) & (r.level == number) & (beat < r.beat)
                kept = runs & (r.have[number] | came)
                named = self._named(fetcher.rows[number * _BEATS + beat].data, frame)
                m.d.comb += Assert(~kept | ~named | fresh)


class FetcherSwaps(FetcherHarness):
    """Each swap is of a leaf above level 1, from the very value that was read there last, with a link.

    And to what the command makes of it, no other entry being touched; and only of a command that may change entries.
    """

    title = "fetcher-swaps"
    search_depth = 12
    quick_depth = 20

    def __init__(self, *, searching: bool = False) -> None:
        super().__init__(searching=searching)
        made = Value.cast(self.fetcher.made)
        self.ports = [port for port in self.ports if port is not made]
        self.change = Signal(ChangeLayout())  # free
        self.ports.append(Value.cast(self.change))

    def _specify(self, m: Module, port: SimpleNamespace) -> None:
        fetcher, change = self.fetcher, self.change
        m.submodules.net = net = EntryChange()
        single, made = Signal(64), Signal(MadeLayout())
        # As in the engine around it.
        m.d.comb += [
            *(net.entry.eq(single), net.change.eq(change), fetcher.made.eq(made)),
            *(net.change.empty.eq(0), net.change.spares.eq(0)),
        ]
        m.d.sync += [single.eq(fetcher.entry), *net.into(made)]
        began, held = Signal(name="began_change"), Signal.like(Value.cast(change), name="held_change")
        m.d.sync += [began.eq(~fetcher.idle | fetcher.start), held.eq(change)]
        m.d.comb += Assume(~began | fetcher.idle | (held == Value.cast(change)))

        # What was read last, with a link.
        reads, found, swaps = fetcher.port.reads, fetcher.port.data.payload, fetcher.port.swaps
        links, linked = Signal(name="links"), Signal(name="linked")
        address, old = Signal(_BITS, name="linked_address"), Signal(64, name="linked_value")
        with m.If(port.asks):
            m.d.sync += [links.eq(reads.payload.link & ~reads.payload.line), address.eq(reads.payload.address)]
        with m.If(port.asks | port.sends):
            m.d.sync += linked.eq(0)
        with m.Elif(port.mine):
            m.d.sync += [linked.eq(links & ~found.error), old.eq(found.value.word_select(address[3:5], 64))]

        payload, lane = swaps.payload, address[3:5]
        leaf = old.any() & (~old[x86.EntryBit.P] | old[x86.EntryBit.PS])
        swapped = fetcher.port.swapped
        with m.If(swaps.valid):
            m.d.comb += [
                Assert(fetcher.range.changes),
                Assert(linked & (payload.address == address) & (payload.tag == _TAG)),
                Assert((payload.changed == 1 << lane) & ~payload.line & payload.last),
                Assert(payload.old.word_select(lane, 64) == old),
                Assert(payload.new.word_select(lane, 64) == made_of(old, change)),
                Assert(leaf),
            ]
        m.d.comb += [
            Assert(~fetcher.changed | (port.answered & swapped.payload.done)),
            Cover(swaps.valid & ~old[x86.EntryBit.P]),
            Cover(swaps.valid & old[x86.EntryBit.P] & (fetcher.inner.failures == 1)),
        ]
        if not self.searching:
            self._tie(m, single, made, net, SimpleNamespace(links=links, linked=linked, address=address, old=old))

    def _tie(self, m: Module, single: Signal, made: data.View, net: EntryChange, seen: SimpleNamespace) -> None:
        """What shortens the proof: in each state what was read, and what is made of it."""
        fetcher, r = self.fetcher, self.fetcher.inner
        state = {name: r.state == name for name in State}
        here = fetcher.port.swaps.payload.address
        m.d.comb += Assert(~r.shown | state[State.LOOKED])
        with m.If(Cat(state[name] for name in (State.RELINK, State.LEAF, State.SWAPPED)).any()):
            m.d.comb += Assert(fetcher.range.changes)
        with m.If(state[State.LEAF]):
            m.d.comb += Assert(seen.links & (seen.address == here))
        with m.If(state[State.LOOKED] | state[State.SWAP]):
            m.d.comb += [
                Assert(seen.linked & (seen.old == r.entry) & (seen.address == here)),
                Assert(fetcher.range.changes),
            ]
        with m.If((state[State.LOOKED] & r.shown) | state[State.SWAP]):
            m.d.comb += Assert(single == r.entry)
        with m.If(state[State.SWAP]):
            leaf = (r.level < 2) & r.entry.any() & (~r.entry[x86.EntryBit.P] | r.entry[x86.EntryBit.PS])
            m.d.comb += [Assert((made.new == net.new) & (made.changes == net.changes)), Assert(~r.leaf | leaf)]
