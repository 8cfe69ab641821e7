"""What is shown of lines of entries in flight: what is swapped, and what is told of them, as far as a search goes."""

from __future__ import annotations

from types import SimpleNamespace

from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import connect

from ptewalk.cosim.formal.fetcher import made_of
from ptewalk.cosim.formal.harness import FLAT, Harness
from ptewalk.model import linux, x86
from ptewalk.rtl.engine.jobs import JobKind
from ptewalk.rtl.engine.lines import Lines
from ptewalk.rtl.engine.stream_net import StreamNet

__all__ = ["LinesSwaps"]

_BITS = 13
"""Of a physical address."""
_LANES, _BEATS = 4, 2
_ENTRIES = _LANES * _BEATS
_SLOTS = 2
_BITS_OF_ENTRIES = (0, 1, 5, 8, 11, 12)
"""That vary: P, RW, A, that of PROT_NONE, soft-dirty, and one of the frame; of masks the same but that."""


class LinesSwaps(Harness):
    """One arbitrary entry of one arbitrary slot: its swap starts from the value read last, and is the command's change.

    What is told of it is of that value, and not before its swap is over; and nothing is read or swapped of a line that
    was handed on before the lines were quiet.
    """

    title = "lines-swaps"
    assumptions: tuple[str, ...] = (
        "the port answers what was asked, each access once and in its beats, which are not mixed with another's",
        "a command is held while a line is here; lines are handed on for it alone",
        "what was told is released once, in order",
        "fetcher-tables: while it is paused no line is handed on",
    )
    constants = ("slot", "place", "frame")
    bounded = True
    solver = "abc"
    script = FLAT
    search_depth = 16

    def __init__(self, *, searching: bool = False) -> None:
        self.lines = Lines(slots=_SLOTS, physical_bits=_BITS, data_bits=64 * _LANES, line_bytes=64, tag_bits=2)
        super().__init__(self.lines, searching=searching)
        found, change = self.lines.port.data.payload, self.lines.change
        driven = [Value.cast(value) for value in (self.lines.net.old, self.lines.net.made, found, change)]
        self.ports = [port for port in self.ports if not any(port is one for one in driven)]
        count = len(_BITS_OF_ENTRIES)
        self.beat = Signal(data.StructLayout({"value": count * _LANES, "error": 1, "last": 1, "tag": 2}))  # free
        self.masks = [Signal(3 * (count - 1), name=f"masks_{kind}") for kind in _KINDS]  # free
        self.flags = Signal(3)  # free
        self.ports += [Value.cast(self.beat), *self.masks, self.flags]
        self.forgets = Signal()  # free: what is read of upper tables is forgotten now
        self.ports.append(self.forgets)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lines, jobs = self.lines, self.lines.jobs
        m.submodules.lines = lines
        m.submodules.net = net = StreamNet(_LANES)
        connect(m, net.lines, lines.net)
        m.d.comb += net.change.eq(lines.change)
        self._drive(m)
        command = Signal(len(Value.cast(lines.change)) + 1, name="command")
        m.d.sync += command.eq(Value.cast(lines.change) | (lines.changes << (len(command) - 1)))
        busy = Signal(name="busy")
        m.d.sync += busy.eq(~lines.idle | jobs.valid)
        now = Value.cast(lines.change) | (lines.changes << (len(command) - 1))
        offered, job = Signal(name="offered"), Signal.like(Value.cast(jobs.payload), name="job_before")
        m.d.sync += [offered.eq(jobs.valid & ~jobs.ready), job.eq(jobs.payload)]
        m.d.comb += [
            Assume(~busy | (command == now)),
            Assume(~offered | (jobs.valid & (Value.cast(jobs.payload) == job))),
            Assume(jobs.payload.address[:6] == 0),
            Assume(jobs.payload.first <= jobs.payload.last),
        ]
        owed = Signal(range(_SLOTS + 1), name="owed")  # told, and not released
        m.d.comb += Assume(~lines.release | (owed != 0))
        m.d.sync += owed.eq(owed + (lines.told.valid & lines.told.ready) - lines.release)
        port = [self._port(m, number) for number in range(_SLOTS)]
        self._channels(m, port)
        self._watch(m, port)
        self._quiet(m, port)
        return m

    def _drive(self, m: Module) -> None:
        """Entries and masks of few bits."""
        lines, count = self.lines, len(_BITS_OF_ENTRIES)
        found, change = lines.port.data.payload, lines.change
        for lane in range(_LANES):
            for place, bit in enumerate(_BITS_OF_ENTRIES):
                m.d.comb += found.value[64 * lane + bit].eq(self.beat.value[count * lane + place])
        m.d.comb += [found[name].eq(self.beat[name]) for name in ("error", "last", "tag")]
        for kind, free in zip(_KINDS, self.masks, strict=True):
            for number, name in enumerate(("clear", "set", "match")):
                for place, bit in enumerate(_BITS_OF_ENTRIES[:-1]):
                    m.d.comb += change[kind][name].low[bit].eq(free[(count - 1) * number + place])
        m.d.comb += [change[name].eq(bit) for name, bit in zip(_FLAGS, self.flags, strict=True)]

    def _port(self, m: Module, number: int) -> SimpleNamespace:
        """What the port knows of one tag."""
        reads, found = self.lines.port.reads, self.lines.port.data
        swaps, swapped = self.lines.port.swaps, self.lines.port.swapped
        one = SimpleNamespace(
            left=Signal(range(_BEATS + 1), name=f"left_{number}"),  # beats of a read that have not come
            line=Signal(name=f"line_{number}"),
            links=Signal(name=f"links_{number}"),
            linked=Signal(name=f"linked_{number}"),  # all has come, and no swap of it is sent
            wrong=Signal(name=f"wrong_{number}"),
            address=Signal(_BITS, name=f"address_{number}"),
            swapping=Signal(name=f"swapping_{number}"),
            beat=Signal(range(_BEATS), name=f"beat_{number}"),  # of its swap
        )
        one.asks = reads.valid & reads.ready & (reads.payload.tag == number)
        one.sends = swaps.valid & swaps.ready & (swaps.payload.tag == number)
        one.mine = found.valid & (found.payload.tag == number)
        one.answered = swapped.valid & (swapped.payload.tag == number)
        m.d.comb += [
            Assume(~one.mine | (one.left != 0)),
            Assume(~one.mine | (found.payload.last == (one.left == 1))),
            Assume(~one.answered | one.swapping),
        ]
        with m.If(one.asks):
            m.d.sync += [
                *(one.left.eq(Mux(reads.payload.line, _BEATS, 1)), one.line.eq(reads.payload.line)),
                *(one.links.eq(reads.payload.link), one.address.eq(reads.payload.address)),
                *(one.linked.eq(0), one.wrong.eq(0), one.beat.eq(0)),
            ]
            m.d.comb += Assert((one.left == 0) & ~one.swapping)
        with m.Elif(one.mine):
            m.d.sync += [one.left.eq(one.left - 1), one.wrong.eq(one.wrong | found.payload.error)]
            m.d.sync += one.linked.eq((one.left == 1) & one.links)
        with m.If(one.sends):
            m.d.comb += Assert(one.linked & ~one.swapping & ~one.wrong & (one.left == 0))
            m.d.comb += Assert((swaps.payload.line == one.line) & (swaps.payload.address == one.address))
            m.d.comb += Assert(swaps.payload.last == (~one.line | (one.beat == _BEATS - 1)))
            m.d.sync += one.beat.eq(one.beat + 1)
            with m.If(swaps.payload.last):
                m.d.sync += [one.swapping.eq(1), one.linked.eq(0)]
        with m.If(one.answered):
            m.d.sync += one.swapping.eq(0)
        return one

    def _channels(self, m: Module, port: list[SimpleNamespace]) -> None:
        """Beats of one access are not mixed with another's; and nothing but tags of slots is used."""
        reads, found, swaps = self.lines.port.reads, self.lines.port.data.payload, self.lines.port.swaps
        inside, whose = Signal(name="inside"), Signal.like(found.tag, name="whose")
        valid = self.lines.port.data.valid
        m.d.comb += [
            Assume(~valid | (found.tag < _SLOTS)),
            Assume(~(valid & inside) | (found.tag == whose)),
            Assume(~self.lines.port.swapped.valid | (self.lines.port.swapped.payload.tag < _SLOTS)),
            Assume(~(self.lines.port.swapped.payload.done & self.lines.port.swapped.payload.error)),
            Assert(~reads.valid | (reads.payload.tag < _SLOTS)),
            Assert(~swaps.valid | (swaps.payload.tag < _SLOTS)),
            Assert(~swaps.valid | self.lines.changes),
        ]
        with m.If(valid):
            m.d.sync += [inside.eq(~found.last), whose.eq(found.tag)]

    def _watch(self, m: Module, port: list[SimpleNamespace]) -> None:
        """The entry that is watched, its value as it was read last, and what became of its swap."""
        lines, told = self.lines, self.lines.told
        slot, place = self.arbitrary(m, 1, "slot"), self.arbitrary(m, 3, "place")
        one = SimpleNamespace(**{name: Mux(slot, port[1].__dict__[name], port[0].__dict__[name]) for name in _KNOWN})
        found, swaps, answer = lines.port.data.payload, lines.port.swaps.payload, lines.port.swapped.payload
        old, known, taken = Signal(64, name="old"), Signal(name="known"), Signal(name="taken")
        beat, lane = place[2], place[:2]
        its_line = one.line & ((one.left == _BEATS) == (beat == 0))
        its_word = ~one.line & (one.address[3:6] == place)
        with m.If(one.mine & (its_line | its_word) & ~found.error):
            m.d.sync += [old.eq(found.value.word_select(lane, 64)), known.eq(1), taken.eq(0)]
        here = one.sends & Mux(one.line, one.beat == beat, one.address[3:6] == place)
        change, new = lines.change, made_of(old, lines.change)
        maps = old[x86.EntryBit.P] | old[linux.NotPresentBit.PROTNONE]
        spares = Value.cast(change.spares)
        spared = maps & (Value.cast(old[: x86.FRAME_LOW]) & spares[: x86.FRAME_LOW]).any()
        spared |= maps & (old[x86.FRAME_HIGH + 1 :] & spares[x86.FRAME_LOW :]).any()
        becomes = Signal(64, name="becomes")
        m.d.comb += becomes.eq(Mux(spared | ~old.any(), old, new))
        sent = Signal(name="sent")
        with m.If(here & swaps.changed.bit_select(lane, 1)):
            m.d.comb += [
                Assert(known & (swaps.old.word_select(lane, 64) == old)),
                Assert(swaps.new.word_select(lane, 64) == becomes),
                Assert(becomes != old),
            ]
            m.d.sync += sent.eq(1)
        with m.If(one.asks):
            m.d.sync += sent.eq(0)
        with m.If(one.answered & answer.done & sent):
            m.d.sync += taken.eq(1)
        # What is told is of the value that the swap replaced, or that stays.
        mine = told.valid & told.ready & (told.payload.kind == JobKind.LINE) & (told.payload.slot == slot)
        asked = mine & ~told.payload.error & (told.payload.first <= place) & (place <= told.payload.last)
        bits = [Value.cast(change[kind].match) for kind in _KINDS]
        chosen = Mux(old[x86.EntryBit.P], bits[0], Mux(old[linux.NotPresentBit.PROTNONE], bits[1], bits[2]))
        matches = (old[: x86.FRAME_LOW] & chosen[: x86.FRAME_LOW]).any()
        matches |= (old[x86.FRAME_HIGH + 1 :] & chosen[x86.FRAME_LOW :]).any()
        m.d.comb += [
            Assert(~asked | (known & (told.payload.matches.bit_select(place, 1) == matches))),
            Assert(~asked | told.payload.given_up | ~lines.changes | (becomes == old) | taken),
            Assert(~mine | ((one.left == 0) & ~one.swapping)),
            Cover(asked & taken & (place == 5)),
        ]

    def _quiet(self, m: Module, port: list[SimpleNamespace]) -> None:
        """One arbitrary frame: its lines are read or swapped if one was handed on since what was read was forgotten."""
        lines, jobs = self.lines, self.lines.jobs
        frame = self.arbitrary(m, _BITS - x86.PAGE_SHIFT, "frame")
        given, forgot = Signal(name="given"), Signal(name="forgot")
        reads, swaps = lines.port.reads, lines.port.swaps
        m.d.comb += Assume(~self.forgets | (lines.quiet & ~jobs.valid))
        with m.If(self.forgets):
            m.d.sync += [given.eq(0), forgot.eq(1)]
        with m.Elif(jobs.valid & jobs.ready & (jobs.payload.address[x86.PAGE_SHIFT :] == frame)):
            m.d.sync += given.eq(1)
        nothing = ~(reads.valid | swaps.valid)
        for one in port:
            nothing &= (one.left == 0) & ~one.swapping
        for channel in (reads, swaps):
            there = channel.valid & (channel.payload.address[x86.PAGE_SHIFT :] == frame)
            m.d.comb += [Assert(~there | given), Cover(there & forgot)]
        m.d.comb += Assert(~self.forgets | nothing)


_KINDS = ("present", "hidden", "swap")
_FLAGS = ("arm", "save_dirty", "only_matching")
_KNOWN = ("left", "line", "address", "beat", "swapping", "mine", "asks", "sends", "answered")
