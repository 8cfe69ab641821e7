"""Lines of entries in flight: read, changed by a swap, read again where that failed, and told in order."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.memory import Memory, WritePort
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.engine.change import ChangeLayout, EntryChange, WordsLayout
from ptewalk.rtl.engine.jobs import PAGES_BITS, JobKind, JobLayout
from ptewalk.rtl.engine.stream_net import StreamSignature

__all__ = ["ENTRY_FAILURES", "LINE_FAILURES", "LOOK_CYCLES", "DoneLayout", "Lines", "in_range"]

LINE_FAILURES = 4
"""Swaps of a whole line that may fail; then its entries are changed one by one."""
ENTRY_FAILURES = 64
"""Swaps of one entry that may fail; then it is left as it is."""
LOOK_CYCLES = 3
"""Beats that were asked for and are not here yet, at most."""


def in_range(job: data.View, entries: int) -> Value:
    """Which entries of a line are asked for, by place."""
    every = Const(-1, entries)
    ones: Value = ((every << job.first) & ~((every << job.last) << 1))[:entries]
    return ones


class DoneLayout(data.StructLayout):
    """A job that is over, and what is told of it.

    Members
    -------
    kind, pages, first, last, word, giant
        The job's.
    matches : unsigned(words)
        Which of a line's entries matched, by place; of a leaf, bit 0.
    error : 1
        The bus refused something of the line: nothing is known of its entries.
    given_up : 1
        An entry was left as it is: its swap failed too often. It is told all the same.
    slot : unsigned
    """

    def __init__(self, words: int, slot_bits: int) -> None:
        super().__init__(
            {
                "kind": JobKind,
                "pages": unsigned(PAGES_BITS),
                "first": unsigned((words - 1).bit_length()),
                "last": unsigned((words - 1).bit_length()),
                "word": unsigned(64),
                "giant": 1,
                "matches": unsigned(words),
                "error": 1,
                "given_up": 1,
                "slot": unsigned(slot_bits),
            }
        )


class Lines(Component):
    """A ring of slots, one for each job, in order; each is a tag of the line port.

    A line is read with `link` where the operation changes entries, in whatever order the port answers, and swapped as
    a whole if one of its entries in the range changes. A swap that fails is begun again at the read. What is told is of
    the very value that the swap replaced.

    Parameters
    ----------
    slots : int
        A power of two, at least 2.
    physical_bits, data_bits, line_bytes : int
        As in `LinePortSignature`.
    tag_bits : int
        Of the port; `slots` is the first tag that this does not use.
    singly : bool
        True: entries may be asked for one by one.

    Members
    -------
    change : In(ChangeLayout), words : In(WordsLayout), changes : In(1)
        The operation, held while a job is here; `changes`: entries may be swapped.
    net : Out(StreamSignature)
        What it makes of beats on their way.
    jobs : In(stream of JobLayout)
    port : Out(LinePortSignature)
        `writes` is not used.
    told : Out(stream of DoneLayout)
        In the order of the jobs.
    look : In(1), look_slot, look_beat, look_lanes : In
        A beat of a line that was told is asked for; swaps go first.
    looked : Out(1)
        It is taken.
    words_valid : Out(1), words_lanes : Out, beat_words : Out(data_bits)
        `LOOK_CYCLES` later, or when a swap's beat that waits is gone: the pagemap words of that beat's entries, and
        `look_lanes`.
    release : In(1)
        The oldest job that was told is not needed any more.
    changed : Out(unsigned)
        Entries that were changed by what ended two cycles ago.
    idle : Out(1)
    quiet : Out(1)
        In the last cycle no job was offered, and none is here of which anything may yet be read or swapped.
    met_global : Out(1)
        In the last cycle an entry came that is global, and to be changed.
    alone : In(1)
        Only with `singly`: each job is of one page, and no other entry of its line is read. Of what is told `matches`
        counts at its place only. Held while a job is here.

    Attributes
    ----------
    singles : Signal
        Driven by who has memory that reserves single words only: lines that may be changed are read and swapped entry
        by entry from the first on. Held while a job is here; else 0.
    """

    def __init__(
        self,
        *,
        slots: int,
        physical_bits: int,
        data_bits: int,
        line_bytes: int,
        tag_bits: int,
        singly: bool = False,
    ) -> None:
        self._singly, self.singles = singly, Signal(name="singles")
        self.slots, self.lanes, self.entries = slots, data_bits // 64, line_bytes // 8
        self.beats = self.entries // self.lanes
        self.slot_bits = (slots - 1).bit_length()
        self.beat_bits = max(1, (self.beats - 1).bit_length())
        self.place_bits = (self.entries - 1).bit_length()
        self._physical_bits = physical_bits
        self._line_shift = (line_bytes - 1).bit_length()
        port = LinePortSignature(
            physical_bits=physical_bits, data_bits=data_bits, line_bytes=line_bytes, tag_bits=tag_bits
        )
        super().__init__(
            {
                "change": In(ChangeLayout()),
                "words": In(WordsLayout()),
                "changes": In(1),
                "net": Out(StreamSignature(self.lanes)),
                "jobs": In(stream.Signature(JobLayout(physical_bits, self.entries))),
                "port": Out(port),
                "told": Out(stream.Signature(DoneLayout(self.entries, self.slot_bits))),
                "look": In(1),
                "look_slot": In(self.slot_bits),
                "look_beat": In(self.beat_bits),
                "look_lanes": In(self.lanes),
                "looked": Out(1),
                "words_valid": Out(1),
                "words_lanes": Out(self.lanes),
                "beat_words": Out(data_bits),
                "release": In(1),
                "changed": Out(self.entries.bit_length()),
                "idle": Out(1),
                "quiet": Out(1, init=1),
                "met_global": Out(1),
                **({"alone": In(1)} if singly else {}),
            }
        )

    # What is known of a slot stands in memories that are read in the same cycle, a row a slot.

    def _rows(self, m: Module, name: str, layout: data.Layout) -> Memory:
        m.submodules[name] = memory = Memory(shape=layout, depth=self.slots, init=[])
        return memory

    def _read(self, memory: Memory, slot: Value, m: Module) -> data.View:
        port = memory.read_port(domain="comb")
        m.d.comb += port.addr.eq(slot)
        return port.data

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job_layout = JobLayout(self._physical_bits, self.entries)
        state = data.StructLayout({"changes": 1, "error": 1, "matches": self.entries, "changed": self.entries})
        tries = data.StructLayout(
            {"failures": unsigned((ENTRY_FAILURES - 1).bit_length()), "place": unsigned(self.place_bits)}
        )
        r = SimpleNamespace(
            head=Signal(self.slot_bits),
            tail=Signal(self.slot_bits),
            waits=Signal(),  # a job that has no slot yet
            used=Signal(range(self.slots + 1)),
            untold=Signal(range(self.slots + 1)),  # of those
            done=Signal(self.slots, init=(1 << self.slots) - 1),
            single=Signal(self.slots),  # entries are changed one by one
            given_up=Signal(self.slots),
            refused=Signal(self.slots),  # a swap's error
            inside=Signal(self.slots),  # some beats of its line have come, and not all: a reset ends that
        )
        memories = SimpleNamespace(
            jobs=self._rows(m, "rows_jobs", job_layout),
            state=self._rows(m, "rows_state", state),
            tries=self._rows(m, "rows_tries", tries),
            beat=self._rows(m, "rows_beat", data.StructLayout({"beat": unsigned(self.beat_bits)})),
        )
        over = SimpleNamespace(
            valid=Signal(),
            error=Signal(),
            slot=Signal(self.slot_bits),
            again=Signal(),  # what was over in the last cycle is read again
            before=Signal(self.slot_bits),
        )
        m.submodules.to_read = to_read = fifo.SyncFIFO(width=self.slot_bits, depth=self.slots)
        m.submodules.arrived = arrived = fifo.SyncFIFO(width=self.slot_bits + 2, depth=self.slots)
        tries_writer = memories.tries.write_port()
        taken, first = self._take(m, r, memories, to_read, over)
        self._send_reads(m, r, memories, to_read)
        buffer = Memory(shape=unsigned(64 * self.lanes), depth=self.slots * self.beats, init=[])
        m.submodules.buffer = buffer
        self._arrive(m, r, memories, buffer, arrived)
        unchanged = self._swap(m, r, memories, buffer, arrived)
        self._conclude(m, r, memories, unchanged, over, tries_writer)
        with m.If(taken):
            m.d.comb += [tries_writer.addr.eq(r.head), tries_writer.en.eq(1), tries_writer.data.place.eq(first)]
        self._tell(m, r, memories)
        m.d.comb += self.idle.eq((r.used == 0) & ~r.waits)
        m.d.sync += self.quiet.eq(r.done.all() & ~r.waits & ~self.jobs.valid)
        return m

    def _take(
        self, m: Module, r: SimpleNamespace, memories: SimpleNamespace, to_read: fifo.SyncFIFO, over: SimpleNamespace
    ) -> tuple[Signal, Value]:
        """A job takes the next slot, in cycles in which no line concludes; only lines are read.

        Whether one does, and the place of its first entry.
        """
        jobs, job, line = self.jobs, Signal.like(self.jobs.payload), Signal()
        taken, told = Signal(), self.told.valid & self.told.ready
        writer = memories.jobs.write_port()
        m.d.comb += [
            jobs.ready.eq(~r.waits | taken),
            taken.eq(r.waits & (r.used != self.slots) & ~over.valid & ~over.again),
            line.eq(job.kind == JobKind.LINE),
            *(writer.addr.eq(r.head), writer.data.eq(job), writer.en.eq(taken)),
            to_read.w_en.eq(over.again | (taken & line)),
            to_read.w_data.eq(Mux(over.again, over.before, r.head)),
        ]
        with m.If(jobs.ready):
            m.d.sync += [r.waits.eq(jobs.valid), job.eq(jobs.payload)]
        m.d.sync += [r.used.eq(r.used + taken - self.release), r.untold.eq(r.untold + taken - told)]
        with m.If(taken):
            m.d.sync += r.head.eq(r.head + 1)
            for number in range(self.slots):
                with m.If(r.head == number):
                    one_by_one = (self.singles & self.changes) | (self.alone if self._singly else 0)
                    m.d.sync += [r.done[number].eq(~line), r.single[number].eq(one_by_one)]
                    m.d.sync += [r.given_up[number].eq(0), r.refused[number].eq(0)]
        return taken, job.first

    def _send_reads(self, m: Module, r: SimpleNamespace, memories: SimpleNamespace, to_read: fifo.SyncFIFO) -> None:
        """Reads of lines, or of single entries."""
        reads, slot = self.port.reads, to_read.r_data
        job, tries = self._read(memories.jobs, slot, m), self._read(memories.tries, slot, m)
        single = r.single.bit_select(slot, 1)
        line = job.address[self._line_shift :]
        m.d.comb += [
            reads.valid.eq(to_read.r_rdy),
            to_read.r_en.eq(reads.ready),
            reads.payload.line.eq(~single),
            reads.payload.link.eq(self.changes),
            reads.payload.tag.eq(slot),
            reads.payload.address.eq(Cat(Const(0, 3), Mux(single, tries.place, 0), line)),
        ]

    def _arrive(
        self, m: Module, r: SimpleNamespace, memories: SimpleNamespace, buffer: Memory, arrived: fifo.SyncFIFO
    ) -> None:
        """Beats of lines: kept, and looked at in two steps."""
        found = self.port.data
        came, seen = Signal(), Signal()
        beat = Signal.like(found.payload)
        slot = beat.tag[: self.slot_bits]
        m.d.sync += [came.eq(found.valid & (found.payload.tag < self.slots)), beat.eq(found.payload)]

        # First: where it belongs; what the operation makes of each entry.
        counted, counter = self._read(memories.beat, slot, m), memories.beat.write_port()
        job, tries = self._read(memories.jobs, slot, m), self._read(memories.tries, slot, m)
        single = Signal()
        number = Signal(self.beat_bits)
        lane_bits = (self.lanes - 1).bit_length()
        m.d.comb += [
            single.eq(r.single.bit_select(slot, 1)),
            number.eq(Mux(single, tries.place[lane_bits:], Mux(r.inside.bit_select(slot, 1), counted.beat, 0))),
            *(counter.addr.eq(slot), counter.en.eq(came)),
            counter.data.beat.eq(number + 1),
        ]
        with m.If(came):
            m.d.sync += r.inside.bit_select(slot, 1).eq(~beat.last)
        if self.beats == 1:
            m.d.comb += number.eq(0)
        writer = buffer.write_port(granularity=64) if self.lanes > 1 else buffer.write_port()
        m.d.comb += [writer.addr.eq(self._place(slot, number)), writer.data.eq(beat.value)]
        matches, changes, mine = Signal(self.lanes), Signal(self.lanes), Signal(self.lanes)
        shared = Signal(self.lanes)  # global
        for lane in range(self.lanes):
            m.submodules[f"arrival_{lane}"] = net = EntryChange()
            m.d.comb += [
                *(net.entry.eq(beat.value[64 * lane : 64 * lane + 64]), net.change.eq(self.change)),
                net.words.eq(self.words),
                *(matches[lane].eq(net.matches), changes[lane].eq(net.changes)),
                mine[lane].eq(~single | (tries.place[:lane_bits] == lane) if lane_bits else 1),
                shared[lane].eq(net.changes & net.entry[x86.EntryBit.P] & net.entry[x86.EntryBit.G]),
            ]
        m.d.sync += self.met_global.eq(came & self.changes & shared.any())
        m.d.comb += writer.en.eq(Mux(came, mine, 0))
        looked_at = SimpleNamespace(
            matches=Signal(self.lanes),
            changes=Signal(self.lanes),
            mine=Signal(self.lanes),
            slot=Signal(self.slot_bits),
            number=Signal(self.beat_bits),
            error=Signal(),
            last=Signal(),
            whole=Signal(),
            begins=Signal(),  # it is the first that is read of a line whose entries are read one by one
            range=Signal(self.entries),
        )
        m.d.sync += [
            seen.eq(came),
            *(looked_at.matches.eq(matches), looked_at.changes.eq(changes), looked_at.mine.eq(mine)),
            *(looked_at.slot.eq(slot), looked_at.number.eq(number), looked_at.whole.eq(~single)),
            *(looked_at.error.eq(beat.error), looked_at.last.eq(beat.last)),
            looked_at.range.eq(in_range(job, self.entries)),
            looked_at.begins.eq(self.singles & single & (tries.place == job.first)),
        ]

        # Second: what is known of the line.
        known, keeper = self._read(memories.state, looked_at.slot, m), memories.state.write_port()
        here = Signal(self.entries)  # the entries of this beat, by place
        first = Signal()
        m.d.comb += [
            here.eq((looked_at.mine << (looked_at.number * self.lanes)) & looked_at.range),
            first.eq(looked_at.begins | (looked_at.whole & (looked_at.number == 0))),
        ]
        if self._singly:
            with m.If(self.alone):
                m.d.comb += first.eq(1)
        told = looked_at.matches.replicate(self.beats)
        differs = Signal()
        marks = looked_at.changes.replicate(self.beats) & here
        m.d.comb += [
            differs.eq(self.changes & marks.any()),
            keeper.addr.eq(looked_at.slot),
            keeper.en.eq(seen),
            keeper.data.matches.eq(Mux(first, 0, known.matches & ~here) | told & here),
            keeper.data.changed.eq(Mux(first, 0, known.changed & ~here) | Mux(self.changes, marks, 0)),
            keeper.data.error.eq(looked_at.error | (known.error & ~first)),
            keeper.data.changes.eq(Mux(looked_at.whole & ~first, known.changes, 0) | differs),
            arrived.w_en.eq(seen & looked_at.last),
            arrived.w_data.eq(Cat(looked_at.slot, keeper.data.error, keeper.data.changes & ~keeper.data.error)),
        ]

    def _place(self, slot: Value, beat: Value) -> Value:
        """The row of the buffer of a slot's beat."""
        return Cat(beat, slot) if self.beats > 1 else slot

    def _swap(
        self, m: Module, r: SimpleNamespace, memories: SimpleNamespace, buffer: Memory, arrived: fifo.SyncFIFO
    ) -> SimpleNamespace:
        """Lines that came: swapped, beat by beat; beats that are looked at go between. What needs no swap is over.

        Three steps: the buffer's output, a register, and what the net makes of it. All stand while a swap's beat waits.
        """
        lane_bits = (self.lanes - 1).bit_length()
        slot, error, changes = arrived.r_data[: self.slot_bits], arrived.r_data[-2], arrived.r_data[-1]
        job, tries, known = (self._read(memory, slot, m) for memory in (memories.jobs, memories.tries, memories.state))
        single = r.single.bit_select(slot, 1)
        beat, last, swaps = Signal(self.beat_bits), Signal(), Signal()
        item = data.StructLayout(
            {
                "swaps": 1,
                "looks": 1,
                "last": 1,
                "slot": unsigned(self.slot_bits),
                "address": unsigned(self._physical_bits),
                "line": 1,
                "lanes": unsigned(self.lanes),
            }
        )
        begun, read, raw, out = (Signal(item, name=name) for name in ("begun", "read", "raw", "out"))
        free, unchanged = Signal(), SimpleNamespace(valid=Signal(), ready=Signal(), slot=slot, error=error)
        reader = buffer.read_port()
        number, place = Signal(self.beat_bits), tries.place
        only = (Const(1, self.entries) << place).word_select(number, self.lanes)
        line = job.address[self._line_shift :]
        m.d.comb += [
            free.eq(~out.swaps | self.port.swaps.ready),
            swaps.eq(arrived.r_rdy & changes),
            unchanged.valid.eq(arrived.r_rdy & ~swaps),
            number.eq(Mux(single, place[lane_bits:], beat)),
            last.eq(single | (beat == self.beats - 1)),
            arrived.r_en.eq(Mux(swaps, free & last, unchanged.ready)),
            self.looked.eq(self.look & free & ~swaps),
            reader.en.eq(free),
            reader.addr.eq(Mux(swaps, self._place(slot, number), self._place(self.look_slot, self.look_beat))),
            *(begun.swaps.eq(swaps), begun.looks.eq(self.looked), begun.last.eq(last), begun.slot.eq(slot)),
            begun.line.eq(~single),
            begun.address.eq(Cat(Const(0, 3), Mux(single, place, 0), line)),
            begun.lanes.eq(Mux(single, only, known.changed.word_select(number, self.lanes))),
        ]
        with m.If(~swaps):
            m.d.comb += begun.lanes.eq(self.look_lanes)
        with m.If(free):
            m.d.sync += [read.eq(begun), raw.eq(read), out.eq(raw)]
            with m.If(swaps & ~single):
                m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        payload = self.port.swaps.payload
        m.d.comb += [
            self.port.swaps.valid.eq(out.swaps),
            *(payload.address.eq(out.address), payload.line.eq(out.line), payload.last.eq(out.last)),
            *(payload.tag.eq(out.slot), payload.old.eq(self.net.old)),
            *(self.words_valid.eq(out.looks), self.words_lanes.eq(out.lanes)),
            *(self.net.passes.eq(free), self.net.beat.eq(reader.data)),
        ]
        for lane in range(self.lanes):
            made, part = self.net.made[lane], slice(64 * lane, 64 * lane + 64)
            m.d.comb += [
                *(payload.new[part].eq(made.new), self.beat_words[part].eq(made.word)),
                payload.changed[lane].eq(out.lanes[lane] & made.changes),
            ]
        return unchanged

    def _conclude(
        self,
        m: Module,
        r: SimpleNamespace,
        memories: SimpleNamespace,
        unchanged: SimpleNamespace,
        over: SimpleNamespace,
        tries_writer: WritePort,
    ) -> None:
        """A line, or an entry of one, is over, or is read again."""
        answer, slot = self.port.swapped, over.slot
        answered, swapped = Signal(), Signal()
        failed, refused, done, stops = (Signal(name=name) for name in ("failed", "refused", "done", "stops"))
        m.d.comb += [
            answered.eq(answer.valid & (answer.payload.tag < self.slots)),
            unchanged.ready.eq(~answered),
            *(failed.eq(swapped & ~done & ~refused), stops.eq(refused | over.error)),
        ]
        m.d.sync += [
            *(over.valid.eq(answered | unchanged.valid), swapped.eq(answered)),
            *(done.eq(answered & answer.payload.done), refused.eq(answered & answer.payload.error)),
            over.error.eq(~answered & unchanged.error),
            slot.eq(Mux(answered, answer.payload.tag, unchanged.slot)),
        ]
        job, tries, known = (self._read(memory, slot, m) for memory in (memories.jobs, memories.tries, memories.state))
        single, ends, gives_up, turns_single = Signal(), Signal(), Signal(), Signal()
        last = tries.place == job.last
        m.d.comb += [
            single.eq(r.single.bit_select(slot, 1)),
            gives_up.eq(failed & single & (tries.failures == ENTRY_FAILURES - 1)),
            turns_single.eq(failed & ~single & (tries.failures == LINE_FAILURES - 1)),
            ends.eq(Mux(failed, gives_up & last, ~single | last | stops)),
            *(tries_writer.addr.eq(slot), tries_writer.en.eq(over.valid)),
            tries_writer.data.failures.eq(Mux(failed & ~gives_up & ~turns_single, tries.failures + 1, 0)),
            tries_writer.data.place.eq(Mux(single, tries.place + (~failed | gives_up), job.first)),
        ]
        m.d.sync += [over.again.eq(over.valid & ~ends), over.before.eq(slot)]
        went = Signal(self.entries)
        m.d.sync += [
            went.eq(Mux(done, Mux(single, 1, known.changed), 0)),
            self.changed.eq(sum(went[place] for place in range(self.entries))),
        ]
        for number in range(self.slots):
            with m.If(over.valid & (slot == number)):
                m.d.sync += [
                    r.done[number].eq(ends),
                    r.single[number].eq(single | turns_single),
                    r.given_up[number].eq(r.given_up[number] | gives_up),
                    r.refused[number].eq(r.refused[number] | refused),
                ]

    def _tell(self, m: Module, r: SimpleNamespace, memories: SimpleNamespace) -> None:
        """The oldest job, when it is over."""
        told = self.told.payload
        job, known = self._read(memories.jobs, r.tail, m), self._read(memories.state, r.tail, m)
        line = job.kind == JobKind.LINE
        m.d.comb += [
            self.told.valid.eq((r.untold != 0) & r.done.bit_select(r.tail, 1)),
            *(told.kind.eq(job.kind), told.pages.eq(job.pages), told.first.eq(job.first), told.last.eq(job.last)),
            told.word.eq(job.word),
            told.giant.eq(job.giant),
            told.matches.eq(Mux(line, known.matches, job.matches)),
            told.error.eq(line & (known.error | r.refused.bit_select(r.tail, 1))),
            told.given_up.eq(Mux(line, r.given_up.bit_select(r.tail, 1), job.given_up)),
            told.slot.eq(r.tail),
        ]
        with m.If(self.told.valid & self.told.ready):
            m.d.sync += r.tail.eq(r.tail + 1)
