"""The MMU's top: walker and fault unit, with the counters that reports quote."""

from dataclasses import dataclass, field

from amaranth.hdl import Module, unsigned
from amaranth.lib.wiring import Component, Out, connect, flipped

from ptewalk.rtl.entry import marks_and_mends
from ptewalk.rtl.fault_unit import FaultUnit, check_parameters
from ptewalk.rtl.walker import Walker, WalkerConfig

__all__ = ["Mmu", "MmuConfig"]

COUNTER_BITS = 32


@dataclass(frozen=True)
class MmuConfig:
    """Parameters of an MMU.

    Parameters
    ----------
    walker : WalkerConfig
        Its tag_bits are at most 10.
    fault_depth : int
        Entries of the fault queue, 1 to 1024; default 4.
    """

    walker: WalkerConfig = field(default_factory=WalkerConfig)
    fault_depth: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.walker, WalkerConfig):
            raise ValueError(f"walker must be a WalkerConfig, not {self.walker!r}")
        check_parameters(tag_bits=self.walker.tag_bits, fault_depth=self.fault_depth)


class Mmu(Component):
    """A walker behind a fault unit; its timing is the walker's.

    Parameters
    ----------
    config : MmuConfig

    Members
    -------
    requester, supervisor
        As the fault unit's.
    contexts, memory, o_written, o_walked
        As the walker's.
    o_translation : Out(TranslationLayout)
        As the walker's, beside the response; only with `trace`.
    delivered_faults, lost_faults : Out(32)
        Page faults answered, but for those of probes; those of them whose record is lost.
    marks, mends : Out(32)
        Swaps that turned soft-dirty from 0 to 1; swaps that made an entry writable. Only with `soft_dirty`.
    o_walker, o_fault_unit : Out(WalkerRegisters), Out(FaultUnitRegisters)
        Their registers; only with `observe`.

    Each counter wraps round.
    """

    def __init__(self, config: MmuConfig = MmuConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.walker = Walker(config.walker)
        self.fault_unit = FaultUnit(
            physical_bits=config.walker.physical_bits,
            tag_bits=config.walker.tag_bits,
            fault_depth=config.fault_depth,
            observe=config.walker.observe,
        )
        of_walker, of_unit = self.walker.signature.members, self.fault_unit.signature.members
        members = {name: of_unit[name] for name in ("requester", "supervisor")}
        members |= {name: of_walker[name] for name in ("contexts", "memory", "o_written")}
        if config.walker.trace:
            members |= {name: of_walker[name] for name in ("o_walked", "o_translation")}
        self._counters = ["delivered_faults", "lost_faults"]
        if config.walker.soft_dirty:
            self._counters += ["marks", "mends"]
        members |= {name: Out(unsigned(COUNTER_BITS)) for name in self._counters}
        if config.walker.observe:
            members |= {"o_walker": of_walker["o_registers"], "o_fault_unit": of_unit["o_registers"]}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = self.walker
        m.submodules.fault_unit = unit = self.fault_unit

        connect(m, flipped(self.requester), unit.requester)
        connect(m, flipped(self.supervisor), unit.supervisor)
        connect(m, unit.walker, walker.requester)
        connect(m, flipped(self.contexts), walker.contexts)
        connect(m, walker.memory, flipped(self.memory))
        connect(m, walker.o_written, flipped(self.o_written))
        if self.config.walker.trace:
            connect(m, walker.o_walked, flipped(self.o_walked))
            m.d.comb += self.o_translation.eq(walker.o_translation)
        if self.config.walker.observe:
            m.d.comb += [self.o_walker.eq(walker.o_registers), self.o_fault_unit.eq(unit.o_registers)]

        counted = {"delivered_faults": unit.o_delivered, "lost_faults": unit.o_lost}
        if self.config.walker.soft_dirty:
            counted |= marks_and_mends(walker.o_written)
        for name in self._counters:
            counter = getattr(self, name)
            m.d.sync += counter.eq(counter + counted[name])
        return m
