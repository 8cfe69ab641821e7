"""What is proved of the gateware: harnesses with Amaranth Assert, Assume and Cover.

The environment is as hostile as the port allows: memory answers any value at every read, whatever it answered before;
a conditional write may succeed, fail or end in a bus error; every ready may be withheld. What is assumed beyond that
stands in each harness's `assumptions`, and is printed with the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import (
    Assert,
    Assume,
    Cat,
    Const,
    Cover,
    Elaboratable,
    Module,
    Mux,
    ResetSignal,
    Signal,
    Value,
    signed,
)
from amaranth.lib import data
from amaranth.lib.wiring import Component, Flow

from ptewalk.model import linux, x86
from ptewalk.rtl.fault_unit import FaultUnit
from ptewalk.rtl.layouts import EntryLayout
from ptewalk.rtl.walker import Walker, WalkerConfig

ENTRY_BITS = 64


def _mask(*bits: int) -> int:
    return sum(1 << bit for bit in bits)


class Harness(Elaboratable):
    """A part of the gateware, its environment, and what is asserted of it.

    Attributes
    ----------
    title : str
        The property's name.
    assumptions : tuple of str
        What is assumed of the environment.
    depth : int
        k of the k-induction.
    ports : list of Signal
        The free inputs.
    """

    title: str
    assumptions: tuple[str, ...]
    depth = 4

    def __init__(self, core: Component) -> None:
        self.ports: list[Signal] = []
        for _path, member, value in core.signature.flatten(core):
            signal = Value.cast(value)
            if member.flow is Flow.In and isinstance(signal, Signal):
                self.ports.append(signal)


class WalkerHarness(Harness):
    """A walker, its environment and the ghosts that both properties share.

    The ghosts follow the ports only; `_tie` relates them to the walker's registers, which is what induction needs.
    """

    assumptions: tuple[str, ...] = (
        "control state, root and track are steady while a request is in flight",
        "memory answers nothing that was not asked",
        "no reset after the start",
    )

    def __init__(self, config: WalkerConfig | None = None) -> None:
        self.walker = Walker(config or WalkerConfig(trace=False))
        super().__init__(self.walker)
        walker = self.walker
        self.accepted = walker.i_requests.valid & walker.i_requests.ready
        self.responding = walker.o_responses.valid & walker.o_responses.ready
        self.read = walker.o_reads.valid & walker.o_reads.ready
        self.answered = walker.i_data.valid
        self.swap = walker.o_swaps.valid & walker.o_swaps.ready
        self.swapped = walker.i_swapped.valid
        # Ghosts.
        self.busy = Signal()
        self.reading = Signal()  # a read is outstanding
        self.swapping = Signal()
        self.level = Signal(3)  # of the entry read last
        self.address = Signal(walker.config.physical_bits)  # of the entry read last
        self.value = Signal(EntryLayout())  # as this walker last saw it: read, or written by its own swap
        self.known = Signal()  # `value` is of this walk and was not refused since
        self.below = Signal()  # the next read is one level further down
        self.marked = Signal()  # the leaf was swapped in this walk

    def is_leaf(self) -> Value:
        """`self.value` is a leaf at `self.level`."""
        return (self.level == 1) | (self.value.ps & ((self.level == 2) | (self.level == 3)))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = self.walker
        access = walker.registers.access
        m.d.comb += Assume(~ResetSignal("sync"))

        # The environment.
        names = ["root", "control", "pkru", "pkrs"] + (["track", "saved_dirty"] if walker.config.soft_dirty else [])
        steady = Cat(Value.cast(getattr(walker, name)) for name in names)
        before = Signal(len(steady))
        m.d.sync += before.eq(steady)
        with m.If(self.busy):
            m.d.comb += Assume(steady == before)
        m.d.comb += [Assume(~self.answered | self.reading), Assume(~self.swapped | self.swapping)]

        # The ghosts.
        with m.If(self.accepted):
            m.d.sync += [self.busy.eq(1), self.known.eq(0), self.below.eq(0), self.marked.eq(0)]
        with m.If(self.responding):
            m.d.sync += self.busy.eq(0)
        with m.If(self.answered):
            m.d.sync += [self.reading.eq(0), self.known.eq(~walker.i_data.payload.error)]
            m.d.sync += Value.cast(self.value).eq(walker.i_data.payload.value)
        with m.If(self.read):
            top = Mux(walker.control.la57, x86.LEVELS_5, x86.LEVELS_4)
            # A read in the cycle of an answer is made below the entry that is just arriving.
            m.d.sync += [self.reading.eq(1), self.address.eq(walker.o_reads.payload.address), self.below.eq(0)]
            with m.If(self.answered | self.below):
                m.d.sync += self.level.eq(self.level - 1)
            with m.Elif(~self.known):
                m.d.sync += self.level.eq(top)
        with m.Elif(self.answered):
            # Left waiting for a ready: the read of the next level is still to come.
            m.d.sync += self.below.eq(walker.o_reads.valid)
        with m.If(self.swap):
            m.d.sync += self.swapping.eq(1)
        written = self._swapped_value(m)
        with m.If(self.swapped):
            m.d.sync += self.swapping.eq(0)
            with m.If(walker.i_swapped.payload.error):
                m.d.sync += self.known.eq(0)
            with m.Elif(walker.i_swapped.payload.done):
                m.d.sync += [
                    Value.cast(self.value).eq(written),
                    self.marked.eq(self.is_leaf()),
                    self.below.eq(~self.is_leaf()),
                ]

        self._tie(m, access)
        self._specify(m)
        return m

    def _swapped_value(self, m: Module) -> Value:
        """`new` of the swap in flight."""
        new = Signal(ENTRY_BITS, name="swap_new")
        with m.If(self.swap):
            m.d.sync += new.eq(self.walker.o_swaps.payload.new)
        m.d.comb += Assert(~self.swapping | (new == self.walker.o_swaps.payload.new))
        return new

    def _tie(self, m: Module, access: data.View) -> None:
        """Assertions that relate ghosts and registers: they help the induction, and are proved with the rest."""
        walker = self.walker
        registers = walker.registers
        phase, request = registers.phase, registers.request
        writes = (request.access == x86.Access.WRITE) | (request.access == x86.Access.RMW)
        one_hot = [registers.at == 1 << k for k in range(self.walker.config.levels)]
        m.d.comb += [
            Assert(self.busy == ~phase.idle),
            Assert(self.reading == phase.check),
            Assert(self.swapping == phase.swapped),
            Assert(Cat(phase.idle, phase.read, phase.check, phase.judge, phase.swapped).any()),
            Assert(~self.busy | Cat(one_hot).any()),
        ]
        with m.If(self.busy):
            m.d.comb += [
                Assert(access.store == writes),
                Assert(access.probe == (request.access == x86.Access.PROBE)),
            ]
        above = Signal(signed(ENTRY_BITS))
        by_levels = {n: request.linear.as_signed() >> (x86.LINEAR_BITS[n] - 1) for n in (x86.LEVELS_4, x86.LEVELS_5)}
        m.d.comb += above.eq(Mux(walker.control.la57, by_levels[x86.LEVELS_5], by_levels[x86.LEVELS_4]))
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
            top = Mux(self.walker.control.la57, 1 << (x86.LEVELS_5 - 1), 1 << (x86.LEVELS_4 - 1))
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
                Assert(walker.o_responses.payload.outcome == x86.Outcome.OK),
                Assert(registers.entry.p & ~registers.reserved & ~access.probe),
                Assert(~self.marked | registers.leaf),
            ]

    def _specify(self, m: Module) -> None:
        raise NotImplementedError


class WalkerWrites(WalkerHarness):
    """Every entry write is a swap from exactly the last value read there, and changes only what the table allows."""

    title = "walker-writes"

    def _specify(self, m: Module) -> None:
        walker = self.walker
        registers = walker.registers
        request = registers.request
        payload = walker.o_swaps.payload
        old, new = data.View(EntryLayout(), payload.old), data.View(EntryLayout(), payload.new)
        bit, soft = x86.EntryBit, linux.SoftBit
        tracking: Value = Const(0)
        fault_mode: Value = Const(0)
        saved: Value = Const(0)
        if walker.config.soft_dirty:
            tracking = walker.track != linux.Track.OFF
            fault_mode = walker.track == linux.Track.FAULT
            saved = walker.saved_dirty
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
        with m.If(walker.o_swaps.valid):
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
        with m.If(walker.o_responses.valid):
            outcome = walker.o_responses.payload.outcome
            with m.If((outcome == x86.Outcome.OK) & store):
                m.d.comb += [
                    Assert(self.known & self.is_leaf()),
                    Assert(self.value.p & self.value.a & self.value.d & (~tracking | self.value.soft_dirty)),
                ]
            with m.If(outcome == x86.Outcome.PAGE_FAULT):
                m.d.comb += Assert(~self.marked)
        m.d.comb += [
            Cover(self.swap & mends & (self.level == 2)),
            Cover(self.responding & store & (walker.o_responses.payload.outcome == x86.Outcome.OK) & self.marked),
            Cover(self.swapped & ~walker.i_swapped.payload.done & ~walker.i_swapped.payload.error),
            Cover(self.swap & (self.level == 4)),
        ]


class WalkerBound(WalkerHarness):
    """Exactly one response per request, within 2 + 2 (N + K) (S + 1 + L) cycles.

    N levels; every ready comes within S cycles, every answer L cycles after its transfer at the latest; at most K swaps
    of a request fail.
    """

    title = "walker-bound"
    STALL = 1
    LATENCY = 2
    FAILS = 2
    TRANSFER = STALL + 1 + LATENCY
    assumptions = (
        *WalkerHarness.assumptions,
        f"ready within S = {STALL} cycles, answers within L = {LATENCY}, at most K = {FAILS} swaps of a request fail",
    )

    def bound(self, levels: int) -> int:
        """Cycles from a request's acceptance to its response at the latest."""
        return 2 + 2 * (levels + self.FAILS) * self.TRANSFER

    def _specify(self, m: Module) -> None:
        walker = self.walker
        phase = walker.registers.phase
        stalled = Signal(range(self.STALL + 2))
        waited = Signal(range(self.LATENCY + 2))
        failed = Signal(range(self.FAILS + 2))
        age = Signal(8)
        offered = walker.o_reads.valid | walker.o_swaps.valid
        taken = self.read | self.swap
        m.d.sync += stalled.eq(Mux(offered & ~taken, stalled + 1, 0))
        m.d.comb += Assume(~(offered & ~taken) | (stalled < self.STALL))
        unanswered = (self.reading & ~self.answered) | (self.swapping & ~self.swapped)
        m.d.sync += waited.eq(Mux(taken, 1, Mux(unanswered, waited + 1, 0)))
        m.d.comb += Assume(~unanswered | (waited < self.LATENCY))
        refused = self.swapped & ~walker.i_swapped.payload.done & ~walker.i_swapped.payload.error
        m.d.comb += Assume(~refused | (failed < self.FAILS))
        with m.If(self.accepted):
            m.d.sync += [age.eq(1), failed.eq(0)]
        with m.Elif(self.busy):
            m.d.sync += age.eq(age + ~walker.o_responses.valid)
            with m.If(refused):
                m.d.sync += failed.eq(failed + 1)

        # Never a response without a request, never two: a response needs `busy`, and ends it.
        m.d.comb += Assert(~walker.o_responses.valid | self.busy)
        m.d.comb += Assert(~(self.busy & walker.i_requests.ready))

        # What is still to come at most, by phase: an answer's cycles count down through `stalled` and `waited`.
        level = Signal(3)
        for k in range(walker.config.levels):
            with m.If(walker.registers.at[k]):
                m.d.comb += level.eq(k + 1)
        to_come = Signal(10)
        whole = 2 * self.TRANSFER * (level + (self.FAILS - failed))
        with m.If(phase.read):
            m.d.comb += to_come.eq(1 + whole - stalled)
        with m.If(phase.check):
            m.d.comb += to_come.eq(1 + whole - self.STALL - waited)
        with m.If(phase.judge):
            half = whole - self.TRANSFER
            m.d.comb += to_come.eq(Mux(walker.o_responses.valid, 0, 1 + half - stalled))
        with m.If(phase.swapped):
            m.d.comb += to_come.eq(1 + whole - self.TRANSFER - self.STALL - waited)
        levels = Mux(walker.control.la57, x86.LEVELS_5, x86.LEVELS_4)
        most = 2 + 2 * self.TRANSFER * (levels + self.FAILS)
        with m.If(self.busy):
            m.d.comb += [
                Assert(age <= most),
                Assert(age + to_come <= most),
                Assert(level <= levels),
                Assert(failed <= self.FAILS),
                Assert(stalled <= self.STALL),
                Assert(waited <= self.LATENCY),
            ]
            with m.If(phase.check | phase.swapped):
                m.d.comb += [Assert(waited >= 1), Assert(stalled == 0)]
            with m.If(phase.judge):
                m.d.comb += Assert(waited == 0)
        m.d.comb += [
            Cover(self.responding & (failed == self.FAILS) & (age > 20)),
            Cover(self.responding & (walker.o_responses.payload.outcome == x86.Outcome.BUS_ERROR)),
            Cover(self.responding & (walker.o_responses.payload.outcome == x86.Outcome.GENERAL_PROTECTION)),
        ]


class FaultUnitHarness(Harness):
    """A fault unit between a requester and a walker, and the ghosts that both of its properties share."""

    TAG_BITS = 2
    FAULT_DEPTH = 2
    assumptions: tuple[str, ...] = (
        "the walker has one request in flight, answers it once, and accepts the next not before",
        "what requester or walker offer stands until it is taken",
        "i_retired is honest: one for each grant, after it",
        "the requester has at most one store in flight for each tag",
        "no reset after the start",
    )

    def __init__(self) -> None:
        self.unit = FaultUnit(physical_bits=32, tag_bits=self.TAG_BITS, fault_depth=self.FAULT_DEPTH)
        super().__init__(self.unit)
        unit = self.unit
        self.accepted = unit.o_requests.valid & unit.o_requests.ready
        self.delivered = unit.o_responses.valid & unit.o_responses.ready
        self.faulting = unit.o_responses.payload.outcome == x86.Outcome.PAGE_FAULT
        # Ghosts.
        self.busy = Signal()  # a request is in flight
        self.store = Signal()  # it is a write or rmw
        self.linear = Signal(64)  # its address
        self.outstanding = Signal(self.TAG_BITS + 2)  # grants that have not retired

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        m.d.comb += Assume(~ResetSignal("sync"))

        # The environment.
        tags = 1 << self.TAG_BITS
        asked = unit.i_requests.payload.access
        stores = (asked == x86.Access.WRITE) | (asked == x86.Access.RMW)
        in_store = self.busy & self.store
        for stream in (unit.i_requests, unit.i_responses):
            m.d.comb += Assume(self._stands(m, stream))
        m.d.comb += [
            Assume(~unit.o_requests.ready | ~self.busy | self.delivered),
            Assume(~unit.i_responses.valid | self.busy),
            Assume(~unit.i_retired.valid | (self.outstanding != 0)),
            Assume(~(unit.i_requests.valid & stores) | (self.outstanding + in_store < tags)),
        ]

        # The ghosts.
        with m.If(self.accepted):
            m.d.sync += [
                self.busy.eq(1),
                self.store.eq(stores),
                self.linear.eq(unit.i_requests.payload.linear),
            ]
        with m.Elif(self.delivered):
            m.d.sync += self.busy.eq(0)
        granted = self.delivered & self.store & (unit.o_responses.payload.outcome == x86.Outcome.OK)
        m.d.sync += self.outstanding.eq(self.outstanding + granted - unit.i_retired.valid)

        # What induction needs: ghosts and registers agree.
        registers = unit.registers
        m.d.comb += [
            Assert(registers.in_flight == self.busy),
            Assert(~self.busy | ((registers.store == self.store) & (registers.linear == self.linear))),
            Assert(self.outstanding + in_store <= tags),
            Assert(~registers.offered | unit.i_requests.valid),
        ]
        self._specify(m)
        return m

    def _stands(self, m: Module, stream: Any) -> Value:
        """What was offered on `stream` and not taken is offered still."""
        waiting = Signal()
        shown = Signal(len(Value.cast(stream.payload)))
        m.d.sync += [waiting.eq(stream.valid & ~stream.ready), shown.eq(stream.payload)]
        return ~waiting | (stream.valid & (Value.cast(stream.payload) == shown))

    def _specify(self, m: Module) -> None:
        raise NotImplementedError


class FaultUnitDrain(FaultUnitHarness):
    """A drain is over when, and only when, nothing is in flight and every grant has retired."""

    title = "fault-unit-drain"

    def _specify(self, m: Module) -> None:
        unit = self.unit
        offered = Signal()  # the walker saw a request in the last cycle and did not take it
        m.d.sync += offered.eq(unit.o_requests.valid & ~unit.o_requests.ready)
        idle = ~self.busy & ~offered & (self.outstanding == 0)
        m.d.comb += [
            Assert(unit.registers.offered == offered),
            Assert(unit.o_granted == self.outstanding),
            Assert(unit.o_drained == (unit.i_drain & idle)),
            Assert(~unit.o_drained | ~unit.o_requests.valid),
            # Held in a drain, but what the walker has seen; otherwise passed on.
            Assert(unit.o_requests.valid == (unit.i_requests.valid & (~unit.i_drain | offered))),
            Assert(self.accepted == (unit.i_requests.valid & unit.i_requests.ready)),
            Assert(self._stands(m, unit.o_requests)),
            Assert(self._stands(m, unit.o_responses)),
            Cover(unit.o_drained & (unit.o_responses.payload.tag == 3)),
            Cover(self.outstanding == 1 << self.TAG_BITS),
            Cover(unit.i_drain & self.busy & (self.outstanding > 1)),
            Cover(unit.i_drain & self.accepted),
        ]


class FaultUnitQueue(FaultUnitHarness):
    """One fault record for each page fault answered, in order, with its address, code and tag.

    One record is watched, any one: `ahead` is how many are still before it.
    """

    title = "fault-unit-queue"
    STALL = 1
    assumptions = (*FaultUnitHarness.assumptions, f"a fault record is taken within {STALL} cycle of its offer")
    depth = 10

    def __init__(self) -> None:
        super().__init__()
        self.pick = Signal()  # free: watch the record that is made now
        self.ports.append(self.pick)

    def _specify(self, m: Module) -> None:
        unit = self.unit
        payload = Value.cast(unit.o_faults.payload)
        made = self.delivered & self.faulting
        taken = unit.o_faults.valid & unit.o_faults.ready
        level = Signal(range(self.FAULT_DEPTH + 2))  # records made and not taken
        stalled, late = Signal(2), Signal(2)
        m.d.sync += [
            stalled.eq(Mux(unit.o_faults.valid & ~taken, stalled + 1, 0)),
            late.eq(Mux((level != 0) & ~taken, late + 1, 0)),
        ]
        m.d.comb += Assume(~(unit.o_faults.valid & ~taken) | (stalled < self.STALL))
        m.d.sync += level.eq(level + made - taken)

        watching, record = Signal(), Signal(len(payload))
        ahead = Signal(range(self.FAULT_DEPTH + 1))
        answer = unit.o_responses.payload
        with m.If(made & self.pick & ~watching):
            m.d.sync += [
                watching.eq(1),
                ahead.eq(level - taken),
                record.eq(Cat(self.linear, answer.code, answer.tag)),
            ]
        with m.Elif(watching & taken):
            m.d.sync += [ahead.eq(ahead - 1), watching.eq(ahead != 0)]
        m.d.comb += [
            Assert(unit.registers.queue.level == level),
            Assert(~unit.o_faults.valid | (level != 0)),
            Assert(level <= self.FAULT_DEPTH),
            Assert(~watching | (ahead < level)),
            # Each record is offered within two cycles of being the oldest.
            Assert(late <= self.STALL + 1),
            Assert(~(watching & unit.o_faults.valid & (ahead == 0)) | (payload == record)),
            # Nothing but a page fault with a full queue is held back.
            Assert(unit.o_responses.valid | ~unit.i_responses.valid | (self.faulting & (level != 0))),
            Cover(watching & taken & (ahead == 0) & (record[:64] == 0x1234)),
            Cover(watching & (ahead == self.FAULT_DEPTH - 1)),
            Cover(unit.i_responses.valid & ~unit.o_responses.valid),
        ]


PROPERTIES: dict[str, Callable[[], Harness]] = {
    harness.title: harness for harness in (WalkerWrites, WalkerBound, FaultUnitDrain, FaultUnitQueue)
}
"""Name to harness, for ``ptewalk prove``."""
