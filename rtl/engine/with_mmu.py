"""An MMU and a table engine on one AXI4 manager."""

from dataclasses import dataclass, field

from amaranth.hdl import Module, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, Flow, In, Out, connect, flipped

from ptewalk.model import x86
from ptewalk.rtl.bus.axi import AxiSignature
from ptewalk.rtl.bus.exclusive import ExclusivePort, ExclusivePortConfig
from ptewalk.rtl.bus.join import AxiJoin
from ptewalk.rtl.bus.lines import LinePort, LinePortConfig, LineStatusLayout
from ptewalk.rtl.bus.monitor import ExclusiveMonitor, MonitorConfig
from ptewalk.rtl.bus.slots import PortStatusLayout
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.engine.ending import Ending, Invalidations
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.on_axi import AxiEngineConfig
from ptewalk.rtl.engine.table_engine import CommandLayout, CompletionLayout, EngineConfig, TableEngine
from ptewalk.rtl.log.on_axi import RecordPort

__all__ = ["MmuCommandLayout", "MmuEngine", "MmuEngineConfig"]


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


class MmuCommandLayout(data.StructLayout):
    """A command of the engine, and whose translations it makes stale.

    Members
    -------
    Those of `CommandLayout`, and
    pcid : unsigned(12)
        Of the address space; a list's, too: that in `list` does not count.
    """

    def __init__(self, physical_bits: int, *, lists: bool = False) -> None:
        fields = {str(name): field.shape for name, field in CommandLayout(physical_bits, lists=lists)}
        super().__init__({**fields, "pcid": unsigned(x86.PCID_BITS)})


class MmuEngine(Component):
    """A `CachingMmu` and a `TableEngine` whose accesses to tables go through one AXI4 manager. Meaning: docs/engine.md.

    A command that may change entries ends in this order: its swaps; invalidations of what it dealt with; stores that
    were granted before retire; completion. An invalidation that is taken covers the engine as it covers the MMU: see
    `Invalidations`.

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
        self.mmu, self.engine = CachingMmu(config.mmu), TableEngine(config.engine)
        self.invalidating = Invalidations()
        bits = config.engine
        of_mmu = self.mmu.signature.members
        self._passed = [name for name in of_mmu if name not in (*_TO_MEMORY, *_BETWEEN)]
        members = {name: member for name, member in of_mmu.items() if name not in _TO_MEMORY}
        axi = AxiSignature(address_bits=bits.physical_bits, data_bits=bits.data_bits, id_bits=config.id_bits)
        members |= {
            "table_commands": In(stream.Signature(MmuCommandLayout(bits.physical_bits, lists=bits.lists))),
            "table_completions": Out(stream.Signature(CompletionLayout(lists=bits.lists))),
            "table_abort": In(1),
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
        m.submodules.engine = engine = self.engine
        m.submodules.invalidating = invalidating = self.invalidating
        for name in self._passed:
            ours, theirs, member = getattr(self, name), getattr(mmu, name), mmu.signature.members[name]
            if member.is_signature:
                connect(m, flipped(ours), theirs)
            else:
                m.d.comb += ours.eq(theirs) if member.flow is Flow.Out else theirs.eq(ours)
        connect(m, flipped(self.invalidations), invalidating.software)
        connect(m, invalidating.invalidations, mmu.invalidations)
        m.d.comb += [
            invalidating.completions.valid.eq(mmu.completions.valid),
            self.completions.valid.eq(invalidating.told.valid),
            invalidating.completions.payload.eq(mmu.completions.payload),
            self.completions.payload.eq(invalidating.told.payload),
            *(engine.pause.eq(invalidating.pause), engine.abort.eq(self.table_abort)),
            *(invalidating.paused.eq(engine.paused), invalidating.stepped.eq(engine.stepped)),
        ]
        self._end(m)
        self._memory(m)
        return m

    def _end(self, m: Module) -> None:
        """Commands go to the engine; of those that may change entries the end comes before the completion."""
        m.submodules.ending = ending = Ending()
        engine, invalidating = self.engine, self.invalidating
        connect(m, ending.invalidations, invalidating.own)
        command, told = self.table_commands.payload, engine.completions
        changes = command.range.changes | command.moves
        span, stopped = ending.span, told.payload.stopped != Stop.DONE
        over = ~told.payload.more
        m.d.comb += [
            *(engine.commands.payload[str(name)].eq(command[str(name)]) for name, _ in engine.commands.payload.shape()),
            engine.commands.valid.eq(self.table_commands.valid),
            self.table_commands.ready.eq(engine.commands.ready),
            ending.drained.eq(invalidating.drained),
            ending.valid.eq(told.valid & changes & over),
            *(span.page.eq(command.range.page), span.la57.eq(command.range.la57), span.pcid.eq(command.pcid)),
            # Where it stopped short, something of the page at which it did may have been written.
            span.pages.eq(told.payload.page - command.range.page + stopped),
            # And behind it lines that were begun may have been moved.
            span.whole.eq(engine.met_leaf | (command.moves & stopped)),
            *(span.shared.eq(engine.met_global), span.reads.eq(command.moves)),
            self.table_completions.payload.eq(told.payload),
            self.table_completions.valid.eq(told.valid & (ending.over | ~(changes & over))),
            told.ready.eq(self.table_completions.ready & self.table_completions.valid),
        ]
        if self.config.engine.lists:
            m.d.comb += engine.commands.payload.list.pcid.eq(command.pcid)
            with m.If(command.lists & ~command.moves):
                # Records name pages anywhere; `page` counts records.
                m.d.comb += [span.pages.eq(told.payload.page + stopped), span.whole.eq(1)]

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
        connect(m, self.engine.port, lines.lines)
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
"""Of the MMU: what does not pass through."""
