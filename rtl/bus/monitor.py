"""An AXI4 exclusive monitor, for a memory that has none [IHI 0022, A7.2]."""

from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.axi import AddressLayout, AxiSignature, Burst, Response, check_widths

__all__ = ["ExclusiveMonitor", "MonitorConfig", "MonitorRegisters", "RangeLayout", "WriteState"]

GRANULE = 3
"""Log2 of the bytes in which it is judged whether a write ends a reservation."""
LINE = 7
"""Log2 of the bytes in which it is judged whether an exclusive read meets a write that is not finished."""
PAGE = 12
"""A burst does not cross 4 KiB [A3.4.1]."""


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


class ReservationLayout(data.StructLayout):
    """A reservation, as its exclusive read was: aligned, and of at most 128 bytes.

    Members
    -------
    addr : unsigned(address_bits)
    size : unsigned(3)
    len : unsigned(4)
    last : unsigned(4)
        The low bits of its last granule; the others are those of its first.
    """

    def __init__(self, address_bits: int) -> None:
        super().__init__({"addr": unsigned(address_bits), "size": unsigned(3), "len": unsigned(4), "last": unsigned(4)})


class WriteState(IntEnum):
    """Where a write is between AW on one side and on the other."""

    EMPTY = 0
    RANGE = 1
    """Finds its granules, and the reservation of its ID."""
    MATCH = 2
    """Compares them."""
    DECIDE = 3
    """Sent, or failed, when there is room for it."""


class ReadState(IntEnum):
    """Where a read is between AR on one side and on the other."""

    EMPTY = 0
    RANGE = 1
    """An exclusive one: finds its granules."""
    DECIDE = 2
    """An exclusive one: reserves, is refused, or waits."""
    SEND = 3


class MonitorRegisters(data.StructLayout):
    """A monitor's registers: what `observe` shows.

    Members
    -------
    write_state : WriteState
    offered : 1
        The write has its slot, and AW is on offer below.
    matches : 1
        The exclusive write has its reservation.
    lawful : 1
        It may be exclusive.
    read_state : ReadState
    granted : 1
        The read that is sent has reserved.
    write_range, read_range : RangeLayout
    write, read : AddressLayout
        As they were taken.
    valid : unsigned(reservations)
    reservations : ArrayLayout of ReservationLayout
    busy, sent, finished, failed, exclusive : unsigned(writes)
        Of each slot: a write is in it; all of its W have gone; its answer is here; it was not sent; it was exclusive.
    ranges : ArrayLayout of RangeLayout
        Lines of each slot.
    tail, data_at, answer_at, head : unsigned(log2 of writes)
        Slots that AW, W, memory's B and the answer above take next.
    """

    def __init__(self, config: MonitorConfig) -> None:
        ranges = RangeLayout(config.address_bits)
        address = AddressLayout(config.address_bits, config.id_bits)
        slots, pointer = unsigned(config.writes), unsigned((config.writes - 1).bit_length())
        super().__init__(
            {
                "write_state": WriteState,
                "offered": 1,
                "matches": 1,
                "lawful": 1,
                "read_state": ReadState,
                "granted": 1,
                "write_range": ranges,
                "read_range": ranges,
                "write": address,
                "read": address,
                "valid": unsigned(config.reservations),
                "reservations": data.ArrayLayout(ReservationLayout(config.address_bits), config.reservations),
                **dict.fromkeys(("busy", "sent", "finished", "failed", "exclusive"), slots),
                "ranges": data.ArrayLayout(RangeLayout(config.address_bits, LINE), config.writes),
                **dict.fromkeys(("tail", "data_at", "answer_at", "head"), pointer),
            }
        )


def crosses(one: Any, other: Any) -> Value:
    """Two ranges of one page share a granule."""
    result: Value = (one.first <= other.last) & (other.first <= one.last)
    return result


def range_of(reservation: Any) -> SimpleNamespace:
    """The range of a reservation, but for the page."""
    first = reservation.addr[GRANULE:PAGE]
    return SimpleNamespace(first=first, last=Cat(reservation.last, first[4:]))


def lines(burst: Any) -> SimpleNamespace:
    """The lines of a range, 128 bytes each."""
    return SimpleNamespace(page=burst.page, first=burst.first[LINE - GRANULE :], last=burst.last[LINE - GRANULE :])


def granules(m: Module, name: str, address: Any) -> tuple[Any, Value, Value]:
    """Of a burst: its range, that of an exclusive one, which is aligned, and whether it may be exclusive.

    An exclusive burst has 1, 2, 4, 8 or 16 beats, at most 128 bytes, and an address aligned to all of them [A7.2.4]. A
    burst of FIXED is taken for INCR: its range is larger, never smaller.
    """
    low = address.addr[:PAGE]
    beat = Signal(PAGE, name=f"{name}_beat")
    mask = Signal(PAGE + 4, name=f"{name}_mask")  # its bytes - 1
    begin = Signal(PAGE, name=f"{name}_begin")
    end = Signal(PAGE + 5, name=f"{name}_end")
    found = Signal(RangeLayout(len(address.addr)), name=f"{name}_granules")
    block = Signal(RangeLayout(len(address.addr)), name=f"{name}_block")
    m.d.comb += [
        beat.eq((1 << address.size) - 1),
        mask.eq((address.len << address.size) | beat),
        # WRAP begins at its container, INCR at the beat of its address.
        begin.eq(low & ~Mux(address.burst == Burst.WRAP, mask[:PAGE], beat)),
        end.eq(begin + mask),
        found.page.eq(address.addr[PAGE:]),
        found.first.eq(begin[GRANULE:]),
        # What would cross the page is not AXI: it is taken to reach the page's end.
        found.last.eq(end[GRANULE:PAGE] | end[PAGE:].any().replicate(PAGE - GRANULE)),
        block.page.eq(address.addr[PAGE:]),
        block.first.eq(low[GRANULE:]),
        block.last.eq(low[GRANULE:] | mask[GRANULE:PAGE]),
    ]
    count = address.len
    power = Cat(count == (1 << bit) - 1 for bit in range(5)).any()
    lawful = power & (mask[7:] == 0) & ((low[:7] & mask[:7]) == 0) & (address.burst != Burst.FIXED)
    return found, block, lawful


class ExclusiveMonitor(Component):
    """AXI4 in and out; below it nothing is exclusive. A read costs 1 cycle more, an exclusive one 3, a write 4.

    There is one reservation per ID, of the IDs 0 to `reservations` - 1: what the ID's last exclusive read reserved, by
    address, size and length. Every write that is sent and overlaps it ends it, whoever sent it, in granules of 8 bytes.
    Reads, failed exclusive writes and reservations of others do not.

    *Exclusive reads*: one that shares a line of 128 bytes with a write which is not finished waits for memory's answer
    to it; if W of that write is still awaited, which may depend on this read, it is refused. Refused are those of other
    IDs too, and those that the protocol forbids: they read, reserve nothing, and are answered OKAY.

    *Exclusive writes*: sent, and answered EXOKAY, if the ID has a reservation of the same address, size and length.
    Otherwise nothing is sent, W is taken, and the answer is OKAY.

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

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        names = [(str(name), field.shape) for name, field in MonitorRegisters(config)]
        self._r = r = SimpleNamespace(**{name: Signal(shape, name=name) for name, shape in names})
        self._open = Signal(config.writes)  # slots whose write was sent and is not finished
        m.d.comb += self._open.eq(r.busy & ~r.finished & ~r.failed)

        room = Signal()  # for one write more
        m.d.comb += room.eq(~r.busy.bit_select(r.tail, 1))
        # A reservation changes while no write is being looked up.
        idle = (r.write_state == WriteState.EMPTY) | ((r.write_state == WriteState.DECIDE) & (r.offered | ~room))
        settles, reserves = self._reads(m, idle)
        sends, fails = self._writes(m, room, settles)
        self._answers(m)

        for number in range(config.reservations):
            with m.If(settles & (r.read.id == number)):
                m.d.sync += r.valid[number].eq(reserves)
                m.d.sync += [r.reservations[number][name].eq(r.read[name]) for name in ("addr", "size", "len")]
                m.d.sync += r.reservations[number].last.eq(r.read_range.last)

        with m.If(sends | fails):
            line = lines(r.write_range)
            m.d.sync += [r.tail.eq(r.tail + 1), self._ids[r.tail].eq(r.write.id)]
            m.d.sync += [r.ranges[r.tail][name].eq(getattr(line, name)) for name in ("page", "first", "last")]
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

    def _reads(self, m: Module, idle: Value) -> tuple[Value, Value]:
        """AR and R: in which cycle an exclusive read settles the reservation of its ID, and whether it has one then."""
        r, above, below, config = self._r, self.s_axi, self.m_axi, self.config
        m.submodules.order = order = SyncFIFO(width=config.id_bits + 1, depth=config.reads)
        _, found, lawful = granules(m, "read", r.read)
        allowed, settles, reserves = Signal(), Signal(), Signal()
        meets = Signal(config.writes)  # open slots that share a line with it
        line = lines(r.read_range)
        for number in range(config.writes):
            other = r.ranges[number]
            m.d.comb += meets[number].eq(self._open[number] & (line.page == other.page) & crosses(line, other))

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
                *(r.read_range.eq(found), allowed.eq(lawful & (r.read.id < config.reservations))),
                r.read_state.eq(ReadState.DECIDE),
            ]
        with m.If((r.read_state == ReadState.DECIDE) & idle):
            # It waits for memory alone: never for a W that may wait for it.
            m.d.comb += [
                settles.eq(~allowed | ((meets & ~r.sent) != 0) | (meets == 0)),
                reserves.eq(allowed & (meets == 0)),
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
        return settles, reserves

    def _writes(self, m: Module, room: Value, settles: Value) -> tuple[Value, Value]:
        """AW and W: in which cycle a write is sent, or fails."""
        r, above, below, config = self._r, self.s_axi, self.m_axi, self.config
        found, _, lawful = granules(m, "write", r.write)
        sends, fails = Signal(), Signal()
        # The reservation of its ID is as it is.
        own = Signal(config.reservations)
        pages = Signal(config.reservations)  # in its page
        for number in range(config.reservations):
            kept = r.reservations[number]
            same = (
                (kept.addr[:PAGE] == r.write.addr[:PAGE]) & (kept.size == r.write.size) & (kept.len == r.write.len[:4])
            )
            m.d.comb += [
                pages[number].eq(kept.addr[PAGE:] == r.write_range.page),
                own[number].eq(r.valid[number] & (r.write.id == number) & pages[number] & same),
            ]
            # What is sent ends every reservation that it overlaps.
            with m.If(sends & pages[number] & crosses(range_of(kept), r.write_range)):
                m.d.sync += r.valid[number].eq(0)
        m.d.comb += [
            above.aw.ready.eq(r.write_state == WriteState.EMPTY),
            below.aw.valid.eq(r.offered),
            below.aw.payload.eq(r.write),
            below.aw.payload.id.eq(0),
            below.aw.payload.lock.eq(0),
            below.aw.payload.cache.eq(r.write.cache & ~1),
        ]
        with m.Switch(r.write_state):
            with m.Case(WriteState.EMPTY):
                with m.If(above.aw.valid):
                    m.d.sync += [r.write.eq(above.aw.payload), r.write_state.eq(WriteState.RANGE)]
            with m.Case(WriteState.RANGE):
                m.d.sync += [
                    *(r.write_range.eq(found), r.lawful.eq(lawful)),
                    r.write_state.eq(WriteState.MATCH),
                ]
            with m.Case(WriteState.MATCH):
                m.d.sync += [r.matches.eq(r.lawful & own.any()), r.write_state.eq(WriteState.DECIDE)]
            with m.Case(WriteState.DECIDE):
                passes = ~r.write.lock | r.matches
                with m.If(r.offered):
                    with m.If(below.aw.ready):
                        m.d.sync += [r.offered.eq(0), r.write_state.eq(WriteState.EMPTY)]
                with m.Elif(room):
                    m.d.comb += [sends.eq(passes), fails.eq(~passes)]
                    m.d.sync += r.offered.eq(passes)
                    with m.If(fails):
                        m.d.sync += r.write_state.eq(WriteState.EMPTY)
                with m.Elif(settles & (r.read.id == r.write.id)):
                    m.d.sync += r.matches.eq(0)  # what is reserved after it is not for it

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
