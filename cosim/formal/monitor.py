"""What is proved of the exclusive monitor: no update is lost, and of those who try one succeeds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.harness import Harness
from ptewalk.rtl.bus.axi import Burst
from ptewalk.rtl.bus.monitor import PHASES, ExclusiveMonitor, KeyLayout, MonitorConfig, ReadState, WriteState

__all__ = ["MonitorAtomic", "MonitorProgress"]

_CONFIG = MonitorConfig(address_bits=13, id_bits=3, reservations=5, reads=2, writes=2, observe=True)
_GRANULE, _LINE, _PAGE = 3, 7, 12
"""Log2 of the bytes of an entry of a table, of a line and of a page."""


class _MonitorHarness(Harness):
    """The monitor, and what goes in and out of it: of one arbitrary ID the last exclusive read.

    What goes out is what came in last, in each direction: that is asserted too.
    """

    assumptions: tuple[str, ...] = (
        "bursts are lawful: beats of the bus's width at most, in one page; WRAP aligned, of 2, 4, 8 or 16 beats",
        "memory answers only writes that went out",
        "an exclusive write is not offered while a read of its ID that came in has not gone out (AXI: is not answered)",
    )
    constants: tuple[str, ...] = ("who",)
    depth = 2
    search_depth = 11
    solver = "yices"

    def __init__(self, *, searching: bool = False) -> None:
        self.monitor = ExclusiveMonitor(_CONFIG)
        super().__init__(self.monitor, searching=searching)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        monitor = self.monitor
        keys, banks = monitor.keys.read_port(domain="comb"), [one.read_port(domain="comb") for one in monitor.banks]
        m.submodules.monitor = monitor
        above, below = monitor.s_axi, monitor.m_axi
        who = self.arbitrary(m, _CONFIG.id_bits, "who")
        s = SimpleNamespace(m=m, who=who, above=above, below=below, r=monitor.o_registers)

        s.write, s.read = (Signal.like(channel.payload, name=f"last_{n}") for n, channel in self._addresses())
        s.reading = Signal()  # a read came in, and has not gone out
        s.offered = Signal()  # a write was on offer below, and still is
        s.writes, s.reads, s.new_write = Signal(), Signal(), Signal()  # goes out; goes out; comes on offer
        s.mine = Signal()  # what came in last is an exclusive read of that ID
        s.key, s.reserved = Signal(KeyLayout(_CONFIG.address_bits)), Signal()  # of its last one that went out
        s.waiting = Signal(range(_CONFIG.writes + 2))  # writes that went out and are not answered
        m.d.comb += [
            s.writes.eq(below.aw.valid & below.aw.ready),
            s.reads.eq(below.ar.valid & below.ar.ready),
            s.new_write.eq(below.aw.valid & ~s.offered),
            s.mine.eq(s.read.lock & (s.read.id == who)),
        ]
        m.d.sync += [
            s.offered.eq(below.aw.valid & ~below.aw.ready),
            s.waiting.eq(s.waiting + s.writes - (below.b.valid & below.b.ready)),
        ]
        with m.If(above.aw.valid & above.aw.ready):
            m.d.sync += s.write.eq(above.aw.payload)
        with m.If(s.reads):
            m.d.sync += s.reading.eq(0)
        with m.If(above.ar.valid & above.ar.ready):
            m.d.sync += [s.read.eq(above.ar.payload), s.reading.eq(1)]
        with m.If(s.reads & s.mine):
            m.d.sync += s.reserved.eq(s.r.granted)
            m.d.sync += [s.key[name].eq(s.read[name]) for name in ("addr", "size", "len")]

        asked = above.aw.payload
        m.d.comb += [
            *(Assume(~channel.valid | _lawful(channel.payload)) for _, channel in self._addresses()),
            Assume(~below.b.valid | (s.waiting != 0)),
            Assume(~(above.aw.valid & asked.lock & (asked.id == who) & s.reading & (s.read.id == who))),
            *(Assert(~below.aw.valid | (below.aw.payload[n] == s.write[n])) for n in ("addr", "len", "size", "burst")),
            *(Assert(~below.ar.valid | (below.ar.payload[n] == s.read[n])) for n in ("addr", "len", "size", "burst")),
            Assert(~below.aw.valid | ~(below.aw.payload.lock | below.aw.payload.cache[0])),
        ]
        self._specify(s)
        if not self.searching:
            m.d.comb += keys.addr.eq(who)
            s.kept = keys.data
            s.place, s.bank = who[:2], who[2:]
            for port in banks:
                m.d.comb += port.addr.eq(s.place)
            s.block = Signal.like(banks[0].data, name="kept_block")
            s.hit, s.valid = Signal(), Signal()
            m.d.comb += s.valid.eq(s.r.valid.bit_select(who, 1))
            for number, port in enumerate(banks):
                with m.If(s.bank == number):
                    m.d.comb += [s.block.eq(port.data), s.hit.eq(s.r.hits[number])]
            self._tie_pipeline(s)
            self._tie(s)
        return m

    def _addresses(self) -> list[tuple[str, Any]]:
        return [("write", self.monitor.s_axi.aw), ("read", self.monitor.s_axi.ar)]

    def _specify(self, s: SimpleNamespace) -> None:
        """The property."""
        raise NotImplementedError

    def _tie(self, s: SimpleNamespace) -> None:
        """What helps its induction."""
        raise NotImplementedError

    def _tie_pipeline(self, s: SimpleNamespace) -> None:
        """Where writes and reads are, and which slots hold what."""
        m, r = s.m, s.r
        state, phase, slots = r.write_state, r.phase, _CONFIG.writes
        first, deciding = s.new_write, state == WriteState.DECIDE
        s.unfinished = Signal(range(slots + 1))  # slots from `answer_at` on
        answered = Signal()
        open_slots = r.busy & ~r.finished
        m.d.comb += answered.eq(
            open_slots.bit_select(r.answer_at, 1) & (r.failed.bit_select(r.answer_at, 1) | s.below.b.valid)
        )
        decided = Signal()
        m.d.comb += decided.eq(deciding & (phase == 0))
        m.d.sync += s.unfinished.eq(s.unfinished + decided - answered)
        oldest = [(r.answer_at + ahead)[: len(r.tail)] for ahead in range(slots)]  # slots in the order of AW
        sent: Value = sum(
            ((s.unfinished > ahead) & ~r.failed.bit_select(slot, 1) for ahead, slot in enumerate(oldest)),
            start=Value.cast(0),
        )
        m.d.comb += [
            *(Assert(r.write == s.write), Assert(r.read == s.read)),
            Assert(s.reading == (r.read_state != ReadState.EMPTY)),
            *(Assert(~s.reading | _lawful(s.read)), Assert((state == WriteState.EMPTY) | _lawful(s.write))),
            Assert(((r.read_state != ReadState.RANGE) & (r.read_state != ReadState.DECIDE)) | s.read.lock),
            Assert(~s.offered | (state == WriteState.OFFER)),
            *(Assert(phase <= PHASES), Assert(first == (phase == 1))),
            Assert((state != WriteState.RANGE) | (phase == 0) | (phase >= 3)),
            Assert(~deciding | (phase == 0) | (phase == 4)),
            Assert(s.unfinished <= slots),
            Assert((r.answer_at + s.unfinished)[: len(r.tail)] == r.tail),
            Assert(((state != WriteState.RANGE) & ~deciding) | ~r.busy.bit_select(r.tail, 1)),
            Assert(s.waiting + (state == WriteState.OFFER) == sent),
            *(Assert(open_slots.bit_select(slot, 1) == (s.unfinished > ahead)) for ahead, slot in enumerate(oldest)),
            # An exclusive read of that ID does not come between the taking of its exclusive write and its decision.
            Assert(
                ~(((state == WriteState.RANGE) | deciding) & s.write.lock & (s.write.id == s.who))
                | ~((r.read_state == ReadState.SEND) & s.mine)
            ),
        ]


class MonitorAtomic(_MonitorHarness):
    """No update is lost: between an exclusive read and the exclusive write that goes out for it nobody else wrote.

    Of one arbitrary word, and of any write of it that goes out: it was not in flight when the last exclusive read of
    the ID went out, and did not go out since. So what memory answered to that read is what this write replaces. It has
    the read's address, size and length, and the read was answered EXOKAY.
    """

    title = "monitor-atomic"
    constants = ("who", "word")

    def _specify(self, s: SimpleNamespace) -> None:
        m = s.m
        s.word = word = self.arbitrary(m, _CONFIG.address_bits - _GRANULE, "word")
        self.pick = Signal()  # free: watch the write that goes out now
        self.ports.append(self.pick)
        s.watching, s.ahead = Signal(), Signal(range(_CONFIG.writes + 1))  # in flight, behind so many
        s.clean = Signal()  # the read went out while it was not in flight, and it did not go out since
        s.touches = Signal()  # what came in last is of the word
        answered, begins = s.below.b.valid & s.below.b.ready, Signal()
        m.d.comb += [
            s.touches.eq(_touches(s.write, word)),
            begins.eq(s.writes & s.touches & self.pick & ~s.watching),
        ]
        with m.If(s.reads & s.mine):
            m.d.sync += s.clean.eq(~s.watching)
        with m.If(begins):
            m.d.sync += [s.watching.eq(1), s.ahead.eq(s.waiting - answered), s.clean.eq(0)]
        with m.Elif(s.watching & answered):
            m.d.sync += [s.ahead.eq(s.ahead - 1), s.watching.eq(s.ahead != 0)]
        succeeds = s.new_write & s.write.lock & (s.write.id == s.who) & _touches(s.write, word)
        m.d.comb += [
            Assert(~succeeds | s.clean),
            Assert(~succeeds | (s.reserved & _same(s.write, s.key))),
            Cover(succeeds & (s.who == 4)),
            Cover(succeeds & (s.write.len == 15)),
            Cover(s.reads & s.mine & s.r.granted & s.watching),
        ]

    def _tie(self, s: SimpleNamespace) -> None:
        m, r = s.m, s.r
        phase, word, state = r.phase, s.word, r.write_state
        line = word[_LINE - _GRANULE :]
        page, place = word[_PAGE - _GRANULE :], word[: _PAGE - _GRANULE]
        offers = (state == WriteState.OFFER) & s.touches
        written = (r.write_range.page == page) & (r.write_range.first <= place) & (place <= r.write_range.last)
        compared = Signal()  # the write that is compared with the reservations is of the word
        held = Signal()
        with m.If(phase == 1):
            m.d.sync += held.eq(s.touches)
        m.d.comb += compared.eq(Mux(phase == 1, s.touches, held))
        ends = Signal()  # the reservation is to be ended yet
        m.d.comb += ends.eq(compared & (phase >= 1) & (phase <= s.place + 1) & (s.hit | (phase != s.place + 1)))
        goes = Signal()  # reserved, and not gone out yet
        m.d.comb += goes.eq((r.read_state == ReadState.SEND) & s.mine & r.granted)
        covers = s.valid & _covers(s.kept, word)
        wanted = r.read_state == ReadState.DECIDE
        meets = (r.read.addr[_LINE:] == line) & wanted & (phase != 1)
        slot = Signal.like(r.tail)  # of the write that is watched
        with m.If(s.writes & ~s.watching):
            m.d.sync += slot.eq(r.tail - 1)
        newest = (r.tail - 1)[: len(r.tail)]
        before = (slot - r.answer_at)[: len(r.tail)]
        ahead: Value = sum(
            (
                (before > number) & ~r.failed.bit_select((r.answer_at + number)[: len(r.tail)], 1)
                for number in range(_CONFIG.writes)
            ),
            start=Value.cast(0),
        )
        m.d.comb += [
            # Ranges, and what is reserved.
            Assert(~s.touches | ~((state == WriteState.DECIDE) | (state == WriteState.OFFER)) | written),
            Assert(~compared | (phase == 0) | (phase == PHASES) | written),
            Assert(
                ~wanted | ~r.allowed | ~_covers(r.read, word) | (_inside(r.block, word) & (r.read.addr[_LINE:] == line))
            ),
            Assert(~wanted | ~r.allowed | ((r.read.id < _CONFIG.reservations) & (r.read.len <= 15) & _aligned(r.read))),
            Assert(~s.valid | _aligned(s.kept)),
            Assert(~covers | _inside(s.block, word)),
            # Slots of the watched write, and of that on offer.
            Assert(~s.watching | (before < s.unfinished)),
            Assert(~s.watching | (s.ahead == ahead)),
            Assert(~s.watching | ~r.failed.bit_select(slot, 1)),
            Assert((state != WriteState.OFFER) | ((s.unfinished != 0) & ~r.failed.bit_select(newest, 1))),
            Assert(~s.watching | (state != WriteState.OFFER) | (slot != newest)),
            *(
                Assert(~(one & (at == number)) | _crosses(r.ranges[number], line))
                for number in range(_CONFIG.writes)
                for one, at in ((s.watching, slot), (offers, newest))
            ),
            Assert(~(meets & s.watching) | r.meets.bit_select(slot, 1)),
            Assert(~(meets & offers) | r.meets.bit_select(newest, 1)),
            # The reservation.
            Assert(~(covers & (offers | s.watching)) | ends),
            Assert(~covers | goes | (_same(s.kept, s.key) & s.reserved & (s.clean | ends))),
            Assert(~(goes & s.valid) | _same(s.kept, r.read)),
            Assert(~((r.read_state == ReadState.SEND) & s.mine & ~r.granted) | ~s.valid),
            Assert(
                ~((state == WriteState.DECIDE) & (s.write.id == s.who) & r.same)
                | (_same(s.kept, s.write) & (s.write.burst != Burst.FIXED))
            ),
        ]


class MonitorProgress(_MonitorHarness):
    """Of two who try one succeeds: an exclusive write fails only since another write went out.

    Of one arbitrary ID: its last exclusive read went out and was answered EXOKAY, and it writes as it read. Then the
    write goes out, unless one that overlaps went out since the read came in. A failed exclusive write is no such write.
    """

    title = "monitor-progress"

    def _specify(self, s: SimpleNamespace) -> None:
        m, r, ar = s.m, s.r, s.above.ar
        s.asked, s.disturbed = Signal.like(s.read), Signal()
        s.taken, s.overlaps = Signal(), Signal()
        m.d.comb += [
            s.taken.eq(ar.valid & ar.ready & ar.payload.lock & (ar.payload.id == s.who)),
            s.overlaps.eq(_overlaps(s.write, s.asked)),
        ]
        with m.If(s.taken):
            m.d.sync += [s.asked.eq(ar.payload), s.disturbed.eq(0)]
        with m.Elif(s.writes & s.overlaps):
            m.d.sync += s.disturbed.eq(1)
        s.held = Signal()  # it is reserved, as the last that came in
        decided, due = Signal(), Signal()
        m.d.comb += [
            s.held.eq(s.reserved & _same(s.key, s.asked) & ~(s.reading & s.mine)),
            decided.eq((r.write_state == WriteState.DECIDE) & (r.phase == 0)),
        ]
        wanted = decided & s.write.lock & (s.write.id == s.who) & (s.write.burst != Burst.FIXED)
        m.d.sync += due.eq(wanted & s.held & _same(s.write, s.asked) & ~s.disturbed)
        s.decided = decided
        m.d.comb += [
            Assert(~due | s.new_write),
            Cover(due & (s.who == 4) & (s.write.len == 3)),
            Cover(wanted & s.held & _same(s.write, s.asked) & s.disturbed),
        ]

    def _tie(self, s: SimpleNamespace) -> None:
        m, r = s.m, s.r
        phase, state = r.phase, r.write_state
        decides = (r.read_state == ReadState.DECIDE) & s.mine
        comes = ((r.read_state == ReadState.RANGE) & s.mine) | decides
        goes = (r.read_state == ReadState.SEND) & s.mine & r.granted
        disturbed = s.disturbed | ((state == WriteState.OFFER) & s.overlaps)
        old = Signal()  # what is compared went out before the read came in
        with m.If(s.taken):
            m.d.sync += old.eq(~((state == WriteState.OFFER) & ~s.below.aw.ready) & ~s.decided)
        with m.Elif(s.decided):
            m.d.sync += old.eq(0)
        stands = s.valid & _same(s.kept, s.asked) & _is_block(s.block, s.asked)
        goes_on = (phase >= 1) & (phase <= s.place) & _meets(r.write_range, s.block)
        ends = (phase == s.place + 1) & s.hit
        m.d.comb += [
            Assert(~((state == WriteState.DECIDE) | (state == WriteState.OFFER)) | _is_range(r.write_range, s.write)),
            Assert(~(s.reading & s.mine) | (s.asked == s.read)),
            Assert(~decides | _is_block(r.block, s.read)),
            Assert(
                ~(decides & r.allowed) | ((s.read.id < _CONFIG.reservations) & (s.read.len <= 15) & _aligned(s.read))
            ),
            Assert(~goes | ((s.asked.len <= 15) & _aligned(s.asked))),
            Assert(~s.held | ((s.asked.len <= 15) & _aligned(s.asked))),
            Assert(~comes | ~old | (phase != 1)),
            Assert(~decides | ~old | (phase != 2)),
            Assert(
                ~comes | (phase == 0) | (phase == PHASES) | old | disturbed | ~_overlaps_range(r.write_range, s.asked)
            ),
            Assert(~(s.held | goes) | disturbed | (stands & ~goes_on & ~ends)),
            Assert(
                ~((state == WriteState.DECIDE) & (s.write.id == s.who))
                | ~(_same(s.kept, s.write) & (s.write.burst != Burst.FIXED))
                | r.same
            ),
        ]


def _lawful(one: Any) -> Value:
    """[A3.4.1]"""
    beat, low, total = (1 << one.size[:2]) - 1, one.addr[:_PAGE], _bytes(one)
    wraps = Cat(one.len == beats - 1 for beats in (2, 4, 8, 16)).any() & ((low & beat) == 0)
    kind = Mux(one.burst == Burst.FIXED, one.len <= 15, (low & ~beat) + total <= 1 << _PAGE)
    return (one.size <= 3) & (one.burst != 3) & Mux(one.burst == Burst.WRAP, wraps, kind)


def _bytes(one: Any) -> Value:
    """Of all beats together."""
    return (one.len + 1) << one.size[:2]


def _touches(one: Any, word: Value) -> Value:
    """A write is of the word [A3.4.1]."""
    beat, total = (1 << one.size[:2]) - 1, _bytes(one)
    first = Mux(one.burst == Burst.WRAP, one.addr & ~(total - 1), one.addr)
    last = Mux(one.burst == Burst.WRAP, first + total - 1, (one.addr & ~beat) + total - 1)
    last = Mux(one.burst == Burst.FIXED, one.addr, last)
    return (first[_GRANULE:] <= word) & (word <= last[_GRANULE:])


def _covers(key: Any, word: Value) -> Value:
    """An exclusive access is of the word: it is aligned to all of its bytes."""
    return (key.addr[_GRANULE:] <= word) & (word <= (key.addr + _bytes(key) - 1)[_GRANULE:])


def _aligned(key: Any) -> Value:
    """To all of its bytes, where they are a power of two."""
    return (key.addr & (_bytes(key) - 1)) == 0


def _inside(block: Any, word: Value) -> Value:
    """The word is in what a reservation covers."""
    place = word[: _LINE - _GRANULE]
    return (block.line == word[_LINE - _GRANULE :]) & (block.first <= place) & (place <= block.last)


def _crosses(lines: Any, line: Value) -> Value:
    """The line is one of a slot's."""
    place = line[: _PAGE - _LINE]
    return (lines.page == line[_PAGE - _LINE :]) & (lines.first <= place) & (place <= lines.last)


def _same(one: Any, other: Any) -> Value:
    """Of one address, size and length."""
    return (one.addr == other.addr) & (one.size == other.size) & (one.len == other.len)


def _last(one: Any) -> Value:
    """The last byte of a write; of one of FIXED as if it were INCR, in its page."""
    beat, total = (1 << one.size[:2]) - 1, _bytes(one)
    first = Mux(one.burst == Burst.WRAP, one.addr & ~(total - 1), one.addr & ~beat)
    end = first + total - 1
    return Mux(end[_PAGE:] == one.addr[_PAGE:], end, one.addr | (1 << _PAGE) - 1)


def _first(one: Any) -> Value:
    """The first byte of a write."""
    return Mux(one.burst == Burst.WRAP, one.addr & ~(_bytes(one) - 1), one.addr)


def _overlaps(one: Any, key: Any) -> Value:
    """A write and what an exclusive access covers have a word in common."""
    last = (key.addr + _bytes(key) - 1)[_GRANULE:]
    return (_first(one)[_GRANULE:] <= last) & (key.addr[_GRANULE:] <= _last(one)[_GRANULE:])


def _is_range(found: Any, one: Any) -> Value:
    """What a write is of."""
    place = slice(_GRANULE, _PAGE)
    return (found.page == one.addr[_PAGE:]) & (found.first == _first(one)[place]) & (found.last == _last(one)[place])


def _is_block(block: Any, key: Any) -> Value:
    """What an exclusive access covers, if it is aligned."""
    end = (key.addr + _bytes(key) - 1)[_GRANULE:_LINE]
    aligned = _aligned(key) & (key.len <= 15) & (_bytes(key) <= 1 << _LINE)
    whole = (block.first == key.addr[_GRANULE:_LINE]) & (block.last == end)
    return (block.line == key.addr[_LINE:]) & (whole | ~aligned)


def _meets(found: Any, block: Any) -> Value:
    """A write's granules and a reservation's block."""
    place = _PAGE - _LINE
    first, last = Cat(block.first, block.line[:place]), Cat(block.last, block.line[:place])
    return (block.line[place:] == found.page) & (first <= found.last) & (found.first <= last)


def _overlaps_range(found: Any, key: Any) -> Value:
    """A write's granules and what an exclusive access covers."""
    end = (key.addr + _bytes(key) - 1)[_GRANULE:_PAGE]
    return (found.page == key.addr[_PAGE:]) & (found.first <= end) & (key.addr[_GRANULE:_PAGE] <= found.last)
