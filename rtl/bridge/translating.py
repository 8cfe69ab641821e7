"""The bridge with its MMU in it: what an integrator places between a DMA master or core and memory."""

from dataclasses import dataclass, field, replace

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, Flow, connect, flipped

from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.core import Bridge
from ptewalk.rtl.bus.on_axi import AxiMmu, AxiMmuConfig, check_atomic
from ptewalk.rtl.caching_mmu import CachingMmuConfig

__all__ = ["TranslatingBridge", "TranslatingBridgeConfig"]

_RENAMED = {"m_axi": "t_axi", "status": "port_status", "clear": "port_clear"}
"""Members of the MMU on AXI that have another name here."""
_SUPERVISOR = {"drain": "drain", "drained": "drained", "granted": "granted", "status": "mmu_status"}
_SUPERVISOR |= {"clear": "mmu_clear"}
"""What is left of its supervisor: faults are the bridge's."""


@dataclass(frozen=True)
class TranslatingBridgeConfig:
    """Parameters of a `TranslatingBridge`.

    Parameters
    ----------
    mmu : CachingMmuConfig
        Its tags and physical addresses are as wide as the bridge needs them, and it grants reads. Records of its log go
        to the tables' bus.
    bridge : BridgeConfig
    table_bits : int
        Data bits of the tables' bus: 64 (default), 128, 256 or 512.
    monitor : bool
        True: an `ExclusiveMonitor` stands before the tables' memory, and nobody may write to tables past it. False
        (default): that bus has a monitor.
    table_atomic : bool
        As `atomic` of `AxiMmuConfig`, on the tables' bus.
    """

    mmu: CachingMmuConfig = field(default_factory=CachingMmuConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    table_bits: int = 64
    monitor: bool = False
    table_atomic: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mmu, CachingMmuConfig):
            raise ValueError(f"mmu must be a CachingMmuConfig, not {self.mmu!r}")
        if not isinstance(self.bridge, BridgeConfig):
            raise ValueError(f"bridge must be a BridgeConfig, not {self.bridge!r}")
        check_atomic("table_atomic", self.table_atomic, monitor=self.monitor)
        _ = self.axi_mmu

    @property
    def axi_mmu(self) -> AxiMmuConfig:
        """The MMU, as the bridge needs it."""
        bridge = self.bridge
        walker = replace(self.mmu.walker, tag_bits=bridge.tag_bits, physical_bits=bridge.physical_bits)
        mmu = replace(self.mmu, walker=walker, read_grants=True)
        return AxiMmuConfig(mmu, data_bits=self.table_bits, monitor=self.monitor, atomic=self.table_atomic)


class TranslatingBridge(Component):
    """A `Bridge`, and a caching MMU on a bus of its own.

    Parameters
    ----------
    config : TranslatingBridgeConfig

    Members
    -------
    s_axi, m_axi, control, status, faults
        The bridge's.
    t_axi : Out(AxiSignature)
        Reads and exclusive writes, or atomic ones, of table entries; plain writes of a log's records.
    port_status, port_clear, unknown_address
        The memory port's, `status` and `clear` there.
    drain, drained, granted, mmu_status, mmu_clear
        The MMU's supervisor's.

    All else is the MMU's: contexts, invalidations, completions, o_written, counters, with `trace` o_walked, and `log`
    where it has one.
    """

    def __init__(self, config: TranslatingBridgeConfig = TranslatingBridgeConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.mmu = AxiMmu(config.axi_mmu)
        self.bridge = Bridge(replace(config.bridge, read_grants=True))
        inside = self.mmu.signature.members
        members = {name: member for name, member in self.bridge.signature.members.items() if name != "mmu"}
        self._passed = {name: _RENAMED.get(name, name) for name in inside if name not in ("requester", "supervisor")}
        members |= {ours: inside[theirs] for theirs, ours in self._passed.items()}
        supervisor = inside["supervisor"].signature.members
        members |= {ours: supervisor[theirs] for theirs, ours in _SUPERVISOR.items()}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.mmu = mmu = self.mmu
        m.submodules.bridge = bridge = self.bridge
        connect(m, bridge.mmu, mmu.requester)
        for name in ("s_axi", "m_axi", "faults"):
            connect(m, flipped(getattr(self, name)), getattr(bridge, name))
        pairs = [(getattr(self, name), getattr(bridge, name), name) for name in ("control", "status")]
        m.d.comb += mmu.supervisor.faults.ready.eq(1)
        for theirs, ours in _SUPERVISOR.items():
            pairs.append((getattr(self, ours), getattr(mmu.supervisor, theirs), ours))
        for theirs, ours in self._passed.items():
            if self.signature.members[ours].is_signature:
                connect(m, flipped(getattr(self, ours)), getattr(mmu, theirs))
            else:
                pairs.append((getattr(self, ours), getattr(mmu, theirs), ours))
        for mine, inner, name in pairs:
            outward = self.signature.members[name].flow is Flow.Out
            m.d.comb += mine.eq(inner) if outward else inner.eq(mine)
        return m
