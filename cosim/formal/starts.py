"""What is proved of a walker that may begin below the root: what the glue of an MMU that caches takes it at."""

from __future__ import annotations

from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value
from amaranth.lib import data

from ptewalk.cosim.formal.harness import Harness, LateAnswers
from ptewalk.cosim.formal.tlb import is_leaf
from ptewalk.cosim.formal.upper_caches import is_upper
from ptewalk.model import x86
from ptewalk.rtl.entry import EntryLayout, index_of, slot
from ptewalk.rtl.walker import Walker, WalkerConfig, WalkState

__all__ = ["WalkerStarts"]


class WalkerStarts(Harness):
    """One response to each request, of its tag; no page fault without the root's entry, read in this walk."""

    title = "walker-starts"
    assumptions: tuple[str, ...] = (
        "memory answers nothing that was not asked, an access with its id, and none later than three resets",
        "upper-caches: a start is of one level, and the root's if it is not cached",
        "glue-keeps: no context is taken while a walk is in flight",
    )
    search_depth = 7

    def __init__(self, *, searching: bool = False) -> None:
        self.walker = walker = Walker(WalkerConfig(trace=False, observe=True), starts=True)
        super().__init__(walker, searching=searching)
        self.read_answers = LateAnswers(walker.memory.reads, walker.memory.data, searching=searching)
        self.swap_answers = LateAnswers(walker.memory.swaps, walker.memory.swapped, searching=searching)
        self.ports += [self.read_answers.whose, self.swap_answers.whose]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = self.walker
        m.submodules.read_answers, m.submodules.swap_answers = self.read_answers, self.swap_answers
        requests, responses = walker.requester.requests, walker.requester.responses
        reads, found, answer = walker.memory.reads, walker.memory.data.payload, responses.payload
        context, start = walker.i_context, walker.i_start
        request = Signal(requests.payload.shape())  # in flight
        held = Signal(context.shape(), name="context_held")
        begun = Signal()  # in the last cycle
        # In flight; the root's entry was read since the request came; the start is below it.
        busy, rooted, cached = Signal(), Signal(), Signal()
        top = Mux(context.control.la57, 1 << (x86.LEVELS_5 - 1), 1 << (x86.LEVELS_4 - 1))
        linear = request.linear
        index = Mux(context.control.la57, index_of(linear, x86.LEVELS_5), index_of(linear, x86.LEVELS_4))
        root = Signal(walker.config.physical_bits)
        accepted, responding = Signal(), Signal()
        m.d.comb += [
            accepted.eq(requests.valid & requests.ready),
            responding.eq(responses.valid & responses.ready),
            root.eq(slot(context.root, index)),
            Assume(start.cached | ((start.frame == context.root) & (start.at == top))),
            Assume(sum(start.at) == 1),
            Assume(~busy | (Value.cast(context) == Value.cast(held))),
        ]
        m.d.sync += [held.eq(context), begun.eq(accepted)]
        with m.If(accepted):
            m.d.sync += [busy.eq(1), request.eq(requests.payload), rooted.eq(0), cached.eq(start.cached)]
        with m.Elif(responding):
            m.d.sync += busy.eq(0)
        with m.If(reads.valid & reads.ready & (reads.payload.address == root)):
            m.d.sync += rooted.eq(1)
        entry = data.View(EntryLayout(), found.value)
        probe = request.access == x86.Access.PROBE
        upper = walker.o_upper
        m.d.comb += [
            Assert(requests.ready == ~busy),
            Assert(~responses.valid | (busy & walker.o_judges)),
            Assert(~busy | (answer.tag == request.tag)),
            Assert(~responses.valid | (answer.outcome != x86.Outcome.OK) | is_leaf(walker.o_translation.level)),
            Assert(~walker.o_judges | (busy & ~begun)),
            Assert(~responses.valid | ~(self.read_answers.open | (self.swap_answers.open & ~self.swap_answers.mine))),
            Assert(~walker.o_passes | (busy & ~probe & self.read_answers.mine & entry.p & entry.a & ~found.error)),
            Assert(~walker.o_passes | is_upper(upper.at)),
            Assert(~walker.o_passes | ((upper.linear == linear) & (upper.frame == found.value[12 : len(root)]))),
        ]
        with m.If(responses.valid & (answer.outcome == x86.Outcome.PAGE_FAULT)):
            m.d.comb += [Assert(rooted), Cover(responding & cached), Cover(responding & ~cached)]
        m.d.comb += [
            Cover(responding & (answer.outcome == x86.Outcome.OK) & cached & ~rooted),
            Cover(walker.o_passes & cached),
        ]
        if not self.searching:
            registers = walker.o_registers
            state = registers.state
            reading, swapping = state == WalkState.CHECK, state == WalkState.SWAPPED
            m.d.comb += [
                Assert(busy == (state != WalkState.IDLE)),
                Assert(Cat(state == one for one in WalkState).any()),
                Assert(~begun | (state == WalkState.READ)),
                Assert(self.read_answers.open == reading),
                Assert(self.swap_answers.open == swapping),
                Assert(~busy | (registers.request == request)),
                Assert(~busy | (registers.access.probe == probe)),
                Assert(~busy | (sum(registers.at) == 1)),
            ]
            with m.If(((state == WalkState.JUDGE) & ~registers.noncanonical) | swapping):
                m.d.comb += [
                    Assert(~registers.at[0] | registers.leaf),
                    Assert(~registers.leaf | (registers.at[:3] != 0)),
                ]
                unmarked = ~registers.entry.a & ~probe & ~registers.settled  # it has to be swapped first
                faulty = ~registers.entry.p | registers.reserved | registers.broken
                m.d.comb += Assert(registers.leaf | faulty | unmarked)
            m.d.comb += Assert(~registers.settled | (state == WalkState.JUDGE) | ~busy)
            with m.If(busy & ~walker._cached & ~rooted):
                m.d.comb += Assert(((state == WalkState.READ) & (registers.address == root)) | registers.noncanonical)
            m.d.comb += Assert(~swapping | (answer.outcome == x86.Outcome.OK))
            m.d.comb += Assert(~(registers.noncanonical & busy) | (state == WalkState.JUDGE))
        return m
