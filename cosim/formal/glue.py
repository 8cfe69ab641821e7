"""What is proved of the glue of an MMU that caches, with one walker: its neighbours are what their proofs say."""

from __future__ import annotations

from types import SimpleNamespace

from amaranth.hdl import Array, Assert, Assume, Cat, Const, Cover, Fragment, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, Flow

from ptewalk.cosim.formal.harness import Harness, signals_of
from ptewalk.cosim.formal.tlb import is_kind, is_leaf
from ptewalk.cosim.formal.upper_caches import is_upper
from ptewalk.model import x86
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.flights import WaitingLayout
from ptewalk.rtl.tlb import TlbOp
from ptewalk.rtl.walker import WalkerConfig
from ptewalk.rtl.walkers import Walkers

__all__ = [
    "GlueAnswers",
    "GlueAnswersSplit",
    "GlueAnswersTwo",
    "GlueHarness",
    "GlueKeeps",
    "GlueKeepsSplit",
    "GlueKeepsTwo",
]

_WAITING = 3


class GlueHarness(Harness):
    """The front of an MMU that caches, with maintenance and its queue. All else may do what its own proof leaves open.

    A walk ends after any time with any answer, and passes any upper entries before. A lookup finds anything in the
    TLB's ways and the upper caches. Room for an answer may be withheld, and an answer be on offer, at any time.
    """

    assumptions: tuple[str, ...] = (
        "no reset but the first",
        "walker-starts: one response to each request, of its tag, after any time but not in the next cycle",
        "walker-starts: a leaf's level is 1 to 3, and that of an entry which is passed on 2 or more",
        "a lookup finds anything in the TLB and the upper caches; there is room for an answer, or not, at any time",
    )
    depth = 3
    search_depth = 8
    WALKERS = 1
    SPLIT = False
    """The lookup is split."""

    def __init__(self, *, searching: bool = False) -> None:
        self.mmu = mmu = CachingMmu(
            CachingMmuConfig(
                WalkerConfig(levels=x86.LEVELS_4, physical_bits=32, tag_bits=3),
                small_sets=2,
                small_ways=1,
                large_sets=2,
                large_ways=1,
                slots=2,
                waiting=_WAITING,
                upper_entries=2,
                walkers=self.WALKERS,
                split_lookup=self.SPLIT,
            )
        )
        super().__init__(mmu, searching=searching)
        for part in (mmu.walker, mmu.uppers, mmu.delivery, *mmu.tlb.banks):
            self._free(part)
        self.ends = Signal()  # free: the walk that is judged has an answer
        self.ports.append(self.ends)
        self.flights = [
            SimpleNamespace(
                walks=Signal(name=f"walks_{number}"),  # one is in flight
                probe=Signal(name=f"probes_{number}"),  # and is a probe's
                request=Signal(mmu.walker.requester.requests.payload.shape(), name=f"walked_{number}"),  # whose it is
                epoch=Signal.like(mmu.delivery.epoch, name=f"walked_epoch_{number}"),
                overtaken=Signal(name=f"overtaken_{number}"),
            )
            for number in range(self.WALKERS)
        ]
        self.walks, self.probes, self.walked = (
            self.flights[0].walks,
            self.flights[0].probe,
            self.flights[0].request,
        )
        # Which walk is judged; of one walker the only one.
        self.whose = Signal(1 if self.WALKERS == 1 else mmu.walker.bits)
        # Which of them begins next; and which passes an upper entry, if one does.
        self.chosen = Signal(self.WALKERS)
        self.passing = Signal.like(self.whose)
        if self.WALKERS > 1:
            self.ports += [self.whose, self.passing]

    def _free(self, part: Component) -> None:
        """A part of which nothing is there: its outputs are free."""
        Fragment.get(part, None)  # else Amaranth warns of what is in it
        part.elaborate = lambda platform: Module()
        walker = self.mmu.walker
        driven = [walker.requester.requests.ready, walker.requester.responses.valid]
        if isinstance(walker, Walkers):
            driven += [walker.o_walking, walker.o_ended, walker.o_room]
        for _path, member, value in part.signature.flatten(part):
            signal = Value.cast(value)
            if member.flow is Flow.Out and isinstance(signal, Signal) and not any(signal is one for one in driven):
                self.ports.append(signal)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mmu = self.mmu
        walker, requests = mmu.walker, mmu.requester.requests
        made = mmu.elaborate(None)
        queue = made.submodules.queue
        mmu.elaborate = lambda platform: made  # type: ignore[method-assign]
        if self.WALKERS > 1:
            self.joining = queue
            around = queue.elaborate(None)
            queue.elaborate = lambda platform: around
            queue = around.submodules.queue
        inside = queue.elaborate(None)
        queue.elaborate = lambda platform: inside
        m.submodules.mmu = mmu
        self.queue = queue
        self.stored = [inside.submodules.storage.read_port(domain="comb") for _ in range(_WAITING)]
        self.inside = signals_of(inside)
        begins, found = walker.requester.requests, walker.requester.responses
        self.begins, self.taken, self.begun = Signal(), Signal(), Signal()  # in this cycle; it did in the last one
        m.d.sync += self.begun.eq(self.begins)
        m.d.comb += [
            Assume(~ResetSignal("sync")),
            Assume(~found.valid | (found.payload.outcome != x86.Outcome.OK) | is_leaf(walker.o_translation.level)),
            Assume(~walker.o_passes | is_upper(walker.o_upper.at)),
            self.begins.eq(begins.valid & begins.ready),
            self.taken.eq(found.valid & found.ready),
        ]
        self._walk(m)
        self.accepted, self.looks = Signal(), Signal()
        m.d.comb += [
            self.accepted.eq(requests.valid & requests.ready),
            self.looks.eq(self.accepted | queue.r_en),  # a lookup begins
        ]
        if not self.searching:
            self._tie_turns(m, mmu.registers)
        self._specify(m, mmu.registers)
        return m

    def _walk(self, m: Module) -> None:
        """What one walker does."""
        walker = self.mmu.walker
        begins, found = walker.requester.requests, walker.requester.responses
        m.d.comb += [
            self.chosen.eq(1),
            begins.ready.eq(~self.walks),
            found.valid.eq(self.walks & self.ends & walker.o_judges),
            Assume(~walker.o_judges | (self.walks & ~self.begun)),
            Assume(~walker.o_passes | self.walks),
            Assume(~self.walks | (found.payload.tag == self.walked.tag)),
        ]
        with m.If(self.begins):
            m.d.sync += [
                self.walks.eq(1),
                self.walked.eq(begins.payload),
                self.probes.eq(begins.payload.access == x86.Access.PROBE),
            ]
        with m.Elif(self.taken):
            m.d.sync += self.walks.eq(0)

    def _tie_turns(self, m: Module, r: SimpleNamespace) -> None:
        """What induction needs: whoever waited and is looked up again finds no walk in flight."""
        again = [valid & stage.again for valid, stage in self._stages(r)]
        m.d.comb += [
            Assert(r.walking == self.walks),
            Assert(~(self.walks & Cat(again).any())),
            Assert(sum(again) <= 1),
            Assert(~r.armed | r.turn),
            Assert(~r.turn | (self.queue.r_rdy & ~self.walks & ~Cat(again).any())),
        ]

    def _stages(self, r: SimpleNamespace) -> list[tuple[Signal, data.View]]:
        """The stages of the lookup, in order: valid, and what is there."""
        return [*r.lookups, (r.valid_2, r.stage_2)]

    def _specify(self, m: Module, r: SimpleNamespace) -> None:
        raise NotImplementedError


class GlueKeeps(GlueHarness):
    """Nothing is kept that an invalidation or a page fault overtook; and what its neighbours are promised holds.

    A walk is overtaken by what comes after it began; if it began at a cached entry, by what comes after the lookup that
    found that.
    """

    title = "glue-keeps"

    def _specify(self, m: Module, r: SimpleNamespace) -> None:
        mmu = self.mmu
        tlb, uppers, maintenance, walker = mmu.tlb, mmu.uppers, mmu.maintenance, mmu.walker
        found, asked = walker.requester.responses.payload, mmu.invalidations.payload
        kinds = x86.Invalidation

        # What takes something of the current PCID, or global.
        context = Signal(x86.PCID_BITS, name="context_pcid")
        changes = Signal()
        m.d.comb += changes.eq(mmu.contexts.valid & mmu.contexts.ready)
        with m.If(changes):
            m.d.sync += context.eq(mmu.contexts.payload.pcid)
        invalidates, faults, takes = Signal(), Signal(), Signal()
        named = (asked.kind == kinds.ADDRESS) | (asked.kind == kinds.PCID)
        m.d.comb += [
            invalidates.eq(mmu.invalidations.valid & mmu.invalidations.ready),
            faults.eq(self.taken & (found.outcome == x86.Outcome.PAGE_FAULT)),
            takes.eq((invalidates & (~named | (asked.pcid == context))) | faults),
        ]

        # Since the lookup in each stage, and of the walk in flight.
        since = [Signal(name=f"since_{place}") for place, _ in enumerate(self._stages(r))]
        since_2 = since[-1]
        overtaken = Signal(self.WALKERS)
        with m.If(uppers.look):
            m.d.sync += [flag.eq(before | takes) for before, flag in zip([Const(0), *since], since, strict=False)]
        with m.Else():
            m.d.sync += [flag.eq(flag | takes) for flag in since]
        for number in range(self.WALKERS):
            with m.If(self.begins & self.chosen[number]):
                m.d.sync += overtaken[number].eq(uppers.start.cached & (since_2 | takes))
            with m.Elif(takes):
                m.d.sync += overtaken[number].eq(1)

        # What is kept, in the cycle after the answer.
        ended, stale, probe, well, ill = (Signal(name=name) for name in ("ended", "stale", "probe", "well", "ill"))
        page, whose = Signal(64), self.whose
        probes, pages = (
            Array(flight.probe for flight in self.flights),
            Array(flight.request.linear for flight in self.flights),
        )
        m.d.sync += [
            *(ended.eq(self.taken), stale.eq(overtaken.bit_select(whose, 1) | invalidates), probe.eq(probes[whose])),
            *(well.eq(self.taken & (found.outcome == x86.Outcome.OK)), ill.eq(faults), page.eq(pages[whose])),
        ]
        op = tlb.registers.op  # on hold: what was on offer as the walk was answered
        of_walk = Signal()  # the operation on offer is the walk's
        m.d.comb += of_walk.eq(tlb.ops.valid & maintenance.idle)
        fills = of_walk & (op.kind == TlbOp.FILL)
        with m.If(of_walk):
            m.d.comb += [
                Assert(ended & tlb.hold & (op.linear == page) & (op.slot == maintenance.slot)),
                Assert((op.kind == TlbOp.DROP) == ill),
                Assert(op.kind == Mux(ill, TlbOp.DROP, TlbOp.FILL)),
            ]
        with m.If(fills):
            m.d.comb += Assert(well & ~stale & ~probe)
        m.d.comb += [
            Assert(~ill | of_walk),
            Assert(~uppers.passes | walker.o_passes),
            Assert(uppers.clear == tlb.forgets),
        ]

        # What a walk passes that was overtaken, by a page fault of another one in the last cycle, goes at once.
        passes_late = uppers.passes & overtaken.bit_select(self.passing, 1)
        goes = Signal()
        m.d.sync += goes.eq(passes_late)
        m.d.comb += Assert(~goes | uppers.clear)
        if self.WALKERS == 1:
            m.d.comb += Assert(~passes_late)
        # What the neighbours' proofs assume.
        busy = tlb.busy
        offered, counts = Signal(), Signal(op.shape(), name="op_that_counts")
        rows = uppers.rows(uppers.linear)
        m.d.sync += offered.eq(~busy & ~tlb.hold)
        m.d.comb += [
            # Of maintenance.
            Assert(~maintenance.ops.valid | (maintenance.ops.ready & tlb.ops.ready)),
            Assert(~of_walk | ~maintenance.may_begin),
            Assert(~of_walk | ~invalidates),
            # Of the walker.
            *(Assert(~changes | ~flight.walks) for flight in self.flights),
            # Of the TLB.
            counts.eq(Mux(tlb.hold, op, tlb.ops.payload)),
            Assert(~tlb.ops.valid | is_kind(counts.kind)),
            Assert(~tlb.ops.valid | (counts.kind != TlbOp.FILL) | is_leaf(counts.entry.level)),
            Assert(~tlb.look | ~busy),
            Assert(~self.looks | (~busy & maintenance.idle & ~tlb.ops.valid)),
            Assert(~tlb.hold | offered),
            Assert(~tlb.ops.valid | tlb.own),
            # Of the upper caches.
            *(Assert(index == row) for index, row in zip(uppers.index, rows, strict=True)),
            Assert(~uppers.passes | is_upper(uppers.fill.at)),
            Assert(uppers.slot == maintenance.slot),
            Assert(tlb.slot == maintenance.slot),
        ]
        if isinstance(walker, Walkers):
            probe_begins = walker.requester.requests.payload.access == x86.Access.PROBE
            m.d.comb += Assert(~self.begins | (walker.i_access.probe == probe_begins))
        if not self.searching:
            self._tie(m, r, since, overtaken, ill)
            m.d.comb += [Assert(ended == r.took), Assert(maintenance.before.pcid == context)]
        m.d.comb += [
            Cover(fills & (op.entry.level == 2)),
            Cover(ended & well & stale & ~probe),
            *([Cover(goes)] if self.WALKERS > 1 else []),
            Cover(self.begins & uppers.start.cached & since_2),
            Cover(self.begins & ~uppers.start.cached & since_2 & (context == 3)),
            Cover(of_walk & (op.kind == TlbOp.DROP)),
        ]

    def _tie(self, m: Module, r: SimpleNamespace, since: list[Signal], overtaken: Signal, ill: Signal) -> None:
        """What induction needs: the flags say what was seen, those of a page fault a cycle late."""
        tlb = self.mmu.tlb.registers
        if self.WALKERS == 1:
            m.d.comb += [
                Assert(~self.walks | (r.walked.request == self.walked)),
                Assert(~self.walks | (r.walked.access.probe == self.probes)),
                Assert(~self.walks | ~overtaken | r.overtaken),
            ]
        else:
            for flight, one in zip(self.flights, overtaken, strict=True):
                m.d.comb += Assert(~flight.walks | ~one | flight.overtaken | r.faulted)
        m.d.comb += [
            Assert(r.faulted == ill),
            *(
                Assert(~valid | (stage.access.probe == (stage.request.access == x86.Access.PROBE)))
                for valid, stage in self._stages(r)
            ),
            *(
                Assert(~valid | ~flag | stage.overtaken | r.faulted)
                for (valid, stage), flag in zip(self._stages(r), since, strict=True)
            ),
            Assert(tlb.own | ~tlb.valid),
            Assert(tlb.idle == ~tlb.valid),
            Assert(tlb.valid | ~(tlb.second | tlb.found)),
        ]


class GlueAnswers(GlueHarness):
    """Each request that is accepted is delivered once, with its epoch, and no context comes while it is in flight.

    Who has to wait finds room. One arbitrary tag is watched.
    """

    title = "glue-answers"
    constants = ("tag",)
    quick_depth = 12
    assumptions = (
        *GlueHarness.assumptions,
        "delivery: what was told is on offer in the next cycle, or taken back; once it is ready it stays so",
        "tags are unique among requests in flight",
    )

    def _specify(self, m: Module, r: SimpleNamespace) -> None:
        mmu, queue = self.mmu, self.queue
        delivery, walker = mmu.delivery, mmu.walker
        tag = self.arbitrary(m, mmu.config.walker.tag_bits, "tag")
        busy, loaded = Signal(), Signal()  # in flight; told to delivery in the last cycle
        accepted, delivered = Signal(), Signal()
        told_any, was_ready = Signal(), Signal()
        m.d.comb += [
            accepted.eq(self.accepted & (mmu.requester.requests.payload.tag == tag)),
            delivered.eq(loaded & ~delivery.cancel),
            Assume(~accepted | ~busy),
            Assume(~told_any | delivery.valid),
            Assume(~was_ready | delivery.ready),
        ]
        m.d.sync += [told_any.eq(delivery.load), was_ready.eq(delivery.ready)]
        m.d.sync += loaded.eq(delivery.load & (delivery.outgoing.response.tag == tag))
        epoch = Signal.like(delivery.epoch, name="its_epoch")
        with m.If(accepted):
            m.d.sync += [busy.eq(1), epoch.eq(delivery.epoch)]
        with m.Elif(delivered):
            m.d.sync += busy.eq(0)
        # Where it is: it is somewhere if and only if it is in flight, and in one place only.
        layout = WaitingLayout(mmu.config.walker.tag_bits, len(delivery.epoch))
        held = [data.View(layout, port.data[: layout.size]).request.tag == tag for port in self.stored]
        level, first = queue.level, self.inside["consume"]
        waits = Signal(_WAITING)
        for number, port in enumerate(self.stored):
            m.d.comb += port.addr.eq(number)
            place = Mux(first > number, number + _WAITING - first, number - first)
            m.d.comb += waits[number].eq((place < level) & held[number])
        served = Signal()  # a hit was told to delivery in the last cycle, and may be taken back
        m.d.sync += served.eq(delivery.load & r.valid_2)
        stages = self._stages(r)
        places = Cat(
            *(valid & (stage.request.tag == tag) for valid, stage in stages),
            served & loaded,
            *(flight.walks & (flight.request.tag == tag) for flight in self.flights),
            waits,
            *([r.waits & (r.refused.request.tag == tag)] if self.SPLIT else []),
        )
        looked = Signal.like(delivery.look_tag)
        with m.If(delivery.look):
            m.d.sync += looked.eq(delivery.look_tag)
        # What delivery's proof assumes.
        m.d.comb += Assert(~delivery.load | delivery.take)
        if self.WALKERS == 1:
            m.d.comb += Assert(~delivery.load | (delivery.outgoing.response.tag == looked))
        m.d.comb += Assert(~delivery.load | delivery.ready)
        # What the proofs of who waits assume.
        # With the two that delivery holds there are fewer than are counted.
        most = _WAITING + self.WALKERS
        flying = Signal(range(most + 2))  # all of them
        loaded_any = Signal()
        m.d.sync += [
            loaded_any.eq(delivery.load),
            flying.eq(flying + self.accepted - (loaded_any & ~delivery.cancel)),
        ]
        m.d.comb += [
            Assert(flying <= most),
            Assert(~delivery.waits | (delivery.may_wait & (delivery.wait != x86.Wait.NONE))),
        ]
        told = delivery.load & (delivery.outgoing.response.tag == tag)
        m.d.comb += Assert(~told | (delivery.outgoing.epoch == epoch))
        # A walk's answer was told to delivery in the last cycle, it is in no other place: this tag's, any.
        gone, gone_any = Signal(), Signal()
        m.d.sync += [gone.eq(self.taken & (walker.requester.responses.payload.tag == tag)), gone_any.eq(self.taken)]
        walking = Cat(flight.walks for flight in self.flights)
        m.d.comb += [
            Assert(~delivered | busy),
            Assert(~(mmu.contexts.valid & mmu.contexts.ready) | ~(busy | delivery.valid)),
            # What delivery's proof assumes of a drain.
            Assert(~delivery.idle | ~(busy | delivery.valid)),
            Assert(~queue.w_en | queue.w_rdy),
            Assert(~self.begins | ~walking.all()),
            Assert(~mmu.walker.requester.requests.valid | walker.requester.requests.ready),
            Assert(sum(places) + gone == busy),
            Assert(~gone | delivered),
            Cover(delivered & served & (tag == 5)),
            Cover(delivered & gone & (tag == 2)),
            Cover(queue.level == _WAITING),
            Cover(loaded & served & delivery.cancel),
        ]
        if not self.searching:
            walked = [r.walked.epoch] if self.WALKERS == 1 else [flight.epoch for flight in self.flights]
            if self.WALKERS == 1:
                m.d.comb += [
                    Assert(~r.valid_2 | (looked == r.stage_2.request.tag)),
                    Assert(~self.walks | self.begun | r.valid_2 | (looked == self.walked.tag)),
                    Assert(~self.walks | (r.walked.request.tag == self.walked.tag)),
                    Assert(~self.begun | self.walks),
                ]
            epochs = [*(stage.epoch for _, stage in stages), r.refused.epoch, *walked]
            epochs += [data.View(layout, port.data[: layout.size]).epoch for port in self.stored]
            epochs += [r.refused.epoch] if self.SPLIT else []
            m.d.comb += [Assert(~place | (its == epoch)) for place, its in zip(places, epochs, strict=True)]
            credits = sum(r.room)
            valid = Cat(valid for valid, _ in stages)
            leaving = r.waits if self.SPLIT else Const(0)  # it is on its way to the queue
            out = sum(valid) + leaving + level + r.began + r.served
            m.d.comb += [
                Assert(~(valid.any() | walking.any() | queue.r_rdy | r.denied) | was_ready),
                Assert(r.served == served),
                Assert(~r.denied | r.served),
                Assert(~(r.began & r.served)),
                Assert(((r.room + 1) & r.room) == 0),
                Assert(credits + out == _WAITING),
                Assert(flying == sum(valid) + leaving + level + served + sum(walking) + gone_any),
                Assert(~(served & loaded) | (r.refused.request.tag == tag)),
                Assert(gone == (loaded & ~served & ~r.early)),
                Assert(gone_any == (loaded_any & ~served & ~r.early)),
                Assert(~(served & r.early)),
                Assert(first < _WAITING),
                Assert(
                    self.inside["produce"] == Mux(first + level >= _WAITING, first + level - _WAITING, first + level)
                ),
            ]
            if self.SPLIT:
                m.d.comb += [
                    Assert(~r.valid_1 | (r.coming_tag == r.stage_1.request.tag)),
                    Assert(~self.walks | r.valid_1 | (r.coming_tag == self.walked.tag)),
                    Assert(~(r.waits & (r.served | r.began))),
                ]


class _Two(GlueHarness):
    """With two walkers, which end in any order."""

    assumptions: tuple[str, ...] = (
        "no reset but the first",
        "walkers: one response to each request, with its tag and epoch, after any time but not in the next cycle",
        "walkers: which walk, and whose request is answered is told; only a walk that will be kept is joined",
        "walkers: a leaf's level is 1 to 3, and that of an entry which is passed on 2 or more",
        "a lookup finds anything in the TLB and the upper caches; there is room for an answer, or not, at any time",
    )
    WALKERS = 2

    def _walk(self, m: Module) -> None:
        walker = self.mmu.walker
        assert isinstance(walker, Walkers)
        begins, found = walker.requester.requests, walker.requester.responses
        walking = Cat(flight.walks for flight in self.flights)
        free, began, same = self.chosen, Signal(self.WALKERS), walker.o_same
        judged = Signal(self.WALKERS)
        ended = Signal(self.WALKERS)
        m.d.comb += [
            free.eq(~walking & (walking + 1)),
            judged.eq(1 << self.whose),
            begins.ready.eq(walker.o_room),
            found.valid.eq(self.ends & walker.o_judges),
            walker.o_walking.eq(walking),
            Assume(~walker.o_judges | (judged & walking & ~began).any()),
            Assume(~walker.o_passes | walking.bit_select(self.passing, 1)),
            ended.eq(Mux(self.taken, judged, 0)),
            # What the proof of the walkers assumes.
            Assert(~begins.valid | (begins.ready & walker.i_look)),
            # And that of who waits.
            Assert(~self.joining.r_en | self.joining.r_rdy),
            Assert((self.joining.w_joins & ~walker.o_walking) == 0),
            Cover((same & (same - 1)[: self.WALKERS]).any() & self.joining.w_en & self.joining.w_joins.any()),
        ]
        m.d.sync += [
            began.eq(Mux(self.begins, free, 0)),
            walker.o_ended.eq(walker.o_ended ^ ended),
            walker.o_room.eq(~(walking | Mux(self.begins, free, 0)).all()),
        ]
        for number, flight in enumerate(self.flights):
            with m.If(self.begins & free[number]):
                m.d.sync += [
                    *(flight.walks.eq(1), flight.request.eq(begins.payload), flight.epoch.eq(walker.i_epoch)),
                    *(flight.probe.eq(walker.i_access.probe), flight.overtaken.eq(walker.i_stale)),
                ]
            with m.Else():
                with m.If(ended[number]):
                    m.d.sync += flight.walks.eq(0)
                with m.If(walker.i_overtakes):
                    m.d.sync += flight.overtaken.eq(1)
            kept = ~flight.overtaken & ~flight.probe
            m.d.comb += [
                Assume(~same[number] | (flight.walks & kept)),
                Assume(~walker.o_passes | (self.passing != number) | kept),
            ]
            with m.If(judged[number] & walker.o_judges):
                m.d.comb += [
                    Assume(found.payload.tag == flight.request.tag),
                    Assume(walker.o_linear == flight.request.linear),
                    Assume(walker.o_epoch == flight.epoch),
                    Assume(walker.o_probe == flight.probe),
                    Assume(walker.o_kept == kept),
                ]

    def _tie_turns(self, m: Module, r: SimpleNamespace) -> None:
        """What induction needs: whoever waited and is looked up again finds a walker free."""
        again_1, again_2 = r.valid_1 & r.stage_1.again, r.valid_2 & r.stage_2.again
        m.d.comb += [
            Assert(~(again_1 | again_2 | r.turn) | self.mmu.walker.o_room),
            Assert(~(again_1 & again_2)),
            Assert(~r.armed | r.turn),
            Assert(~r.turn | (self.queue.r_rdy & ~again_1 & ~again_2)),
        ]


class GlueKeepsTwo(_Two, GlueKeeps):
    """The same with two walkers: a page fault overtakes the walk beside it."""

    title = "glue-keeps/2"
    quick_depth = 12


class GlueAnswersTwo(_Two, GlueAnswers):
    """The same with two walkers: one walk may be waited for while another begins, and either may end first."""

    title = "glue-answers/2"
    assumptions = (
        *_Two.assumptions,
        *(one.replace("delivery:", "delivery/several:") for one in GlueAnswers.assumptions[-2:]),
    )
    quick_depth = 15


class GlueKeepsSplit(GlueKeeps):
    """The same where the lookup is split."""

    title = "glue-keeps/split"
    SPLIT = True


class GlueAnswersSplit(GlueAnswers):
    """The same where the lookup is split."""

    title = "glue-answers/split"
    assumptions = tuple(one.replace("delivery:", "delivery/split:") for one in GlueAnswers.assumptions)
    SPLIT = True
