"""What a unit with registers is made of: its parameters, and what its registers say of them."""

from dataclasses import dataclass, field, replace

from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bus.atomic import AtomicPortConfig
from ptewalk.rtl.bus.exclusive import ExclusivePortConfig
from ptewalk.rtl.bus.lines import LinePortConfig
from ptewalk.rtl.bus.monitor import MonitorConfig
from ptewalk.rtl.bus.on_axi import check_atomic, word_port_config
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.on_axi import AxiEngineConfig
from ptewalk.rtl.engine.table_engine import EngineConfig

__all__ = ["MemoryPath", "UnitConfig", "built_values"]


@dataclass(frozen=True)
class MemoryPath:
    """What the registers say of the way to memory: see CAPS and PARAM1."""

    data_bits: int = 64
    line_bytes: int = 8
    exclusive_ids: int = 0
    monitor: bool = False
    selftest: bool = False
    atomic: bool = False
    soft_reset: bool = False


@dataclass(frozen=True)
class UnitConfig:
    """Parameters of a `Unit`.

    Parameters
    ----------
    mmu : CachingMmuConfig
        With a bridge its tags and physical addresses are as wide as that needs them, and it grants reads. Its log's
        records go to the tables' bus.
    bridge : BridgeConfig or None
        With a translating bridge; None (default): without.
    queue_depth : int
        Commands that may wait, 2 to 16; default 4.
    table_bits : int
        Data bits of the tables' bus: 64 (default), 128, 256 or 512.
    link, prot
        As in `ExclusivePortConfig`.
    monitor : bool
        As in `AxiMmuConfig`.
    table_atomic : bool
        As `atomic` of `AxiMmuConfig`, on the tables' bus; there is no self-test then.
    engine : EngineConfig or None
        With a table engine, whose lines go to the tables' bus too: its physical_bits are the MMU's, its data_bits
        `table_bits`; only with one walker. None (default): without.
    rings : bool
        The engine takes commands from a ring in memory; default False.
    """

    mmu: CachingMmuConfig = field(default_factory=CachingMmuConfig)
    bridge: BridgeConfig | None = None
    queue_depth: int = 4
    table_bits: int = 64
    link: bool = True
    prot: int = 0b001
    monitor: bool = False
    table_atomic: bool = False
    engine: EngineConfig | None = None
    rings: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.mmu, CachingMmuConfig):
            raise ValueError(f"mmu must be a CachingMmuConfig, not {self.mmu!r}")
        if self.bridge is not None and not isinstance(self.bridge, BridgeConfig):
            raise ValueError(f"bridge must be a BridgeConfig or None, not {self.bridge!r}")
        if not isinstance(self.queue_depth, int) or not 2 <= self.queue_depth <= 16:
            raise ValueError(f"queue_depth must be an integer from 2 to 16, not {self.queue_depth!r}")
        if not isinstance(self.monitor, bool):
            raise ValueError(f"monitor must be True or False, not {self.monitor!r}")
        check_atomic("table_atomic", self.table_atomic, monitor=self.monitor)
        _ = (self.port, self.inner)
        if not isinstance(self.rings, bool):
            raise ValueError(f"rings must be True or False, not {self.rings!r}")
        if self.rings and self.engine is None:
            raise ValueError("rings must be False without an engine")
        if self.engine is not None:
            self._check_engine(self.engine)

    def _check_engine(self, engine: EngineConfig) -> None:
        if not isinstance(engine, EngineConfig):
            raise ValueError(f"engine must be an EngineConfig or None, not {engine!r}")
        if self.table_atomic:
            raise ValueError("table_atomic must be False where a unit has an engine, whose lines are exclusive")
        if self.mmu.walkers > 1:
            raise ValueError(f"walkers must be 1 where a unit has an engine, not {self.mmu.walkers}")
        for name, wanted in (("physical_bits", self.inner.walker.physical_bits), ("data_bits", self.table_bits)):
            if getattr(engine, name) != wanted:
                raise ValueError(f"{name} of the engine must be the unit's, {wanted}, not {getattr(engine, name)}")
        _ = self.line_port
        if self.monitor:
            _ = self.reservations

    @property
    def line_port(self) -> LinePortConfig | None:
        """The parameters of the engine's port; ValueError where they are not allowed."""
        return AxiEngineConfig(self.engine, prot=self.prot).port if self.engine else None

    @property
    def table_id_bits(self) -> int:
        """Width of the IDs of tables: with an engine those of its lines come first, then the walker's."""
        return (self.line_port.tags + 1).bit_length() if self.line_port else self.port.id_bits

    @property
    def record_id(self) -> int | None:
        """The ID of a log's records, on the tables' bus: the first that has another use neither there nor in tests."""
        if self.mmu.log is None:
            return None
        return self.line_port.tags + 2 if self.line_port else 1 << self.port.id_bits

    @property
    def record_id_bits(self) -> int:
        """Width of the IDs of tables and of the log's records."""
        return max(self.table_id_bits, (self.record_id or 0).bit_length())

    @property
    def ring_id(self) -> int | None:
        """The ID of rings, on the tables' bus: after that of the log's records."""
        return self.line_port.tags + 3 if self.rings and self.line_port else None

    @property
    def id_bits(self) -> int:
        """Width of the IDs of the tables' bus."""
        return max(self.record_id_bits, (self.ring_id or 0).bit_length())

    @property
    def reservations(self) -> MonitorConfig:
        """The parameters of the monitor; ValueError where they are not allowed."""
        return MonitorConfig(
            address_bits=self.port.physical_bits,
            data_bits=self.table_bits,
            id_bits=self.id_bits,
            reservations=self.line_port.tags + 2 if self.line_port else self.port.ids,
        )

    @property
    def reserving(self) -> tuple[int, ...]:
        """The IDs that reserve, on the tables' bus: with an engine the walker's first, then those of its lines."""
        if self.line_port is None:
            return tuple(range(self.port.ids))
        return (self.line_port.tags + 1, *range(self.line_port.tags))

    @property
    def inner(self) -> CachingMmuConfig:
        """The MMU, as the bridge needs it."""
        if self.bridge is None:
            return self.mmu
        tags, bits = self.bridge.tag_bits + 1, self.bridge.physical_bits
        walker = replace(self.mmu.walker, tag_bits=tags, physical_bits=bits)
        return replace(self.mmu, walker=walker, read_grants=True)

    @property
    def port(self) -> ExclusivePortConfig | AtomicPortConfig:
        """The parameters of the memory port, with an ID for each walker; ValueError where they are not allowed."""
        return word_port_config(
            atomic=self.table_atomic,
            physical_bits=self.inner.walker.physical_bits,
            data_bits=self.table_bits,
            ids=None,
            link=self.link,
            prot=self.prot,
            walkers=self.mmu.walkers,
        )

    @property
    def built(self) -> dict[tuple[str, str], int]:
        """(register, field) to what it says, of each that says what was built."""
        parts = {"bridge": self.bridge is not None, "rings": self.rings}
        return built_values(self.inner, self.queue_depth, self.path, engine=self.engine, **parts)

    @property
    def path(self) -> MemoryPath:
        """The way to memory."""
        port = self.port
        if isinstance(port, AtomicPortConfig):
            return MemoryPath(data_bits=self.table_bits, atomic=True, soft_reset=True)
        ids, line_bytes = port.exclusive_ids, 8
        if self.engine is not None and self.line_port is not None:
            ids, line_bytes = ids + self.line_port.tags, self.engine.line_bytes
        return MemoryPath(
            self.table_bits, line_bytes, exclusive_ids=ids, monitor=self.monitor, selftest=True, soft_reset=True
        )


def built_values(
    mmu: CachingMmuConfig,
    queue_depth: int,
    path: MemoryPath,
    *,
    bridge: bool = False,
    engine: EngineConfig | None = None,
    rings: bool = False,
) -> dict[tuple[str, str], int]:
    """(register, field) to what it says, of each that says what was built."""
    walker = mmu.walker
    said = {
        "CAPS": {
            "soft_dirty": walker.soft_dirty,
            "exclusive": path.exclusive_ids > 0,
            "monitor": path.monitor,
            "bridge": bridge,
            "selftest": path.selftest,
            "atomic": path.atomic,
            "engine": engine is not None,
            "rings": int(rings),
            "bitmaps": int(engine is not None),
            "written": int(engine is not None),
            "lists": int(engine is not None and engine.lists),
            "log": int(mmu.log is not None),
            "soft_reset": path.soft_reset,
        },
        "PARAM0": {
            "physical_bits": walker.physical_bits,
            "levels": walker.levels,
            "tag_bits": walker.tag_bits,
            "gigabyte_pages": walker.gigabyte_pages,
            "walkers": mmu.walkers,
        },
        "PARAM1": {"data_bits": path.data_bits, "line_bytes": path.line_bytes, "exclusive_ids": path.exclusive_ids},
        "PARAM2": {
            "small_entries": mmu.small_sets * mmu.small_ways,
            "large_entries": mmu.large_sets * mmu.large_ways,
        },
        "PARAM3": {"fault_depth": mmu.fault_depth, "queue_depth": queue_depth, "slots": mmu.slots},
        "TABLE_BUILT": {
            "engine_lines": engine.lines if engine else 0,
            "engine_line_bytes": engine.line_bytes if engine else 0,
        },
    }
    return {(register, name): int(value) for register, fields in said.items() for name, value in fields.items()}
