"""AXI4's rules, watched on an interface: for simulation, for proofs, and for a design on a board [IHI 0022, A3, A7].

With AWATOP, those of AXI5's atomic transactions too.
"""

from enum import IntEnum
from typing import Any, Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, Out

from ptewalk.rtl.bus.axi import Atomic, Burst, Response

__all__ = ["MANAGER", "SUBORDINATE", "AxiRules", "Rule", "broken_rules"]

_PAGE = 12


class Rule(IntEnum):
    """What can be broken: the number is the bit of `AxiRules.broken`."""

    AW_STABLE = 0
    """What is on offer stays as it is until it is taken [A3.2.1]."""
    W_STABLE = 1
    AR_STABLE = 2
    AW_BURST = 3
    """A beat is not wider than the bus, a burst does not cross 4 KiB; WRAP has 2, 4, 8 or 16 aligned beats [A3.4.1]."""
    AR_BURST = 4
    AW_EXCLUSIVE = 5
    """At most 16 beats and 128 bytes, a power of two, aligned [A7.2.4]."""
    AR_EXCLUSIVE = 6
    EXCLUSIVE_ORDER = 7
    """An exclusive write is not on offer before the exclusive read of its ID has been answered [A7.2.2]."""
    W_LAST = 8
    """WLAST is with the last beat of its burst, which is that of the oldest AW [A3.4.1, A5.3.3]."""
    W_STROBES = 9
    """No strobe beyond the lanes of the beat [A3.4.3]."""
    B_STABLE = 10
    R_STABLE = 11
    B_EARLY = 12
    """An answer is to a write whose AW and whose last W were taken before [A3.3.1]."""
    R_EARLY = 13
    """Data are of a read whose AR was taken before."""
    R_LAST = 14
    """RLAST is with the last beat of its burst."""
    B_EXOKAY = 15
    """EXOKAY answers exclusive accesses only [A3.4.4]."""
    R_EXOKAY = 16
    UNWATCHED = 17
    """No rule of AXI: more is outstanding than can be watched."""
    AW_ATOMIC = 18
    """AWATOP is known, AWLOCK 0; 1 to 8 bytes of one word, or AtomicCompare of 2 to 32, as its halves stand."""
    ATOMIC_ID = 19
    """The ID of an atomic transaction is that of no other access meanwhile."""
    W_ATOMIC = 20
    """All strobes of an atomic transaction's beats are set."""


def _mask(*rules: Rule) -> int:
    return sum(1 << rule for rule in rules)


SUBORDINATE: Final = _mask(
    *(Rule.B_STABLE, Rule.R_STABLE, Rule.B_EARLY, Rule.R_EARLY, Rule.R_LAST, Rule.B_EXOKAY, Rule.R_EXOKAY)
)
"""Bits of the rules that bind whoever answers."""
MANAGER: Final = _mask(*Rule) & ~SUBORDINATE & ~_mask(Rule.UNWATCHED)
"""Bits of the rules that bind whoever asks."""


def broken_rules(bits: int) -> list[str]:
    """The names of the rules of a value of `AxiRules.broken`."""
    return [rule.name for rule in Rule if bits >> rule & 1]


class _Outstanding:
    """What was taken and is not over, oldest first.

    Attributes
    ----------
    entries : list of views
    there : list of Value
        Entry by entry, whether it is one.
    """

    def __init__(self, layout: data.StructLayout, depth: int, name: str) -> None:
        self.name = name
        self.entries = [Signal(layout, name=f"{name}{number}") for number in range(depth)]
        self.count = Signal(range(depth + 1), name=f"{name}_count")
        self.there = [self.count > number for number in range(depth)]
        self.overflows = Signal(name=f"{name}_overflows")

    def oldest(self, m: Module, conditions: list[Value], name: str) -> tuple[Value, Any]:
        """Whether there is an entry for which its condition holds, and the oldest one, one bit each."""
        chosen = Signal(len(self.entries), name=name)
        wanted = Cat(there & condition for there, condition in zip(self.there, conditions, strict=True))
        m.d.comb += chosen.eq(wanted & ~(wanted - 1))
        return wanted.any(), chosen

    def pick(self, m: Module, chosen: Value, name: str) -> Any:
        """The entry whose bit is set in `chosen`."""
        found = Signal(self.entries[0].shape(), name=name)
        for number, entry in enumerate(self.entries):
            with m.If(chosen[number]):
                m.d.comb += found.eq(entry)
        return found

    def change(self, m: Module, *, push: Value, new: Value, pop: Value, changed: list[Any]) -> None:
        """One cycle: the entries become `changed`, that of a bit of `pop` goes, and `new` comes with `push`."""
        count = self.count - pop.any()
        m.d.sync += self.count.eq(count + push)
        m.d.comb += self.overflows.eq(push & (count == len(self.entries)))
        for number, entry in enumerate(self.entries):
            later = changed[min(number + 1, len(changed) - 1)]
            kept = Mux(pop[: number + 1].any(), Value.cast(later), Value.cast(changed[number]))
            m.d.sync += Value.cast(entry).eq(Mux(push & (count == number), new, kept))


class AxiRules(Component):
    """Watches an AXI4 interface, and drives nothing in it.

    Parameters
    ----------
    axi : interface of AxiSignature
        From either side. Where it has no AWATOP, the rules of atomic transactions are never broken.
    reads, writes : int
        Outstanding at most; default 16 of each. Beyond that `Rule.UNWATCHED` is raised.

    Members
    -------
    broken : Out(21)
        A bit for each `Rule` that is broken in this cycle, by what is on the interface now.
    """

    def __init__(self, axi: Any, *, reads: int = 16, writes: int = 16) -> None:
        super().__init__({"broken": Out(unsigned(len(Rule)))})
        self.axi = axi
        self._depth = {"reads": reads, "writes": writes}
        self._lanes = len(axi.w.payload.strb)
        self._atop = axi.aw.payload.atop if "atop" in dict(axi.aw.payload.shape()) else Const(Atomic.NONE, 6)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axi = self.axi
        broken = {rule: Signal(name=rule.name.lower()) for rule in Rule}
        for name in ("aw", "w", "b", "ar", "r"):
            m.d.comb += broken[Rule[f"{name.upper()}_STABLE"]].eq(self._changes(m, name, getattr(axi, name)))
        for name, channel in (("aw", axi.aw), ("ar", axi.ar)):
            lawful, exclusive = self._burst(m, name, channel.payload, self._atop if name == "aw" else Atomic.NONE)
            m.d.comb += [
                broken[Rule[f"{name.upper()}_BURST"]].eq(channel.valid & ~lawful),
                broken[Rule[f"{name.upper()}_EXCLUSIVE"]].eq(channel.valid & channel.payload.lock & ~exclusive),
            ]
        m.d.comb += broken[Rule.AW_ATOMIC].eq(axi.aw.valid & (self._atop != Atomic.NONE) & ~self._atomic(m))
        unwatched = [*self._reads(m, broken), *self._writes(m, broken)]
        m.d.comb += broken[Rule.ATOMIC_ID].eq(self._shares_an_id(m))
        m.d.comb += broken[Rule.UNWATCHED].eq(Cat(*unwatched).any())
        m.d.comb += self.broken.eq(Cat(broken[rule] for rule in Rule))
        return m

    def _changes(self, m: Module, name: str, channel: Any) -> Value:
        """It was on offer and not taken, and is not what it was."""
        payload = Value.cast(channel.payload)
        waits, shown = Signal(name=f"{name}_waits"), Signal(len(payload), name=f"{name}_shown")
        m.d.sync += [waits.eq(channel.valid & ~channel.ready), shown.eq(payload)]
        return waits & (~channel.valid | (payload != shown))

    def _atomic(self, m: Module) -> Value:
        """What is on AW is lawful as an atomic transaction."""
        aw, kind = self.axi.aw.payload, self._atop
        low, mask, half = aw.addr[:5], Signal(15, name="atomic_mask"), Signal(5, name="atomic_half")
        m.d.comb += [mask.eq((aw.len << aw.size) | ((1 << aw.size) - 1)), half.eq((mask + 1) >> 1)]
        whole = (aw.len == 0) | (aw.size == (self._lanes - 1).bit_length())
        shape = ~aw.lock & whole & ((mask & (mask + 1)) == 0)
        upper = (low & half).any()
        pair = (mask >= 1) & (mask <= 31) & ((low & (half - 1)) == 0) & (aw.burst == Mux(upper, Burst.WRAP, Burst.INCR))
        one = (mask <= 7) & ((low & mask) == 0) & (aw.burst == Burst.INCR)
        known = (kind == Atomic.SWAP) | (kind[4:] == Atomic.STORE >> 4) | (kind[4:] == Atomic.LOAD >> 4)
        return shape & Mux(kind == Atomic.COMPARE, pair, known & one)

    def _shares_an_id(self, m: Module) -> Value:
        """An atomic transaction is on offer, or not over, and something on offer has its ID too."""
        aw, ar, atomic = self.axi.aw, self.axi.ar, Signal(name="aw_is_atomic")
        m.d.comb += atomic.eq(aw.valid & (self._atop != Atomic.NONE))
        written = [
            (there, one, one.atomic) for there, one in zip(self._written.there, self._written.entries, strict=True)
        ]
        owed = [(there, one, Const(1)) for there, one in zip(self._owed.there, self._owed.entries, strict=True)]
        read = [(there, one, Const(0)) for there, one in zip(self._read.there, self._read.entries, strict=True)]
        meets = [atomic & ar.valid & (aw.payload.id == ar.payload.id)]
        for there, one, is_atomic in (*written, *owed, *read):
            meets.append(there & aw.valid & (one.id == aw.payload.id) & (is_atomic | atomic))
            meets.append(there & ar.valid & (one.id == ar.payload.id) & is_atomic)
        return Cat(*meets).any()

    def _burst(self, m: Module, name: str, address: Any, atop: Value | int) -> tuple[Value, Value]:
        """It is lawful, and lawful as an exclusive one."""
        most = (self._lanes - 1).bit_length()
        low = address.addr[:_PAGE]
        beat, mask = Signal(_PAGE, name=f"{name}_beat"), Signal(15, name=f"{name}_mask")
        end = Signal(16, name=f"{name}_end")
        m.d.comb += [
            beat.eq((1 << address.size) - 1),
            mask.eq((address.len << address.size) | beat),
            end.eq((low & ~beat) + mask),
        ]
        length = address.len
        power = (length & (length + 1)) == 0
        is_aligned = (low[:11] & mask[:11]) == 0
        wraps = power & (length >= 1) & (length <= 15) & ((low & beat) == 0)
        kind = Mux(
            address.burst == Burst.WRAP, wraps, Mux(address.burst == Burst.FIXED, length <= 15, end[_PAGE:] == 0)
        )
        lawful = (address.burst != 3) & (address.size <= most) & (kind | (atop == Atomic.COMPARE))
        return lawful, power & (length <= 15) & (mask < 128) & is_aligned

    def _reads(self, m: Module, broken: dict[Rule, Signal]) -> list[Value]:
        """What R owes: reads, and what atomic transactions found."""
        ar, r, aw = self.axi.ar, self.axi.r, self.axi.aw
        layout = data.StructLayout({"id": ar.payload.id.shape(), "left": unsigned(8), "lock": 1})
        queues = [
            _Outstanding(layout, self._depth["reads"], "read"),
            _Outstanding(layout, self._depth["writes"], "owed"),
        ]
        queue, self._owed = queues
        self._read = queue
        half = Mux(self._atop == Atomic.COMPARE, aw.payload.len >> 1, aw.payload.len)
        owes = aw.valid & aw.ready & self._atop[5]
        known, found = Signal(name="read_known"), Signal(layout, name="read_found")
        for one, taken, new_of in (
            (queue, ar.valid & ar.ready, (ar.payload.id, ar.payload.len, ar.payload.lock)),
            (self._owed, owes, (aw.payload.id, half, Const(0))),
        ):
            self._owes(m, one, taken, new_of, known, found)
        begun = [
            there & one.lock & (one.id == aw.payload.id) for there, one in zip(queue.there, queue.entries, strict=True)
        ]
        m.d.comb += [
            broken[Rule.R_EARLY].eq(r.valid & ~known),
            broken[Rule.R_LAST].eq(r.valid & known & (r.payload.last != (found.left == 0))),
            broken[Rule.R_EXOKAY].eq(r.valid & known & (r.payload.resp == Response.EXOKAY) & ~found.lock),
            broken[Rule.EXCLUSIVE_ORDER].eq(aw.valid & aw.payload.lock & Cat(*begun).any()),
        ]
        return [one.overflows for one in queues]

    def _owes(self, m: Module, queue: Any, taken: Value, made: tuple[Value, ...], known: Signal, found: Any) -> None:
        """Beats that R owes to those of a queue, and which of them the beat on R is of."""
        r = self.axi.r
        there, chosen = queue.oldest(m, [one.id == r.payload.id for one in queue.entries], f"{queue.name}_of")
        mine = queue.pick(m, chosen, f"{queue.name}_mine")
        beat = r.valid & r.ready & there
        new, changed = Signal(found.shape(), name=f"{queue.name}_new"), []
        m.d.comb += [new.id.eq(made[0]), new.left.eq(made[1]), new.lock.eq(made[2])]
        for number, one in enumerate(queue.entries):
            after = Signal(found.shape(), name=f"{queue.name}{number}_after")
            m.d.comb += [after.eq(one), after.left.eq(one.left - (beat & chosen[number]))]
            changed.append(after)
        pops = chosen & (beat & ((mine.left == 0) | r.payload.last)).replicate(len(queue.entries))
        queue.change(m, push=taken, new=Value.cast(new), pop=pops, changed=changed)
        with m.If(there):
            m.d.comb += [known.eq(1), found.eq(mine)]

    def _writes(self, m: Module, broken: dict[Rule, Signal]) -> list[Value]:
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        lane = (self._lanes - 1).bit_length()
        shape = {"id": aw.payload.id.shape(), "lock": 1, "atomic": 1, "ended": 1, "len": unsigned(8)}
        shape |= {"size": unsigned(3), "burst": unsigned(2), "low": unsigned(lane)}
        layout = data.StructLayout(shape)
        self._written = queue = _Outstanding(layout, self._depth["writes"], "write")
        ahead = _Outstanding(data.StructLayout({"len": unsigned(8)}), 4, "ahead")  # ended before their AW was taken
        new = Signal(layout, name="write_new")
        m.d.comb += [new[name].eq(aw.payload[name]) for name in ("id", "lock", "len", "size", "burst")]
        m.d.comb += [new.low.eq(aw.payload.addr), new.atomic.eq(self._atop != Atomic.NONE)]
        taken, beat, answer = aw.valid & aw.ready, w.valid & w.ready, b.valid & b.ready

        # Of which burst the beat on W is.
        waits, oldest = queue.oldest(m, [~one.ended for one in queue.entries], "write_of")
        arrives = ~waits & taken & ~ahead.there[0]  # of the one that is taken now
        burst = Signal(layout, name="write_burst")
        m.d.comb += burst.eq(Mux(arrives, Value.cast(new), Value.cast(queue.pick(m, oldest, "write_found"))))
        known = waits | arrives
        place = Signal(9)  # of the beat
        ends = beat & w.payload.last
        with m.If(beat):
            m.d.sync += place.eq(Mux(w.payload.last, 0, place + 1))
        m.d.comb += new.ended.eq(Mux(ahead.there[0], 1, arrives & ends))
        lanes = Signal(self._lanes, name="write_lanes")
        m.d.comb += lanes.eq(self._lanes_of(m, burst, place))
        late = ahead.there[0] & taken & (ahead.entries[0].len != aw.payload.len)
        m.d.comb += [
            broken[Rule.W_LAST].eq((w.valid & known & (w.payload.last != (place == burst.len))) | late),
            broken[Rule.W_STROBES].eq(w.valid & known & ((w.payload.strb & ~lanes) != 0)),
            broken[Rule.W_ATOMIC].eq(w.valid & known & burst.atomic & ((~w.payload.strb & lanes) != 0)),
        ]
        sooner = Signal(ahead.entries[0].shape(), name="ahead_new")
        m.d.comb += sooner.len.eq(place)
        first = Signal(4, name="ahead_first")
        m.d.comb += first.eq(taken & ahead.there[0])
        ahead.change(m, push=ends & ~known, new=Value.cast(sooner), pop=first, changed=ahead.entries)

        answerable, chosen = queue.oldest(m, [one.id == b.payload.id for one in queue.entries], "answer_of")
        found = queue.pick(m, chosen, "answer_found")
        changed = []
        for number, one in enumerate(queue.entries):
            after = Signal(layout, name=f"write{number}_after")
            m.d.comb += [after.eq(one), after.ended.eq(one.ended | (ends & oldest[number]))]
            changed.append(after)
        pops = chosen & answer.replicate(len(queue.entries))
        queue.change(m, push=taken, new=Value.cast(new), pop=pops, changed=changed)
        m.d.comb += [
            broken[Rule.B_EARLY].eq(b.valid & ~(answerable & found.ended)),
            broken[Rule.B_EXOKAY].eq(b.valid & answerable & (b.payload.resp == Response.EXOKAY) & ~found.lock),
        ]
        return [queue.overflows, ahead.overflows]

    def _lanes_of(self, m: Module, burst: Any, place: Signal) -> Value:
        """The byte lanes of a beat, a bit each [A3.4.1]."""
        bits = len(burst.low)
        beat, total = Signal(bits), Signal(bits)  # bytes of a beat and of the burst, less 1
        line, low, high = Signal(bits), Signal(bits), Signal(bits)
        m.d.comb += [
            beat.eq((1 << burst.size) - 1),
            total.eq(((burst.len + 1) << burst.size) - 1),
            line.eq((burst.low & ~beat) + (place << burst.size)),
            low.eq(Mux(place == 0, burst.low, line)),
        ]
        with m.If(burst.burst == Burst.WRAP):
            m.d.comb += low.eq((burst.low & ~total) | (Mux(place == 0, burst.low, line) & total))
        with m.Elif(burst.burst == Burst.FIXED):
            m.d.comb += low.eq(burst.low)
        with m.If(burst.atomic):  # both halves, wherever the address points to
            m.d.comb += low.eq(burst.low & ~beat)
        m.d.comb += high.eq(low | beat)
        return Cat((low <= number) & (number <= high) for number in range(self._lanes))
