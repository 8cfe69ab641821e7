"""What is proved of the dirty log: every page that is marked has one record, unless the log says that it has none."""

from __future__ import annotations

from types import SimpleNamespace

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory

from ptewalk.cosim.formal.harness import Harness, signals_of
from ptewalk.model import x86
from ptewalk.rtl.entry import EntryLayout
from ptewalk.rtl.log.dirty_log import DirtyLog, LogConfig
from ptewalk.rtl.log.layouts import COUNT_BITS, PML_ENTRIES, SIZES, LogMode, RecordLayout

__all__ = ["LogRecords"]

_RECORDS = 2
"""On their way to memory at most."""
_MARKS = 8
"""Swaps in flight at most, as the log is made for."""
_BITS = 32
"""Of a physical address."""


class LogRecords(Harness):
    """One arbitrary record, of a mark that is done or that software appends: it is written once, whole, in its place.

    Around the log are a walker whose marks are answered in any order, software, and a memory that answers writes in any
    order. Records are counted from the last setup on.
    """

    title = "log-records"
    assumptions: tuple[str, ...] = (
        "what is answered was sent, once, and no more than 8 marks are in flight",
        "a swap that the log passes on stands until it is taken; one that it holds back may be put back",
        "memory answers each write once, not in the cycle in which it is given",
        "software's head is 0 when the log begins anew, and moves over records that are written, none else",
        "who waits for the log's records waits until they are written",
    )
    depth = 3
    search_depth = 8
    solver = "yices"

    def __init__(self, *, searching: bool = False) -> None:
        self.log = DirtyLog(LogConfig(records=_RECORDS), physical_bits=_BITS, tag_bits=2)
        super().__init__(self.log, searching=searching)
        self.pick = Signal()  # free: watch the record that is due now
        self.ports.append(self.pick)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        log, software = self.log, self.log.software
        made = log.elaborate(None)
        values = made.submodules.values
        assert isinstance(values, Memory)
        self.rows = [values.read_port(domain="comb") for _ in range(_RECORDS)]
        m.d.comb += [row.addr.eq(place) for place, row in enumerate(self.rows)]
        self.inner = signals_of(made)
        log.elaborate = lambda platform: made  # type: ignore[method-assign]
        m.submodules.log = log

        setup = Signal(software.setups.payload.shape())
        self.begins = software.setups.valid & software.setups.ready
        with m.If(self.begins):
            m.d.sync += setup.eq(software.setups.payload)
        bad = (setup.mode == LogMode.RING) & ((setup.size < SIZES[0]) | (setup.size > SIZES[-1]))
        self.setup, self.mode = setup, Signal(LogMode, name="mode")
        m.d.comb += self.mode.eq(Mux(bad | (Value.cast(setup.mode) > LogMode.PML), LogMode.OFF, setup.mode))
        marks = self._marks(m)
        memory = self._memory(m)
        count = self._count(m, marks, memory)
        self._head(m, memory)
        watched = self._watch(m, marks, memory, count)
        if not self.searching:
            self._tie(m, marks, memory, count, watched)
        return m

    def _marks(self, m: Module) -> SimpleNamespace:
        """Marks that the log passes on, and the walker answers."""
        log, event = self.log, self.log.written
        flying, held = Signal(range(_MARKS + 1), name="flying"), Signal(name="held")
        shown = Signal(log.marks.payload.shape())
        offers, sent, answered, done = (Signal(name=name) for name in ("offers", "sends_one", "is_answered", "is_done"))
        m.d.comb += [
            offers.eq(log.swaps.valid & _marks(log.swaps.payload)),
            sent.eq(offers & log.swaps.ready),
            answered.eq(event.valid & _marks(event.payload)),
            done.eq(answered & event.payload.done),
            Assume(~answered | (flying != 0)),
            Assume(~offers | (flying < _MARKS)),
            Assume(~(event.payload.done & event.payload.error)),
            Assume(~held | (log.marks.valid & (Value.cast(log.marks.payload) == Value.cast(shown)))),
            Assert((log.swaps.valid & log.swaps.ready) == (log.marks.valid & log.marks.ready)),
            Assert(~log.swaps.valid | log.marks.valid),
            Assert(Value.cast(log.swaps.payload) == Value.cast(log.marks.payload)),
            Assert(~held | log.swaps.valid),  # what it let pass it does not take back
            Assert(~log.marks.valid | _marks(log.marks.payload) | log.swaps.valid),
            Assert(~log.again | (log.marks.valid & ~log.swaps.valid)),
        ]
        m.d.sync += [
            flying.eq(flying + sent - answered),
            held.eq(log.swaps.valid & ~log.swaps.ready),
            shown.eq(log.marks.payload),
        ]
        new = Signal(name="offers_one")
        m.d.comb += new.eq(offers & ~held)
        return SimpleNamespace(flying=flying, held=held, new=new, answered=answered, done=done, shown=shown)

    def _memory(self, m: Module) -> SimpleNamespace:
        """Records that memory was given, and has not answered."""
        port = self.log.records
        given, flying = Signal(COUNT_BITS, name="given"), Signal(_RECORDS, name="in_memory")
        gives, comes = Signal(name="gives"), port.written.valid
        identity, came = port.writes.payload.id, port.written.payload.id
        m.d.comb += [
            gives.eq(port.writes.valid & port.writes.ready),
            Assume(~comes | flying.bit_select(came, 1)),
            Assert(~gives | ~flying.bit_select(identity, 1)),
        ]
        m.d.sync += given.eq(Mux(self.begins, 0, given + gives))
        with m.If(comes):
            m.d.sync += flying.bit_select(came, 1).eq(0)
        with m.If(gives):
            m.d.sync += flying.bit_select(identity, 1).eq(1)
        refused, incomplete = Signal(), self.log.software.status.incomplete
        m.d.sync += refused.eq(comes & port.written.payload.error)
        m.d.comb += Assert(~refused | incomplete)
        return SimpleNamespace(given=given, flying=flying, gives=gives, comes=comes, identity=identity, came=came)

    def _count(self, m: Module, marks: SimpleNamespace, memory: SimpleNamespace) -> SimpleNamespace:
        """Records that are due: one of each mark that is done, while room is reserved; and what software appends."""
        log, software, setup = self.log, self.log.software, self.setup
        due, reserved = Signal(COUNT_BITS, name="due"), Signal(range(_MARKS + 1), name="rooms")
        appends = software.appends.valid & software.appends.ready
        used = (due - software.head)[:COUNT_BITS]
        off, ring = self.mode == LogMode.OFF, self.mode == LogMode.RING
        in_ring = used + reserved < (Const(1, COUNT_BITS) << setup.size)[:COUNT_BITS]
        in_buffer = (setup.index < PML_ENTRIES) & (due + reserved <= setup.index)
        room, own, lost, forgiven = (Signal(name=name) for name in ("has_place", "own_due", "is_lost", "forgiven"))
        may_lose = ring & (~setup.stalls | (setup.time_out != 0) | software.status.overflow)
        m.d.comb += [
            room.eq(Mux(ring, in_ring, in_buffer) & ~off),
            own.eq(marks.done & (reserved != 0)),
            lost.eq(marks.done & (reserved == 0) & ~off),
            Assert(~(own & appends)),
            Assert(~appends | room),
            # A mark waits for room, unless software said otherwise or was told of a loss.
            Assert(~marks.new | room | off | may_lose),
            Assert(~lost | forgiven),
            Assert(log.records.writes.valid == (memory.given != due)),
        ]
        m.d.sync += [
            due.eq(Mux(self.begins, 0, due + (own | appends))),
            reserved.eq(reserved + (marks.new & room) - (marks.answered & (reserved != 0))),
            forgiven.eq(~self.begins & (forgiven | may_lose)),
        ]
        was_lost, unknown = Signal(), Signal()
        m.d.sync += [was_lost.eq(lost), unknown.eq(marks.answered & log.written.payload.error & ~off)]
        m.d.comb += [
            Assert(~was_lost | software.status.overflow),
            Assert(~unknown | software.status.incomplete),
        ]
        return SimpleNamespace(
            due=due, reserved=reserved, own=own, appends=appends, off=off, ring=ring, forgiven=forgiven
        )

    def _head(self, m: Module, memory: SimpleNamespace) -> None:
        """Software's head; and no record is written over one that software has not done with."""
        software, setup = self.log.software, self.setup
        head, tail = Signal(COUNT_BITS, name="head_before"), Signal(COUNT_BITS, name="tail_before")
        began = Signal(name="began")
        m.d.sync += [head.eq(software.head), tail.eq(software.tail), began.eq(self.begins)]
        step = (software.head - head)[:COUNT_BITS]
        here = (memory.given - software.head)[:COUNT_BITS]
        size = (Const(1, COUNT_BITS) << setup.size)[:COUNT_BITS]
        place = (setup.index - memory.given)[:16]
        first = Signal(init=1, name="first")
        m.d.sync += first.eq(0)
        with m.If(began | first):
            m.d.comb += Assume(software.head == 0)
        with m.Else():
            m.d.comb += Assume(step <= (tail - head)[:COUNT_BITS])
        m.d.comb += [
            Assert(~(memory.gives & (self.mode == LogMode.RING)) | (here < size)),
            Assert(~(memory.gives & (self.mode == LogMode.PML)) | (place < PML_ENTRIES)),
            Assert(~memory.gives | (self.mode != LogMode.OFF)),
        ]
        self.moved = Signal(name="moved")
        m.d.comb += [
            self.moved.eq(~began & (software.tail != tail)),
            Assert(began | ((software.tail - tail)[:COUNT_BITS] <= 1)),
            Assert(~began | (software.tail == 0)),
        ]
        self.head, self.tail, self.began = head, tail, began

    def _watch(
        self, m: Module, marks: SimpleNamespace, memory: SimpleNamespace, count: SimpleNamespace
    ) -> SimpleNamespace:
        """The record that is watched."""
        log, software, setup, port = self.log, self.log.software, self.setup, self.log.records.writes
        state = Signal(data.StructLayout({"active": 1, "given": 1, "answered": 1}), name="watched")
        known, ahead = Signal(name="known"), Signal(range(_RECORDS + 1), name="ahead")
        value, address, place = (
            Signal(64, name="value"),
            Signal(_BITS, name="address"),
            Signal(COUNT_BITS, name="place"),
        )
        identity = Signal.like(memory.identity, name="its_id")
        record, appended, event = Signal(RecordLayout()), software.appends.payload, log.written.payload
        linear = Mux(count.own, event.linear, appended.linear)
        tag = Cat(log.pcid, software.epoch)
        offset = Mux(count.ring, count.due & ((Const(1, COUNT_BITS) << setup.size) - 1), setup.index - count.due)
        m.d.comb += [
            record.phase.eq(~(count.due >> setup.size)[0]),
            record.level.eq(Mux(count.own, event.level, appended.level)),
            record.software.eq(~count.own),
            *(record.tag_low.eq(tag[:6]), record.tag_high.eq(tag[6:])),
            record.page.eq(linear[x86.PAGE_SHIFT : 57]),
        ]
        comes = (count.own | count.appends) & self.pick & ~known
        gone, here = Signal(name="gone"), Signal(name="here")
        m.d.comb += [
            gone.eq(self.moved & (ahead == 0)),
            here.eq(state.active & ~gone),
        ]
        with m.If(comes):
            m.d.sync += [
                known.eq(1),
                state.active.eq(1),
                ahead.eq((count.due - software.tail)[: len(ahead)]),
                place.eq(count.due),
                value.eq(Mux(count.ring, Value.cast(record), Cat(Const(0, 12), linear[12:]))),
                address.eq(self._at(offset)),
            ]
        with m.If(state.active & self.moved):
            m.d.sync += [ahead.eq(ahead - 1), state.active.eq(ahead != 0)]
        its = memory.gives & state.active & ~state.given & (memory.given == place)
        with m.If(its):
            m.d.sync += [state.given.eq(1), identity.eq(memory.identity)]
            m.d.comb += Assert((port.payload.value == value) & (port.payload.address == address))
        with m.If(state.given & memory.comes & (memory.came == identity)):
            m.d.sync += state.answered.eq(1)
        # Who waits for records waits for those that were due before he came.
        closing, waits = Signal(name="closing"), Signal(name="waits")
        with m.If(~closing):
            m.d.sync += waits.eq(here)
        with m.Elif(gone):
            m.d.sync += waits.eq(0)
        m.d.sync += closing.eq(log.closes & ~log.closed)
        m.d.comb += [
            Assume(~closing | log.closes),
            Assert(~log.closed | closing),
            Assert(~(log.closed & waits & here)),
            # The tail passes it when it is written, and none else; a log that is quiet has written all.
            Assert(~(state.active & gone) | state.answered),
            Assert(~log.quiet | ~here),
            Cover(gone & state.active & (self.mode == LogMode.RING) & (place == 1)),
            Cover(gone & state.active & (self.mode == LogMode.PML) & (setup.index == 2)),
            Cover(log.closed & known & ~here & (memory.given != count.due)),
        ]
        return SimpleNamespace(
            state=state,
            known=known,
            ahead=ahead,
            value=value,
            place=place,
            identity=identity,
            here=here,
            gone=gone,
            waits=waits,
            closing=closing,
            address=address,
        )

    def _at(self, offset: Value) -> Value:
        """The address of a ring's place, or of a buffer's entry."""
        return (Cat(Const(0, x86.PAGE_SHIFT), self.setup.base) + (offset[: SIZES[-1]] << 3))[:_BITS]

    def _tie(
        self,
        m: Module,
        marks: SimpleNamespace,
        memory: SimpleNamespace,
        count: SimpleNamespace,
        watched: SimpleNamespace,
    ) -> None:
        """What shortens the proof: the registers of the log are the ghosts'."""
        inner, software, setup = self.inner, self.log.software, self.setup
        tail = software.tail
        since = (count.due - tail)[:COUNT_BITS]  # due and not passed
        bits = self.log.config.id_bits
        held_mark = marks.held & _marks(marks.shown)
        used = (count.due - self.head)[:COUNT_BITS]
        in_buffer = Mux(setup.index < PML_ENTRIES, setup.index + 1, 0)
        m.d.comb += [
            Assert(inner["next"] == count.due),
            Assert(inner["issued"] == memory.given),
            Assert(inner["sent"] == marks.flying + held_mark),
            Assert(inner["reserved"] == count.reserved),
            Assert(marks.flying + held_mark <= _MARKS),
            Assert(count.reserved <= marks.flying + held_mark),
            Assert(count.off | count.forgiven | (count.reserved == marks.flying + held_mark)),
            Assert(Value.cast(inner["setup"]) == Value.cast(Cat(Value.cast(self.mode), Value.cast(setup)[2:]))),
            Assert(since + count.reserved <= _RECORDS),
            Assert((memory.given - tail)[:COUNT_BITS] <= since),
            Assert(~count.off | ((count.due == 0) & (count.reserved == 0) & (tail == 0))),
            Assert(~count.ring | self.began | (used + count.reserved <= (Const(1, COUNT_BITS) << setup.size))),
            Assert(~count.ring | self.began | ((tail - self.head)[:COUNT_BITS] <= used)),
            Assert(
                ~count.ring | self.began | ((self.tail - self.head)[:COUNT_BITS] <= (tail - self.head)[:COUNT_BITS])
            ),
            Assert(~self.began | ((count.due == 0) & (count.reserved == 0) & (tail == 0))),
            Assert((self.mode != LogMode.PML) | ((count.due + count.reserved <= in_buffer) & (tail <= count.due))),
            Assert(inner["kept"] == held_mark),
            Assert(inner["flying"] == memory.flying),
            Assert(~inner["late"] | self.began | (count.ring & (setup.time_out != 0))),
        ]
        for number in range(_RECORDS):
            identity = (tail + number)[:bits]
            at_memory = memory.flying.bit_select(identity, 1) | inner["there"].bit_select(identity, 1)
            m.d.comb += Assert(at_memory == (number < (memory.given - tail)[:COUNT_BITS]))
        m.d.comb += Assert((memory.flying & inner["there"]) == 0)

        # The one that is watched.
        state, ahead, place = watched.state, watched.ahead, watched.place
        passed = (memory.given - self.tail)[:COUNT_BITS] > ahead
        row = Mux(place[0], self.rows[1].data, self.rows[0].data)
        left = (ahead - self.moved)[: len(ahead)]  # before it, now
        mask = (Const(1, COUNT_BITS) << setup.size) - 1
        offset = Mux(count.ring, place & mask, setup.index - place)
        m.d.comb += [
            Assert(watched.known | ~state.active),
            Assert(state.active | watched.known | ~watched.waits),
            Assert(~state.active | (place == (self.tail + ahead)[:COUNT_BITS])),
            Assert(~state.active | ~self.began),
            Assert(~state.active | (ahead < (count.due - self.tail)[:COUNT_BITS])),
            Assert(~state.active | (state.given == passed)),
            Assert(~state.active | ~state.given | (watched.identity == place[:bits])),
            Assert(~state.active | state.given | (row == watched.value)),
            Assert(~state.active | (watched.address == self._at(offset))),
            Assert(~state.active | ~state.given | (state.answered == ~memory.flying.bit_select(watched.identity, 1))),
            Assert((watched.known | ~state.given) & (state.given | ~state.answered)),
            Assert(~(watched.closing & watched.waits & watched.here) | (inner["left"] > left)),
            Assert(~watched.waits | watched.known),
        ]


def _marks(swap: data.View) -> Value:
    """Whether a swap, or what is told of it, makes an entry soft-dirty."""
    old, new = (data.View(EntryLayout(), swap[name]) for name in ("old", "new"))
    result: Value = ~old.soft_dirty & new.soft_dirty
    return result
