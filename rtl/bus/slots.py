"""A memory port of single words on AXI: a slot for each AXI ID, which has one access in flight."""

from enum import IntEnum
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import AxiSignature, Burst, check_widths
from ptewalk.rtl.interfaces import ID_BITS, MemoryPortSignature

__all__ = ["CACHE", "WORD", "PortStatusLayout", "Slot", "SlotState", "WordPort", "check_port", "port_id_bits", "turn"]

MOST_WALKERS = 16
"""Of one port: with four ids each, 64."""
CACHE = 0b0010
"""AxCACHE: normal memory, neither cacheable nor bufferable: an answer comes from where the word is [A4.4]."""
WORD = 3
"""AxSIZE of a 64-bit word."""


def port_id_bits(walkers: int) -> int:
    """Width of the memory port's ids."""
    return ID_BITS + (walkers - 1).bit_length()


def check_port(config: Any, name: str, ids: int) -> None:
    """Refuse parameters that no port of single words takes; `name` is that of the number of AXI IDs.

    Raises
    ------
    ValueError
    """
    if not isinstance(config.physical_bits, int) or not 32 <= config.physical_bits <= 52:
        raise ValueError(f"physical_bits must be an integer from 32 to 52, not {config.physical_bits!r}")
    check_widths(address_bits=config.physical_bits, data_bits=config.data_bits)
    if not isinstance(config.walkers, int) or not 1 <= config.walkers <= MOST_WALKERS:
        raise ValueError(f"walkers must be an integer from 1 to {MOST_WALKERS}, not {config.walkers!r}")
    allowed = [1 << bits for bits in range(port_id_bits(config.walkers) + 1)]
    if not isinstance(ids, int) or ids not in allowed:
        known = ", ".join(map(str, allowed[:-1]))
        of = f" with {config.walkers} walkers" if config.walkers > 1 else ""
        raise ValueError(f"{name} must be {known} or {allowed[-1]}{of}, not {ids!r}")
    if not isinstance(config.prot, int) or not 0 <= config.prot <= 7:
        raise ValueError(f"prot must be an integer from 0 to 7, not {config.prot!r}")


class PortStatusLayout(data.StructLayout):
    """What went wrong since it was cleared.

    Members
    -------
    no_monitor : 1
        A swap was given up, with nothing written: its exclusive read was refused each time. Of an `AtomicPort`: a bus
        without atomic transactions, see there.
    retry_limit : 1
        A swap was given up, with nothing written: its exclusive write failed each time. Never of an `AtomicPort`.
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
    WRITE = 3
    """Asks for AW and W; of an `ExclusivePort` where the word is as it must be."""
    WRITTEN = 4
    """Waits for B, and of an atomic transaction for R too."""
    WAIT = 5
    """Backs off before it reads again."""
    ANSWER = 6
    """Answers a swap."""


class Slot:
    """The registers of one AXI ID.

    While it is free it keeps what is on offer, whether that is taken or not: who offers knows late whether it does.

    Parameters
    ----------
    number, bits, id_bits : int
        The ID; widths of an address and of the port's ids.
    """

    def __init__(self, number: int, bits: int, id_bits: int) -> None:
        self._number = number
        self.state = self.signal(SlotState, "state")
        self.swap = self.signal(1, "swap")  # it is a swap, not a read
        self.addresses = [self.word(bits, f"{kind}_address") for kind in ("read", "swap")]
        self.ids = [self.word(id_bits, f"{kind}_id") for kind in ("read", "swap")]
        self.address, self.id = (Mux(self.swap, pair[1], pair[0]) for pair in (self.addresses, self.ids))
        self.old, self.new = self.word(64, "old"), self.word(64, "new")
        self.value = self.word(64, "value")  # as read last
        self.done, self.error = self.signal(1, "done"), self.signal(1, "error")

    def signal(self, shape: Any, name: str) -> Signal:
        """A register of this slot."""
        return Signal(shape, name=f"slot{self._number}_{name}")

    def word(self, bits: int, name: str) -> Signal:
        """A wide register of this slot, which counts in some states only: it takes no reset."""
        return Signal(bits, name=f"slot{self._number}_{name}", reset_less=True)


def turn(m: Module, name: str, asking: list[Value], served: Value) -> Signal:
    """Whose turn it is: each that asks comes within a round, and nobody is changed for another unserved."""
    count = len(asking)
    whose, last, kept = Signal(range(count), name=name), Signal(range(count), name=f"{name}_last"), Signal()
    wants, after = Signal(count, name=f"{name}_wants"), Signal(count, name=f"{name}_after")
    m.d.comb += [wants.eq(Cat(*asking)), whose.eq(last)]
    m.d.comb += after.eq(Cat(wants[other] & (last < other) for other in range(count)))
    with m.If(~kept):
        for some in (wants, after):  # those after the last go first, and of these the nearest
            for other in reversed(range(count)):
                with m.If(some[other]):
                    m.d.comb += whose.eq(other)
    m.d.sync += [last.eq(whose), kept.eq(wants.any() & ~served)]
    return whose


class WordPort(Component):
    """What ports of single words have in common.

    Parameters
    ----------
    config : ExclusivePortConfig or AtomicPortConfig
    slots : list of Slot
    atomic : bool
        `m_axi` has AWATOP.

    Members
    -------
    memory : In(MemoryPortSignature)
    m_axi : Out(AxiSignature)
    status : Out(PortStatusLayout), clear : In(PortStatusLayout)
        Clears the bits of `status` that are 1 here; one that is raised in the same cycle stays.
    unknown_address : Out(physical_bits)
        Of the first swap whose outcome is unknown since that was cleared.
    """

    def __init__(self, config: Any, slots: list[Any], *, atomic: bool = False, limited: bool = False) -> None:
        bits = config.physical_bits
        self.slots, self._limited = slots, limited
        self._prot, self._lanes = config.prot, config.data_bits // 64
        axi = AxiSignature(address_bits=bits, data_bits=config.data_bits, id_bits=config.id_bits, atomic=atomic)
        super().__init__(
            {
                "memory": In(MemoryPortSignature(bits, walkers=config.walkers)),
                "m_axi": Out(axi),
                "status": Out(PortStatusLayout()),
                "clear": In(PortStatusLayout()),
                "unknown_address": Out(unsigned(bits)),
                **({"limit": In(unsigned(7))} if limited else {}),
            }
        )

    def _id_bits(self) -> int:
        """Of the number of a slot."""
        return (len(self.slots) - 1).bit_length()

    def _taken(self, m: Module) -> list[tuple[Value, Value]]:
        """(a swap, a read) of each slot is taken in this cycle, and kept: of one slot's, the swap goes first."""
        reads, swaps = self.memory.reads, self.memory.swaps
        free = Signal(len(self.slots))
        m.d.comb += free.eq(Cat(slot.state == SlotState.FREE for slot in self.slots))
        bits = self._id_bits()
        of_read, of_swap = reads.payload.id[:bits], swaps.payload.id[:bits]
        if self._limited:
            used = Signal(bits, name="used")  # bits of a slot's number
            within = Cat((self.limit == 0) | (self.limit >= 2 << bit) for bit in range(bits))
            m.d.sync += used.eq(within)
            of_read, of_swap = of_read & used, of_swap & used
        m.d.comb += [
            swaps.ready.eq(free.bit_select(of_swap, 1)),
            reads.ready.eq(free.bit_select(of_read, 1) & ~(swaps.valid & (of_read == of_swap))),
        ]
        swapped, read = swaps.valid & swaps.ready, reads.valid & reads.ready
        taken = [(swapped & (of_swap == number), read & (of_read == number)) for number in range(len(self.slots))]
        for number, slot in enumerate(self.slots):
            with m.If(free[number]):
                m.d.sync += [
                    *(slot.addresses[kind].eq(one.payload.address) for kind, one in enumerate((reads, swaps))),
                    *(slot.ids[kind].eq(one.payload.id) for kind, one in enumerate((reads, swaps))),
                    *(slot.old.eq(swaps.payload.old), slot.new.eq(swaps.payload.new)),
                    *(slot.swap.eq(taken[number][0]), slot.error.eq(0)),
                ]
        return taken

    def _address(self, channel: Any, number: Value, address: Value, lock: Value | int) -> list[Any]:
        """The fields of a transfer of AW or AR of one word."""
        values = {
            "id": number,
            "addr": address,
            "len": 0,
            "size": WORD,
            "burst": Burst.INCR,
            "lock": lock,
            "cache": CACHE,
            "prot": self._prot,
            "qos": 0,
        }
        return [channel.payload[name].eq(value) for name, value in values.items()]

    def _ask(self, m: Module, lock: list[Value | int]) -> None:
        """AR, of the slots in turn; a bit of `lock` for each."""
        ar, slots = self.m_axi.ar, self.slots
        reading = [slot.state == SlotState.READ for slot in slots]
        reader = turn(m, "reader", reading, ar.valid & ar.ready)
        m.d.comb += [
            ar.valid.eq(Array(reading)[reader]),
            *self._address(ar, reader, Array([slot.address for slot in slots])[reader], Array(lock)[reader]),
        ]
        for number, slot in enumerate(slots):
            with m.If(ar.valid & ar.ready & (reader == number)):
                m.d.sync += slot.state.eq(SlotState.DATA)

    def _word(self, m: Module) -> Signal:
        """The 64-bit word of the beat on R, which is the answer where it is one to a read."""
        word, found = Signal(64), self.m_axi.r.payload
        addresses = Array([slot.address for slot in self.slots])
        lane = addresses[found.id[: self._id_bits()]][3 : 3 + (self._lanes - 1).bit_length()]
        answer = self.memory.data.payload
        m.d.comb += [
            word.eq(found.data.word_select(lane, 64)),
            # Whether that answers a read is known later than what it would answer.
            *(answer.value.eq(word), answer.error.eq(found.resp[1])),
            answer.id.eq(Array([slot.id for slot in self.slots])[found.id[: self._id_bits()]]),
        ]
        return word

    def _found(self, m: Module, slot: Slot) -> None:
        """Answers the read of a slot, which is free again."""
        m.d.comb += self.memory.data.valid.eq(1)
        m.d.sync += slot.state.eq(SlotState.FREE)

    def _answer(self, m: Module) -> None:
        """Answers swaps, of the slots in turn."""
        answers = self.memory.swapped
        answering = turn(m, "answering", [slot.state == SlotState.ANSWER for slot in self.slots], Const(1))
        for number, slot in enumerate(self.slots):
            with m.If((slot.state == SlotState.ANSWER) & (answering == number)):
                m.d.comb += [
                    answers.valid.eq(1),
                    answers.payload.done.eq(slot.done),
                    answers.payload.error.eq(slot.error),
                    answers.payload.id.eq(slot.id),
                ]
                m.d.sync += slot.state.eq(SlotState.FREE)

    def _unknown(self, m: Module, slot: Slot) -> None:
        """The first address whose outcome is unknown is kept."""
        with m.If(~self.status.outcome_unknown | self.clear.outcome_unknown):
            m.d.sync += self.unknown_address.eq(slot.address)

    def _raise(self, m: Module, raised: dict[str, Signal]) -> None:
        """The status, whose bits are raised by `raised`."""
        for name, event in raised.items():
            m.d.sync += self.status[name].eq(event | (self.status[name] & ~self.clear[name]))
