"""The memory port on AXI5: a swap is one atomic transaction, AtomicCompare [IHI 0022, atomic transactions]."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from ptewalk.rtl.bus.axi import Atomic, Burst
from ptewalk.rtl.bus.slots import Slot, SlotState, WordPort, check_port, port_id_bits, turn

__all__ = ["PATIENCE", "AtomicPort", "AtomicPortConfig"]

PATIENCE = 4096
"""For how many cycles a swap that was answered on B may miss its R before `no_monitor` is raised: a power of two."""


@dataclass(frozen=True)
class AtomicPortConfig:
    """Parameters of an `AtomicPort`.

    Parameters
    ----------
    physical_bits : int
        Of an address, 32 to 52; default 40.
    data_bits : int
        Of AXI's data: 64 (default), 128, 256 or 512.
    ids : int
        AXI IDs, and so accesses in flight: 1 (default), 2 or 4; with several walkers any power of two up to their ids,
        64 with 16 walkers.
    prot : int
        AxPROT of every access; default 0b001, privileged and secure data.
    walkers : int
        Who makes accesses, 1 (default) to 16: as in `MemoryPortSignature`.
    """

    physical_bits: int = 40
    data_bits: int = 64
    ids: int = 1
    prot: int = 0b001
    walkers: int = 1

    def __post_init__(self) -> None:
        check_port(self, "ids", self.ids)

    @property
    def id_bits(self) -> int:
        """Width of AXI's IDs."""
        return max(1, (self.ids - 1).bit_length())

    @property
    def port_id_bits(self) -> int:
        """Width of the memory port's ids."""
        return port_id_bits(self.walkers)


class _AtomicSlot(Slot):
    """The registers of one AXI ID."""

    def __init__(self, number: int, bits: int, id_bits: int) -> None:
        super().__init__(number, bits, id_bits)
        self.found = self.signal(1, "has_r")  # a swap's R came: `value` is what the word was
        self.told = self.signal(1, "has_b")  # its B came


class AtomicPort(WordPort):
    """Reads as single 64-bit transfers, swaps as AtomicCompare of 16 bytes: what must be there, and the new word.

    An id of the port has a slot, which is an AXI ID: the id modulo `ids`. A slot has one access in flight, so that the
    ID of an atomic transaction is nobody else's meanwhile.
    With L for the bus, from AR or from the later of AW and the last W to the later of R and B, a read takes L + 1
    cycles and a swap L + 3, or L + 4 where the bus is 64 bits wide and W has two beats.

    Memory compares: what R says was there is `old`, or nothing was written. An error on R or B is one of the swap,
    and as nobody says whether the word was written, its outcome is unknown: so it is where something on the way does
    not take atomic transactions, and says so. A bus that does not know AWATOP at all answers on B alone, and has
    written both words: `no_monitor` is raised after `PATIENCE` cycles, and the swap stays without an answer.

    A reset while accesses are in flight is one of the bus too: what it answers later would be taken for another's.

    Parameters
    ----------
    config : AtomicPortConfig

    Members
    -------
    memory : In(MemoryPortSignature)
        `error`: SLVERR or DECERR.

    The others are those of `WordPort`; `m_axi` has AWATOP.
    """

    def __init__(self, config: AtomicPortConfig = AtomicPortConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        slots = [_AtomicSlot(number, config.physical_bits, config.port_id_bits) for number in range(config.ids)]
        super().__init__(config, slots, atomic=True)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi, slots = self.m_axi, self.slots
        m.d.comb += [axi.r.ready.eq(1), axi.b.ready.eq(1)]
        self._accept(m)
        self._ask(m, [Const(0)] * len(slots))
        self._write(m, [slot.state == SlotState.WRITE for slot in slots])
        self._answer(m)
        raised = {name: Signal(name=f"raised_{name}") for name in ("no_monitor", "outcome_unknown")}
        self._watch(m, raised["no_monitor"])
        word = self._word(m)
        for number, slot in enumerate(slots):
            found, told = (Signal(name=f"slot{number}_{name}") for name in ("found", "told"))
            m.d.comb += [
                found.eq(axi.r.valid & (axi.r.payload.id == number)),
                told.eq(axi.b.valid & (axi.b.payload.id == number)),
            ]
            with m.If((slot.state == SlotState.DATA) & found):
                self._found(m, slot)
            with m.If(slot.state == SlotState.WRITTEN):
                self._conclude(m, slot, found, told, word, raised["outcome_unknown"])
        self._raise(m, raised)
        return m

    def _accept(self, m: Module) -> None:
        """Takes reads and swaps."""
        for slot, (swapped, read) in zip(self.slots, self._taken(m), strict=True):
            with m.If(slot.state == SlotState.FREE):
                m.d.sync += [slot.found.eq(0), slot.told.eq(0)]
            with m.If(swapped):
                m.d.sync += slot.state.eq(SlotState.WRITE)
            with m.Elif(read):
                m.d.sync += slot.state.eq(SlotState.READ)

    def _write(self, m: Module, wants: list[Value]) -> None:
        """AW and W, a register each: neither waits for the other's ready."""
        aw, w, lanes = self.m_axi.aw, self.m_axi.w, self._lanes
        free, second = Signal(), Signal(64)
        m.d.comb += free.eq((~aw.valid | aw.ready) & (~w.valid | (w.ready & w.payload.last)))
        writer = turn(m, "writer", wants, free)
        with m.If(aw.ready):
            m.d.sync += aw.valid.eq(0)
        with m.If(w.valid & w.ready):
            m.d.sync += w.valid.eq(~w.payload.last)
            if lanes == 1:
                m.d.sync += [w.payload.data.eq(second), w.payload.last.eq(1)]
        if lanes > 1:
            m.d.comb += w.payload.last.eq(1)
        for number, slot in enumerate(self.slots):
            with m.If(wants[number] & free & (writer == number)):
                # The word that must be there stands, or is sent, where the address points to.
                upper = slot.address[3]
                low, high = Mux(upper, slot.new, slot.old), Mux(upper, slot.old, slot.new)
                m.d.sync += [
                    *(aw.valid.eq(1), w.valid.eq(1), slot.state.eq(SlotState.WRITTEN)),
                    *self._address(aw, Const(number), slot.address, 0),
                    *(aw.payload.atop.eq(Atomic.COMPARE), aw.payload.burst.eq(Mux(upper, Burst.WRAP, Burst.INCR))),
                    *self._beats(slot.address, low, high, second),
                ]

    def _beats(self, address: Value, low: Value, high: Value, second: Signal) -> list[Any]:
        """The size of the burst, and its first beat."""
        aw, w, lanes = self.m_axi.aw.payload, self.m_axi.w.payload, self._lanes
        if lanes == 1:
            return [aw.len.eq(1), w.data.eq(low), second.eq(high), w.strb.eq(0xFF), w.last.eq(0)]
        pair = address[4 : 4 + (lanes // 2 - 1).bit_length()]
        return [
            aw.size.eq(4),
            w.data.eq(Cat(low, high).replicate(lanes // 2)),
            w.strb.eq(Const(0xFFFF, lanes * 8) << (pair << 4)),
        ]

    def _conclude(self, m: Module, slot: Any, found: Value, told: Value, word: Value, unknown: Signal) -> None:
        """R and B of a swap, in any order."""
        axi = self.m_axi
        refused = Signal()
        m.d.comb += refused.eq((found & axi.r.payload.resp[1]) | (told & axi.b.payload.resp[1]))
        with m.If(found):
            m.d.sync += [slot.found.eq(1), slot.done.eq((word == slot.old) & ~axi.r.payload.resp[1])]
        with m.If(told):
            m.d.sync += slot.told.eq(1)
        with m.If(refused):
            m.d.sync += slot.error.eq(1)
        with m.If((slot.found | found) & (slot.told | told)):
            m.d.sync += slot.state.eq(SlotState.ANSWER)
            with m.If(slot.error | refused):
                m.d.comb += unknown.eq(1)
                m.d.sync += slot.done.eq(0)
                self._unknown(m, slot)

    def _watch(self, m: Module, silent: Signal) -> None:
        """A swap has its B, and for `PATIENCE` cycles nothing comes on R."""
        misses = Cat((slot.state == SlotState.WRITTEN) & slot.told & ~slot.found for slot in self.slots).any()
        passed = Signal(range(PATIENCE))
        m.d.sync += passed.eq(Mux(misses & ~self.m_axi.r.valid, passed + 1, 0))
        m.d.comb += silent.eq(passed == PATIENCE - 1)
