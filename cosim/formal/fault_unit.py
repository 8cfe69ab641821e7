"""What is proved of the fault unit."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.harness import Harness
from ptewalk.model import x86
from ptewalk.rtl.fault_unit import FaultUnit
from ptewalk.rtl.layouts import FaultLayout, StatusLayout

__all__ = ["FaultUnitDrain", "FaultUnitHarness", "FaultUnitQueue"]


class FaultUnitHarness(Harness):
    """A fault unit between a requester and a walker, and the ghosts that both of its properties share."""

    TAG_BITS = 3
    FAULT_DEPTH = 2
    assumptions: tuple[str, ...] = (
        "the walker has one request in flight, answers it once, and accepts the next not before",
        "what requester or walker offer stands until it is taken",
        "a reset of the unit is one of requester and walker",
    )
    depth = 5
    search_depth = 12

    def __init__(self, *, searching: bool = False) -> None:
        self.unit = FaultUnit(physical_bits=32, tag_bits=self.TAG_BITS, fault_depth=self.FAULT_DEPTH, observe=True)
        super().__init__(self.unit, searching=searching)
        unit = self.unit
        self.asked, self.answers = unit.requester.requests, unit.requester.responses
        self.retired = unit.requester.retired
        self.passed, self.answer = unit.walker.requests, unit.walker.responses
        self.accepted = self.passed.valid & self.passed.ready
        self.delivered = self.answers.valid & self.answers.ready
        # Ghosts.
        self.busy = Signal()  # a request is in flight
        self.request = Signal(self.asked.payload.shape())  # it
        self.faulting = (self.answers.payload.outcome == x86.Outcome.PAGE_FAULT) & ~self.is_probe()
        self.outstanding = Signal(1 << self.TAG_BITS)  # tags with a grant that has not retired
        self.table = [
            [memory.read_port(domain="comb") for memory in (unit.grants.granted, unit.grants.retired)]
            for _ in range(1 << self.TAG_BITS)
        ]

    def is_probe(self) -> Value:
        """The request in flight is a probe."""
        result: Value = self.request.access == x86.Access.PROBE
        return result

    def is_store(self) -> Value:
        """The request in flight is a write or rmw."""
        return (self.request.access == x86.Access.WRITE) | (self.request.access == x86.Access.RMW)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = self.unit

        # The environment.
        for stream in (self.asked, self.answer):
            m.d.comb += Assume(self._stands(m, stream))
        m.d.comb += [
            Assume(~self.passed.ready | ~self.busy | self.delivered),
            Assume(~self.answer.valid | (self.busy & (self.answer.payload.tag == self.request.tag))),
        ]

        # The ghosts.
        with m.If(self.accepted):
            m.d.sync += [self.busy.eq(1), self.request.eq(self.asked.payload)]
        with m.Elif(self.delivered):
            m.d.sync += self.busy.eq(0)
        self.granted = Signal()
        m.d.comb += self.granted.eq(self.delivered & self.is_store() & (self.answers.payload.outcome == x86.Outcome.OK))
        with m.If(self.granted):
            m.d.sync += self.outstanding.bit_select(self.request.tag, 1).eq(1)
        with m.If(self.retired.valid):
            m.d.sync += self.outstanding.bit_select(self.retired.payload.tag, 1).eq(0)

        for tag, ports in enumerate(self.table):
            m.d.comb += [port.addr.eq(self.unit.grants.split(Const(tag, self.TAG_BITS))[0]) for port in ports]
        if not self.searching:
            self._tie(m)
        self._specify(m)
        return m

    def _tie(self, m: Module) -> None:
        """What induction needs: ghosts and registers agree."""
        unit = self.unit
        registers = unit.o_registers
        m.d.comb += [
            Assert(registers.in_flight == self.busy),
            Assert(~self.busy | (registers.store == self.is_store())),
            Assert(~self.busy | (registers.probe == self.is_probe())),
            Assert(~self.busy | (registers.linear == self.request.linear)),
            Assert(~registers.offered | self.asked.valid),
            Assert(unit.grants.cleared <= 1 << self.TAG_BITS),
            Assert(unit.grants.ready | ~self.busy),
        ]
        for tag, ports in enumerate(self.table):
            place = unit.grants.split(Const(tag, self.TAG_BITS))[1]
            granted, retired = (port.data.bit_select(place, 1) for port in ports)
            with m.If(unit.grants.cleared > tag):
                m.d.comb += Assert((granted ^ retired) == self.outstanding[tag])
            with m.Else():
                m.d.comb += Assert(~self.outstanding[tag])

    def _stands(self, m: Module, stream: Any) -> Value:
        """What was offered on `stream` and not taken is offered still."""
        waiting = Signal()
        shown = Signal(len(Value.cast(stream.payload)))
        m.d.sync += [waiting.eq(stream.valid & ~stream.ready), shown.eq(stream.payload)]
        return ~waiting | (stream.valid & (Value.cast(stream.payload) == shown))

    def _specify(self, m: Module) -> None:
        raise NotImplementedError


class FaultUnitDrain(FaultUnitHarness):
    """A drain is over when, and only when, nothing is in flight and every grant has retired; a tag names one grant."""

    title = "fault-unit-drain"

    def _specify(self, m: Module) -> None:
        unit, supervisor = self.unit, self.unit.supervisor
        offered = Signal()  # the walker saw a request in the last cycle and did not take it
        m.d.sync += offered.eq(self.passed.valid & ~self.passed.ready)
        count = Signal(self.TAG_BITS + 1)
        m.d.comb += count.eq(sum(self.outstanding))
        idle = ~self.busy & ~offered & (self.outstanding == 0)
        store = self.is_store() & (self.answer.payload.outcome == x86.Outcome.OK)
        reused = Signal()
        m.d.comb += reused.eq(self.answer.valid & store & self.outstanding.bit_select(self.request.tag, 1))
        stray = (
            self.retired.valid
            & ~self.outstanding.bit_select(self.retired.payload.tag, 1)
            & ~(self.granted & (self.request.tag == self.retired.payload.tag))
        )
        status = Signal(StatusLayout())
        lost = Signal()
        m.d.comb += lost.eq(unit.o_lost)
        for name, event in (("fault_overflow", lost), ("tag_reused", reused), ("stray_retirement", stray)):
            m.d.sync += status[name].eq(event | (status[name] & ~supervisor.clear[name]))
        if not self.searching:
            m.d.comb += Assert(unit.o_registers.offered == offered)
        m.d.comb += [
            Assert(supervisor.granted == count),
            Assert(supervisor.drained == (supervisor.drain & idle)),
            Assert(~supervisor.drained | ~self.passed.valid),
            # Held in a drain, but what the walker has seen; otherwise passed on.
            Assert(self.passed.valid == (self.asked.valid & unit.grants.ready & (~supervisor.drain | offered))),
            Assert(self.accepted == (self.asked.valid & self.asked.ready)),
            # An answer waits for nothing but the grant of its own tag.
            Assert(self.answers.valid == (self.answer.valid & ~reused)),
            Assert(self.delivered == (self.answer.valid & self.answer.ready)),
            Assert(~self.granted | ~self.outstanding.bit_select(self.request.tag, 1)),
            Assert(Value.cast(supervisor.status) == Value.cast(status)),
            Assert(self._stands(m, self.passed)),
            Assert(self._stands(m, self.answers)),
            Cover(supervisor.drained & (self.answers.payload.tag == 3)),
            Cover(self.outstanding.all()),
            Cover(supervisor.drain & self.busy & (count > 1)),
            Cover(supervisor.drain & self.accepted),
            Cover(reused & self.retired.valid),
        ]


class FaultUnitQueue(FaultUnitHarness):
    """One fault record for each page fault answered, but for probes, in order, unless the queue was full.

    One record is watched, any one: `ahead` is how many are still before it.
    """

    title = "fault-unit-queue"
    STALL = 1
    assumptions = (*FaultUnitHarness.assumptions, f"a fault record is taken within {STALL} cycle of its offer")
    depth = 10

    def __init__(self, *, searching: bool = False) -> None:
        super().__init__(searching=searching)
        self.pick = Signal()  # free: watch the record that is made now
        self.ports.append(self.pick)

    def _specify(self, m: Module) -> None:
        unit, faults = self.unit, self.unit.supervisor.faults
        payload = Value.cast(faults.payload)
        level = Signal(range(self.FAULT_DEPTH + 2))  # records kept and not taken
        fault = self.delivered & self.faulting
        made = fault & ~unit.o_lost
        taken = faults.valid & faults.ready
        stalled = Signal(2)
        hidden = Signal(2)  # cycles since the oldest record could have been on offer
        m.d.sync += [
            level.eq(level + made - taken),
            stalled.eq(Mux(faults.valid & ~taken, stalled + 1, 0)),
            hidden.eq(Mux((level != 0) & ~faults.valid, hidden + 1, 0)),
        ]

        m.d.comb += Assume(~(faults.valid & ~taken) | (stalled < self.STALL))
        watching, record = Signal(), Signal(FaultLayout(self.TAG_BITS))
        ahead = Signal(range(self.FAULT_DEPTH + 1))
        answer = self.answers.payload
        with m.If(made & self.pick & ~watching):
            m.d.sync += [
                watching.eq(1),
                ahead.eq(level - taken),
                record.eq(Cat(self.request.linear, answer.code, answer.tag)),
            ]
        with m.Elif(watching & taken):
            m.d.sync += [ahead.eq(ahead - 1), watching.eq(ahead != 0)]
        if not self.searching:
            m.d.comb += [
                Assert(unit.o_registers.queued == level),
                Assert(level <= self.FAULT_DEPTH),
                Assert(~watching | (ahead < level)),
            ]
        m.d.comb += [
            Assert(~faults.valid | (level != 0)),
            # Each record is offered within two cycles of being the oldest.
            Assert(hidden <= 1),
            Assert(~(watching & faults.valid & (ahead == 0)) | (payload == Value.cast(record))),
            # A record is lost only of a fault, and only when the queue is full: a record on its way out counts as two.
            Assert(unit.o_delivered == fault),
            Assert(~unit.o_lost | (fault & (level + ~faults.valid == self.FAULT_DEPTH))),
            Cover(watching & taken & (ahead == 0) & (record.linear == 0x1234)),
            Cover(watching & (ahead == self.FAULT_DEPTH - 1)),
            Cover(unit.o_lost & watching),
        ]
