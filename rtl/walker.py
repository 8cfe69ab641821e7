"""The page walker: linear address in, physical address or fault out, A, D and soft-dirty set on the way."""

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import linux, x86
from ptewalk.rtl.interfaces import MemoryPortSignature
from ptewalk.rtl.layouts import ControlLayout, EntryLayout, RequestLayout, ResponseLayout, TraceLayout
from ptewalk.rtl.permissions import AccessClassLayout, AccessRights, classify, key_rights, mendable

__all__ = ["Walker", "WalkerConfig"]


@dataclass(frozen=True)
class WalkerConfig:
    """Parameters of a walker.

    Parameters

    levels : int
        4 or 5 (default). 5: four or five levels, by CR4.LA57 at run time. 4: CR4.LA57 is ignored.
    physical_bits : int
        MAXPHYADDR, 32 to 52; default 40. Address bits of an entry above it are reserved.
    gigabyte_pages : bool
        False: PS is a reserved bit in a PDPTE.
    soft_dirty : bool
        False is CONFIG_MEM_SOFT_DIRTY=n: no tracking logic, and bit 11 is never touched.
    tag_bits : int
        Width of a request's tag, 1 to 32; default 8.
    trace : bool
        False: the trace port is left out.
    """

    levels: int = x86.LEVELS_5
    physical_bits: int = 40
    gigabyte_pages: bool = True
    soft_dirty: bool = True
    tag_bits: int = 8
    trace: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or self.levels not in (x86.LEVELS_4, x86.LEVELS_5):
            raise ValueError(f"levels must be 4 or 5, not {self.levels!r}")
        if not isinstance(self.physical_bits, int) or not 32 <= self.physical_bits <= x86.MAX_PHYSICAL_BITS:
            raise ValueError(f"physical_bits must be an integer from 32 to 52, not {self.physical_bits!r}")
        if not isinstance(self.tag_bits, int) or not 1 <= self.tag_bits <= 32:
            raise ValueError(f"tag_bits must be an integer from 1 to 32, not {self.tag_bits!r}")
        for name in ("gigabyte_pages", "soft_dirty", "trace"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")


class WalkerRegisters:
    """A walker's registers, where proofs can see them; nothing else may.

    Attributes
    ----------
    request, access
        The request in flight, and `classify`'s view of it.
    address
        Of the entry that is being read, or is read next.
    here
        Of the entry that was read last.
    entry, at
        The value read there; its level, one-hot: at[0] is level 1.
    upper
        RW, U/S (AND) and XD (OR) of the entries above it.
    leaf, reserved, user_key, supervisor_key
        What `entry` is: a leaf, malformed, and what PKRU and PKRS say of its key.
    noncanonical, broken, settled
        How the walk ends where the entry does not say it: no walk, bus error, the leaf's conditional write done.
    phase
        The FSM's state, one bit each.
    """

    def __init__(self, config: WalkerConfig) -> None:
        self.request = Signal(RequestLayout(config.tag_bits))
        self.access = Signal(AccessClassLayout())
        self.address = Signal(config.physical_bits)
        self.here = Signal(config.physical_bits)
        self.entry = Signal(EntryLayout(soft_dirty=config.soft_dirty))
        self.at = Signal(config.levels)
        self.upper = Signal(data.StructLayout({"rw": 1, "us": 1, "xd": 1}))
        self.leaf = Signal()
        self.reserved = Signal()
        self.user_key = Signal(2)
        self.supervisor_key = Signal(2)
        self.noncanonical = Signal()
        self.broken = Signal()
        self.settled = Signal()
        self.phase = Signal(data.StructLayout({"idle": 1, "read": 1, "check": 1, "judge": 1, "swapped": 1}))


class Walker(Component):
    """One page walk at a time; a hit-free walk of n levels takes n * L + 2 cycles from request to response.

    L is the memory port's latency. Each A bit that has to be set on the way costs L + 2 cycles more; D, soft-dirty
    and A of the leaf together cost one conditional write, L + 1 cycles. A conditional write that fails is followed by
    a read and a new check of the same entry: a value that was not checked is never overwritten.

    A is set in each good entry as the walk passes it [SDM 3A 4.8], so a walk that faults may leave it set above the
    entry that faulted; nothing is ever written into that entry. A probe writes nothing at all.

    Parameters

    config : WalkerConfig

    Members

    i_requests : In(stream of RequestLayout)
    o_responses : Out(stream of ResponseLayout)
        Exactly one per request, in order.
    o_reads, i_data, o_swaps, i_swapped
        The members of `MemoryPortSignature`. At most one transfer is outstanding.
    root : In(physical_bits - 12)
        Frame number of the top-level table (CR3).
    control : In(ControlLayout), pkru, pkrs : In(32)
        Control state; like `root`, steady while a request is in flight.
    track : In(2)
        `linux.Track`; only with `soft_dirty`.
    saved_dirty : In(1)
        The profile keeps the dirtiness of read-only entries in SAVED_DIRTY: a mend clears it. Only with `soft_dirty`.
    o_trace : Out(stream of TraceLayout, always ready)
        A record per swap and per completed walk; only with `trace`.
    """

    def __init__(self, config: WalkerConfig = WalkerConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        bits = config.physical_bits
        memory = MemoryPortSignature(bits).members
        members = {
            "i_requests": In(stream.Signature(RequestLayout(config.tag_bits))),
            "o_responses": Out(stream.Signature(ResponseLayout(bits, config.tag_bits))),
            "o_reads": memory["reads"],
            "i_data": memory["data"],
            "o_swaps": memory["swaps"],
            "i_swapped": memory["swapped"],
            "root": In(unsigned(bits - x86.PAGE_SHIFT)),
            "control": In(ControlLayout()),
            "pkru": In(32),
            "pkrs": In(32),
        }
        if config.soft_dirty:
            members |= {"track": In(linux.Track), "saved_dirty": In(1)}
        if config.trace:
            members["o_trace"] = Out(stream.Signature(TraceLayout(bits, config.tag_bits), always_ready=True))
        super().__init__(members)
        self.registers = WalkerRegisters(config)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config

        registers = self.registers
        request, access, address, entry, at = (
            registers.request,
            registers.access,
            registers.address,
            registers.entry,
            registers.at,
        )
        here = registers.here
        upper, leaf, reserved = registers.upper, registers.leaf, registers.reserved
        user_key, supervisor_key = registers.user_key, registers.supervisor_key
        noncanonical, broken, settled = registers.noncanonical, registers.broken, registers.settled

        def index(linear: Value, level: int) -> Value:
            return linear[x86.LEVEL_SHIFT[level] :][: x86.INDEX_BITS]

        def slot(frame: Value, index: Value) -> Value:
            """The physical address of an entry, from its table's frame number and its index."""
            return Cat(Const(0, x86.ENTRY_BYTES.bit_length() - 1), index, frame)

        def frame_of(value: Value) -> Value:
            return value[x86.FRAME_LOW : config.physical_bits]

        la57 = self.control.la57 if config.levels == x86.LEVELS_5 else Const(0)

        # The entry on the data channel, in the cycle in which it arrives: what it is, and does the walk go on below.

        found = Signal(entry.shape())
        raw = Value.cast(found)
        m.d.comb += raw.eq(self.i_data.payload.value)

        large = [Const(0)] * config.levels  # large[k]: the entry is a large leaf of level k + 1
        large[1] = at[1] & found.ps
        if config.gigabyte_pages:
            large[2] = at[2] & found.ps
        found_leaf = Signal()
        m.d.comb += found_leaf.eq(at[0] | large[1] | large[2])

        # [SDM 3A 4.7, tables 4-14 to 4-20] Reserved bits of a present entry, at its own level.
        ps_reserved = at[x86.LEVELS_4 - 1 :] if config.gigabyte_pages else at[2:]
        reasons = [found.xd & ~self.control.nxe, found.ps & ps_reserved.any()]
        if config.physical_bits <= x86.FRAME_HIGH:
            reasons.append(raw[config.physical_bits : x86.FRAME_HIGH + 1].any())
        for level, (low, high) in x86.LARGE_RESERVED.items():
            reasons.append(large[level - 1] & raw[low : high + 1].any())
        found_reserved = Signal()
        m.d.comb += found_reserved.eq(Cat(reasons).any())

        below = Signal(x86.INDEX_BITS)  # index into the table that the entry points to
        with m.Switch(at):
            for level in range(2, config.levels + 1):
                with m.Case(1 << (level - 1)):
                    m.d.comb += below.eq(index(request.linear, level - 1))

        def descend(view: data.View) -> list[Any]:
            return [
                at.eq(at >> 1),
                upper.rw.eq(upper.rw & view.rw),
                upper.us.eq(upper.us & view.us),
                upper.xd.eq(upper.xd | view.xd),
            ]

        # The entry judged, one cycle later, from registers: fault, conditional write, or answer.

        m.submodules.rights = rights = AccessRights(soft_dirty=config.soft_dirty)
        m.d.comb += [
            rights.access.eq(access),
            rights.upper_rw.eq(upper.rw),
            rights.leaf_rw.eq(entry.rw),
            rights.us.eq(upper.us & entry.us),
            rights.xd.eq(upper.xd | entry.xd),
            rights.user_key.eq(user_key),
            rights.supervisor_key.eq(supervisor_key),
        ]
        unmarked = ~entry.d
        if config.soft_dirty:
            tracking = self.track != linux.Track.OFF
            m.d.comb += rights.mendable.eq(mendable(self.track, entry))
            unmarked |= (tracking & ~entry.soft_dirty) | rights.mend

        faults = Signal()
        stale = Signal()  # the entry lacks a bit that this access must set
        m.d.comb += [
            faults.eq(~entry.p | reserved | (leaf & rights.denied)),
            stale.eq(~access.probe & ~settled & (~entry.a | (leaf & access.store & unmarked))),
        ]

        new = Signal(entry.shape())
        m.d.comb += [new.eq(entry), new.a.eq(1)]
        with m.If(leaf & access.store):
            m.d.comb += new.d.eq(1)
            if config.soft_dirty:
                with m.If(tracking):
                    m.d.comb += new.soft_dirty.eq(1)
                with m.If(rights.mend):
                    m.d.comb += [new.rw.eq(1), new.arm.eq(0)]
                    with m.If(self.saved_dirty):
                        m.d.comb += new.saved_dirty.eq(0)

        outcome = Signal(x86.Outcome)
        with m.If(noncanonical):
            m.d.comb += outcome.eq(x86.Outcome.GENERAL_PROTECTION)
        with m.Elif(broken):
            m.d.comb += outcome.eq(x86.Outcome.BUS_ERROR)
        with m.Elif(faults):
            m.d.comb += outcome.eq(x86.Outcome.PAGE_FAULT)

        # The walk.

        sign = {n: request.linear[x86.LINEAR_BITS[n] - 1 :] for n in (x86.LEVELS_4, x86.LEVELS_5)}
        same = {n: ~value.any() | value.all() for n, value in sign.items()}
        canonical = Mux(la57, same[x86.LEVELS_5], same[x86.LEVELS_4])

        m.d.comb += [
            self.o_reads.payload.address.eq(address),
            self.o_swaps.payload.address.eq(here),
            self.o_swaps.payload.old.eq(entry),
            self.o_swaps.payload.new.eq(new),
        ]

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.i_requests.ready.eq(1)
                with m.If(self.i_requests.valid):
                    incoming = self.i_requests.payload
                    top = Mux(la57, index(incoming.linear, x86.LEVELS_5), index(incoming.linear, x86.LEVELS_4))
                    m.d.sync += [
                        request.eq(incoming),
                        [access[name].eq(value) for name, value in classify(incoming, self.control).items()],
                        address.eq(slot(self.root, top)),
                        at.eq(Mux(la57, 1 << (x86.LEVELS_5 - 1), 1 << (x86.LEVELS_4 - 1))),
                        Cat(upper.rw, upper.us, upper.xd).eq(0b011),
                        Cat(noncanonical, broken, settled).eq(0),
                    ]
                    m.next = "READ"

            with m.State("READ"):
                m.d.comb += self.o_reads.valid.eq(canonical)
                m.d.sync += noncanonical.eq(~canonical)
                with m.If(~canonical):
                    m.next = "JUDGE"
                with m.Elif(self.o_reads.ready):
                    m.next = "CHECK"

            with m.State("CHECK"):
                m.d.sync += [
                    entry.eq(found),
                    leaf.eq(found_leaf),
                    reserved.eq(found_reserved),
                    user_key.eq(key_rights(self.pkru, found)),
                    supervisor_key.eq(key_rights(self.pkrs, found)),
                    broken.eq(self.i_data.payload.error),
                ]
                with m.If(self.i_data.valid):
                    # Whether the walk goes on below or not: the verdict is not on the way of the address.
                    m.d.sync += [here.eq(address), address.eq(slot(frame_of(raw), below))]
                    good = found.p & ~found_reserved & ~self.i_data.payload.error
                    with m.If(good & ~found_leaf & (found.a | access.probe)):
                        # The next read leaves in the cycle in which this entry arrived.
                        m.d.sync += descend(found)
                        m.d.comb += [
                            self.o_reads.valid.eq(1),
                            self.o_reads.payload.address.eq(slot(frame_of(raw), below)),
                        ]
                        with m.If(~self.o_reads.ready):
                            m.next = "READ"
                    with m.Else():
                        m.next = "JUDGE"

            with m.State("JUDGE"):
                with m.If((outcome == x86.Outcome.OK) & stale):
                    m.d.comb += self.o_swaps.valid.eq(1)
                    with m.If(self.o_swaps.ready):
                        m.next = "SWAPPED"
                with m.Else():
                    m.d.comb += self.o_responses.valid.eq(1)
                    with m.If(self.o_responses.ready):
                        m.next = "IDLE"

            with m.State("SWAPPED"):
                with m.If(self.i_swapped.valid):
                    with m.If(self.i_swapped.payload.error):
                        m.d.sync += broken.eq(1)
                        m.next = "JUDGE"
                    with m.Elif(~self.i_swapped.payload.done):
                        m.d.sync += address.eq(here)
                        m.next = "READ"
                    with m.Elif(leaf):
                        m.d.sync += settled.eq(1)
                        m.next = "JUDGE"
                    with m.Else():
                        m.d.sync += descend(entry)
                        m.next = "READ"

        for name in ("idle", "read", "check", "judge", "swapped"):
            m.d.comb += registers.phase[name].eq(fsm.ongoing(name.upper()))

        # The response.

        level = Signal(3)
        for k in range(config.levels):
            with m.If(at[k]):
                m.d.comb += level.eq(k + 1)

        # Address bits below the leaf's size come from the linear address.
        frame = Value.cast(entry)
        small, medium, huge = (x86.LEVEL_SHIFT[k] for k in (1, 2, 3))
        physical = Cat(
            request.linear[:small],
            Mux(at[0], frame[small:medium], request.linear[small:medium]),
            Mux(at[2], request.linear[medium:huge], frame[medium:huge]),
            frame[huge : config.physical_bits],
        )

        code = Signal(16)
        with m.If(outcome == x86.Outcome.PAGE_FAULT):
            # [SDM 3A 4.7] RSVD and PK say nothing of an entry that is not present, nor PK of one that is malformed.
            m.d.comb += [
                code[x86.ErrorBit.P].eq(entry.p),
                code[x86.ErrorBit.WR].eq(access.store | access.probe),
                code[x86.ErrorBit.US].eq(access.user),
                code[x86.ErrorBit.RSVD].eq(entry.p & reserved),
                code[x86.ErrorBit.ID].eq(access.fetch & (self.control.nxe | self.control.smep)),
                code[x86.ErrorBit.PK].eq(entry.p & ~reserved & leaf & rights.key_denied),
            ]

        response = self.o_responses.payload
        m.d.comb += [
            response.outcome.eq(outcome),
            response.code.eq(code),
            response.physical.eq(physical),
            response.level.eq(level),
            response.pwt.eq(entry.pwt),
            response.pcd.eq(entry.pcd),
            response.pat.eq(Mux(at[0], entry.pat, entry.pat_large)),
            response.tag.eq(request.tag),
        ]

        if config.trace:
            record = self.o_trace.payload
            m.d.comb += [
                self.o_trace.valid.eq((self.o_responses.valid & self.o_responses.ready) | self.i_swapped.valid),
                record.kind.eq(self.i_swapped.valid),
                record.linear.eq(request.linear),
                record.tag.eq(request.tag),
                record.level.eq(level),
                record.outcome.eq(outcome),
                record.code.eq(code),
                record.physical.eq(physical),
                record.address.eq(here),
                record.old.eq(entry),
                record.new.eq(new),
                record.done.eq(self.i_swapped.payload.done & ~self.i_swapped.payload.error),
            ]
        return m
