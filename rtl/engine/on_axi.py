"""The table engine with an AXI4 manager for its line port."""

from dataclasses import dataclass, field

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.rtl.bus.axi import AxiSignature
from ptewalk.rtl.bus.lines import LinePort, LinePortConfig, LineStatusLayout
from ptewalk.rtl.bus.monitor import ExclusiveMonitor, MonitorConfig
from ptewalk.rtl.engine.table_engine import OF_INVALIDATIONS, EngineConfig, TableEngine

__all__ = ["AxiEngine", "AxiEngineConfig"]


@dataclass(frozen=True)
class AxiEngineConfig:
    """Parameters of an `AxiEngine`.

    Parameters
    ----------
    engine : EngineConfig
    prot : int
        As in `LinePortConfig`.
    monitor : bool
        True: an `ExclusiveMonitor` with a reservation for each line, and one, stands before the memory, which needs
        none then, and which nobody may write past it. False (default): the bus has one.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    prot: int = 0b001
    monitor: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.engine, EngineConfig):
            raise ValueError(f"engine must be an EngineConfig, not {self.engine!r}")
        if not isinstance(self.monitor, bool):
            raise ValueError(f"monitor must be True or False, not {self.monitor!r}")
        _ = self.port
        if self.monitor:
            _ = self.reservations

    @property
    def port(self) -> LinePortConfig:
        """The parameters of the line port; ValueError where they are not allowed."""
        engine = self.engine
        return LinePortConfig(
            physical_bits=engine.physical_bits,
            data_bits=engine.data_bits,
            line_bytes=engine.line_bytes,
            tags=engine.lines + 1,
            prot=self.prot,
        )

    @property
    def reservations(self) -> MonitorConfig:
        """The parameters of the monitor; ValueError where they are not allowed."""
        bits = self.port
        return MonitorConfig(
            address_bits=bits.physical_bits, data_bits=bits.data_bits, id_bits=bits.id_bits, reservations=bits.tags
        )


class AxiEngine(Component):
    """A `TableEngine`, and a `LinePort` in the place of its line port.

    Parameters
    ----------
    config : AxiEngineConfig

    Members
    -------
    `commands`, `completions` and `abort` of the engine, and `m_axi`, `status` and `clear` of the line port.
    """

    def __init__(self, config: AxiEngineConfig = AxiEngineConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self._engine, self._port = TableEngine(config.engine), LinePort(config.port)
        bits = config.port
        left_out = ("port", *OF_INVALIDATIONS)
        members = {name: member for name, member in self._engine.signature.members.items() if name not in left_out}
        axi = AxiSignature(address_bits=bits.physical_bits, data_bits=bits.data_bits, id_bits=bits.id_bits)
        members |= {"m_axi": Out(axi), "status": Out(LineStatusLayout()), "clear": In(LineStatusLayout())}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = self._engine
        m.submodules.port = port = self._port
        connect(m, engine.port, port.lines)
        connect(m, flipped(self.commands), engine.commands)
        connect(m, engine.completions, flipped(self.completions))
        m.d.comb += [engine.abort.eq(self.abort), self.status.eq(port.status), port.clear.eq(self.clear)]
        axi = port.m_axi
        if self.config.monitor:
            m.submodules.monitor = monitor = ExclusiveMonitor(self.config.reservations)
            connect(m, axi, monitor.s_axi)
            axi = monitor.m_axi
        connect(m, axi, flipped(self.m_axi))
        return m
