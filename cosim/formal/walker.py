"""What is proved of the walker."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from ptewalk.cosim.formal.harness import Harness, LateAnswers
from ptewalk.model import linux, x86
from ptewalk.rtl.entry import EntryLayout
from ptewalk.rtl.layouts import UpperRightsLayout
from ptewalk.rtl.walker import Walker, WalkerConfig, WalkState

__all__ = ["WalkerBound", "WalkerHarness", "WalkerReset", "WalkerTranslation", "WalkerWrites"]

ENTRY_BITS = 64


def _mask(*bits: int) -> int:
    return sum(1 << bit for bit in bits)


class WalkerHarness(Harness):
    """A walker, its environment and the ghosts that all its properties share.

    The ghosts follow the ports only; `_tie` relates them to the walker's registers, which is what induction needs.
    """

    assumptions: tuple[str, ...] = (
        "memory answers nothing that was not asked, an access with its id, and none later than three resets",
    )

    def __init__(self, config: WalkerConfig | None = None, *, searching: bool = False) -> None:
        self.walker = Walker(replace(config or WalkerConfig(), trace=False, observe=True))
        super().__init__(self.walker, searching=searching)
        walker = self.walker
        self.requests, self.responses = walker.requester.requests, walker.requester.responses
        self.reads, self.swaps = walker.memory.reads, walker.memory.swaps
        self.data, self.done = walker.memory.data.payload, walker.memory.swapped.payload
        self.accepted = self.requests.valid & self.requests.ready
        self.responding = self.responses.valid & self.responses.ready
        self.read = self.reads.valid & self.reads.ready
        self.swap = self.swaps.valid & self.swaps.ready
        self.read_answers = LateAnswers(self.reads, walker.memory.data, searching=searching)
        self.swap_answers = LateAnswers(self.swaps, walker.memory.swapped, searching=searching)
        self.answered, self.swapped = self.read_answers.mine, self.swap_answers.mine
        self.ports += [self.read_answers.whose, self.swap_answers.whose]
        registers = walker.o_registers
        self.phase = SimpleNamespace(**{state.name.lower(): registers.state == state for state in WalkState})
        # Ghosts.
        self.context = Signal(walker.contexts.payload.shape())  # taken last
        self.under = Signal(walker.contexts.payload.shape())  # under which the request in flight was accepted
        self.request = Signal(self.requests.payload.shape())  # in flight
        self.busy = Signal()
        self.reading = Signal()  # a read is outstanding
        self.swapping = Signal()
        self.level = Signal(3)  # of the entry read last
        self.address = Signal(walker.config.physical_bits)  # of the entry read last
        self.value = Signal(EntryLayout())  # as this walker last saw it: read, or written by its own swap
        self.upper = Signal(UpperRightsLayout())  # of the entries above it
        self.known = Signal()  # `value` is of this walk and was not refused since
        self.below = Signal()  # the next read is one level further down
        self.marked = Signal()  # the leaf was swapped in this walk

    @property
    def la57(self) -> Value:
        """The request in flight is walked with five levels."""
        return self.under.control.la57 if self.walker.config.levels == x86.LEVELS_5 else Const(0)

    def is_leaf(self) -> Value:
        """`self.value` is a leaf at `self.level`."""
        large = (self.level == 2) | (self.level == 3) if self.walker.config.gigabyte_pages else self.level == 2
        return (self.level == 1) | (self.value.ps & large)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = self.walker
        m.submodules.read_answers = self.read_answers
        m.submodules.swap_answers = self.swap_answers
        taken = walker.contexts.valid & walker.contexts.ready

        # The ghosts.
        with m.If(taken):
            m.d.sync += self.context.eq(walker.contexts.payload)
        with m.If(self.accepted):
            m.d.sync += [
                self.request.eq(self.requests.payload),
                self.under.eq(self.context),
                Cat(self.upper.rw, self.upper.us, self.upper.xd).eq(0b011),
                self.busy.eq(1),
                self.known.eq(0),
                self.below.eq(0),
                self.marked.eq(0),
            ]
        with m.If(self.responding):
            m.d.sync += self.busy.eq(0)
        with m.If(self.answered):
            m.d.sync += [self.reading.eq(0), self.known.eq(~self.data.error)]
            m.d.sync += Value.cast(self.value).eq(self.data.value)
        with m.If(self.read):
            top = Mux(self.la57, x86.LEVELS_5, x86.LEVELS_4)
            # A read in the cycle of an answer is made below the entry that is just arriving.
            m.d.sync += [self.reading.eq(1), self.address.eq(self.reads.payload.address), self.below.eq(0)]
            with m.If(self.answered | self.below):
                m.d.sync += [self.level.eq(self.level - 1), self.upper.eq(self._passed())]
            with m.Elif(~self.known):
                m.d.sync += self.level.eq(top)
        with m.Elif(self.answered):
            # Left waiting for a ready: the read of the next level is still to come.
            m.d.sync += self.below.eq(self.reads.valid)
        with m.If(self.swap):
            m.d.sync += self.swapping.eq(1)
        written = self._swapped_value(m)
        with m.If(self.swapped):
            m.d.sync += self.swapping.eq(0)
            with m.If(self.done.error):
                m.d.sync += self.known.eq(0)
            with m.Elif(self.done.done):
                m.d.sync += [
                    Value.cast(self.value).eq(written),
                    self.marked.eq(self.is_leaf()),
                    self.below.eq(~self.is_leaf()),
                ]

        if not self.searching:
            self._tie(m, taken)
        self._specify(m)
        return m

    def _passed(self) -> Value:
        """`self.upper` below the entry that is being passed."""
        arriving = data.View(EntryLayout(), self.data.value)
        seen = {name: Mux(self.answered, arriving[name], self.value[name]) for name in ("rw", "us", "xd")}
        return Cat(self.upper.rw & seen["rw"], self.upper.us & seen["us"], self.upper.xd | seen["xd"])

    def _swapped_value(self, m: Module) -> Value:
        """`new` of the swap in flight."""
        new = Signal(ENTRY_BITS, name="swap_new")
        with m.If(self.swap):
            m.d.sync += new.eq(self.swaps.payload.new)
        if not self.searching:
            m.d.comb += Assert(~self.swapping | (new == self.swaps.payload.new))
        return new

    def _tie(self, m: Module, context_taken: Value) -> None:
        """Assertions that relate ghosts and registers: they help the induction, and are proved with the rest."""
        walker = self.walker
        registers, phase = walker.o_registers, self.phase
        request, access = registers.request, registers.access
        writes = (request.access == x86.Access.WRITE) | (request.access == x86.Access.RMW)
        one_hot = [registers.at == 1 << k for k in range(self.walker.config.levels)]
        m.d.comb += [
            Assert(self.busy == ~phase.idle),
            Assert(self.reading == phase.check),
            Assert(self.reading == self.read_answers.open),
            Assert(self.swapping == phase.swapped),
            Assert(self.swapping == self.swap_answers.open),
            Assert(Cat(vars(phase).values()).any()),
            Assert(~self.busy | Cat(one_hot).any()),
            Assert(Value.cast(registers.context) == Value.cast(self.context)),
            Assert(~self.busy | (Value.cast(self.context) == Value.cast(self.under))),
            Assert(~self.busy | (Value.cast(request) == Value.cast(self.request))),
            Assert(~context_taken | ~self.busy),
        ]
        with m.If(self.busy):
            m.d.comb += [
                Assert(access.store == writes),
                Assert(access.probe == (request.access == x86.Access.PROBE)),
                Assert(access.fetch == (request.access == x86.Access.FETCH)),
                Assert(access.user == (request.user & ~request.implicit)),
                Assert(access.needs_rw == ((writes | access.probe) & (access.user | self.under.control.wp))),
            ]
        with m.If(phase.check | (self.known & (phase.judge | phase.swapped))):
            m.d.comb += Assert(Value.cast(registers.upper) == Value.cast(self.upper))
        with m.If(phase.read):
            m.d.comb += Assert(Value.cast(registers.upper) == Mux(self.below, self._passed(), self.upper))
        above = Signal(signed(ENTRY_BITS))
        by_levels = {n: request.linear.as_signed() >> (x86.LINEAR_BITS[n] - 1) for n in (x86.LEVELS_4, x86.LEVELS_5)}
        m.d.comb += above.eq(Mux(self.la57, by_levels[x86.LEVELS_5], by_levels[x86.LEVELS_4]))
        canonical = (above == 0) | (above == -1)
        with m.If(phase.check | phase.swapped | (phase.judge & ~registers.noncanonical)):
            at_hand = Mux(phase.check, registers.address, registers.here)
            m.d.comb += [Assert(self.address == at_hand), Assert(canonical)]
            for k, here in enumerate(one_hot):
                m.d.comb += Assert(~here | (self.level == k + 1))
            with m.If(~registers.broken & ~phase.check):
                m.d.comb += Assert(self.known)
        with m.If(self.known & (phase.judge | phase.swapped) & ~registers.noncanonical & ~registers.settled):
            m.d.comb += [
                Assert(Value.cast(self.value) == Value.cast(registers.entry)),
                Assert(registers.leaf == self.is_leaf()),
            ]
        with m.If(phase.read):
            m.d.comb += Assert(~registers.settled & ~registers.broken)
            for k, here in enumerate(one_hot):
                step = Mux(self.below, self.level - 1, self.level)
                m.d.comb += Assert(~(here & self.known) | (step == k + 1))
            top = Mux(self.la57, 1 << (x86.LEVELS_5 - 1), 1 << (x86.LEVELS_4 - 1))
            m.d.comb += [
                Assert(self.known | (registers.at == top)),
                Assert(self.known | ~self.below),
            ]
            with m.If(self.known):
                m.d.comb += [Assert((self.address == registers.address) | self.below), Assert(canonical)]
        with m.If(phase.check):
            m.d.comb += Assert(~self.below & ~registers.settled & ~registers.noncanonical)
        with m.If(phase.swapped):
            m.d.comb += Assert(~self.below & ~registers.settled & ~registers.broken & ~registers.noncanonical)
        with m.If(phase.judge):
            m.d.comb += [Assert(~self.below), Assert(registers.settled == self.marked)]
        m.d.comb += Assert(~self.marked | ~self.busy | phase.judge)
        # The verdict that let a swap go stands until the response.
        with m.If(phase.swapped | (self.marked & self.busy)):
            m.d.comb += [
                Assert(self.responses.payload.outcome == x86.Outcome.OK),
                Assert(registers.entry.p & ~registers.reserved & ~access.probe),
                Assert(~self.marked | registers.leaf),
            ]

    def _specify(self, m: Module) -> None:
        raise NotImplementedError


class WalkerWrites(WalkerHarness):
    """Every entry write is a swap from exactly the last value read there, and changes only what the table allows."""

    title = "walker-writes"
    quick_depth = 10

    def _specify(self, m: Module) -> None:
        request = self.request
        payload = self.swaps.payload
        old, new = data.View(EntryLayout(), payload.old), data.View(EntryLayout(), payload.new)
        bit, soft = x86.EntryBit, linux.SoftBit
        tracking: Value = Const(0)
        fault_mode: Value = Const(0)
        saved: Value = Const(0)
        if self.walker.config.soft_dirty:
            tracking = self.under.track != linux.Track.OFF
            fault_mode = self.under.track == linux.Track.FAULT
            saved = self.under.saved_dirty
        store = (request.access == x86.Access.WRITE) | (request.access == x86.Access.RMW)
        mends = Signal()
        touched = Signal(ENTRY_BITS)
        allowed = Signal(ENTRY_BITS)
        m.d.comb += [
            touched.eq(payload.old ^ payload.new),
            mends.eq(~old.rw & new.rw),
            allowed.eq(
                _mask(bit.A)
                | Mux(self.is_leaf() & store, _mask(bit.D), 0)
                | Mux(self.is_leaf() & store & tracking, _mask(soft.SOFT_DIRTY), 0)
                | Mux(mends, _mask(bit.RW, soft.ARM), 0)
                | Mux(mends & saved, _mask(soft.SAVED_DIRTY), 0)
            ),
        ]
        with m.If(self.swaps.valid):
            m.d.comb += [
                Assert(self.known & ~self.reading & ~self.swapping),
                Assert(payload.address == self.address),
                Assert(payload.old == Value.cast(self.value)),
                Assert(old.p & (request.access != x86.Access.PROBE)),
                Assert((touched & ~allowed) == 0),
                # What is set stays set: only a mend clears, and only ARM and SAVED_DIRTY.
                Assert((payload.old & ~payload.new & ~Mux(mends, _mask(soft.ARM, soft.SAVED_DIRTY), 0)) == 0),
                Assert(touched != 0),
                # A mend is a write to an armed leaf in fault mode, and marks in the same swap.
                Assert(~mends | (fault_mode & store & self.is_leaf() & old.arm & ~new.arm)),
                Assert(~mends | (new.a & new.d & new.soft_dirty & ~(saved & new.saved_dirty))),
            ]
        # A write is granted only through a leaf that was seen, or swapped, with all its marks; a fault marks nothing.
        with m.If(self.responses.valid):
            outcome = self.responses.payload.outcome
            with m.If((outcome == x86.Outcome.OK) & store):
                m.d.comb += [
                    Assert(self.known & self.is_leaf()),
                    Assert(self.value.p & self.value.a & self.value.d & (~tracking | self.value.soft_dirty)),
                ]
            with m.If(outcome == x86.Outcome.PAGE_FAULT):
                m.d.comb += Assert(~self.marked)
        if self.walker.config.soft_dirty:
            m.d.comb += Cover(self.swap & mends & (self.level == 2))
        m.d.comb += [
            Cover(self.responding & store & (self.responses.payload.outcome == x86.Outcome.OK) & self.marked),
            Cover(self.swapped & ~self.done.done & ~self.done.error),
            Cover(self.swap & (self.level == 4)),
        ]


class WalkerBound(WalkerHarness):
    """Exactly one response per request, within 2 + 2 (N + K) (S + 1 + L) cycles.

    N levels; every ready comes within S cycles, every answer L cycles after its transfer at the latest; at most K swaps
    of a request fail.
    """

    title = "walker-bound"
    STALL, LATENCY, FAILS = 1, 2, 2
    assumptions = (
        *WalkerHarness.assumptions,
        f"ready within S = {STALL} cycles, answers within L = {LATENCY}, at most K = {FAILS} swaps of a request fail",
    )
    search_depth = 20
    quick_depth = 20

    def __init__(self, config: WalkerConfig | None = None, *, searching: bool = False) -> None:
        super().__init__(config, searching=searching)
        if searching:  # a short bound, so that a few steps are beyond it
            self.STALL, self.LATENCY, self.FAILS = 0, 1, 0
        self.TRANSFER = self.STALL + 1 + self.LATENCY

    def _specify(self, m: Module) -> None:
        walker = self.walker
        stalled = Signal(range(self.STALL + 2))
        waited = Signal(range(self.LATENCY + 2))
        failed = Signal(range(self.FAILS + 2))
        age = Signal(8)
        offered = self.reads.valid | self.swaps.valid
        taken = self.read | self.swap
        m.d.sync += stalled.eq(Mux(offered & ~taken, stalled + 1, 0))
        m.d.comb += Assume(~(offered & ~taken) | (stalled < self.STALL))
        unanswered = (self.reading & ~self.answered) | (self.swapping & ~self.swapped)
        m.d.sync += waited.eq(Mux(taken, 1, Mux(unanswered, waited + 1, 0)))
        m.d.comb += Assume(~unanswered | (waited < self.LATENCY))
        refused = self.swapped & ~self.done.done & ~self.done.error
        m.d.comb += Assume(~refused | (failed < self.FAILS))
        with m.If(self.accepted):
            m.d.sync += [age.eq(1), failed.eq(0)]
        with m.Elif(self.busy):
            m.d.sync += age.eq(age + ~self.responses.valid)
            with m.If(refused):
                m.d.sync += failed.eq(failed + 1)

        if self.searching:  # one walk of one address is as good as another, and found sooner
            m.d.comb += [
                Assume(Value.cast(walker.contexts.payload) == 0),
                Assume(self.requests.payload.linear == 0),
            ]

        # Never a response without a request, never two: a response needs `busy`, and ends it.
        m.d.comb += Assert(~self.responses.valid | self.busy)
        m.d.comb += Assert(~(self.busy & self.requests.ready))
        # A context is taken at once when nothing is in flight, and before a request.
        m.d.comb += Assert(walker.contexts.ready == ~self.busy)
        m.d.comb += Assert(self.requests.ready == (~self.busy & ~walker.contexts.valid))

        levels = Mux(self.la57, x86.LEVELS_5, x86.LEVELS_4)
        most = 2 + 2 * self.TRANSFER * (levels + self.FAILS)
        m.d.comb += Assert(~self.busy | (age <= most))
        if not self.searching:
            self._count_down(m, most, levels, SimpleNamespace(age=age, stalled=stalled, waited=waited, failed=failed))
        m.d.comb += [
            Cover(self.responding & (failed == self.FAILS) & (age > 20)),
            Cover(self.responding & (self.responses.payload.outcome == x86.Outcome.BUS_ERROR)),
            Cover(self.responding & (self.responses.payload.outcome == x86.Outcome.GENERAL_PROTECTION)),
        ]

    def _count_down(self, m: Module, most: Value, levels: Value, now: SimpleNamespace) -> None:
        """What is still to come at most, by phase: an answer's cycles count down through `stalled` and `waited`."""
        phase = self.phase
        level = Signal(3)
        for k in range(self.walker.config.levels):
            with m.If(self.walker.o_registers.at[k]):
                m.d.comb += level.eq(k + 1)
        to_come = Signal(10)
        whole = 2 * self.TRANSFER * (level + (self.FAILS - now.failed))
        with m.If(phase.read):
            m.d.comb += to_come.eq(1 + whole - now.stalled)
        with m.If(phase.check):
            m.d.comb += to_come.eq(1 + whole - self.STALL - now.waited)
        with m.If(phase.judge):
            half = whole - self.TRANSFER
            m.d.comb += to_come.eq(Mux(self.responses.valid, 0, 1 + half - now.stalled))
        with m.If(phase.swapped):
            m.d.comb += to_come.eq(1 + whole - self.TRANSFER - self.STALL - now.waited)
        with m.If(self.busy):
            m.d.comb += [
                Assert(now.age + to_come <= most),
                Assert(level <= levels),
                Assert(now.failed <= self.FAILS),
                Assert(now.stalled <= self.STALL),
                Assert(now.waited <= self.LATENCY),
            ]
            with m.If(phase.check | phase.swapped):
                m.d.comb += [Assert(now.waited >= 1), Assert(now.stalled == 0)]
            with m.If(phase.judge):
                m.d.comb += Assert(now.waited == 0)


class WalkerReset(WalkerHarness):
    """What a reset left behind ends no wait: nothing is offered while an access of this walk is outstanding."""

    title = "walker-reset"
    search_depth = 11
    quick_depth = 11

    def _specify(self, m: Module) -> None:
        walker = self.walker
        waiting = (self.reading & ~self.answered) | self.swapping
        m.d.comb += [
            Assert(~(self.reads.valid & waiting)),
            Assert(~(self.swaps.valid & (self.reading | self.swapping))),
            Assert(~(self.responses.valid & (self.reading | self.swapping))),
            Assert(~(self.requests.ready & (self.reading | self.swapping))),
            Cover(self.reading & walker.memory.data.valid & ~self.answered),
            Cover(self.swapping & walker.memory.swapped.valid & ~self.swapped),
        ]
        if self.searching:  # one walk of one address is as good as another, and found sooner
            asked = self.requests.payload
            m.d.comb += [
                Assume(~walker.contexts.valid),
                Assume((asked.linear == 0) & (asked.access == x86.Access.READ)),
            ]


class WalkerTranslation(WalkerHarness):
    """An OK follows from the entries read in this walk, root first, and so does the translation beside it."""

    title = "walker-translation"
    quick_depth = 10

    def _specify(self, m: Module) -> None:
        walker = self.walker
        answer, found = self.responses.payload, walker.o_translation
        leaf, linear = Value.cast(self.value), self.request.linear
        offset = Signal(walker.config.physical_bits)
        frame = Signal(walker.config.physical_bits)
        for level in (1, 2, 3):
            with m.If(self.level == level):
                m.d.comb += offset.eq((1 << x86.LEVEL_SHIFT[level]) - 1)
        m.d.comb += frame.eq(leaf & (1 << walker.config.physical_bits) - 1)
        tracking = self.under.track != linux.Track.OFF if walker.config.soft_dirty else Const(0)
        store = (self.request.access == x86.Access.WRITE) | (self.request.access == x86.Access.RMW)
        user = self.request.user & ~self.request.implicit
        with m.If(self.responses.valid & (answer.outcome == x86.Outcome.OK)):
            m.d.comb += [
                Assert(self.known & self.is_leaf() & self.value.p),
                Assert(answer.physical == ((frame & ~offset) | (linear & offset))),
                Assert(found.frame == answer.physical[x86.PAGE_SHIFT :]),
                Assert((found.level == self.level) & (answer.level == self.level)),
                Assert(found.address == self.address),
                Assert(found.rw == (self.upper.rw & self.value.rw)),
                Assert(found.us == (self.upper.us & self.value.us)),
                Assert(found.xd == (self.upper.xd | self.value.xd)),
                Assert(found.pkey == self.value.pkey),
                Assert(found.g == self.value.g),
                Assert(found.d == self.value.d),
                Assert((found.pwt == self.value.pwt) & (found.pcd == self.value.pcd)),
                Assert(found.pat == Mux(self.level == 1, self.value.pat, self.value.pat_large)),
                # No rights beyond those of the entries that were read.
                Assert(~user | found.us),
                Assert(~(self.request.access == x86.Access.FETCH) | ~found.xd),
                Assert(~(store & (user | self.under.control.wp)) | found.rw),
                Assert(~store | found.d),
            ]
            if walker.config.soft_dirty:
                m.d.comb += [
                    Assert(found.soft_dirty == self.value.soft_dirty),
                    Assert(~(store & tracking) | found.soft_dirty),
                ]
        covered = self.responding & (answer.outcome == x86.Outcome.OK)
        m.d.comb += [
            Cover(covered & (self.level == 1) & ~self.upper.rw),
            Cover(covered & (self.level == 2) & self.marked),
            Cover(covered & user & (self.request.access == x86.Access.FETCH)),
        ]
