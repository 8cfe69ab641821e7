"""An AXI4 exclusive monitor, for a memory that has none [IHI 0022, A7.2]."""

from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import AddressLayout, AxiSignature, Burst, Response, check_widths

__all__ = ["ExclusiveMonitor", "MonitorConfig", "MonitorRegisters", "RangeLayout", "ReadState", "WriteState"]

GRANULE = 3
"""Log2 of the bytes in which it is judged whether a write ends a reservation."""
LINE = 7
"""Log2 of the bytes in which it is judged whether an exclusive read meets a write that is not finished."""
PAGE = 12
"""A burst does not cross 4 KiB [A3.4.1]."""
PHASES = 4
"""Cycles in which the reservations are compared with a write: one of each bank in each."""


@dataclass(frozen=True)
class MonitorConfig:
    """Parameters of an `ExclusiveMonitor`.

    Parameters
    ----------
    address_bits : int
        13 to 64; default 40.
    data_bits : int
        64 (default), 128, 256 or 512.
    id_bits : int
        Of both interfaces, 1 to 16; default 4.
    reservations : int
        1 to 64; default 8. Those are the IDs that may hold one: 0 to `reservations` - 1.
    reads, writes : int
        Bursts outstanding at most: 2 to 64 reads, default 16, and 2, 4 (default), 8 or 16 writes.
    observe : bool
        True: the registers are an output, for proofs and waves; default False.
    """

    address_bits: int = 40
    data_bits: int = 64
    id_bits: int = 4
    reservations: int = 8
    reads: int = 16
    writes: int = 4
    observe: bool = False

    def __post_init__(self) -> None:
        check_widths(address_bits=self.address_bits, data_bits=self.data_bits)
        for name, least, most in (("id_bits", 1, 16), ("reservations", 1, 64), ("reads", 2, 64)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} must be an integer from {least} to {most}, not {value!r}")
        if not isinstance(self.writes, int) or self.writes not in (2, 4, 8, 16):
            raise ValueError(f"writes must be 2, 4, 8 or 16, not {self.writes!r}")
        if self.reservations > 1 << self.id_bits:
            raise ValueError(
                f"reservations must be at most 2**id_bits, not {self.reservations!r} of {self.id_bits!r} bits"
            )
        if not isinstance(self.observe, bool):
            raise ValueError(f"observe must be True or False, not {self.observe!r}")

    @property
    def banks(self) -> int:
        """Into which reservations are sorted, `PHASES` each."""
        return -(-self.reservations // PHASES)


class RangeLayout(data.StructLayout):
    """The granules of a burst, or its lines: they lie in one page.

    Members
    -------
    page : unsigned(address_bits - 12)
    first, last : unsigned(9)
        Of granules; unsigned(5) of lines.
    """

    def __init__(self, address_bits: int, unit: int = GRANULE) -> None:
        page, place = unsigned(address_bits - PAGE), unsigned(PAGE - unit)
        super().__init__({"page": page, "first": place, "last": place})


class BlockLayout(data.StructLayout):
    """What a reservation covers: aligned, and in one line.

    Members
    -------
    line : unsigned(address_bits - 7)
    first, last : unsigned(4)
        Granules of the line.
    """

    def __init__(self, address_bits: int) -> None:
        place = unsigned(LINE - GRANULE)
        super().__init__({"line": unsigned(address_bits - LINE), "first": place, "last": place})


class KeyLayout(data.StructLayout):
    """What an exclusive write must have in common with its reservation.

    Members
    -------
    addr : unsigned(address_bits)
    size : unsigned(3)
    len : unsigned(4)
    """

    def __init__(self, address_bits: int) -> None:
        super().__init__({"addr": unsigned(address_bits), "size": unsigned(3), "len": unsigned(4)})


class WriteState(IntEnum):
    """Where a write is between AW on one side and on the other."""

    EMPTY = 0
    RANGE = 1
    """Finds its granules, and compares itself with the reservation of its ID."""
    DECIDE = 2
    """Sent, or failed, when the reservations have been compared with the write before it."""
    OFFER = 3
    """On offer below."""


class ReadState(IntEnum):
    """Where a read is between AR on one side and on the other."""

    EMPTY = 0
    RANGE = 1
    """An exclusive one: finds its granules, and compares itself with the writes in flight."""
    DECIDE = 2
    """An exclusive one: reserves, is refused, or waits."""
    SEND = 3


class MonitorRegisters(data.StructLayout):
    """A monitor's registers: what `observe` shows.

    Members
    -------
    write_state : WriteState
    phase : unsigned(3)
        0: reservations are not compared, or the first of each bank. 1 to 4: so many of each bank have been.
    hits : unsigned(banks)
        What was compared last overlaps the write.
    same : 1
        The write is as the reservation of its ID, if there is one.
    read_state : ReadState
    meets : unsigned(writes)
        Slots whose write is in flight and shares a line with the exclusive read, a cycle ago.
    allowed : 1
        The exclusive read may reserve.
    granted : 1
        The read that is sent has reserved.
    write_range : RangeLayout
    block : BlockLayout
        Of the exclusive read.
    write, read : AddressLayout
        As they were taken.
    valid : unsigned(reservations)
    busy, sent, finished, failed, exclusive : unsigned(writes)
        Of each slot: a write is in it; all of its W have gone; its answer is here; it was not sent; it was exclusive.
    ranges : ArrayLayout of RangeLayout
        Lines of each slot.
    tail, data_at, answer_at, head : unsigned(log2 of writes)
        Slots that AW, W, memory's B and the answer above take next.
    """

    def __init__(self, config: MonitorConfig) -> None:
        bits = config.address_bits
        address = AddressLayout(bits, config.id_bits)
        slots, pointer = unsigned(config.writes), unsigned((config.writes - 1).bit_length())
        super().__init__(
            {
                "write_state": WriteState,
                "phase": unsigned(3),
                "hits": unsigned(config.banks),
                "same": 1,
                "read_state": ReadState,
                "meets": slots,
                "allowed": 1,
                "granted": 1,
                "write_range": RangeLayout(bits),
                "block": BlockLayout(bits),
                "write": address,
                "read": address,
                "valid": unsigned(config.reservations),
                **dict.fromkeys(("busy", "sent", "finished", "failed", "exclusive"), slots),
                "ranges": data.ArrayLayout(RangeLayout(bits, LINE), config.writes),
                **dict.fromkeys(("tail", "data_at", "answer_at", "head"), pointer),
            }
        )


def range_of(m: Module, address: Any, data_bits: int) -> Any:
    """The granules of a burst. One of FIXED is taken for INCR: its range is larger, never smaller."""
    low = address.addr[:PAGE]
    most = (data_bits // 8 - 1).bit_length()  # AxSIZE is that of the bus at most [A3.4.1]
    size = address.size[: most.bit_length()]
    beat = Signal(PAGE, name="write_beat")  # its bytes - 1
    mask = Signal(max(PAGE, 8 + most), name="write_mask")  # those of the burst
    begin = Signal(PAGE, name="write_begin")
    end = Signal(PAGE + 1, name="write_end")
    found = Signal(RangeLayout(len(address.addr)), name="write_granules")
    m.d.comb += [
        beat.eq((1 << size) - 1),
        mask.eq((address.len << size) | beat),
        # WRAP begins at its container, INCR at the beat of its address.
        begin.eq(low & ~Mux(address.burst == Burst.WRAP, mask[:PAGE], beat)),
        end.eq(begin + mask[:PAGE]),
        found.page.eq(address.addr[PAGE:]),
        found.first.eq(begin[GRANULE:]),
        # What would cross the page is not AXI: it is taken to reach the page's end.
        found.last.eq(end[GRANULE:PAGE] | (end[PAGE] | mask[PAGE:].any()).replicate(PAGE - GRANULE)),
    ]
    return found


def block_of(m: Module, address: Any, data_bits: int) -> tuple[Any, Value]:
    """Of an exclusive read: what it covers, and whether it is lawful.

    It has 1, 2, 4, 8 or 16 beats, at most 128 bytes, and an address aligned to all of them [A7.2.4].
    """
    most = (data_bits // 8 - 1).bit_length()
    size = address.size[: most.bit_length()]
    mask = Signal(4 + most, name="read_mask")  # its bytes - 1
    found = Signal(BlockLayout(len(address.addr)), name="read_block")
    first = address.addr[GRANULE:LINE]
    m.d.comb += [
        mask.eq((address.len[:4] << size) | ((1 << size) - 1)),
        found.line.eq(address.addr[LINE:]),
        found.first.eq(first),
        found.last.eq(first | mask[GRANULE:LINE]),
    ]
    power = Cat(address.len == (1 << bit) - 1 for bit in range(5)).any()
    aligned = (address.addr[:LINE] & mask[:LINE]) == 0
    return found, power & (mask[LINE:] == 0) & aligned & (address.burst != Burst.FIXED)


class ExclusiveMonitor(Component):
    """AXI4 in and out; below it nothing is exclusive. A read costs 1 cycle more, an exclusive one 3, a write 3.

    There is one reservation per ID, of the IDs 0 to `reservations` - 1: what the ID's last exclusive read reserved, by
    address, size and length. Every write that is sent and overlaps it ends it, whoever sent it, in granules of 8 bytes.
    Reads, failed exclusive writes and reservations of others do not.

    *Exclusive reads*: one that shares a line of 128 bytes with a write which is not finished waits for memory's answer
    to it; if W of that write is still awaited, which may depend on this read, it is refused. Refused are those of other
    IDs too, and those that the protocol forbids: they read, reserve nothing, and are answered OKAY.

    *Exclusive writes*: sent, and answered EXOKAY, if the ID has a reservation of the same address, size and length.
    Otherwise nothing is sent, W is taken, and the answer is OKAY.

    *What it overlaps* is found while the write is on its way: reservations lie in banks of four in LUT RAM, and one of
    each bank is compared in each of the four cycles from the one in which the write is decided. The next write is
    decided after them, five cycles after this one.

    Answers of reads come in the order of AR, of writes in the order of AW. What is sent has ID 0 and no AxLOCK, and
    AWCACHE[0] is 0: an answer to a write must mean that it is visible.

    Parameters
    ----------
    config : MonitorConfig

    Members
    -------
    s_axi : In(AxiSignature)
    m_axi : Out(AxiSignature)
        Answers in order, as AXI says of one ID.
    o_registers : Out(MonitorRegisters)
        Only with `observe`.
    """

    def __init__(self, config: MonitorConfig = MonitorConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        axi = AxiSignature(address_bits=config.address_bits, data_bits=config.data_bits, id_bits=config.id_bits)
        members = {"s_axi": In(axi), "m_axi": Out(axi)}
        if config.observe:
            members["o_registers"] = Out(MonitorRegisters(config))
        super().__init__(members)
        self._ids = Array([Signal(config.id_bits, name=f"slot{number}_id") for number in range(config.writes)])
        self._responses = Array([Signal(2, name=f"slot{number}_response") for number in range(config.writes)])
        bits, attributes = config.address_bits, {"ram_style": "distributed"}
        self.keys = Memory(shape=KeyLayout(bits), depth=max(2, config.reservations), init=[], attrs=attributes)
        self.banks = [
            Memory(shape=BlockLayout(bits), depth=PHASES, init=[], attrs=attributes) for _ in range(config.banks)
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        names = [(str(name), field.shape) for name, field in MonitorRegisters(config)]
        self._r = r = SimpleNamespace(**{name: Signal(shape, name=name) for name, shape in names})

        settles, reserves = self._reads(m)
        sends, fails = self._writes(m)
        self._compare(m, sends, settles)
        self._answers(m)

        # After `_compare`: what is reserved in the cycle in which the one before it ends is reserved.
        m.submodules.keys = self.keys
        key = self.keys.write_port()
        m.d.comb += [key.addr.eq(r.read.id), key.en.eq(reserves)]
        m.d.comb += [key.data[name].eq(r.read[name]) for name in ("addr", "size", "len")]
        for number in range(config.reservations):
            with m.If(settles & (r.read.id == number)):
                m.d.sync += r.valid[number].eq(reserves)

        with m.If(sends | fails):
            m.d.sync += [r.tail.eq(r.tail + 1), self._ids[r.tail].eq(r.write.id)]
            line = {name: r.write_range[name][LINE - GRANULE :] for name in ("first", "last")}
            m.d.sync += [r.ranges[r.tail].page.eq(r.write_range.page)]
            m.d.sync += [r.ranges[r.tail][name].eq(value) for name, value in line.items()]
            for field, value in (
                ("busy", 1),
                ("sent", 0),
                ("finished", 0),
                ("failed", fails),
                ("exclusive", r.write.lock),
            ):
                m.d.sync += getattr(r, field).bit_select(r.tail, 1).eq(value)
        if config.observe:
            m.d.comb += [self.o_registers[name].eq(getattr(r, name)) for name, _ in names]
        return m

    def _reads(self, m: Module) -> tuple[Value, Value]:
        """AR and R: in which cycle an exclusive read settles the reservation of its ID, and whether it has one then."""
        r, above, below, config = self._r, self.s_axi, self.m_axi, self.config
        m.submodules.order = order = SyncFIFO(width=config.id_bits + 1, depth=config.reads)
        block, lawful = block_of(m, r.read, config.data_bits)
        settles, reserves = Signal(), Signal()
        # Slots whose write is in flight and shares its line; a lawful one lies in one line.
        page, line = r.read.addr[PAGE:], r.read.addr[LINE:PAGE]
        for number in range(config.writes):
            other = r.ranges[number]
            shares = (page == other.page) & (other.first <= line) & (line <= other.last)
            m.d.sync += r.meets[number].eq((r.busy & ~r.finished & ~r.failed)[number] & shares)

        m.d.comb += [
            below.ar.valid.eq((r.read_state == ReadState.SEND) & order.w_rdy),
            below.ar.payload.eq(r.read),
            below.ar.payload.id.eq(0),
            below.ar.payload.lock.eq(0),
            order.w_data.eq(Cat(r.granted, r.read.id)),
            order.w_en.eq(below.ar.valid & below.ar.ready),
            above.ar.ready.eq((r.read_state == ReadState.EMPTY) | order.w_en),
        ]
        with m.If(above.ar.valid & above.ar.ready):
            m.d.sync += [
                *(r.read.eq(above.ar.payload), r.granted.eq(0)),
                r.read_state.eq(Mux(above.ar.payload.lock, ReadState.RANGE, ReadState.SEND)),
            ]
        with m.Elif(order.w_en):
            m.d.sync += r.read_state.eq(ReadState.EMPTY)
        with m.If(r.read_state == ReadState.RANGE):
            m.d.sync += [
                *(r.block.eq(block), r.allowed.eq(lawful & (r.read.id < config.reservations))),
                r.read_state.eq(ReadState.DECIDE),
            ]
        # A reservation changes while no write is being decided, nor in the cycle after: `meets` does not know of it.
        still = (r.write_state != WriteState.RANGE) & (r.write_state != WriteState.DECIDE) & (r.phase != 1)
        with m.If((r.read_state == ReadState.DECIDE) & still):
            # It waits for memory alone: never for a W that may wait for it.
            m.d.comb += [
                settles.eq(~r.allowed | ((r.meets & ~r.sent) != 0) | (r.meets == 0)),
                reserves.eq(r.allowed & (r.meets == 0)),
            ]
        with m.If(settles):
            m.d.sync += [r.granted.eq(reserves), r.read_state.eq(ReadState.SEND)]

        response = below.r.payload.resp
        m.d.comb += [
            above.r.valid.eq(below.r.valid & order.r_rdy),
            below.r.ready.eq(above.r.ready & order.r_rdy),
            above.r.payload.eq(below.r.payload),
            above.r.payload.id.eq(order.r_data[1:]),
            above.r.payload.resp.eq(Mux(response[1], response, order.r_data[0])),
            order.r_en.eq(below.r.valid & above.r.ready & below.r.payload.last),
        ]
        for number, bank in enumerate(self.banks):
            m.submodules[f"bank{number}"] = bank
            port = bank.write_port()
            mine = (r.read.id >> (PHASES - 1).bit_length()) == number
            m.d.comb += [port.addr.eq(r.read.id), port.data.eq(r.block), port.en.eq(reserves & mine)]
        return settles, reserves

    def _writes(self, m: Module) -> tuple[Value, Value]:
        """AW and W: in which cycle a write is sent, or fails."""
        r, above, below, config = self._r, self.s_axi, self.m_axi, self.config
        sends, fails = Signal(), Signal()
        key = self.keys.read_port(domain="comb")
        found = range_of(m, r.write, config.data_bits)
        kept, wanted = key.data, r.write
        m.d.comb += [
            key.addr.eq(r.write.id),
            above.aw.ready.eq((r.write_state == WriteState.EMPTY) & ~r.busy.bit_select(r.tail, 1)),
            below.aw.valid.eq(r.write_state == WriteState.OFFER),
            below.aw.payload.eq(r.write),
            below.aw.payload.id.eq(0),
            below.aw.payload.lock.eq(0),
            below.aw.payload.cache.eq(r.write.cache & ~1),
        ]
        with m.Switch(r.write_state):
            with m.Case(WriteState.EMPTY):
                with m.If(above.aw.valid & above.aw.ready):
                    m.d.sync += [r.write.eq(above.aw.payload), r.write_state.eq(WriteState.RANGE)]
            with m.Case(WriteState.RANGE):
                is_kept = (kept.addr == wanted.addr) & (kept.size == wanted.size) & (kept.len == wanted.len)
                m.d.sync += [
                    r.write_range.eq(found),
                    r.same.eq(is_kept & (wanted.burst != Burst.FIXED)),
                    r.write_state.eq(WriteState.DECIDE),
                ]
            with m.Case(WriteState.DECIDE):
                owned = Cat(r.valid[number] & (r.write.id == number) for number in range(config.reservations)).any()
                passes = ~r.write.lock | (r.same & owned)
                with m.If(r.phase == 0):
                    m.d.comb += [sends.eq(passes), fails.eq(~passes)]
                    m.d.sync += r.write_state.eq(Mux(passes, WriteState.OFFER, WriteState.EMPTY))
            with m.Case(WriteState.OFFER):
                with m.If(below.aw.ready):
                    m.d.sync += r.write_state.eq(WriteState.EMPTY)

        # W goes where its AW went.
        takes = (r.busy & ~r.sent).bit_select(r.data_at, 1)
        drops = r.failed.bit_select(r.data_at, 1)
        m.d.comb += [
            below.w.valid.eq(above.w.valid & takes & ~drops),
            below.w.payload.eq(above.w.payload),
            above.w.ready.eq(takes & (drops | below.w.ready)),
        ]
        with m.If(above.w.valid & above.w.ready & above.w.payload.last):
            m.d.sync += [r.data_at.eq(r.data_at + 1), r.sent.bit_select(r.data_at, 1).eq(1)]
        return sends, fails

    def _compare(self, m: Module, sends: Value, settles: Value) -> None:
        """Ends what is overlapped by the write that is sent: one reservation of each bank is compared in a cycle."""
        r, config = self._r, self.config
        with m.If(sends | (r.phase != 0)):
            m.d.sync += r.phase.eq(Mux(r.phase == PHASES, 0, r.phase + 1))
        for number, bank in enumerate(self.banks):
            port = bank.read_port(domain="comb")
            kept, burst = port.data, r.write_range
            place = PAGE - LINE  # of the line in its page
            first, last = Cat(kept.first, kept.line[:place]), Cat(kept.last, kept.line[:place])
            m.d.comb += port.addr.eq(r.phase)
            # What is reserved now is not what is compared now, and was reserved after the write.
            is_old = settles & (r.read.id == Cat(r.phase[: PHASES.bit_length() - 1], Const(number, 8)))
            overlaps = (kept.line[place:] == burst.page) & (first <= burst.last) & (burst.first <= last)
            m.d.sync += r.hits[number].eq(overlaps & ~is_old)
        for number in range(config.reservations):
            bank, place = divmod(number, PHASES)
            with m.If((r.phase == place + 1) & r.hits[bank]):
                m.d.sync += r.valid[number].eq(0)

    def _answers(self, m: Module) -> None:
        """B: memory's is taken whatever becomes of those above, which go in order."""
        r, above, below = self._r, self.s_axi, self.m_axi
        waits = (r.busy & ~r.finished).bit_select(r.answer_at, 1)
        failed = r.failed.bit_select(r.answer_at, 1)
        m.d.comb += below.b.ready.eq(waits & ~failed)
        with m.If(waits & (failed | below.b.valid)):
            m.d.sync += [
                *(r.answer_at.eq(r.answer_at + 1), r.finished.bit_select(r.answer_at, 1).eq(1)),
                self._responses[r.answer_at].eq(Mux(failed, Response.OKAY, below.b.payload.resp)),
            ]
        response = self._responses[r.head]
        succeeded = (r.exclusive & ~r.failed).bit_select(r.head, 1)
        m.d.comb += [
            above.b.valid.eq((r.busy & r.finished & r.sent).bit_select(r.head, 1)),
            above.b.payload.id.eq(self._ids[r.head]),
            above.b.payload.resp.eq(Mux(response[1], response, succeeded)),
        ]
        with m.If(above.b.valid & above.b.ready):
            m.d.sync += [r.head.eq(r.head + 1), r.busy.bit_select(r.head, 1).eq(0)]
