"""The registers on AXI4-Lite: storage, and what is told to and asked of the hardware."""

from collections.abc import Callable, Iterator

from amaranth.hdl import Cat, Const, Module, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import Response
from ptewalk.rtl.bus.axi_lite import AxiLiteSignature
from ptewalk.rtl.registers.table import BYTES, WORD_BITS, Access, Field, Register, fields_of

__all__ = ["ADDRESS_BITS", "RegisterFile"]

ADDRESS_BITS = (BYTES - 1).bit_length()
_READ = (Access.RO, Access.W1C)
_TOLD = (Access.WO, Access.W1C, Access.W1S)


class RegisterFile(Component):
    """Registers of a table as an AXI4-Lite subordinate of 32 bits.

    A write is carried out in the cycle after its address and data were taken, and answered in the next; a read is
    answered two cycles after it was taken. One of each is in flight. Bytes whose strobe is 0 keep what is stored, and
    count as 0 where writing 1 does something. What is no register reads as 0 and ignores writes; both are answered
    OKAY.

    Parameters
    ----------
    registers : tuple of Register
    loadable : frozenset of str
        Names of those that the hardware may load; default none.
    clears : bool
        What is stored may begin anew; default False.

    Members
    -------
    bus : In(AxiLiteSignature)
    now : In(layout of {register: {field}})
        What fields that are RO or W1C read as.
    held : Out(layout of {register: {field}})
        What is stored in RW fields.
    told : Out(layout of {register: {field}})
        What was written to WO, W1C and W1S fields, for one cycle; 0 in all others.
    offered : Out(layout of {register})
        Of those that are refusable: the word that a write in this cycle brings, 0 where its strobes are.
    refuse : In(layout of {register})
        Of those: a write in this cycle does nothing, and is answered SLVERR. It may depend on `offered`.
    load : In(1), loaded : In(12), value : In(32)
        The register at the offset `loaded` becomes `value`, also where it is written in this cycle. Only where some may
        be loaded, and only those are.
    zero : In(layout of {register})
        Of those that are zeroed: what is stored becomes 0, also where it is written in this cycle.
    clear : In(1)
        What is stored becomes what it is after a reset, but in registers that are kept; only with `clears`.
    """

    def __init__(
        self, registers: tuple[Register, ...], *, loadable: frozenset[str] = frozenset(), clears: bool = False
    ) -> None:
        self._registers, self._loadable, self._clears = registers, loadable, clears
        self._refusable = [register.name for register in registers if register.refusable]
        zeroed = [register.name for register in registers if register.zeroed]
        super().__init__(
            {
                "bus": In(AxiLiteSignature(address_bits=ADDRESS_BITS)),
                "now": In(_layout(registers, *_READ)),
                "held": Out(_layout(registers, Access.RW), init=_resets(registers)),
                "told": Out(_layout(registers, *_TOLD)),
                "offered": Out(data.StructLayout({name: WORD_BITS for name in self._refusable})),
                "refuse": In(data.StructLayout({name: 1 for name in self._refusable})),
                **({"load": In(1), "loaded": In(ADDRESS_BITS), "value": In(WORD_BITS)} if loadable else {}),
                "zero": In(data.StructLayout({name: 1 for name in zeroed})),
                **({"clear": In(1)} if clears else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._write(m)
        self._read(m)
        return m

    def _write(self, m: Module) -> None:
        bus = self.bus
        working, answered = Signal(), Signal()
        address = Signal(ADDRESS_BITS)
        value, strobes = Signal(WORD_BITS), Signal(WORD_BITS // 8)
        free = ~working & ~answered
        both = Signal()
        m.d.comb += [
            both.eq(bus.aw.valid & bus.w.valid & free),
            *(bus.aw.ready.eq(both), bus.w.ready.eq(both)),
            bus.b.valid.eq(answered),
        ]
        m.d.sync += working.eq(both)
        with m.If(both):
            m.d.sync += [
                address.eq(bus.aw.payload.addr),
                value.eq(bus.w.payload.data),
                strobes.eq(bus.w.payload.strb),
            ]
        bits = Signal(WORD_BITS)  # that are written
        m.d.comb += bits.eq(Cat(strobe.replicate(8) for strobe in strobes))
        m.d.comb += [self.offered[name].eq(value & bits) for name in self._refusable]
        refused = Signal()
        with m.If(working):
            for register in self._at(m, address):
                allowed: Value = Const(1)
                if register.refusable:
                    allowed = ~self.refuse[register.name]
                    m.d.comb += refused.eq(~allowed)
                for field in register.fields:
                    low, high = field.low, field.high + 1
                    if field.access in _TOLD:
                        given = value[low:high] & bits[low:high] & allowed.replicate(field.width)
                        m.d.comb += self.told[register.name][field.name].eq(given)
                    elif field.access is Access.RW:
                        kept = self.held[register.name][field.name]
                        mask = bits[low:high]
                        m.d.sync += kept.eq((value[low:high] & mask) | (kept & ~mask))
            m.d.sync += [answered.eq(1), bus.b.payload.resp.eq(refused.replicate(2) & Response.SLVERR)]
        with m.If(answered & bus.b.ready):
            m.d.sync += answered.eq(0)
        if self._loadable:
            with m.If(self.load):
                for register in self._at(m, self.loaded):
                    if register.name in self._loadable:
                        for _, field in fields_of((register,), Access.RW):
                            kept = self.held[register.name][field.name]
                            m.d.sync += kept.eq(self.value[field.low : field.high + 1])
        for name, _ in self.zero.shape():
            with m.If(self.zero[str(name)]):
                m.d.sync += Value.cast(self.held[str(name)]).eq(0)
        if self._clears:
            with m.If(self.clear):
                for register, field in fields_of(self._registers, Access.RW):
                    if not register.kept:
                        m.d.sync += self.held[register.name][field.name].eq(field.reset or 0)

    def _read(self, m: Module) -> None:
        bus = self.bus
        working, answered = Signal(), Signal()
        address = Signal(ADDRESS_BITS)
        taken = Signal()
        m.d.comb += [
            bus.ar.ready.eq(~working & ~answered),
            taken.eq(bus.ar.valid & bus.ar.ready),
            bus.r.valid.eq(answered),
        ]
        m.d.sync += [working.eq(taken), address.eq(bus.ar.payload.addr)]
        with m.If(working):
            m.d.sync += [bus.r.payload.data.eq(0), answered.eq(1)]
            for register in self._at(m, address):
                m.d.sync += bus.r.payload.data.eq(self._word(register, self._value))
        with m.If(answered & bus.r.ready):
            m.d.sync += answered.eq(0)

    def _at(self, m: Module, address: Signal) -> Iterator[Register]:
        """Each register, in the condition that `address` is its own."""
        with m.Switch(address[2:]):
            for register in self._registers:
                with m.Case(register.offset >> 2):
                    yield register

    def _value(self, register: Register, field: Field) -> Value:
        """What a field reads as."""
        if field.access in _READ:
            return Value.cast(self.now[register.name][field.name])
        if field.access is Access.RW:
            return Value.cast(self.held[register.name][field.name])
        return Const(0, field.width)

    @staticmethod
    def _word(register: Register, value: Callable[[Register, Field], Value]) -> Value:
        parts: list[Value] = []
        free = 0
        for field in register.fields:
            parts += [Const(0, field.low - free)] if field.low > free else []
            parts.append(value(register, field))
            free = field.high + 1
        return Cat(*parts)


def _layout(registers: tuple[Register, ...], *accesses: Access) -> data.StructLayout:
    """Register to the layout of its fields with one of these accesses."""
    found: dict[str, dict[str, object]] = {}
    for register, field in fields_of(registers, *accesses):
        found.setdefault(register.name, {})[field.name] = unsigned(field.width)
    return data.StructLayout({name: data.StructLayout(fields) for name, fields in found.items()})


def _resets(registers: tuple[Register, ...]) -> dict[str, dict[str, int]]:
    """What RW fields hold after a reset."""
    found: dict[str, dict[str, int]] = {}
    for register, field in fields_of(registers, Access.RW):
        found.setdefault(register.name, {})[field.name] = field.reset or 0
    return found
