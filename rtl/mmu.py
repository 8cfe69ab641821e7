"""The MMU's top: walker and fault unit, with the counters that reports quote."""

from dataclasses import dataclass, field

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, Out, connect, flipped

from ptewalk.model import x86
from ptewalk.rtl.fault_unit import FaultUnit
from ptewalk.rtl.layouts import EntryLayout
from ptewalk.rtl.walker import Walker, WalkerConfig

__all__ = ["Mmu", "MmuConfig"]

COUNTER_BITS = 32


@dataclass(frozen=True)
class MmuConfig:
    """Parameters of an MMU.

    Parameters
    ----------
    walker : WalkerConfig
    fault_depth : int
        Entries of the fault queue, 1 to 1024; default 4.
    """

    walker: WalkerConfig = field(default_factory=WalkerConfig)
    fault_depth: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.walker, WalkerConfig):
            raise ValueError(f"walker must be a WalkerConfig, not {self.walker!r}")
        if not isinstance(self.fault_depth, int) or not 1 <= self.fault_depth <= 1024:
            raise ValueError(f"fault_depth must be an integer from 1 to 1024, not {self.fault_depth!r}")


class Mmu(Component):
    """A walker behind a fault unit; its timing is the walker's.

    Parameters
    ----------
    config : MmuConfig

    Members
    -------
    i_requests, o_responses, o_reads, i_data, o_swaps, i_swapped, root, control, pkru, pkrs, track, saved_dirty, o_trace
        As the walker's.
    o_faults, i_retired, i_drain, o_drained, o_granted
        As the fault unit's.
    marks, mends, delivered_faults : Out(32)
        Swaps that turned soft-dirty from 0 to 1; swaps that made an entry writable; page faults answered. Each wraps
        round; `marks` and `mends` only with `soft_dirty`.
    """

    def __init__(self, config: MmuConfig = MmuConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.walker = Walker(config.walker)
        self.fault_unit = FaultUnit(
            physical_bits=config.walker.physical_bits,
            tag_bits=config.walker.tag_bits,
            fault_depth=config.fault_depth,
        )
        members = dict(self.walker.signature.members.items())
        inside = self.fault_unit.signature.members
        members |= {name: inside[name] for name in ("o_faults", "i_retired", "i_drain", "o_drained", "o_granted")}
        members["delivered_faults"] = Out(unsigned(COUNTER_BITS))
        if config.walker.soft_dirty:
            members |= {"marks": Out(unsigned(COUNTER_BITS)), "mends": Out(unsigned(COUNTER_BITS))}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = self.walker
        m.submodules.fault_unit = unit = self.fault_unit

        connect(m, flipped(self.i_requests), unit.i_requests)
        connect(m, unit.o_requests, walker.i_requests)
        connect(m, walker.o_responses, unit.i_responses)
        connect(m, unit.o_responses, flipped(self.o_responses))
        connect(m, unit.o_faults, flipped(self.o_faults))
        connect(m, flipped(self.i_retired), unit.i_retired)
        for name in ("o_reads", "o_swaps", *(["o_trace"] if self.config.walker.trace else [])):
            connect(m, getattr(walker, name), flipped(getattr(self, name)))
        for name in ("i_data", "i_swapped"):
            connect(m, flipped(getattr(self, name)), getattr(walker, name))
        soft_dirty = self.config.walker.soft_dirty
        for name in ("root", "control", "pkru", "pkrs", *(("track", "saved_dirty") if soft_dirty else ())):
            m.d.comb += getattr(walker, name).eq(getattr(self, name))
        m.d.comb += [
            unit.i_drain.eq(self.i_drain),
            self.o_drained.eq(unit.o_drained),
            self.o_granted.eq(unit.o_granted),
        ]

        answered = self.o_responses.valid & self.o_responses.ready
        with m.If(answered & (self.o_responses.payload.outcome == x86.Outcome.PAGE_FAULT)):
            m.d.sync += self.delivered_faults.eq(self.delivered_faults + 1)
        if soft_dirty:
            marking, mending = Signal(), Signal()
            with m.If(walker.o_swaps.valid & walker.o_swaps.ready):
                old = data.View(EntryLayout(), walker.o_swaps.payload.old)
                new = data.View(EntryLayout(), walker.o_swaps.payload.new)
                m.d.sync += [marking.eq(~old.soft_dirty & new.soft_dirty), mending.eq(~old.rw & new.rw)]
            with m.If(walker.i_swapped.valid & walker.i_swapped.payload.done & ~walker.i_swapped.payload.error):
                m.d.sync += [self.marks.eq(self.marks + marking), self.mends.eq(self.mends + mending)]
        return m
