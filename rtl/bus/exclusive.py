"""The memory port on AXI4: a swap is an exclusive read and an exclusive write [IHI 0022, A7.2]."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import AxiSignature, Burst, Response, check_widths
from ptewalk.rtl.interfaces import ID_BITS, MemoryPortSignature

__all__ = ["FAILURES", "REFUSALS", "ExclusivePort", "ExclusivePortConfig", "PortStatusLayout"]

REFUSALS = 16
"""How often an exclusive read that was refused is tried again for one swap."""
FAILURES = 64
"""How many exclusive writes of one swap may fail."""
MOST_WALKERS = 16
"""Of one port: with four ids each, 64."""
CACHE = 0b0010
"""AxCACHE: normal memory, neither cacheable nor bufferable: an answer comes from where the word is [A4.4]."""
WORD = 3
"""AxSIZE of a 64-bit word."""


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
        if not isinstance(self.physical_bits, int) or not 32 <= self.physical_bits <= 52:
            raise ValueError(f"physical_bits must be an integer from 32 to 52, not {self.physical_bits!r}")
        check_widths(address_bits=self.physical_bits, data_bits=self.data_bits)
        if not isinstance(self.walkers, int) or not 1 <= self.walkers <= MOST_WALKERS:
            raise ValueError(f"walkers must be an integer from 1 to {MOST_WALKERS}, not {self.walkers!r}")
        allowed = [1 << bits for bits in range(self.port_id_bits + 1)]
        if not isinstance(self.exclusive_ids, int) or self.exclusive_ids not in allowed:
            known = ", ".join(map(str, allowed[:-1]))
            of = f" with {self.walkers} walkers" if self.walkers > 1 else ""
            raise ValueError(f"exclusive_ids must be {known} or {allowed[-1]}{of}, not {self.exclusive_ids!r}")
        if not isinstance(self.link, bool):
            raise ValueError(f"link must be True or False, not {self.link!r}")
        if not isinstance(self.prot, int) or not 0 <= self.prot <= 7:
            raise ValueError(f"prot must be an integer from 0 to 7, not {self.prot!r}")

    @property
    def id_bits(self) -> int:
        """Width of AXI's IDs."""
        return max(1, (self.exclusive_ids - 1).bit_length())

    @property
    def port_id_bits(self) -> int:
        """Width of the memory port's ids."""
        return ID_BITS + (self.walkers - 1).bit_length()


class PortStatusLayout(data.StructLayout):
    """What went wrong since it was cleared.

    Members
    -------
    no_monitor : 1
        A swap was given up, with nothing written: its exclusive read was refused each time.
    retry_limit : 1
        A swap was given up, with nothing written: its exclusive write failed each time.
    outcome_unknown : 1
        The bus refused a swap's write: whether it was written is not known.
    """

    def __init__(self) -> None:
        super().__init__({"no_monitor": 1, "retry_limit": 1, "outcome_unknown": 1})


class SlotState(IntEnum):
    """What a slot does in a cycle."""

    FREE = 0
    READ = 1
    """Offers AR."""
    DATA = 2
    """Waits for R."""
    COMPARE = 3
    """Compares, and asks for AW and W."""
    WRITTEN = 4
    """Waits for B."""
    WAIT = 5
    """Backs off before it reads again."""
    ANSWER = 6
    """Answers a swap."""


class _Slot:
    """The registers of one AXI ID."""

    def __init__(self, number: int, bits: int, id_bits: int) -> None:
        def signal(shape: Any, name: str) -> Signal:
            return Signal(shape, name=f"slot{number}_{name}")

        self.state = signal(SlotState, "state")
        self.swap = signal(1, "swap")  # it is a swap, not a read
        self.address = signal(bits, "address")
        self.old, self.new = signal(64, "old"), signal(64, "new")
        self.id = signal(id_bits, "id")
        self.value = signal(64, "value")  # as read last
        self.linked = signal(1, "linked")  # `value` is of `address`, and reserved as far as is known
        self.fresh = signal(1, "fresh")  # `value` was read for this swap
        self.refusals = signal(range(REFUSALS + 1), "refusals")
        self.failures = signal(range(FAILURES + 1), "failures")
        self.wait = signal(4, "wait")
        self.done, self.error = signal(1, "done"), signal(1, "error")


class ExclusivePort(Component):
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

    Members
    -------
    memory : In(MemoryPortSignature)
        `error`: SLVERR or DECERR, or a swap that was given up.
    m_axi : Out(AxiSignature)
    status : Out(PortStatusLayout), clear : In(PortStatusLayout)
        Clears the bits of `status` that are 1 here; one that is raised in the same cycle stays.
    unknown_address : Out(physical_bits)
        Of the first swap whose outcome is unknown since that was cleared.
    """

    def __init__(self, config: ExclusivePortConfig = ExclusivePortConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        bits = config.physical_bits
        axi = AxiSignature(address_bits=bits, data_bits=config.data_bits, id_bits=config.id_bits)
        super().__init__(
            {
                "memory": In(MemoryPortSignature(bits, walkers=config.walkers)),
                "m_axi": Out(axi),
                "status": Out(PortStatusLayout()),
                "clear": In(PortStatusLayout()),
                "unknown_address": Out(unsigned(bits)),
            }
        )
        self._slots = [_Slot(number, bits, config.port_id_bits) for number in range(config.exclusive_ids)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi, memory, slots = self.m_axi, self.memory, self._slots
        random = Signal(15, init=1)  # x**15 + x**14 + 1
        m.d.sync += random.eq(Cat(random[14] ^ random[13], random))
        m.d.comb += [axi.r.ready.eq(1), axi.b.ready.eq(1)]

        self._accept(m)
        reader = self._turn(m, "reader", [slot.state == SlotState.READ for slot in slots], axi.ar.valid & axi.ar.ready)
        self._read(m, reader)
        writes = [(slot.state == SlotState.COMPARE) & slot.linked & (slot.value == slot.old) for slot in slots]
        self._write(m, writes)
        answering = self._turn(m, "answering", [slot.state == SlotState.ANSWER for slot in slots], Const(1))

        raised = {name: Signal(name=f"raised_{name}") for name in ("no_monitor", "retry_limit", "outcome_unknown")}
        word = self._word(m)
        for number, slot in enumerate(slots):
            mine = Signal(name=f"slot{number}_found")
            written = Signal(name=f"slot{number}_written")
            m.d.comb += [
                mine.eq(axi.r.valid & (axi.r.payload.id == number) & (slot.state == SlotState.DATA)),
                written.eq(axi.b.valid & (axi.b.payload.id == number) & (slot.state == SlotState.WRITTEN)),
            ]
            refused = axi.r.payload.resp[1]
            with m.If(mine & ~slot.swap):
                m.d.comb += [
                    memory.data.valid.eq(1),
                    memory.data.payload.value.eq(word),
                    memory.data.payload.error.eq(refused),
                    memory.data.payload.id.eq(slot.id),
                ]
                m.d.sync += slot.state.eq(SlotState.FREE)
            with m.Elif(mine):
                m.d.sync += [slot.state.eq(SlotState.COMPARE), slot.fresh.eq(1)]
                with m.If(refused):
                    m.d.sync += [slot.state.eq(SlotState.ANSWER), slot.error.eq(1)]
            with m.If(mine):
                m.d.sync += [slot.value.eq(word), slot.linked.eq(axi.r.payload.resp == Response.EXOKAY)]
            with m.If(slot.state == SlotState.COMPARE):
                self._judge(m, slot, random, raised)
            with m.If(written):
                self._conclude(m, slot, random, raised)
            with m.If((slot.state == SlotState.WAIT) & (slot.wait == 0)):
                m.d.sync += slot.state.eq(SlotState.READ)
            with m.Elif(slot.state == SlotState.WAIT):
                m.d.sync += slot.wait.eq(slot.wait - 1)
            with m.If((slot.state == SlotState.ANSWER) & (answering == number)):
                m.d.comb += [
                    memory.swapped.valid.eq(1),
                    memory.swapped.payload.done.eq(slot.done),
                    memory.swapped.payload.error.eq(slot.error),
                    memory.swapped.payload.id.eq(slot.id),
                ]
                m.d.sync += slot.state.eq(SlotState.FREE)
        for name, event in raised.items():
            m.d.sync += self.status[name].eq(event | (self.status[name] & ~self.clear[name]))
        return m

    def _accept(self, m: Module) -> None:
        """Takes reads and swaps; of one slot's, the swap goes first."""
        reads, swaps = self.memory.reads, self.memory.swaps
        free = Signal(len(self._slots))
        m.d.comb += free.eq(Cat(slot.state == SlotState.FREE for slot in self._slots))
        bits = (self.config.exclusive_ids - 1).bit_length()
        of_read, of_swap = reads.payload.id[:bits], swaps.payload.id[:bits]
        m.d.comb += [
            swaps.ready.eq(free.bit_select(of_swap, 1)),
            reads.ready.eq(free.bit_select(of_read, 1) & ~(swaps.valid & (of_read == of_swap))),
        ]
        for number, slot in enumerate(self._slots):
            with m.If(swaps.valid & swaps.ready & (of_swap == number)):
                wanted = swaps.payload
                m.d.sync += [
                    *(slot.swap.eq(1), slot.address.eq(wanted.address), slot.id.eq(wanted.id)),
                    *(slot.old.eq(wanted.old), slot.new.eq(wanted.new)),
                    *(slot.refusals.eq(0), slot.failures.eq(0), slot.fresh.eq(0), slot.done.eq(0), slot.error.eq(0)),
                    slot.state.eq(SlotState.READ),
                ]
                with m.If(slot.linked & (slot.address == wanted.address)):
                    m.d.sync += slot.state.eq(SlotState.COMPARE)
            with m.Elif(reads.valid & reads.ready & (of_read == number)):
                wanted = reads.payload
                m.d.sync += [
                    *(slot.swap.eq(0), slot.address.eq(wanted.address), slot.id.eq(wanted.id)),
                    *(slot.linked.eq(0), slot.state.eq(SlotState.READ)),
                ]

    def _turn(self, m: Module, name: str, asking: list[Value], served: Value) -> Signal:
        """Whose turn it is: each that asks comes within a round, and nobody is changed for another unserved."""
        count = len(asking)
        turn, last, kept = Signal(range(count), name=name), Signal(range(count), name=f"{name}_last"), Signal()
        wants, after = Signal(count, name=f"{name}_wants"), Signal(count, name=f"{name}_after")
        m.d.comb += [wants.eq(Cat(*asking)), turn.eq(last)]
        m.d.comb += after.eq(Cat(wants[other] & (last < other) for other in range(count)))
        with m.If(~kept):
            for some in (wants, after):  # those after the last go first, and of these the nearest
                for other in reversed(range(count)):
                    with m.If(some[other]):
                        m.d.comb += turn.eq(other)
        m.d.sync += [last.eq(turn), kept.eq(wants.any() & ~served)]
        return turn

    def _address(self, channel: Any, number: Value, address: Value, lock: Value | int) -> list[Any]:
        """The fields of a transfer of AW or AR."""
        payload = channel.payload
        values = {
            "id": number,
            "addr": address,
            "len": 0,
            "size": WORD,
            "burst": Burst.INCR,
            "lock": lock,
            "cache": CACHE,
            "prot": self.config.prot,
            "qos": 0,
        }
        return [payload[name].eq(value) for name, value in values.items()]

    def _read(self, m: Module, reader: Signal) -> None:
        """AR, of the slot `reader`."""
        ar = self.m_axi.ar
        states, swaps = (Array([getattr(slot, name) for slot in self._slots]) for name in ("state", "swap"))
        addresses = Array([slot.address for slot in self._slots])
        m.d.comb += [
            ar.valid.eq(states[reader] == SlotState.READ),
            *self._address(ar, reader, addresses[reader], 1 if self.config.link else swaps[reader]),
        ]
        for number, slot in enumerate(self._slots):
            with m.If(ar.valid & ar.ready & (reader == number)):
                m.d.sync += slot.state.eq(SlotState.DATA)

    def _word(self, m: Module) -> Signal:
        """The 64-bit word of the beat on R."""
        word, found = Signal(64), self.m_axi.r.payload
        lanes = self.config.data_bits // 64
        addresses = Array([slot.address for slot in self._slots])
        bits = (self.config.exclusive_ids - 1).bit_length()
        lane = addresses[found.id[:bits]][3 : 3 + (lanes - 1).bit_length()]
        m.d.comb += word.eq(found.data.word_select(lane, 64))
        return word

    def _write(self, m: Module, wants: list[Value]) -> None:
        """AW and W, a register each: neither waits for the other's ready."""
        aw, w = self.m_axi.aw, self.m_axi.w
        free = Signal()
        m.d.comb += free.eq((~aw.valid | aw.ready) & (~w.valid | w.ready))
        writer = self._turn(m, "writer", wants, free)
        lanes = self.config.data_bits // 64
        with m.If(aw.ready):
            m.d.sync += aw.valid.eq(0)
        with m.If(w.ready):
            m.d.sync += w.valid.eq(0)
        m.d.comb += w.payload.last.eq(1)
        for number, slot in enumerate(self._slots):
            with m.If(wants[number] & free & (writer == number)):
                lane = slot.address[3 : 3 + (lanes - 1).bit_length()]
                m.d.sync += [
                    *(aw.valid.eq(1), w.valid.eq(1)),
                    *self._address(aw, Const(number), slot.address, 1),
                    w.payload.data.eq(slot.new.replicate(lanes)),
                    w.payload.strb.eq(Const(0xFF, lanes * 8) << (lane << 3)),
                    *(slot.state.eq(SlotState.WRITTEN), slot.linked.eq(0)),
                ]

    def _judge(self, m: Module, slot: _Slot, random: Signal, raised: dict[str, Signal]) -> None:
        """A swap whose word is here: where it is `old` and reserved, `_write` takes it on."""
        with m.If(slot.value != slot.old):
            # Of a link it is the word of before the swap: only one read for it is an answer.
            m.d.sync += slot.state.eq(Mux(slot.fresh, SlotState.ANSWER, SlotState.READ))
        with m.Elif(~slot.linked):
            m.d.sync += [slot.refusals.eq(slot.refusals + 1), slot.wait.eq(random), slot.state.eq(SlotState.WAIT)]
            with m.If(slot.refusals == REFUSALS):
                m.d.comb += raised["no_monitor"].eq(1)
                m.d.sync += [slot.error.eq(1), slot.state.eq(SlotState.ANSWER)]

    def _conclude(self, m: Module, slot: _Slot, random: Signal, raised: dict[str, Signal]) -> None:
        """B of a swap's exclusive write."""
        response = self.m_axi.b.payload.resp
        m.d.sync += [slot.done.eq(response == Response.EXOKAY), slot.state.eq(SlotState.ANSWER)]
        with m.If(response[1]):
            m.d.sync += slot.error.eq(1)
            m.d.comb += raised["outcome_unknown"].eq(1)
            with m.If(~self.status.outcome_unknown | self.clear.outcome_unknown):
                m.d.sync += self.unknown_address.eq(slot.address)
        with m.Elif(response == Response.OKAY):
            m.d.sync += [
                *(slot.failures.eq(slot.failures + 1), slot.state.eq(SlotState.READ), slot.wait.eq(random)),
            ]
            with m.If(slot.failures == FAILURES - 1):
                m.d.comb += raised["retry_limit"].eq(1)
                m.d.sync += [slot.error.eq(1), slot.state.eq(SlotState.ANSWER)]
            with m.Elif(slot.failures >= 1):
                m.d.sync += slot.state.eq(SlotState.WAIT)
