"""The page walker: linear address in, physical address or fault out, A, D and soft-dirty set on the way."""

from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace
from typing import Any, Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.answer import WalkAnswer
from ptewalk.rtl.entry import EntryCheck, EntryLayout, EntryUpdate, canonical, index_of, mendable, slot
from ptewalk.rtl.interfaces import ContextSignature, MemoryPortSignature, RequesterSignature
from ptewalk.rtl.layouts import (
    ContextLayout,
    EntryWrittenLayout,
    RequestLayout,
    StartLayout,
    TranslationLayout,
    UpperEntryLayout,
    UpperRightsLayout,
    WalkedLayout,
)
from ptewalk.rtl.memory_port import ResetGeneration
from ptewalk.rtl.permissions import AccessClassLayout, AccessRights, classify, key_rights

__all__ = ["WalkState", "Walker", "WalkerConfig", "WalkerRegisters"]

_WIDE: Final = ("request", "access", "address", "here", "entry")
"""Registers that count while a walk is in flight only."""


@dataclass(frozen=True)
class WalkerConfig:
    """Parameters of a walker.

    Parameters
    ----------
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
        False: `o_walked` is left out.
    observe : bool
        True: the registers are an output, for proofs and waves; default False.
    """

    levels: int = x86.LEVELS_5
    physical_bits: int = 40
    gigabyte_pages: bool = True
    soft_dirty: bool = True
    tag_bits: int = 8
    trace: bool = True
    observe: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or self.levels not in (x86.LEVELS_4, x86.LEVELS_5):
            raise ValueError(f"levels must be 4 or 5, not {self.levels!r}")
        if not isinstance(self.physical_bits, int) or not 32 <= self.physical_bits <= x86.MAX_PHYSICAL_BITS:
            raise ValueError(f"physical_bits must be an integer from 32 to 52, not {self.physical_bits!r}")
        if not isinstance(self.tag_bits, int) or not 1 <= self.tag_bits <= 32:
            raise ValueError(f"tag_bits must be an integer from 1 to 32, not {self.tag_bits!r}")
        for name in ("gigabyte_pages", "soft_dirty", "trace", "observe"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")


class WalkState(IntEnum):
    """What a walker does in a cycle. Bit 2: a walk is in flight; bit 1: it is judged, or was."""

    IDLE = 0
    """Takes a context or a request."""
    READ = 4
    """Offers a read, or finds the address not canonical."""
    CHECK = 5
    """Waits for the entry; where it is good and no leaf, the next read is offered in the cycle of its arrival."""
    JUDGE = 6
    """Offers a swap or the answer, from registers."""
    SWAPPED = 7
    """Waits for the swap's answer."""


class WalkerRegisters(data.StructLayout):
    """A walker's registers: what `observe` shows.

    Members
    -------
    state : WalkState
    context : ContextLayout
        Holds for the request in flight.
    request : RequestLayout
        In flight.
    access : AccessClassLayout
    address : unsigned(physical_bits)
        Of the entry to be read, or that is being read.
    here : unsigned(physical_bits)
        Of the entry that was read last.
    entry : EntryLayout
        As it was read.
    at : unsigned(levels)
        Its level, one-hot.
    upper : UpperRightsLayout
        Of the entries above.
    leaf, reserved : 1
        It is a leaf; it has a reserved bit set.
    user_key, supervisor_key : unsigned(2)
        What PKRU and PKRS say of its key.
    noncanonical, broken : 1
        The answer is #GP; a bus error.
    settled : 1
        The leaf's conditional write is done.
    """

    def __init__(self, config: WalkerConfig) -> None:
        super().__init__(
            {
                "state": WalkState,
                "context": ContextLayout(config.physical_bits, soft_dirty=config.soft_dirty),
                "request": RequestLayout(config.tag_bits),
                "access": AccessClassLayout(),
                "address": unsigned(config.physical_bits),
                "here": unsigned(config.physical_bits),
                "entry": EntryLayout(soft_dirty=config.soft_dirty),
                "at": unsigned(config.levels),
                "upper": UpperRightsLayout(),
                "leaf": 1,
                "reserved": 1,
                "user_key": unsigned(2),
                "supervisor_key": unsigned(2),
                "noncanonical": 1,
                "broken": 1,
                "settled": 1,
            }
        )


class Walker(Component):
    """One page walk at a time; a hit-free walk of n levels takes n * L + 2 cycles from request to response.

    L is the memory port's latency. Each A bit that has to be set on the way costs L + 2 cycles more; D, soft-dirty
    and A of the leaf together cost one conditional write, L + 1 cycles. A conditional write that fails is followed by
    a read and a new check of the same entry: a value that was not checked is never overwritten.

    A is set in each good entry as the walk passes it [SDM 3A 4.8], so a walk that faults may leave it set above the
    entry that faulted; nothing is ever written into that entry. A probe writes nothing at all.

    Parameters
    ----------
    config : WalkerConfig
    starts : bool
        True: a walk begins where `i_start` says. One that began below the root and would end in a page fault begins
        again at the root, once: no page fault rests on anything cached. The answer to a leaf's conditional write is
        the response, a cycle earlier than without. The context is somebody else's register.
    logs : bool
        True: a swap may have to wait for a log; default False. Only with `starts`.
    few_resets : bool
        True: what is wide and counts while a walk is in flight only takes no reset; default False.

    Members
    -------
    requester : In(RequesterSignature)
        Exactly one response per request, in order.
    i_start : In(StartLayout)
        Where the walk of the request on offer begins; only with `starts`.
    o_upper : Out(UpperEntryLayout), o_passes : Out(1)
        The upper entry that arrives in this cycle; it is good and had A set, and no probe reads it. Only with `starts`.
    o_judges : Out(1)
        A response may be on offer in this cycle; from registers. Only with `starts`.
    o_code : Out(16)
        The response's error code if it is a page fault, and anything else if not. Only with `starts`.
    i_again : In(1)
        The swap on offer will not be taken: the walk is over, without a response. Only with `logs`.
    contexts : In(ContextSignature)
        Without `starts`.
    i_context : In(ContextLayout)
        In force, and steady while a walk is in flight; only with `starts`.
    memory : Out(MemoryPortSignature)
        At most one transfer is outstanding, but for those that a reset left behind.
    o_translation : Out(TranslationLayout)
        What stands beside a response that is OK.
    o_written : Out(stream of EntryWrittenLayout, always ready)
        One per swap, as it is answered.
    o_walked : Out(stream of WalkedLayout, always ready)
        One per response, as it is taken; only with `trace`.
    o_registers : Out(WalkerRegisters)
        Only with `observe`.
    """

    def __init__(
        self,
        config: WalkerConfig = WalkerConfig(),  # noqa: B008 - frozen
        *,
        starts: bool = False,
        logs: bool = False,
        few_resets: bool = False,
    ) -> None:
        self.config = config
        self._starts, self._logs = starts, logs
        bits, tag_bits, soft_dirty = config.physical_bits, config.tag_bits, config.soft_dirty
        members = {
            "requester": In(RequesterSignature(physical_bits=bits, tag_bits=tag_bits)),
            "memory": Out(MemoryPortSignature(bits)),
            "o_translation": Out(TranslationLayout(bits, soft_dirty=soft_dirty)),
            "o_written": Out(stream.Signature(EntryWrittenLayout(bits, tag_bits), always_ready=True)),
        }
        if config.trace:
            members["o_walked"] = Out(stream.Signature(WalkedLayout(bits, tag_bits), always_ready=True))
        if config.observe:
            members["o_registers"] = Out(WalkerRegisters(config))
        if starts:
            members["i_context"] = In(ContextLayout(bits, soft_dirty=soft_dirty))
            members["i_start"] = In(StartLayout(bits, config.levels))
            members["o_upper"] = Out(UpperEntryLayout(bits, config.levels))
            members["o_passes"] = Out(1)
            members["o_judges"] = Out(1)
            members["o_code"] = Out(16)
            if logs:
                members["i_again"] = In(1)
        else:
            members["contexts"] = In(ContextSignature(physical_bits=bits, soft_dirty=soft_dirty))
        self._cached = Signal()  # the walk began below the root, and may begin again
        super().__init__(members)
        self._registers = SimpleNamespace(
            **{
                str(name): Signal(field.shape, name=str(name), reset_less=few_resets and str(name) in _WIDE)
                for name, field in WalkerRegisters(config)
            }
        )
        if starts:
            self._registers.context = self.i_context

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, r = self.config, self._registers
        requests, responses = self.requester.requests, self.requester.responses
        reads, swaps, found, swapped = self.memory.reads, self.memory.swaps, self.memory.data, self.memory.swapped

        m.submodules.generation = generation = ResetGeneration()
        answered = Signal()  # the read that is outstanding is answered in this cycle
        written = Signal()  # the swap is
        m.d.comb += [
            reads.payload.id.eq(generation.value),
            swaps.payload.id.eq(generation.value),
            answered.eq(found.valid & (found.payload.id == generation.value)),
            written.eq(swapped.valid & (swapped.payload.id == generation.value)),
        ]

        # The entry on the data channel, in the cycle in which it arrives: what it is, and does the walk go on below.

        entry = data.View(EntryLayout(soft_dirty=config.soft_dirty), found.payload.value)
        m.submodules.check = check = EntryCheck(
            levels=config.levels, physical_bits=config.physical_bits, gigabyte_pages=config.gigabyte_pages
        )
        m.d.comb += [
            Value.cast(check.entry).eq(found.payload.value),
            check.at.eq(r.at),
            check.nxe.eq(r.context.control.nxe),
        ]
        next_address = Signal(config.physical_bits)  # of the entry below
        m.d.comb += next_address.eq(slot(self._frame(found.payload.value), self._index_below(m)))

        # The entry judged, one cycle later, from registers: fault, conditional write, or answer.

        answer, update = self._judge(m)
        stale = Signal()  # the entry lacks a bit that this access must set
        m.d.comb += [
            stale.eq(~r.access.probe & ~r.settled & update.missing),
            reads.payload.address.eq(Mux(r.state == WalkState.CHECK, next_address, r.address)),
            swaps.payload.address.eq(r.here),
            swaps.payload.old.eq(r.entry),
            swaps.payload.new.eq(update.new),
            responses.payload.eq(answer.response),
            self.o_translation.eq(answer.translation),
        ]

        # The walk.

        la57 = r.context.control.la57 if config.levels == x86.LEVELS_5 else Const(0)
        good = Signal()
        m.d.comb += good.eq(canonical(r.request.linear, la57))

        with m.Switch(r.state):
            with m.Case(WalkState.IDLE):
                if self._starts:
                    # What is on offer without being valid does no harm: it starts no walk.
                    self._accept(m, requests.payload, la57)
                    m.d.comb += requests.ready.eq(1)
                    with m.If(requests.valid):
                        m.d.sync += r.state.eq(WalkState.READ)
                else:
                    m.d.comb += [self.contexts.ready.eq(1), requests.ready.eq(~self.contexts.valid)]
                    with m.If(self.contexts.valid):
                        m.d.sync += r.context.eq(self.contexts.payload)
                    with m.Elif(requests.valid):
                        self._accept(m, requests.payload, la57)
                        m.d.sync += r.state.eq(WalkState.READ)

            with m.Case(WalkState.READ):
                m.d.comb += reads.valid.eq(good)
                m.d.sync += r.noncanonical.eq(~good)
                with m.If(~good):
                    m.d.sync += r.state.eq(WalkState.JUDGE)
                with m.Elif(reads.ready):
                    m.d.sync += r.state.eq(WalkState.CHECK)

            with m.Case(WalkState.CHECK):
                m.d.sync += [
                    r.entry.eq(entry),
                    r.leaf.eq(check.leaf),
                    r.reserved.eq(check.reserved),
                    r.user_key.eq(key_rights(r.context.pkru, entry)),
                    r.supervisor_key.eq(key_rights(r.context.pkrs, entry)),
                    r.broken.eq(found.payload.error),
                ]
                with m.If(answered):
                    # Whether the walk goes on below or not: the verdict is not on the way of the address.
                    m.d.sync += [r.here.eq(r.address), r.address.eq(next_address)]
                    passable = entry.p & ~check.reserved & ~found.payload.error
                    if self._starts:
                        m.d.comb += self.o_passes.eq(passable & ~check.leaf & entry.a & ~r.access.probe)
                    with m.If(passable & ~check.leaf & (entry.a | r.access.probe)):
                        # The next read leaves in the cycle in which this entry arrived.
                        m.d.comb += reads.valid.eq(1)
                        m.d.sync += self._descend(entry)
                        with m.If(~reads.ready):
                            m.d.sync += r.state.eq(WalkState.READ)
                    with m.Else():
                        m.d.sync += r.state.eq(WalkState.JUDGE)

            with m.Case(WalkState.JUDGE):
                if self._starts:
                    with m.If(r.leaf | r.reserved | ~r.entry.p):
                        # The walk ends here, unless it begins again: the verdict is not on the way of the address.
                        m.d.sync += r.address.eq(self._root_entry(la57))
                with m.If((answer.outcome == x86.Outcome.OK) & stale):
                    m.d.comb += swaps.valid.eq(1)
                    with m.If(swaps.ready):
                        m.d.sync += r.state.eq(WalkState.SWAPPED)
                    if self._logs:
                        with m.Elif(self.i_again):
                            m.d.sync += r.state.eq(WalkState.IDLE)
                if self._starts:
                    with m.Elif((answer.outcome == x86.Outcome.PAGE_FAULT) & self._cached):
                        m.d.sync += [*self._from_root(la57), r.state.eq(WalkState.READ)]
                with m.Else():
                    m.d.comb += responses.valid.eq(1)
                    with m.If(responses.ready):
                        m.d.sync += r.state.eq(WalkState.IDLE)

            with m.Case(WalkState.SWAPPED):
                with m.If(written):
                    with m.If(swapped.payload.error):
                        m.d.sync += [r.broken.eq(1), r.state.eq(WalkState.JUDGE)]
                    with m.Elif(~swapped.payload.done):
                        m.d.sync += [r.address.eq(r.here), r.state.eq(WalkState.READ)]
                    with m.Elif(r.leaf):
                        m.d.sync += [r.settled.eq(1), r.state.eq(WalkState.JUDGE)]
                        if self._starts:
                            m.d.comb += responses.valid.eq(1)
                            with m.If(responses.ready):
                                m.d.sync += r.state.eq(WalkState.IDLE)
                    with m.Else():
                        m.d.sync += [self._descend(r.entry), r.state.eq(WalkState.READ)]

        # What is told of it.

        event = self.o_written.payload
        m.d.comb += [
            self.o_written.valid.eq(written),
            event.linear.eq(r.request.linear),
            event.tag.eq(r.request.tag),
            event.level.eq(answer.level),
            event.address.eq(r.here),
            event.old.eq(r.entry),
            event.new.eq(update.new),
            event.done.eq(swapped.payload.done & ~swapped.payload.error),
            event.error.eq(swapped.payload.error),
        ]
        if self._starts:
            upper = self.o_upper
            m.d.comb += [
                self.o_code.eq(answer.code),
                self.o_judges.eq(r.state[1]),
                upper.at.eq(r.at),
                upper.linear.eq(r.request.linear),
                upper.frame.eq(self._frame(found.payload.value)),
                *(upper.rights[name].eq(value) for name, value in self._rights_below(entry).items()),
            ]
        if config.trace:
            m.d.comb += [
                self.o_walked.valid.eq(responses.valid & responses.ready),
                self.o_walked.payload.linear.eq(r.request.linear),
                *(self.o_walked.payload[name].eq(responses.payload[name]) for name, _ in answer.response.shape()),
            ]
        if config.observe:
            m.d.comb += [self.o_registers[name].eq(value) for name, value in vars(r).items()]
        return m

    def _frame(self, entry: Value) -> Value:
        """The frame number in an entry."""
        return entry[x86.FRAME_LOW : self.config.physical_bits]

    def _index_below(self, m: Module) -> Value:
        """The index into the table that the entry at hand points to."""
        below = Signal(x86.INDEX_BITS)
        with m.Switch(self._registers.at):
            for level in range(2, self.config.levels + 1):
                with m.Case(1 << (level - 1)):
                    m.d.comb += below.eq(index_of(self._registers.request.linear, level - 1))
        return below

    def _accept(self, m: Module, request: data.View, la57: Value) -> None:
        """A request is taken: classified under the context, with the first entry that is to be read."""
        r = self._registers
        m.d.sync += [
            r.request.eq(request),
            *(r.access[name].eq(value) for name, value in classify(request, r.context.control).items()),
            Cat(r.noncanonical, r.broken, r.settled).eq(0),
        ]
        if not self._starts:
            top = Mux(la57, index_of(request.linear, x86.LEVELS_5), index_of(request.linear, x86.LEVELS_4))
            m.d.sync += [
                r.address.eq(slot(r.context.root, top)),
                r.at.eq(self._top(la57)),
                Cat(r.upper.rw, r.upper.us, r.upper.xd).eq(0b011),
            ]
            return
        start = self.i_start
        index = Signal(x86.INDEX_BITS, name="start_index")
        with m.Switch(start.at):
            for level in range(1, self.config.levels + 1):
                with m.Case(1 << (level - 1)):
                    m.d.comb += index.eq(index_of(request.linear, level))
        m.d.sync += [
            r.address.eq(slot(start.frame, index)),
            *(r.at.eq(start.at), r.upper.eq(start.rights), self._cached.eq(start.cached)),
        ]

    def _top(self, la57: Value) -> Value:
        """The root's level, one-hot."""
        return Mux(la57, 1 << (x86.LEVELS_5 - 1), 1 << (x86.LEVELS_4 - 1))

    def _root_entry(self, la57: Value) -> Value:
        """The address of the root's entry."""
        r = self._registers
        linear = r.request.linear
        return slot(r.context.root, Mux(la57, index_of(linear, x86.LEVELS_5), index_of(linear, x86.LEVELS_4)))

    def _from_root(self, la57: Value) -> list[Any]:
        """The walk begins again at the root, whose entry's address is in the register by then."""
        r = self._registers
        return [
            r.at.eq(self._top(la57)),
            Cat(r.upper.rw, r.upper.us, r.upper.xd).eq(0b011),
            self._cached.eq(0),
        ]

    def _descend(self, entry: data.View) -> list[Any]:
        """One level down, below `entry`."""
        r = self._registers
        rights = self._rights_below(entry)
        return [r.at.eq(r.at >> 1), *(r.upper[name].eq(value) for name, value in rights.items())]

    def _rights_below(self, entry: data.View) -> dict[str, Value]:
        """`UpperRightsLayout`'s fields below `entry`."""
        upper = self._registers.upper
        return {"rw": upper.rw & entry.rw, "us": upper.us & entry.us, "xd": upper.xd | entry.xd}

    def _judge(self, m: Module) -> tuple[WalkAnswer, EntryUpdate]:
        """The nets that judge the entry at hand: rights, what has to be set, and the answer."""
        config, r = self.config, self._registers
        m.submodules.rights = rights = AccessRights(soft_dirty=config.soft_dirty)
        m.submodules.update = update = EntryUpdate(soft_dirty=config.soft_dirty)
        m.submodules.answer = answer = WalkAnswer(
            levels=config.levels,
            physical_bits=config.physical_bits,
            tag_bits=config.tag_bits,
            soft_dirty=config.soft_dirty,
        )
        m.d.comb += [
            rights.access.eq(r.access),
            rights.upper_rw.eq(r.upper.rw),
            rights.leaf_rw.eq(r.entry.rw),
            rights.us.eq(r.upper.us & r.entry.us),
            rights.xd.eq(r.upper.xd | r.entry.xd),
            rights.user_key.eq(r.user_key),
            rights.supervisor_key.eq(r.supervisor_key),
            update.entry.eq(r.entry),
            update.leaf.eq(r.leaf),
            update.store.eq(r.access.store),
            *(getattr(answer, name).eq(getattr(r, name)) for name in ("request", "access", "entry", "at", "upper")),
            *(getattr(answer, name).eq(getattr(r, name)) for name in ("leaf", "reserved", "noncanonical", "broken")),
            answer.new.eq(update.new),
            answer.address.eq(r.here),
            answer.denied.eq(rights.denied),
            answer.key_denied.eq(rights.key_denied),
            answer.fetch_bit.eq(r.context.control.nxe | r.context.control.smep),
        ]
        if config.soft_dirty:
            m.d.comb += [
                rights.mendable.eq(mendable(r.context.track, r.entry)),
                update.track.eq(r.context.track),
                # It counts in an access that is allowed only.
                update.mend.eq(r.access.needs_rw & ~r.entry.rw),
                update.saved_dirty.eq(r.context.saved_dirty),
            ]
        return answer, update
