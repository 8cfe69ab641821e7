"""A unit with block RAM and a serial line: all that a board needs."""

from dataclasses import dataclass, field

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from ptewalk.rtl.board.bone import UartBone
from ptewalk.rtl.board.uart import check_divider
from ptewalk.rtl.bus.lock import LockRam, LockRamConfig
from ptewalk.rtl.bus.lock_lines import WORD_BITS, LockLines
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.registers.file import ADDRESS_BITS
from ptewalk.rtl.registers.unit import MemoryPath, UnitCore
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["REGISTERS_AT", "BoardConfig", "BoardUnit"]

REGISTERS_AT = 0x8000_0000
"""Byte address of the registers behind the serial line; RAM begins at 0."""
SLOWEST_WORD = 16
"""Least divider beside an engine: in ten bits a swap of a line, with walks between, and a word are done."""


def _small() -> CachingMmuConfig:
    return CachingMmuConfig(WalkerConfig(levels=4, physical_bits=32, tag_bits=4, trace=False))


@dataclass(frozen=True)
class BoardConfig:
    """Parameters of a `BoardUnit`.

    Parameters
    ----------
    mmu : CachingMmuConfig
        With one walker and without a log; by default of four levels and 32 physical bits.
    words : int
        64-bit words of RAM, a power of two; default 8192: 64 KiB, 16 frames.
    divider : int
        Cycles of a bit of the serial line; default 25, 1 Mbaud at 25 MHz.
    silence : int
        Cycles after which a message that stopped is forgotten; default 2,500,000, 100 ms at 25 MHz.
    engine : EngineConfig or None
        With a table engine, whose physical_bits are the MMU's and whose data_bits are 64; `divider` is then 16 or more,
        since a word of RAM may wait for a line. None (default): without.
    """

    mmu: CachingMmuConfig = field(default_factory=_small)
    words: int = 8192
    divider: int = 25
    silence: int = 2_500_000
    engine: EngineConfig | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.mmu, CachingMmuConfig) or self.mmu.walkers > 1:
            raise ValueError(f"mmu must be a CachingMmuConfig with one walker, not {self.mmu!r}")
        if self.mmu.log is not None:
            raise ValueError("log of the MMU of a board must be None: its block RAM has no port for records")
        check_divider(self.divider)
        if not isinstance(self.silence, int) or self.silence <= 20 * self.divider:
            bits = 20 * self.divider
            raise ValueError(f"silence must be longer than two bytes, {bits} cycles, not {self.silence!r}")
        _ = self.ram
        if self.engine is not None:
            self._check_engine(self.engine)

    def _check_engine(self, engine: EngineConfig) -> None:
        if not isinstance(engine, EngineConfig):
            raise ValueError(f"engine must be an EngineConfig or None, not {engine!r}")
        for name, wanted in (("physical_bits", self.mmu.walker.physical_bits), ("data_bits", WORD_BITS)):
            if getattr(engine, name) != wanted:
                raise ValueError(f"{name} of the engine must be {wanted} here, not {getattr(engine, name)}")
        if engine.lists:
            raise ValueError("lists of the engine of a board must be False: it has no log")
        if self.divider < SLOWEST_WORD:
            raise ValueError(f"divider must be {SLOWEST_WORD} or more beside an engine, not {self.divider}")

    @property
    def ram(self) -> LockRamConfig:
        """The parameters of the RAM; ValueError where they are not allowed."""
        return LockRamConfig(physical_bits=self.mmu.walker.physical_bits, words=self.words, registered=True)


class BoardUnit(Component):
    """A `UnitCore`, a `LockRam` with tables and data, and a `UartBone` that reaches both.

    RAM is at 0, as words of 32 bits, the lower half of a 64-bit word first; registers at `REGISTERS_AT`. What is read
    elsewhere is 0.

    Parameters
    ----------
    config : BoardConfig

    Members
    -------
    rx : In(1), tx : Out(1)
        The serial line.
    irq : Out(1)
        The unit's.
    """

    def __init__(self, config: BoardConfig = BoardConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        engine = config.engine
        path = MemoryPath() if engine is None else MemoryPath(line_bytes=engine.line_bytes)
        self.core = UnitCore(config.mmu, queue_depth=4, path=path, engine=engine)
        self.ram = LockRam(config.ram)
        self.lines = None if engine is None else LockLines(engine)
        self.bone = UartBone(divider=config.divider, silence=config.silence)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "irq": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.ram = ram = self.ram
        m.submodules.bone = bone = self.bone
        connect(m, core.memory, ram.memory)
        m.d.comb += [bone.rx.eq(self.rx), self.tx.eq(bone.tx), self.irq.eq(core.irq)]
        asked, found = bone.bus.asked, bone.bus.value
        address, write = asked.payload.address, asked.payload.write
        sent = Signal()  # it was taken, and is not answered
        registers = Signal()
        m.d.comb += registers.eq(address[31])

        plain = ram.words
        if self.lines is not None:
            m.submodules.lines = lines = self.lines
            connect(m, core.lines, lines.lines)
            connect(m, lines.words, ram.words)
            plain = lines.others
        words, answers = plain.requests, plain.answers
        offers = asked.valid & ~sent
        m.d.comb += [
            words.valid.eq(offers & ~registers),
            words.payload.address.eq(address & ~7),
            words.payload.write.eq(write),
            words.payload.value.eq(asked.payload.value.replicate(2)),
            words.payload.strobes.eq(Mux(address[2], 0xF0, 0x0F)),
        ]
        bus = core.s_axil
        m.d.comb += [
            *(channel.payload.addr.eq(address[:ADDRESS_BITS]) for channel in (bus.aw, bus.ar)),
            *(bus.w.payload.data.eq(asked.payload.value), bus.w.payload.strb.eq(Const(0xF, 4))),
            *(channel.valid.eq(offers & registers & write) for channel in (bus.aw, bus.w)),
            bus.ar.valid.eq(offers & registers & ~write),
            *(bus.b.ready.eq(1), bus.r.ready.eq(1)),
        ]
        accepted = Mux(registers, Mux(write, bus.aw.ready, bus.ar.ready), words.ready)
        with m.If(asked.ready):
            m.d.sync += sent.eq(0)
        with m.Elif(offers & accepted):
            m.d.sync += sent.eq(1)
        with m.If(registers):
            m.d.comb += [found.eq(bus.r.payload.data), asked.ready.eq(sent & Mux(write, bus.b.valid, bus.r.valid))]
        with m.Else():
            value = answers.payload.value
            m.d.comb += [
                found.eq(Mux(answers.payload.error, 0, Mux(address[2], value[32:], value[:32]))),
                asked.ready.eq(sent & answers.valid),
            ]
        return m
