"""What is proved of delivery: whose answers it gives, and of which epoch a grant is told to be as it retires."""

from __future__ import annotations

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Fragment, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import data

from ptewalk.cosim.formal.harness import Harness
from ptewalk.model import x86
from ptewalk.rtl.delivery import Delivery

__all__ = ["DeliveryHarness", "DeliveryReadsHarness", "DeliverySeveralHarness", "DeliverySplit"]


class DeliveryHarness(Harness):
    """For one arbitrary tag: what is told is answered once, unless it is taken back; a grant retires with its epoch.

    So what `waits` is told to have ended was accepted, once, with the epoch that it was given.
    """

    title = "delivery"
    assumptions: tuple[str, ...] = (
        "no reset but the first",
        "glue-answers: an answer is told with room, and when ready, only; its tag was the last that was looked for",
        "glue-answers: no request is in flight, it is told, only while no answer is on offer",
        "tags are unique among answers here and grants outstanding",
    )
    constants = ("tag",)
    depth = 3
    search_depth = 9
    TAG_BITS = 2
    READS = False
    AHEAD = True
    SPLIT = False
    """A retirement counts a cycle later."""

    def __init__(self, *, searching: bool = False) -> None:
        how = {"read_grants": self.READS, "ahead": self.AHEAD, "split": self.SPLIT}
        self.unit = unit = Delivery(physical_bits=32, tag_bits=self.TAG_BITS, fault_depth=1, **how)
        super().__init__(unit, searching=searching)
        waiting = unit.waiting
        Fragment.get(waiting, None)  # else Amaranth warns of what is in it
        waiting.elaborate = lambda platform: Module()  # type: ignore[method-assign]
        self.ports += [waiting.epoch, waiting.room, waiting.completions.valid]
        grants = unit.grants
        self.stored = [one.read_port(domain="comb") for one in (grants.granted, grants.retired, *grants.notes)]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unit = self.unit
        made = unit.elaborate(None)
        unit.elaborate = lambda platform: made  # type: ignore[method-assign]
        m.submodules.unit = unit
        tag = self.arbitrary(m, self.TAG_BITS, "tag")
        waiting, responses, retired = unit.waiting, unit.responses, unit.retired
        told, fresh, granted = Signal(), Signal(), Signal()  # an answer is here; since the last cycle; its grant is out
        outgoing = Signal(unit.outgoing.shape(), name="its_answer")
        looked = Signal(self.TAG_BITS)
        comes, back, answered, grants, ends = Signal(), Signal(), Signal(), Signal(), Signal()
        stores, reads, retires = Signal(), Signal(), Signal()
        m.d.comb += [
            Assume(~ResetSignal("sync")),
            Assume(~unit.load | (unit.take & unit.ready)),
            comes.eq(unit.load & (unit.outgoing.response.tag == tag)),
            Assume(~comes | ~((told & ~back) | granted)),
            Assume(~unit.idle | ~unit.valid),
            # Whoever drains may act now: the tag's answer is not here, and its grant has retired.
            Assert(~unit.supervisor.drained | ~(told | granted)),
            back.eq(fresh & unit.cancel),
            answered.eq(responses.valid & responses.ready & (responses.payload.tag == tag)),
            stores.eq(outgoing.store & (outgoing.response.outcome == x86.Outcome.OK)),
            reads.eq(~outgoing.store & ~outgoing.probe & (outgoing.response.outcome == x86.Outcome.OK) & self.READS),
            grants.eq(stores | reads),
            ends.eq(unit.grants.gone & retires),
        ]
        if self.AHEAD:
            m.d.comb += Assume(~unit.load | (unit.outgoing.response.tag == looked))
        with m.If(unit.look):
            m.d.sync += looked.eq(unit.look_tag)
        was_ready = Signal()
        m.d.sync += was_ready.eq(unit.ready)
        retirement = retired.valid & (retired.payload.tag == tag)
        known = granted  # the grant that a retirement can find
        if self.SPLIT:
            later, before = Signal(), Signal()
            m.d.sync += [later.eq(retirement), before.eq(granted)]
            retirement, known = later, granted & before  # it was made before a grant of the last cycle
        m.d.sync += [fresh.eq(comes), retires.eq(retirement)]
        with m.If(comes):
            m.d.sync += [told.eq(1), outgoing.eq(unit.outgoing)]
        with m.Elif(answered | back):
            m.d.sync += told.eq(0)
        with m.If(answered & grants):
            m.d.sync += granted.eq(1)
        with m.Elif(ends):
            m.d.sync += granted.eq(0)

        answer = responses.payload
        with m.If(responses.valid & (answer.tag == tag)):
            m.d.comb += [
                Assert(told & ~back),
                Assert(answer.outcome == outgoing.response.outcome),
                Assert(answer.physical == outgoing.response.physical),
            ]
        with m.If(answered):
            m.d.comb += [Assert(waiting.left == ~stores), Assert(waiting.left_epoch == outgoing.epoch[0])]
        self._wait(m, answered, reads, ends, outgoing)
        m.d.comb += [
            Assert(~fresh | unit.valid),
            Assert(~was_ready | unit.ready),
            Assert(~waiting.left | (responses.valid & responses.ready)),
            Assert(~retires | (unit.grants.gone == known)),
            Assert(~unit.grants.gone | unit.registers.retires),
            Cover(ends & (tag == 3)),
            Cover(ends & (outgoing.epoch[0] != waiting.epoch[0])),
            Cover(answered & ~grants & (tag == 1)),
            Cover(back & unit.registers.full),
            Cover(unit.supervisor.drained & stores),
        ]
        if self.SPLIT and not self.searching:
            m.d.comb += Assert((unit.registers.finds & (unit.registers.finding == tag)) == later)
        if not self.searching:
            self._tie(m, tag, told, fresh, granted, outgoing, looked, retires)
        return m

    def _wait(self, m: Module, answered: Value, reads: Value, ends: Value, outgoing: data.View) -> None:
        """What the unit of `waits` is told of the tag, and how many are here or granted at most."""
        unit, waiting = self.unit, self.unit.waiting
        number, went = Signal(range((1 << self.TAG_BITS) + 2), name="grants_outstanding"), Signal()
        m.d.sync += [number.eq(number + unit.grants.grant - unit.grants.gone), went.eq(unit.grants.gone)]
        m.d.comb += Assert(number <= 1 << self.TAG_BITS)
        read = waiting.read if self.READS else Const(0)
        # The end of a grant is told when the table says it, or in the cycle after.
        over, gone, ended = ends, unit.grants.gone, Signal.like(outgoing)
        if self.SPLIT:
            m.d.comb += ended.eq(outgoing)
        else:
            over, gone = Signal(name="over"), Signal(name="gone")
            m.d.sync += [over.eq(ends), gone.eq(unit.grants.gone), ended.eq(outgoing)]
        m.d.comb += Assert((waiting.stored | read) == gone)
        store = ended.store
        with m.If(over):
            m.d.comb += [
                Assert(waiting.stored == store),
                Assert(~store | (waiting.stored_epoch == ended.epoch[0])),
            ]
        if self.READS:
            m.d.comb += [
                Assert(~waiting.read_granted | waiting.left),
                Assert(~answered | (waiting.read_granted == reads)),
                Assert(~(answered & reads) | (waiting.read_epoch == outgoing.epoch[1])),
                Assert(~over | store | (waiting.read & (waiting.retired_epoch == ended.epoch[1]))),
                Cover(over & ~store & (ended.epoch[1] != waiting.epoch[1])),
            ]
        if not self.searching:
            out, retired = (port.data for port in self.stored[:2])  # the only word of each
            m.d.comb += [Assert(number == sum(out ^ retired)), Assert(unit.grants.count == number + went)]

    def _tie(
        self,
        m: Module,
        tag: Signal,
        told: Signal,
        fresh: Signal,
        granted: Signal,
        outgoing: Value,
        looked: Signal,
        retires: Signal,
    ) -> None:
        """What induction needs: where the tag is, it is as it was told; what is known of its grant is so."""
        unit = self.unit
        r, grants = unit.registers, unit.grants
        bits = []
        for port in self.stored:
            word, place = grants.split(tag)
            m.d.comb += port.addr.eq(word)
            bits.append(port.data.bit_select(place, 1))
        out, retired, *note = bits
        notes = [Mux(outgoing.store, *outgoing.epoch), outgoing.store] if self.READS else [outgoing.epoch]
        allowed = (outgoing.store | self.READS) & (outgoing.response.outcome == x86.Outcome.OK)
        held = unit.valid & (r.held.response.tag == tag)
        behind = r.full & (r.behind.response.tag == tag)
        m.d.comb += [
            Assert(held + behind == told),
            Assert(r.room == ~r.full),
            Assert(~r.full | unit.valid),
            Assert(~(r.new & r.full)),
            Assert(~r.new | unit.valid),
            Assert(~r.new_behind | r.full),
            Assert(~held | (r.new == fresh)),
            Assert(~behind | (r.new_behind == fresh)),
            Assert(~fresh | told),
            Assert(~held | (Value.cast(r.held) == Value.cast(outgoing))),
            Assert(~behind | (Value.cast(r.behind) == Value.cast(outgoing))),
            Assert((out ^ retired) == granted),
            Assert(~granted | (Cat(*note) == Cat(*notes))),
            Assert(~(granted & told)),
            Assert(grants.ready | ~(unit.valid | told | granted | out | retired)),
            Assert(~granted | allowed),
            Assert(grants.cleared <= 1 << self.TAG_BITS),
            Assert((r.retires & (r.retiring == tag)) == retires),
        ]
        if self.AHEAD:
            m.d.comb += Assert(r.next_tag == looked)
        # Of any tag.
        granted_word, retired_word = (port.data for port in self.stored[:2])  # the only word of each
        ways = (
            (unit.valid, r.held.response.tag, r.out),
            (r.full, r.behind.response.tag, r.behind_out),
            (Const(1), r.next_tag, r.next_out),
        )
        for here, its, known in ways:
            with m.If(here):
                m.d.comb += [
                    Assert(known.taken == (granted_word ^ retired_word).bit_select(its, 1)),
                    Assert(known.bit == retired_word.bit_select(its, 1)),
                ]
        m.d.comb += Assert(grants.ready | ((granted_word | retired_word) == 0))


class DeliveryReadsHarness(DeliveryHarness):
    """Where reads are granted too: by epochs of their own."""

    title = "delivery/reads"
    READS = True


class DeliverySeveralHarness(DeliveryHarness):
    """Where the tag of the next answer is not known a cycle before it: with several walkers."""

    title = "delivery/several"
    assumptions = (
        "no reset but the first",
        "glue-answers/2: an answer is told with room, and when ready, only",
        "glue-answers/2: no request is in flight, it is told, only while no answer is on offer",
        DeliveryHarness.assumptions[-1],
    )
    AHEAD = False


class DeliverySplit(DeliveryHarness):
    """Where the lookup is split, and a retirement counts a cycle later."""

    title = "delivery/split"
    assumptions = tuple(one.replace("glue-answers:", "glue-answers/split:") for one in DeliveryHarness.assumptions)
    SPLIT = True
    search_depth = 12
