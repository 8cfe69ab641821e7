"""An MMU and a table engine on one AXI4 manager."""

from dataclasses import dataclass, field

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, Flow, In, Out, connect, flipped

from ptewalk.rtl.bus.axi import AxiSignature
from ptewalk.rtl.bus.exclusive import ExclusivePort, ExclusivePortConfig
from ptewalk.rtl.bus.join import AxiJoin
from ptewalk.rtl.bus.lines import LinePort, LinePortConfig, LineStatusLayout
from ptewalk.rtl.bus.monitor import ExclusiveMonitor, MonitorConfig
from ptewalk.rtl.bus.slots import PortStatusLayout
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.engine.beside import EngineBeside
from ptewalk.rtl.engine.on_axi import AxiEngineConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.log.on_axi import RecordPort

__all__ = ["MmuEngine", "MmuEngineConfig"]


@dataclass(frozen=True)
class MmuEngineConfig:
    """Parameters of an `MmuEngine`.

    Parameters
    ----------
    mmu : CachingMmuConfig
        With one walker. Its log's records go to the same bus.
    engine : EngineConfig
        Its physical_bits are the walker's.
    prot : int
        As in `LinePortConfig`.
    monitor : bool
        True: an `ExclusiveMonitor` with a reservation for the walker, each line and upper tables stands before the
        memory, which needs none then, and which nobody may write past it. False (default): the bus has one.
    """

    mmu: CachingMmuConfig = field(default_factory=CachingMmuConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    prot: int = 0b001
    monitor: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mmu, CachingMmuConfig) or self.mmu.walkers > 1:
            raise ValueError(f"mmu must be a CachingMmuConfig with one walker, not {self.mmu!r}")
        if not isinstance(self.engine, EngineConfig):
            raise ValueError(f"engine must be an EngineConfig, not {self.engine!r}")
        if self.engine.physical_bits != self.mmu.walker.physical_bits:
            bits, wanted = self.engine.physical_bits, self.mmu.walker.physical_bits
            raise ValueError(f"physical_bits of the engine must be the walker's, {wanted}, not {bits}")
        if not isinstance(self.monitor, bool):
            raise ValueError(f"monitor must be True or False, not {self.monitor!r}")
        _ = (self.walker_port, self.line_port)
        if self.monitor:
            _ = self.reservations

    @property
    def walker_port(self) -> ExclusivePortConfig:
        """The parameters of the walker's port; ValueError where they are not allowed."""
        bits = self.engine
        return ExclusivePortConfig(physical_bits=bits.physical_bits, data_bits=bits.data_bits, prot=self.prot)

    @property
    def line_port(self) -> LinePortConfig:
        """The parameters of the engine's port; ValueError where they are not allowed."""
        return AxiEngineConfig(self.engine, prot=self.prot).port

    @property
    def reservations(self) -> MonitorConfig:
        """The parameters of the monitor; ValueError where they are not allowed."""
        bits = self.engine
        return MonitorConfig(
            address_bits=bits.physical_bits,
            data_bits=bits.data_bits,
            id_bits=self.id_bits,
            reservations=self.line_port.tags + 2,
        )

    @property
    def ids(self) -> int:
        """IDs on AXI: a line each, upper tables, reports, the walker, and the records of a log."""
        return self.line_port.tags + 2 + (self.mmu.log is not None)

    @property
    def id_bits(self) -> int:
        """Width of AXI's IDs."""
        return (self.ids - 1).bit_length()


class MmuEngine(Component):
    """A `CachingMmu` and a `TableEngine` whose accesses to tables go through one AXI4 manager. Meaning: docs/engine.md.

    A command that may change entries ends in this order: its swaps; invalidations of what it dealt with; stores that
    were granted before retire; completion. An invalidation that is taken covers the engine as it covers the MMU: see
    `rtl.engine.ending.Invalidations`.

    Parameters
    ----------
    config : MmuEngineConfig

    Members
    -------
    All but `memory` and `records` of the MMU, and
    table_commands : In(stream of MmuCommandLayout), table_completions : Out(stream of CompletionLayout)
    table_abort : In(1)
        As the engine's.
    m_axi : Out(AxiSignature)
    port_status, port_clear, line_status, line_clear
        Of the walker's port and of the engine's.
    """

    def __init__(self, config: MmuEngineConfig = MmuEngineConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.mmu, self.beside = CachingMmu(config.mmu), EngineBeside(config.engine)
        bits = config.engine
        of_mmu = self.mmu.signature.members
        self._passed = [name for name in of_mmu if name not in (*_TO_MEMORY, *_BETWEEN)]
        members = {name: member for name, member in of_mmu.items() if name not in _TO_MEMORY}
        axi = AxiSignature(address_bits=bits.physical_bits, data_bits=bits.data_bits, id_bits=config.id_bits)
        members |= {
            **{name: self.beside.signature.members[name] for name in _OF_ENGINE},
            "m_axi": Out(axi),
            "port_status": Out(PortStatusLayout()),
            "port_clear": In(PortStatusLayout()),
            "line_status": Out(LineStatusLayout()),
            "line_clear": In(LineStatusLayout()),
        }
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.mmu = mmu = self.mmu
        m.submodules.beside = beside = self.beside
        for name in self._passed:
            ours, theirs, member = getattr(self, name), getattr(mmu, name), mmu.signature.members[name]
            if member.is_signature:
                connect(m, flipped(ours), theirs)
            else:
                m.d.comb += ours.eq(theirs) if member.flow is Flow.Out else theirs.eq(ours)
        connect(m, flipped(self.invalidations), beside.software)
        connect(m, beside.invalidations, mmu.invalidations)
        connect(m, mmu.completions, beside.completions)
        connect(m, beside.told, flipped(self.completions))
        connect(m, flipped(self.table_commands), beside.table_commands)
        connect(m, beside.table_completions, flipped(self.table_completions))
        m.d.comb += beside.table_abort.eq(self.table_abort)
        self._memory(m)
        return m

    def _memory(self, m: Module) -> None:
        """The walker's single words and the engine's lines, on one manager."""
        config = self.config
        m.submodules.walker_port = walker = ExclusivePort(config.walker_port)
        m.submodules.line_port = lines = LinePort(config.line_port)
        bits = {"address_bits": config.engine.physical_bits, "data_bits": config.engine.data_bits}
        tags = config.line_port.tags
        m.submodules.join = join = AxiJoin(
            **bits, id_bits=(tags + 1).bit_length(), ids=tags + 1, alone=tags + 1, atomic=False
        )
        connect(m, self.mmu.memory, walker.memory)
        connect(m, self.beside.port, lines.lines)
        connect(m, lines.m_axi, join.s_axi)
        connect(m, walker.m_axi, join.t_axi)
        m.d.comb += [
            *(self.port_status.eq(walker.status), walker.clear.eq(self.port_clear)),
            *(self.line_status.eq(lines.status), lines.clear.eq(self.line_clear)),
        ]
        axi = join.m_axi
        if config.mmu.log is not None:
            id_bits = config.mmu.log.id_bits
            m.submodules.record_port = records = RecordPort(**bits, id_bits=id_bits, prot=config.prot)
            alone = config.ids - 1
            m.submodules.record_join = second = AxiJoin(
                **bits, id_bits=config.id_bits, ids=alone, alone=alone, atomic=False
            )
            connect(m, self.mmu.records, records.records)
            connect(m, axi, second.s_axi)
            connect(m, records.m_axi, second.t_axi)
            axi = second.m_axi
        if config.monitor:
            m.submodules.monitor = monitor = ExclusiveMonitor(config.reservations)
            connect(m, axi, monitor.s_axi)
            axi = monitor.m_axi
        connect(m, axi, flipped(self.m_axi))


_TO_MEMORY = ("memory", "records")
"""Of the MMU: what goes to the bus."""
_BETWEEN = ("invalidations", "completions")
"""Of the MMU: what the engine stands between."""
_OF_ENGINE = ("table_commands", "table_completions", "table_abort")
"""Of what stands beside the MMU: what passes through."""
