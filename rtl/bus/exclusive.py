"""The memory port on AXI4: a swap is an exclusive read and an exclusive write [IHI 0022, A7.2]."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from ptewalk.rtl.bus.axi import Response
from ptewalk.rtl.bus.slots import Slot, SlotState, WordPort, check_port, port_id_bits, turn

__all__ = ["FAILURES", "REFUSALS", "ExclusivePort", "ExclusivePortConfig"]

REFUSALS = 16
"""How often an exclusive read that was refused is tried again for one swap."""
FAILURES = 64
"""How many exclusive writes of one swap may fail."""


@dataclass(frozen=True)
class ExclusivePortConfig:
    """Parameters of an `ExclusivePort`.

    Parameters
    ----------
    physical_bits : int
        Of an address, 32 to 52; default 40.
    data_bits : int
        Of AXI's data: 64 (default), 128, 256 or 512.
    exclusive_ids : int
        AXI IDs, and so accesses in flight and reservations: 1 (default), 2 or 4; with several walkers any power of two
        up to their ids, 64 with 16 walkers.
    link : bool
        True (default): every read is exclusive, and a swap of what was read last is an exclusive write alone.
    prot : int
        AxPROT of every access; default 0b001, privileged and secure data.
    walkers : int
        Who makes accesses, 1 (default) to 16: as in `MemoryPortSignature`.
    """

    physical_bits: int = 40
    data_bits: int = 64
    exclusive_ids: int = 1
    link: bool = True
    prot: int = 0b001
    walkers: int = 1

    def __post_init__(self) -> None:
        check_port(self, "exclusive_ids", self.exclusive_ids)
        if not isinstance(self.link, bool):
            raise ValueError(f"link must be True or False, not {self.link!r}")

    @property
    def id_bits(self) -> int:
        """Width of AXI's IDs."""
        return max(1, (self.exclusive_ids - 1).bit_length())

    @property
    def port_id_bits(self) -> int:
        """Width of the memory port's ids."""
        return port_id_bits(self.walkers)

    @property
    def ids(self) -> int:
        """How many AXI IDs there are."""
        return self.exclusive_ids


class _ExclusiveSlot(Slot):
    """The registers of one AXI ID."""

    def __init__(self, number: int, bits: int, id_bits: int) -> None:
        super().__init__(number, bits, id_bits)
        self.link = self.word(bits, "link")  # the address read last
        self.linked = self.signal(1, "linked")  # `value` is of `link`, and reserved as far as is known
        self.fresh = self.signal(1, "fresh")  # `value` was read for this swap
        self.refusals = self.signal(range(REFUSALS + 1), "refusals")
        self.failures = self.signal(range(FAILURES + 1), "failures")
        self.wait = self.signal(4, "wait")


class ExclusivePort(WordPort):
    """Reads and swaps as single 64-bit AXI4 transfers; a read costs one cycle more than the bus takes.

    An id of the port has a slot, which is an AXI ID: the id modulo `exclusive_ids`, so that each of several walkers has
    its own where there are as many. A slot has one access in flight.
    With L for the bus, from AR or from the later of AW and W to the answer, a read takes L + 1 cycles, a swap of what
    its slot read last L + 3, and any other swap 2L + 4.

    A word that is not `old` is not written, reserved or not. A refused exclusive read (OKAY) is tried again, after 0
    to 15 cycles, `REFUSALS` times; a failed exclusive write begins again at the read, from the second on after such a
    wait, until `FAILURES` have failed. Then the swap ends in an error, with nothing written.

    A reset while accesses are in flight is one of the bus too: what it answers later would be taken for another's.

    Parameters
    ----------
    config : ExclusivePortConfig
    limited : bool
        It may be told to use fewer IDs; default False.

    Members
    -------
    limit : In(7)
        So many at most: IDs from the largest power of two that is no more on are not used; 0: all are. Only with
        `limited`.
    memory : In(MemoryPortSignature)
        `error`: SLVERR or DECERR, or a swap that was given up.

    The others are those of `WordPort`.
    """

    def __init__(self, config: ExclusivePortConfig = ExclusivePortConfig(), *, limited: bool = False) -> None:  # noqa: B008 - frozen
        self.config = config
        bits, ids = config.physical_bits, config.port_id_bits
        slots = [_ExclusiveSlot(number, bits, ids) for number in range(config.exclusive_ids)]
        super().__init__(config, slots, limited=limited)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi, slots = self.m_axi, self.slots
        random = Signal(15, init=1)  # x**15 + x**14 + 1
        m.d.sync += random.eq(Cat(random[14] ^ random[13], random))
        m.d.comb += [axi.r.ready.eq(1), axi.b.ready.eq(1)]

        self._accept(m)
        self._ask(m, [Const(1) if self.config.link else slot.swap for slot in slots])
        self._write(m, [(slot.state == SlotState.WRITE) & slot.linked & (slot.value == slot.old) for slot in slots])
        self._answer(m)
        raised = {name: Signal(name=f"raised_{name}") for name in ("no_monitor", "retry_limit", "outcome_unknown")}
        word = self._word(m)
        for number, slot in enumerate(slots):
            mine = Signal(name=f"slot{number}_found")
            written = Signal(name=f"slot{number}_written")
            m.d.comb += [
                mine.eq(axi.r.valid & (axi.r.payload.id == number) & (slot.state == SlotState.DATA)),
                written.eq(axi.b.valid & (axi.b.payload.id == number) & (slot.state == SlotState.WRITTEN)),
            ]
            with m.If(mine & ~slot.swap):
                self._found(m, slot)
            with m.Elif(mine):
                m.d.sync += [slot.state.eq(SlotState.WRITE), slot.fresh.eq(1)]
                with m.If(axi.r.payload.resp[1]):
                    m.d.sync += [slot.state.eq(SlotState.ANSWER), slot.error.eq(1)]
            with m.If(mine):
                m.d.sync += [slot.value.eq(word), slot.link.eq(slot.address)]
                m.d.sync += slot.linked.eq(axi.r.payload.resp == Response.EXOKAY)
            with m.If(slot.state == SlotState.WRITE):
                self._judge(m, slot, raised)
            with m.If(written):
                self._conclude(m, slot, raised)
            with m.If((slot.state == SlotState.WAIT) & (slot.wait == 0)):
                m.d.sync += slot.state.eq(SlotState.READ)
            m.d.sync += slot.wait.eq(Mux(slot.state == SlotState.WAIT, slot.wait - 1, random))
        self._raise(m, raised)
        return m

    def _accept(self, m: Module) -> None:
        """Takes reads and swaps."""
        wanted = self.memory.swaps.payload.address
        for slot, (swapped, read) in zip(self.slots, self._taken(m), strict=True):
            with m.If(slot.state == SlotState.FREE):
                m.d.sync += [slot.refusals.eq(0), slot.failures.eq(0), slot.fresh.eq(0), slot.done.eq(0)]
            with m.If(swapped):
                m.d.sync += slot.state.eq(SlotState.READ)
                with m.If(slot.linked & (slot.link == wanted)):
                    m.d.sync += slot.state.eq(SlotState.WRITE)
            with m.Elif(read):
                m.d.sync += [slot.linked.eq(0), slot.state.eq(SlotState.READ)]

    def _write(self, m: Module, wants: list[Value]) -> None:
        """AW and W, a register each: neither waits for the other's ready."""
        aw, w = self.m_axi.aw, self.m_axi.w
        number, address, word = (
            Signal(shape, name=f"written_{name}", reset_less=True)
            for name, shape in {"id": len(aw.payload.id), "address": len(aw.payload.addr), "word": 64}.items()
        )
        free = Signal()
        m.d.comb += free.eq((~aw.valid | aw.ready) & (~w.valid | w.ready))
        writer = turn(m, "writer", wants, free)
        lanes = self._lanes
        lane = address[3 : 3 + (lanes - 1).bit_length()]
        with m.If(aw.ready):
            m.d.sync += aw.valid.eq(0)
        with m.If(w.ready):
            m.d.sync += w.valid.eq(0)
        m.d.comb += [
            *self._address(aw, number, address, 1),
            w.payload.data.eq(word.replicate(lanes)),
            w.payload.strb.eq(Const(0xFF, lanes * 8) << (lane << 3)),
            w.payload.last.eq(1),
        ]
        for place, slot in enumerate(self.slots):
            with m.If(free & (writer == place)):
                # Whether that is on offer is known later.
                m.d.sync += [number.eq(place), address.eq(slot.address), word.eq(slot.new)]
                with m.If(wants[place]):
                    m.d.sync += [
                        *(aw.valid.eq(1), w.valid.eq(1)),
                        *(slot.state.eq(SlotState.WRITTEN), slot.linked.eq(0)),
                    ]

    def _judge(self, m: Module, slot: _ExclusiveSlot, raised: dict[str, Signal]) -> None:
        """A swap whose word is here: where it is `old` and reserved, `_write` takes it on."""
        with m.If(slot.value != slot.old):
            # Of a link it is the word of before the swap: only one read for it is an answer.
            m.d.sync += slot.state.eq(Mux(slot.fresh, SlotState.ANSWER, SlotState.READ))
        with m.Elif(~slot.linked):
            m.d.sync += [slot.refusals.eq(slot.refusals + 1), slot.state.eq(SlotState.WAIT)]
            with m.If(slot.refusals == REFUSALS):
                m.d.comb += raised["no_monitor"].eq(1)
                m.d.sync += [slot.error.eq(1), slot.state.eq(SlotState.ANSWER)]

    def _conclude(self, m: Module, slot: _ExclusiveSlot, raised: dict[str, Signal]) -> None:
        """B of a swap's exclusive write."""
        response = self.m_axi.b.payload.resp
        m.d.sync += [slot.done.eq(response == Response.EXOKAY), slot.state.eq(SlotState.ANSWER)]
        with m.If(response[1]):
            m.d.sync += slot.error.eq(1)
            m.d.comb += raised["outcome_unknown"].eq(1)
            self._unknown(m, slot)
        with m.Elif(response == Response.OKAY):
            m.d.sync += [slot.failures.eq(slot.failures + 1), slot.state.eq(SlotState.READ)]
            with m.If(slot.failures == FAILURES - 1):
                m.d.comb += raised["retry_limit"].eq(1)
                m.d.sync += [slot.error.eq(1), slot.state.eq(SlotState.ANSWER)]
            with m.Elif(slot.failures >= 1):
                m.d.sync += slot.state.eq(SlotState.WAIT)
