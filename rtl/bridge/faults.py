"""What becomes of the oldest burst of a direction when it must not be sent."""

from enum import IntEnum

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.bridge.layouts import FaultKind, FaultMode

__all__ = ["BurstFaults", "FaultState"]


class FaultState(IntEnum):
    """How far it is with the head; a bit for each that is not the first."""

    WATCH = 0
    """Nothing is known against the head."""
    STALLED = 1
    """It page-faulted, and waits for software."""
    FAILED = 2
    """It is answered SLVERR."""


class BurstFaults(Component):
    """Records the fault of the head, then lets it be answered, or stalls it.

    A burst is stalled only where none behind it was asked about: nobody holds a grant that waits for software.

    Members
    -------
    judged, allowed, illegal, outcome : In(1), In(1), In(1), In(2)
        The head's verdict is known; and allows it; it is illegal; `x86.Outcome`.
    alone : In(1)
        None behind it was asked about.
    mode, timeout, retry, abort : In
        As in `BridgeControlLayout`.
    good : Out(1)
        The head is allowed.
    reports : Out(1), kind : Out(2), stalls : Out(1)
        A record is to be queued; `FaultKind`; the burst will be stalled.
    reported, room : In(1)
        It is queued, or lost where there is no room; there is.
    failed : Out(1)
        The head is to be answered SLVERR.
    passes : In(1)
        The head was answered.
    again : Out(1)
        It is to be asked about anew.
    stalled, times_out : Out(1)
        It waits for software; it has waited too long.

    Attributes
    ----------
    state : Signal
        `FaultState`; proofs look at it.
    """

    def __init__(self) -> None:
        single = ("judged", "allowed", "illegal", "alone", "retry", "abort", "reported", "room", "passes")
        told = ("good", "reports", "stalls", "failed", "again", "stalled", "times_out")
        self.state = Signal(FaultState)
        super().__init__(
            {
                **dict.fromkeys(single, In(1)),
                "outcome": In(x86.Outcome),
                "mode": In(FaultMode),
                "timeout": In(unsigned(32)),
                **dict.fromkeys(told, Out(1)),
                "kind": Out(FaultKind),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state = self.state
        coming, due = Signal(32, reset_less=True), Signal()  # cycles that it will have waited in the next; enough
        m.d.comb += [
            self.good.eq(self.allowed),
            self.reports.eq(self.judged & ~self.allowed & (state == FaultState.WATCH)),
            self.kind.eq(Mux(self.illegal, FaultKind.ILLEGAL, self.outcome)),
            self.stalls.eq(
                (self.mode == FaultMode.STALL) & (self.kind == FaultKind.PAGE_FAULT) & self.alone & self.room
            ),
            self.stalled.eq((state & FaultState.STALLED).any()),
            self.failed.eq((state & FaultState.FAILED).any()),
            self.again.eq(self.stalled & self.retry & ~self.abort & ~self.times_out),
            self.times_out.eq(self.stalled & due),
        ]
        with m.Switch(state):
            with m.Case(FaultState.WATCH):
                m.d.sync += [coming.eq(2), due.eq(self.timeout == 1)]
                with m.If(self.reports & self.reported):
                    m.d.sync += state.eq(Mux(self.stalls, FaultState.STALLED, FaultState.FAILED))
            with m.Case(FaultState.STALLED):
                m.d.sync += [coming.eq(coming + 1), due.eq((coming == self.timeout) & (self.timeout != 0))]
                with m.If(self.abort | self.times_out):
                    m.d.sync += state.eq(FaultState.FAILED)
                with m.Elif(self.retry):
                    m.d.sync += state.eq(FaultState.WATCH)
            with m.Case(FaultState.FAILED):
                with m.If(self.passes):
                    m.d.sync += state.eq(FaultState.WATCH)
        return m
