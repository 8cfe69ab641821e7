"""What is shown of a whole MMU that caches, at its pins, as far as a bounded search goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import data

from ptewalk.cosim.formal.harness import FLAT, Harness
from ptewalk.model import linux, x86
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.entry import EntryLayout, canonical, index_of, slot
from ptewalk.rtl.interfaces import ID_BITS
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["MmuAnswers", "MmuAnswersSplit", "MmuHarness"]

_LINEAR = x86.LINEAR_BITS[x86.LEVELS_5]
_ADDRESS = (12, 13, 21, 30, 63)
"""Bits of an address that vary: two sets of each bank, pages of each size, and one that makes it not canonical."""
_FRAME = (12, 13, 21, 30)
"""Bits of the address of a page or a table that vary."""
_ENTRY = (
    *(int(bit) for bit in (x86.EntryBit.P, x86.EntryBit.RW, x86.EntryBit.US, x86.EntryBit.A, x86.EntryBit.D)),
    *(int(bit) for bit in (x86.EntryBit.PS, x86.EntryBit.G, x86.EntryBit.XD)),
    *(int(bit) for bit in (linux.SoftBit.SOFT_DIRTY, linux.SoftBit.ARM)),
    *_FRAME,
)
"""Bits of an entry that vary."""
_ROOT, _PCID = (0, 1), (0, 1)
_LEVELS = (1, 2, 3)
"""Of a leaf."""


def smallest(*, walkers: int, split: bool = False) -> CachingMmuConfig:
    """The smallest MMU that has all parts: two sets of each bank, two upper entries of each level, two PCID slots."""
    return CachingMmuConfig(
        WalkerConfig(levels=x86.LEVELS_4, physical_bits=32, tag_bits=2),
        fault_depth=1,
        small_sets=2,
        small_ways=1,
        large_sets=2,
        large_ways=1,
        slots=2,
        waiting=3,
        upper_entries=2,
        walkers=walkers,
        split_lookup=split,
    )


class MmuHarness(Harness):
    """A whole MMU, all of its modules; what its pins tell of requests, of memory and of what was to be forgotten."""

    bounded = True
    solver = "abc"
    script = FLAT
    search_depth = 24
    assumptions: tuple[str, ...] = (
        "no reset but the first",
        "tags are unique among requests in flight and grants outstanding",
        "memory answers what was asked, each access once and with its id",
        f"bits of addresses other than {_ADDRESS} are 0, of entries other than {_ENTRY}",
        "four PCIDs and root tables, no protection keys, no SMAP",
    )
    SPLIT = False
    """The lookup is split."""

    def __init__(self, *, walkers: int = 1, searching: bool = False) -> None:
        self.mmu = CachingMmu(smallest(walkers=walkers, split=self.SPLIT))
        super().__init__(self.mmu, searching=searching)
        mmu = self.mmu
        control = dict.fromkeys(("la57", "pke", "pks", "smap"), ())
        self._driven = [
            self._vary(mmu.requester.requests.payload, {"linear": _ADDRESS}),
            self._vary(mmu.invalidations.payload, {"linear": _ADDRESS, "pcid": _PCID}),
            self._vary(
                mmu.contexts.payload, {"root": _ROOT, "pcid": _PCID, "pkru": (), "pkrs": (), "control": control}
            ),
            self._vary(mmu.memory.data.payload, {"value": _ENTRY}),
        ]
        self.requests, self.responses = mmu.requester.requests, mmu.requester.responses
        self.asked, self.answer = self.requests.payload, self.responses.payload
        self.accepted, self.answered = Signal(), Signal()
        self.context = Signal(mmu.contexts.payload.shape())  # taken last
        self.changes = Signal()  # another is taken
        self.tags = [self._tag(number) for number in range(1 << mmu.config.walker.tag_bits)]
        self.walks = [self._walk(number) for number in range(walkers)]

    def _vary(self, payload: data.View, fields: dict[str, Any]) -> tuple[data.View, data.View, dict[str, Any]]:
        """An input of which some fields vary in few bits: itself, what it is driven by, and those bits."""
        old = Value.cast(payload)
        assert isinstance(old, Signal)
        new = Signal(payload.shape(), name=f"free_{old.name}")
        self.ports = [port for port in self.ports if port is not old]
        self.ports.append(Value.cast(new))
        return payload, new, fields

    def _drive(self, m: Module, payload: data.View, free: data.View, fields: dict[str, Any]) -> None:
        """Drives an input by what is free of it."""
        for name, field in payload.shape():
            bits = fields.get(str(name))
            if isinstance(bits, dict):
                self._drive(m, payload[name], free[name], bits)
            else:
                value = Value.cast(free[name])
                m.d.comb += Value.cast(payload[name]).eq(value if bits is None else _spread(value, bits, field.width))

    def _tag(self, number: int) -> SimpleNamespace:
        """What is known of the request of one tag."""
        return SimpleNamespace(
            busy=Signal(name=f"busy_{number}"),  # it is in flight
            granted=Signal(name=f"granted_{number}"),  # it was granted, and has not retired
            store=Signal(name=f"store_{number}"),
            accepted=Signal(name=f"accepted_{number}"),  # in this cycle
            answered=Signal(name=f"answered_{number}"),
        )

    def _walk(self, number: int) -> SimpleNamespace:
        """What memory knows of one walker."""
        return SimpleNamespace(
            reading=Signal(name=f"reading_{number}"),  # a read is outstanding
            swapping=Signal(name=f"swapping_{number}"),
            read=Signal(name=f"read_{number}"),  # it is answered in this cycle
            swapped=Signal(name=f"swapped_{number}"),
            address=Signal(self.mmu.config.walker.physical_bits, name=f"address_{number}"),  # of what was read last
            value=Signal(EntryLayout(), name=f"value_{number}"),  # which was this
            known=Signal(name=f"known_{number}"),  # and is not written since
            new=Signal(EntryLayout(), name=f"new_{number}"),  # what the swap in flight writes
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mmu = self.mmu
        made = mmu.elaborate(None)
        queue = made.submodules.queue
        mmu.elaborate = lambda platform: made  # type: ignore[method-assign]
        m.submodules.mmu = mmu
        m.d.comb += [
            Assume(~ResetSignal("sync")),
            self.accepted.eq(self.requests.valid & self.requests.ready),
            self.answered.eq(self.responses.valid & self.responses.ready),
            self.changes.eq(mmu.contexts.valid & mmu.contexts.ready),
            # Who has to wait finds room.
            Assert(~queue.w_en | queue.w_rdy),
        ]
        with m.If(self.changes):
            m.d.sync += self.context.eq(mmu.contexts.payload)
        for number, tag in enumerate(self.tags):
            self._follow(m, number, tag)
        for number, walk in enumerate(self.walks):
            self._serve(m, number, walk)
        for driven in self._driven:
            self._drive(m, *driven)
        self._specify(m)
        return m

    def _follow(self, m: Module, number: int, tag: SimpleNamespace) -> None:
        """The request and the grant of one tag."""
        retired = self.mmu.requester.retired
        asked, answer = self.asked, self.answer
        m.d.comb += [
            tag.accepted.eq(self.accepted & (asked.tag == number)),
            tag.answered.eq(self.answered & (answer.tag == number)),
            Assume(~(self.requests.valid & (asked.tag == number)) | ~(tag.busy | tag.granted)),
            Assume(~(retired.valid & (retired.payload.tag == number)) | tag.granted),
        ]
        with m.If(tag.accepted):
            m.d.sync += [tag.busy.eq(1), tag.store.eq(is_store(asked))]
        with m.If(tag.answered):
            m.d.sync += [tag.busy.eq(0), tag.granted.eq(tag.store & (answer.outcome == x86.Outcome.OK))]
        with m.If(retired.valid & (retired.payload.tag == number)):
            m.d.sync += tag.granted.eq(0)
        # One answer for each request.
        m.d.comb += Assert(~(self.responses.valid & (answer.tag == number)) | tag.busy)

    def _serve(self, m: Module, number: int, walk: SimpleNamespace) -> None:
        """Memory as one walker sees it; and that each swap is from what this walk has read there."""
        memory = self.mmu.memory
        reads, swaps, found, swapped = memory.reads, memory.swaps, memory.data, memory.swapped
        identity = number  # the generation of the first reset is 0
        bits = ID_BITS + (len(self.walks) - 1).bit_length()
        old, new = data.View(EntryLayout(), swaps.payload.old), data.View(EntryLayout(), swaps.payload.new)
        asks = reads.valid & (reads.payload.id == identity)
        writes = swaps.valid & (swaps.payload.id == identity)
        m.d.comb += [
            walk.read.eq(found.valid & (found.payload.id == identity)),
            walk.swapped.eq(swapped.valid & (swapped.payload.id == identity)),
            Assume(~walk.read | walk.reading),
            Assume(~walk.swapped | walk.swapping),
        ]
        if number == 0:
            count = len(self.walks)
            m.d.comb += [
                Assume(~found.valid | (found.payload.id < count)),
                Assume(~swapped.valid | (swapped.payload.id < count)),
                Assume(~swapped.valid | ~(swapped.payload.done & swapped.payload.error)),
                Assert(~reads.valid | (reads.payload.id < count)),
                Assert(~swaps.valid | (swaps.payload.id < count)),
            ]
        assert len(found.payload.id) == bits
        with m.If(walk.read):
            m.d.sync += [walk.reading.eq(0), walk.known.eq(~found.payload.error)]
            m.d.sync += Value.cast(walk.value).eq(found.payload.value)
        with m.If(asks & reads.ready):
            m.d.sync += [walk.reading.eq(1), walk.address.eq(reads.payload.address)]
            with m.If(~walk.read):
                m.d.sync += walk.known.eq(0)
        with m.If(writes & swaps.ready):
            m.d.sync += [walk.swapping.eq(1), walk.known.eq(0), Value.cast(walk.new).eq(swaps.payload.new)]
        with m.If(walk.swapped):
            m.d.sync += walk.swapping.eq(0)
        m.d.comb += [
            # One access at a time.
            Assert(~asks | ((~walk.reading | walk.read) & ~walk.swapping) | (walk.swapped & ~walk.reading)),
            Assert(~writes | (~walk.reading & ~walk.swapping)),
        ]
        with m.If(writes):
            mends = ~old.rw & new.rw
            changed = Signal(EntryLayout(), name=f"changed_{number}")
            m.d.comb += Value.cast(changed).eq(swaps.payload.old ^ swaps.payload.new)
            tracking = self.context.track != linux.Track.OFF
            rest = Cat(changed[name] for name, _ in EntryLayout() if name not in _MAY_CHANGE)
            m.d.comb += [
                Assert(walk.known & (swaps.payload.address == walk.address)),
                Assert(swaps.payload.old == Value.cast(walk.value)),
                Assert(old.p & ~rest.any()),
                Assert((new.a | ~old.a) & (new.d | ~old.d)),
                Assert(~changed.soft_dirty | (tracking & new.soft_dirty)),
                Assert(~(changed.rw | changed.arm) | (mends & (self.context.track == linux.Track.FAULT) & old.arm)),
            ]

    def _specify(self, m: Module) -> None:
        raise NotImplementedError


def _spread(value: Value, bits: tuple[int, ...], width: int) -> Value:
    """`value` with only these bits; the others are 0."""
    return Cat(value[bit] if bit in bits else Const(0, 1) for bit in range(width))


_MAY_CHANGE = ("a", "d", "soft_dirty", "rw", "arm", "saved_dirty")


def is_store(request: data.View) -> Value:
    """It writes."""
    result: Value = (request.access == x86.Access.WRITE) | (request.access == x86.Access.RMW)
    return result


class MmuAnswers(MmuHarness):
    """An answer follows from values read, or swapped, since the last event that covers them and came before it.

    For one arbitrary page, PCID, frame, page table and class of access: an OK rests on a leaf that this MMU read or
    swapped since the last covering invalidation, context or page fault before the request, with all the bits that the
    access needs; one in a page table on an entry above it, still true as the leaf was read. A page fault rests on the
    root's entry as it was read after the request came.
    """

    title = "mmu-answers"
    constants = ("linear", "pcid", "frame", "table", "kind", "user", "wp")

    def _specify(self, m: Module) -> None:
        mmu, context, answer = self.mmu, self.context, self.answer
        page_bits = mmu.config.walker.physical_bits - x86.PAGE_SHIFT
        kind = self.arbitrary(m, 2, "kind")
        frames = tuple(bit - x86.PAGE_SHIFT for bit in _FRAME)
        fixed = SimpleNamespace(
            linear=_spread(self.arbitrary(m, 64, "linear"), _ADDRESS, 64),
            pcid=_spread(self.arbitrary(m, x86.PCID_BITS, "pcid"), _PCID, x86.PCID_BITS),
            frame=_spread(self.arbitrary(m, page_bits, "frame"), frames, page_bits),
            table=_spread(self.arbitrary(m, page_bits, "table"), frames, page_bits),
            store=kind == 1,
            fetch=kind == 2,
            probe=kind == 3,
            user=self.arbitrary(m, 1, "user"),
            wp=self.arbitrary(m, 1, "wp"),
        )
        own = Signal()  # the context is of the PCID
        m.d.comb += own.eq(context.pcid == fixed.pcid)
        mine = Cat(own, 1)

        # What memory gives in this cycle.
        seen = [self._seen(m, number, fixed) for number in range(len(self.walks))]
        come = {level: _any([one.leaf[level] for one in seen]) for level in _LEVELS}
        inside, leads = _any([one.inside for one in seen]), _any([one.leads for one in seen])

        # What later requests may rest on: leaves by level, the PCID's own and global ones, and what leads to the table.
        leaf = {level: Signal(2, name=f"leaf_{level}") for level in _LEVELS}
        gone = {level: Signal(2, name=f"gone_{level}") for level in _LEVELS}
        upper, upper_gone, faulted = Signal(), Signal(), Signal()
        self._forget(m, fixed, own, faulted, gone, upper_gone)
        true = (upper | ~own).replicate(2)
        arriving = {level: come[level] | (inside & true if level == 1 else 0) for level in _LEVELS}
        m.d.sync += upper.eq((upper | (leads & own)) & ~upper_gone)
        m.d.sync += [leaf[level].eq((leaf[level] | (arriving[level] & mine)) & ~gone[level]) for level in _LEVELS]

        # What each request in flight may rest on, and its answer.
        reads = mmu.memory.reads
        root = slot(context.root, index_of(fixed.linear, x86.LEVELS_4))
        hits, walks = Signal(), Signal()
        for number, tag in enumerate(self.tags):
            of = SimpleNamespace(
                **{
                    name: Signal(name=f"{name}_{number}")
                    for name in ("page", "fits", "good", "upper", "rooted", "unread", "after")
                },
                leaf={level: Signal(name=f"leaf_{level}_{number}") for level in _LEVELS},
            )
            with m.If(tag.accepted):
                m.d.sync += [
                    *self._ask(of, fixed, own),
                    *(of.rooted.eq(0), of.unread.eq(1), of.upper.eq(upper | leads)),
                    *(of.leaf[level].eq(((leaf[level] & mine) | arriving[level]).any()) for level in _LEVELS),
                ]
            with m.Else():
                for level in _LEVELS:
                    with m.If(come[level].any() | ((inside.any() & of.upper) if level == 1 else 0)):
                        m.d.sync += of.leaf[level].eq(1)
                with m.If(leads):
                    m.d.sync += of.upper.eq(1)
                with m.If(reads.valid & reads.ready):
                    m.d.sync += of.unread.eq(0)
                    with m.If(reads.payload.address == root):
                        m.d.sync += of.rooted.eq(1)
            outcome = answer.outcome
            with m.If(self.responses.valid & (answer.tag == number)):
                m.d.comb += Assert((outcome == x86.Outcome.GENERAL_PROTECTION) == ~of.good)
                with m.If((outcome == x86.Outcome.PAGE_FAULT) & of.page):
                    m.d.comb += Assert(of.rooted)
                with m.If((outcome == x86.Outcome.OK) & of.page):
                    small = x86.LEVEL_SHIFT[1]
                    for level in (2, 3):
                        with m.If(answer.level == level):
                            size = x86.LEVEL_SHIFT[level]
                            m.d.comb += Assert(answer.physical[small:size] == fixed.linear[small:size])
                    for level in _LEVELS:
                        with m.If(of.fits & (answer.level == level) & (answer.physical[small:] == fixed.frame)):
                            m.d.comb += [
                                Assert(of.leaf[level]),
                                hits.eq(fixed.store & of.unread & tag.answered),
                                walks.eq((answer.level == 1) & ~of.unread & tag.answered),
                            ]
        walked = mmu.o_walked
        page = walked.payload.linear[x86.PAGE_SHIFT : _LINEAR] == fixed.linear[x86.PAGE_SHIFT : _LINEAR]
        m.d.comb += [
            faulted.eq(walked.valid & (walked.payload.outcome == x86.Outcome.PAGE_FAULT) & page),
            Cover(hits),
            Cover(walks),
            Cover(faulted & (leaf[1] | leaf[2]).any()),
        ]

    def _ask(self, of: SimpleNamespace, fixed: SimpleNamespace, own: Value) -> list[Value]:
        """What a request is, as it is accepted."""
        asked, control = self.asked, self.context.control
        small = x86.PAGE_SHIFT
        return [
            of.page.eq(asked.linear[small:_LINEAR] == fixed.linear[small:_LINEAR]),
            of.good.eq(canonical(asked.linear, Const(0))),
            of.fits.eq(
                own
                & (is_store(asked) == fixed.store)
                & ((asked.access == x86.Access.FETCH) == fixed.fetch)
                & ((asked.access == x86.Access.PROBE) == fixed.probe)
                & ((asked.user & ~asked.implicit) == fixed.user)
                & (control.wp == fixed.wp)
            ),
        ]

    def _seen(self, m: Module, number: int, fixed: SimpleNamespace) -> SimpleNamespace:
        """What memory tells one walker in this cycle: leaves that would do, by level, and what leads to the table.

        Of leaves two bits: the PCID's own, and global. `inside`: those of level 1 that stand in the table.
        """
        walk, memory, context = self.walks[number], self.mmu.memory, self.context
        value = Signal(EntryLayout(), name=f"seen_{number}")
        told = Signal(name=f"told_{number}")
        m.d.comb += [
            Value.cast(value).eq(Mux(walk.read, memory.data.payload.value, walk.new)),
            told.eq(
                (walk.read & ~memory.data.payload.error)
                | (walk.swapped & memory.swapped.payload.done & ~memory.swapped.payload.error)
            ),
        ]
        bits = Value.cast(value)[: self.mmu.config.walker.physical_bits]
        passes = (
            (told & value.p & (fixed.probe | value.a))
            & (~fixed.user | value.us)
            & (~(fixed.store & (fixed.user | fixed.wp)) | value.rw)
            & (~fixed.fetch | ~value.xd)
        )
        tracking = context.track != linux.Track.OFF
        serves = passes & (~fixed.store | (value.d & (~tracking | value.soft_dirty)))
        of_all = value.g & context.control.pge
        leaf, inside = {}, Signal(2, name=f"inside_{number}")
        place = slot(fixed.table, index_of(fixed.linear, 1))
        for level in _LEVELS:
            shift = x86.LEVEL_SHIFT[level]
            same = bits[shift:] == fixed.frame[shift - x86.PAGE_SHIFT :]
            does = Signal(name=f"leaf_{level}_of_{number}")
            m.d.comb += does.eq(serves & same & (value.ps if level > 1 else 1))
            kinds = Cat(does & ~of_all, does & of_all)
            if level == 1:
                here = walk.address == place
                m.d.comb += inside.eq(Mux(here, kinds, 0))
                kinds = Mux(here, 0, kinds)
            leaf[level] = kinds
        leads = Signal(name=f"leads_{number}")
        m.d.comb += leads.eq(passes & ~value.ps & (bits[x86.PAGE_SHIFT :] == fixed.table))
        return SimpleNamespace(leaf=leaf, inside=inside, leads=leads)

    def _forget(
        self,
        m: Module,
        fixed: SimpleNamespace,
        own: Value,
        faulted: Value,
        gone: dict[int, Signal],
        upper_gone: Signal,
    ) -> None:
        """What an invalidation, a context or a page fault takes."""
        mmu, new, old = self.mmu, self.mmu.contexts.payload, self.context
        invalidations, asked = mmu.invalidations, mmu.invalidations.payload
        kinds = x86.Invalidation
        named = asked.pcid == fixed.pcid
        with m.If(faulted):
            m.d.comb += [*(one.eq(Cat(own, 1)) for one in gone.values()), upper_gone.eq(own)]
        with m.If(invalidations.valid & invalidations.ready):
            covers = {
                level: asked.linear[x86.LEVEL_SHIFT[level] : _LINEAR] == fixed.linear[x86.LEVEL_SHIFT[level] : _LINEAR]
                for level in _LEVELS
            }
            for level, one in gone.items():
                with m.Switch(asked.kind):
                    with m.Case(kinds.INVLPG):
                        with m.If(covers[level]):
                            m.d.comb += one.eq(Cat(own, 1))
                    with m.Case(kinds.ADDRESS):
                        with m.If(covers[level] & named):
                            m.d.comb += one.eq(0b01)
                    with m.Case(kinds.PCID):
                        with m.If(named):
                            m.d.comb += one.eq(0b01)
                    with m.Case(kinds.NOT_GLOBAL):
                        m.d.comb += one.eq(0b01)
                    with m.Case(kinds.ALL):
                        m.d.comb += one.eq(0b11)
            with m.Switch(asked.kind):
                with m.Case(kinds.INVLPG):
                    with m.If(own):
                        m.d.comb += upper_gone.eq(1)
                with m.Case(kinds.ADDRESS):
                    with m.If(covers[2] & named):
                        m.d.comb += upper_gone.eq(1)
                with m.Case(kinds.PCID):
                    with m.If(named):
                        m.d.comb += upper_gone.eq(1)
                with m.Default():
                    m.d.comb += upper_gone.eq(1)
        with m.If(self.changes):
            with m.If((new.pcid == fixed.pcid) & ~new.keep):
                m.d.comb += [*(one.eq(0b01) for one in gone.values()), upper_gone.eq(1)]
            before, after = old.control, new.control
            all_goes = (before.pge ^ after.pge) | (before.nxe ^ after.nxe) | (~before.smep & after.smep)
            all_goes |= old.track != new.track
            with m.If(all_goes):
                m.d.comb += [*(one.eq(0b11) for one in gone.values()), upper_gone.eq(1)]


def _any(values: list[Value]) -> Value:
    """The OR of values."""
    result = values[0]
    for value in values[1:]:
        result |= value
    return result


class MmuAnswersSplit(MmuAnswers):
    """The same where the lookup is split."""

    title = "mmu-answers/split"
    SPLIT = True
