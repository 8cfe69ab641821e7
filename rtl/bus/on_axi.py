"""An MMU whose memory port is an AXI4 or AXI5 manager: what an integrator places before an interconnect."""

from dataclasses import dataclass, field

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, Flow, connect, flipped

from ptewalk.rtl.bus.atomic import AtomicPort, AtomicPortConfig
from ptewalk.rtl.bus.exclusive import ExclusivePort, ExclusivePortConfig
from ptewalk.rtl.bus.join import AxiJoin
from ptewalk.rtl.bus.monitor import ExclusiveMonitor, MonitorConfig
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.log.on_axi import RecordPort
from ptewalk.rtl.mmu import Mmu, MmuConfig

__all__ = ["AxiMmu", "AxiMmuConfig", "check_atomic", "word_port", "word_port_config"]


def check_atomic(name: str, atomic: object, *, monitor: bool) -> None:
    """Refuse what is no parameter `name` of a port, and a monitor, which takes no AWATOP; ValueError."""
    if not isinstance(atomic, bool):
        raise ValueError(f"{name} must be True or False, not {atomic!r}")
    if atomic and monitor:
        raise ValueError(f"monitor must be False with {name}: it takes no AWATOP, not True")


def word_port_config(
    *, atomic: bool, physical_bits: int, data_bits: int, ids: int | None, link: bool, prot: int, walkers: int
) -> ExclusivePortConfig | AtomicPortConfig:
    """Parameters of the memory port of so many walkers, each with an ID of its own where `ids` is None; ValueError."""
    count = 1 << (walkers - 1).bit_length() if ids is None else ids
    if atomic:
        return AtomicPortConfig(physical_bits, data_bits, count, prot, walkers)
    return ExclusivePortConfig(physical_bits, data_bits, count, link, prot, walkers)


def word_port(config: ExclusivePortConfig | AtomicPortConfig, *, limited: bool = False) -> ExclusivePort | AtomicPort:
    """The memory port of its parameters; `limited` as in `ExclusivePort`."""
    return AtomicPort(config) if isinstance(config, AtomicPortConfig) else ExclusivePort(config, limited=limited)


@dataclass(frozen=True)
class AxiMmuConfig:
    """Parameters of an `AxiMmu`.

    Parameters
    ----------
    mmu : MmuConfig or CachingMmuConfig
        Its log's records, with one walker, go to the same bus, with ID 1.
    data_bits, link, prot
        As in `ExclusivePortConfig`.
    monitor : bool
        True: an `ExclusiveMonitor` with a reservation for each ID stands before the memory, which needs none then, and
        which nobody may write past it. False (default): the bus has one.
    exclusive_ids : int or None
        As in `ExclusivePortConfig`; None (default): one for each walker, rounded up to a power of two. With fewer,
        walkers share an ID, and one waits for the other.
    atomic : bool
        True: an `AtomicPort`, so that swaps are AXI5's atomic transactions; `exclusive_ids` is its `ids`, and `link`
        does not count. False (default): an `ExclusivePort`.
    """

    mmu: MmuConfig | CachingMmuConfig = field(default_factory=MmuConfig)
    data_bits: int = 64
    link: bool = True
    prot: int = 0b001
    monitor: bool = False
    exclusive_ids: int | None = None
    atomic: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mmu, MmuConfig | CachingMmuConfig):
            raise ValueError(f"mmu must be an MmuConfig or a CachingMmuConfig, not {self.mmu!r}")
        if not isinstance(self.monitor, bool):
            raise ValueError(f"monitor must be True or False, not {self.monitor!r}")
        check_atomic("atomic", self.atomic, monitor=self.monitor)
        if self.port.ids > 1 and self.log is not None:
            ids = self.port.ids
            raise ValueError(f"exclusive_ids must be 1 with a log, whose records have ID 1, not {ids}")

    @property
    def port(self) -> ExclusivePortConfig | AtomicPortConfig:
        """The parameters of the memory port; ValueError where they are not allowed."""
        walkers = self.mmu.walkers if isinstance(self.mmu, CachingMmuConfig) else 1
        return word_port_config(
            atomic=self.atomic,
            physical_bits=self.mmu.walker.physical_bits,
            data_bits=self.data_bits,
            ids=self.exclusive_ids,
            link=self.link,
            prot=self.prot,
            walkers=walkers,
        )

    @property
    def log(self) -> LogConfig | None:
        """The parameters of the dirty log, if there is one."""
        return self.mmu.log if isinstance(self.mmu, CachingMmuConfig) else None


class AxiMmu(Component):
    """An MMU, and an `ExclusivePort` or an `AtomicPort` in the place of its memory port.

    Parameters
    ----------
    config : AxiMmuConfig

    Members
    -------
    All but `memory` and `records` of the MMU, and `m_axi`, `status`, `clear` and `unknown_address` of the port.
    """

    def __init__(self, config: AxiMmuConfig = AxiMmuConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.mmu = Mmu(config.mmu) if isinstance(config.mmu, MmuConfig) else CachingMmu(config.mmu)
        self.port = word_port(config.port)
        of_mmu = self.mmu.signature.members
        members = {name: member for name, member in of_mmu.items() if name not in _TO_MEMORY}
        members |= {name: member for name, member in self.port.signature.members.items() if name != "memory"}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.mmu = mmu = self.mmu
        m.submodules.port = port = self.port
        connect(m, mmu.memory, port.memory)
        for inside in (mmu, port):
            for name, member in inside.signature.members.items():
                if name in (*_TO_MEMORY, "m_axi"):
                    continue
                ours, theirs = getattr(self, name), getattr(inside, name)
                if member.is_signature:
                    connect(m, flipped(ours), theirs)
                elif member.flow is Flow.Out:
                    m.d.comb += ours.eq(theirs)
                else:
                    m.d.comb += theirs.eq(ours)
        axi, bits = port.m_axi, self.config.port
        if self.config.log is not None:
            assert isinstance(mmu, CachingMmu)
            widths = {"address_bits": bits.physical_bits, "data_bits": bits.data_bits}
            m.submodules.record_port = records = RecordPort(**widths, id_bits=self.config.log.id_bits, prot=bits.prot)
            m.submodules.join = join = AxiJoin(
                **widths, id_bits=bits.id_bits, ids=1, alone=1, atomic=self.config.atomic
            )
            connect(m, mmu.records, records.records)
            connect(m, axi, join.s_axi)
            connect(m, records.m_axi, join.t_axi)
            axi = join.m_axi
        if self.config.monitor:
            m.submodules.monitor = monitor = ExclusiveMonitor(
                MonitorConfig(
                    address_bits=bits.physical_bits,
                    data_bits=bits.data_bits,
                    id_bits=bits.id_bits,
                    reservations=bits.ids,
                )
            )
            connect(m, axi, monitor.s_axi)
            axi = monitor.m_axi
        connect(m, axi, flipped(self.m_axi))
        return m


_TO_MEMORY = ("memory", "records")
"""Of the MMU: what goes to the bus."""
