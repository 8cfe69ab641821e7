"""What is proved of several walkers on one datapath: what the glue of an MMU that caches takes them at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Array, Assert, Assume, Cat, Const, Cover, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import data

from ptewalk.cosim.formal.harness import Harness
from ptewalk.cosim.formal.tlb import is_leaf
from ptewalk.cosim.formal.upper_caches import is_upper
from ptewalk.model import x86
from ptewalk.rtl.entry import EntryLayout
from ptewalk.rtl.walk_step import page_of
from ptewalk.rtl.walker import WalkerConfig
from ptewalk.rtl.walkers import Walkers

__all__ = ["WalkersHarness"]

_COUNT = 2
_QUEUES = ("begun", "further", "offered", "swapped")


class WalkersHarness(Harness):
    """Each walk stands in one place, none is lost and none doubled; its answer is its request's. One walker is watched.

    A queue has room for whatever is put into it. What is told of a walk beside its answer is true: whether it was
    overtaken or is a probe's, whether its page is the one that was looked for, which walkers are busy.
    """

    title = "walkers"
    assumptions: tuple[str, ...] = (
        "no reset but the first; memory may answer accesses of before it at any time, and of others each once",
        "upper-caches: a start is of one level",
        "glue-answers/2: a walk begins only as a lookup goes on, and where a walker is free",
    )
    constants = ("whose",)
    depth = 2
    search_depth = 6
    quick_depth = 9

    def __init__(self, *, searching: bool = False) -> None:
        config = WalkerConfig(levels=x86.LEVELS_4, physical_bits=32, tag_bits=2, trace=False)
        self.walkers = Walkers(config, count=_COUNT)
        super().__init__(self.walkers, searching=searching)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        walkers = self.walkers
        made = walkers.elaborate(None)
        walkers.elaborate = lambda platform: made  # type: ignore[method-assign]
        queues = {name: self._opened(m, getattr(made.submodules, name)) for name in _QUEUES}
        turns = made.submodules.turns
        inside = turns.elaborate(None)
        turns.elaborate = lambda platform: inside
        queues["turns"] = self._opened(m, inside.submodules.behind)
        known = {
            name: getattr(made.submodules, name).read_port(domain="comb") for name in ("requests", "steps", "entries")
        }
        m.submodules.walkers = walkers
        whose = self.arbitrary(m, walkers.bits, "whose")
        m.d.comb += [port.addr.eq(whose) for port in known.values()]

        r = walkers.registers
        judged = r.judged.turn
        requests, responses = walkers.requester.requests, walkers.requester.responses
        memory = walkers.memory
        generation = made.submodules.generation.value
        ids = {
            name: (payload.id[: walkers.bits], payload.id[walkers.bits :] == generation)
            for name, payload in (("data", memory.data.payload), ("swapped", memory.swapped.payload))
        }
        begins, ends = Signal(), Signal()
        m.d.comb += [
            Assume(~ResetSignal("sync")),
            Assume(sum(walkers.i_start.at) == 1),
            Assume(~requests.valid | (requests.ready & walkers.i_look)),
            begins.eq(requests.valid & requests.ready),
            ends.eq(responses.valid & responses.ready),
        ]
        busy, began = Signal(_COUNT), Signal(_COUNT)
        reads, swaps = Signal(_COUNT, name="reads_open"), Signal(_COUNT, name="swaps_open")
        one = Signal(_COUNT)  # which of them begins
        m.d.comb += [
            one.eq(Mux(begins, ~busy & (busy + 1), 0)),
            Assume(~(memory.data.valid & ids["data"][1]) | reads.bit_select(ids["data"][0], 1)),
            Assume(~(memory.swapped.valid & ids["swapped"][1]) | swaps.bit_select(ids["swapped"][0], 1)),
        ]
        m.d.sync += [busy.eq((busy | one) & ~Mux(ends, 1 << judged.whose, 0)), began.eq(one)]
        for pending, asks, answers, (its, live) in (
            (reads, memory.reads, memory.data, ids["data"]),
            (swaps, memory.swaps, memory.swapped, ids["swapped"]),
        ):
            with m.If(answers.valid & live):
                m.d.sync += pending.bit_select(its, 1).eq(0)
            with m.If(asks.valid & asks.ready):
                m.d.sync += pending.bit_select(asks.payload.id[: walkers.bits], 1).eq(1)
                m.d.comb += Assert(asks.payload.id[walkers.bits :] == generation)
        if not self.searching:
            offered, low = queues["offered"], walkers.config.physical_bits + walkers.bits
            for there, row in zip(offered.there, offered.rows, strict=True):
                m.d.comb += Assert(~there | (row[low:] == generation))
        self._places(m, queues, turns, busy, reads, swaps)
        self._watch(m, whose, SimpleNamespace(busy=busy, began=began, one=one, ends=ends, swaps=swaps), known)
        if not self.searching:
            self._tie_levels(m, whose, queues, turns, known, reads, swaps)
        return m

    def _opened(self, m: Module, queue: Any) -> SimpleNamespace:
        """A SyncFIFO of `_COUNT` places: its level, what it is asked, and by walker how many rows are that one's."""
        opened = queue.elaborate(None)
        queue.elaborate = lambda platform: opened
        storage = opened.submodules.storage
        (reader,) = storage.read_ports
        (writer,) = storage.write_ports
        rows = [storage.read_port(domain="comb") for _ in range(_COUNT)]
        m.d.comb += [row.addr.eq(place) for place, row in enumerate(rows)]
        there = [Mux(reader.addr == place, queue.level > 0, queue.level > 1) for place in range(_COUNT)]
        return SimpleNamespace(
            queue=queue, rows=[row.data for row in rows], there=there, oldest=reader.addr, next=writer.addr
        )

    def _places(
        self,
        m: Module,
        queues: dict[str, SimpleNamespace],
        turns: Any,
        busy: Signal,
        reads: Signal,
        swaps: Signal,
    ) -> None:
        """A walker that is busy is in one place, and else in none; so no queue takes more than it holds."""
        r, bits = self.walkers.registers, self.walkers.bits
        judged = r.judged.turn
        at = {"begun": 0, "further": 0, "offered": self.walkers.config.physical_bits, "swapped": 0, "turns": 0}
        for one in range(_COUNT):
            places: list[Value] = [reads[one], swaps[one], r.judging & (judged.whose == one)]
            places.append(turns.valid & (turns.head.whose == one))
            for name, queue in queues.items():
                for there, row in zip(queue.there, queue.rows, strict=True):
                    places.append(there & (row[at[name] :][:bits] == one))
            m.d.comb += Assert(sum(places, Value.cast(0)) == busy[one])
        for name in _QUEUES:
            queue = queues[name].queue
            m.d.comb += Assert(~queue.w_en | queue.w_rdy)
        behind = queues["turns"].queue
        m.d.comb += [
            # What the proof of the queue of turns assumes.
            Assert(~turns.push | (turns.valid + behind.level <= _COUNT)),
            Assert(~turns.take | turns.valid),
            Cover(queues["begun"].queue.level == _COUNT),
            Cover(turns.valid & r.judging),
        ]
        if not self.searching:
            for queue in queues.values():
                level = queue.queue.level
                m.d.comb += [Assert(level <= _COUNT), Assert((queue.oldest + level)[:1] == queue.next)]
            m.d.comb += Assert(turns.valid | (behind.level == 0))

    def _watch(self, m: Module, whose: Signal, now: SimpleNamespace, known: dict[str, Any]) -> None:
        """What is told of the walk of the walker that is watched."""
        walkers = self.walkers
        r, requests, responses = walkers.registers, walkers.requester.requests, walkers.requester.responses
        judged = r.judged.turn
        request = Signal(requests.payload.shape())
        access = Signal(walkers.i_access.shape(), name="its_access")
        epoch, overtaken, parity = Signal.like(walkers.i_epoch, name="its_epoch"), Signal(), Signal()
        page = Signal.like(walkers.i_page, name="page_looked_for")
        begins, busy = now.one.bit_select(whose, 1), now.busy.bit_select(whose, 1)
        mine = judged.whose == whose
        with m.If(begins):
            m.d.sync += [
                *(request.eq(requests.payload), access.eq(walkers.i_access), epoch.eq(walkers.i_epoch)),
                overtaken.eq(walkers.i_stale),
            ]
        with m.Elif(walkers.i_overtakes):
            m.d.sync += overtaken.eq(1)
        with m.If(now.ends & mine):
            m.d.sync += parity.eq(~parity)
        with m.If(walkers.i_look):
            m.d.sync += page.eq(walkers.i_page)
        # What the proof of the queue of who waits assumes: an end is told as it is seen, and is no beginning.
        before = SimpleNamespace(walking=Signal(_COUNT, name="walked"), ended=Signal(_COUNT, name="ended_before"))
        ended = walkers.o_ended ^ before.ended
        m.d.sync += [before.walking.eq(walkers.o_walking), before.ended.eq(walkers.o_ended)]
        m.d.comb += [
            Assert((ended & ~before.walking) == 0),
            Assert((before.walking & ~walkers.o_walking & ~ended) == 0),
            Assert((ended & walkers.o_walking) == 0),
        ]
        arrived = walkers.memory.data.payload.id[: walkers.bits] == whose
        kept = ~overtaken & ~access.probe
        room = Signal()  # there was a free one as the last walk began
        m.d.sync += room.eq(~(now.busy | now.one).all())
        m.d.comb += [
            Assert(walkers.o_walking == now.busy),
            Assert(walkers.o_ended.bit_select(whose, 1) == parity),
            Assert(walkers.o_room == room),
            Assert(~responses.valid | walkers.o_judges),
            Assert(~(walkers.o_judges & mine) | (busy & ~now.began.bit_select(whose, 1))),
            Assert(~walkers.o_same.bit_select(whose, 1) | (busy & kept & (page_of(request.linear) == page))),
            Assert(~(walkers.o_passes & arrived) | (busy & kept)),
            Assert(~(walkers.o_passes & arrived) | is_upper(walkers.o_upper.at)),
        ]
        well = responses.valid & (responses.payload.outcome == x86.Outcome.OK)
        with m.If(walkers.o_judges & mine):
            m.d.comb += [
                Assert(walkers.o_linear == request.linear),
                Assert(walkers.o_store == access.store),
                Assert(walkers.o_probe == access.probe),
                Assert(walkers.o_epoch == epoch),
                Assert(walkers.o_kept == kept),
                Assert(responses.payload.tag == request.tag),
                Assert(~well | is_leaf(walkers.o_translation.level)),
                Cover(well & judged.after & (whose == 1)),
                Cover(responses.valid & (responses.payload.outcome == x86.Outcome.PAGE_FAULT) & (whose == 0)),
            ]
        m.d.comb += Cover(walkers.o_same.bit_select(whose, 1) & (page == 1))
        if not self.searching:
            row = known["requests"].data
            in_register = mine & (r.judging | (judged.after & now.swaps.bit_select(whose, 1)))
            with m.If(busy):
                m.d.comb += [
                    Assert(row.request == request),
                    Assert(Value.cast(row.access) == Value.cast(access)),
                    Assert(row.epoch == epoch),
                    Assert(r.keeps.bit_select(whose, 1) == kept),
                    Assert(Array(r.pages)[whose] == page_of(request.linear)),
                    Assert(~in_register | (Value.cast(r.judged.asked) == Value.cast(row))),
                ]

    def _tie_levels(
        self,
        m: Module,
        whose: Signal,
        queues: dict[str, SimpleNamespace],
        turns: Any,
        known: dict[str, Any],
        reads: Signal,
        swaps: Signal,
    ) -> None:
        """What induction needs: a walk is at one level, and what is judged is a leaf, is faulty or wants A."""
        walkers = self.walkers
        r, bits, low = walkers.registers, walkers.bits, walkers.config.physical_bits
        judged = r.judged.turn
        for name in ("begun", "further"):
            for there, row in zip(queues[name].there, queues[name].rows, strict=True):
                at = row[bits + low :][: walkers.config.levels]
                m.d.comb += Assert(~there | (row[:bits] != whose) | (sum(at) == 1))
        offered = queues["offered"]
        read = [there & (row[low:][:bits] == whose) for there, row in zip(offered.there, offered.rows, strict=True)]
        with m.If(reads.bit_select(whose, 1) | Cat(*read).any()):
            m.d.comb += Assert(sum(known["steps"].data.at) == 1)
        waits = [
            there & (row[:bits] == whose) & ~turn[bits]
            for name in ("turns", "swapped")
            for there, row in zip(queues[name].there, queues[name].rows, strict=True)
            for turn in [row if name == "turns" else Const(0, bits + 1)]
        ]
        waits.append(turns.valid & (turns.head.whose == whose) & ~turns.head.noncanonical)
        waits.append(swaps.bit_select(whose, 1))
        flags = [
            (turns.valid, turns.head.noncanonical, turns.head.after),
            (r.judging, judged.noncanonical, judged.after),
        ]
        flags += [
            (there, row[bits], row[bits + 1])
            for there, row in zip(queues["turns"].there, queues["turns"].rows, strict=True)
        ]
        m.d.comb += [Assert(~(exists & noncanonical & after)) for exists, noncanonical, after in flags]
        awaited = judged.after & swaps.bit_select(judged.whose, 1)
        m.d.comb += Assert(~(awaited & judged.noncanonical))
        probe = known["requests"].data.access.probe
        held = r.judged.entered
        here = (judged.whose == whose) & (
            (r.judging & ~judged.noncanonical) | (judged.after & swaps.bit_select(whose, 1))
        )
        m.d.comb += Assert(~here | (Value.cast(held) == Value.cast(known["entries"].data)))
        for exists, row in ((Cat(*waits).any(), known["entries"].data), (here, held)):
            at, found = row.step.at, row.found
            entry = data.View(EntryLayout(), found.entry)
            faulty = ~entry.p | found.reserved | found.broken
            with m.If(exists):
                m.d.comb += [
                    Assert(sum(at) == 1),
                    Assert(~at[0] | found.leaf),
                    Assert(~found.leaf | (at[:3] != 0)),
                    Assert(found.leaf | faulty | (~entry.a & ~probe)),
                ]
