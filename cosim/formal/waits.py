"""What is proved of invalidations that wait: none is complete too early, and none waits for what it need not."""

from __future__ import annotations

from types import SimpleNamespace

from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.harness import Harness, signals_of
from ptewalk.model import x86
from ptewalk.rtl.waits import Waits

__all__ = ["WaitsHarness", "WaitsReadsHarness"]

_MOST = 3
"""Requests in flight and grants outstanding together, at most."""
_SOON = 6
"""Cycles from the last event that is waited for to the completion, at most."""
_FLYING, _STORE, _READ = 1, 2, 3
"""What the request that is watched is: in flight, a store that was granted, a read that was."""


class WaitsHarness(Harness):
    """One arbitrary request, and one arbitrary invalidation that waits: it is not complete before what it waits for is.

    Of stores alone also: it is complete soon after nothing is left of what was there as it became the first that waits.
    """

    title = "waits"
    assumptions: tuple[str, ...] = (
        "delivery, glue-answers: what is answered or retires was accepted, once, with the epoch that it was given",
        "delivery, glue-answers: no more are in flight or granted than there may be",
        "glue-answers: an invalidation that waits begins only with room",
    )
    search_depth = 8
    READS = False

    def __init__(self, *, searching: bool = False) -> None:
        self.unit = Waits(most=_MOST, reads=self.READS)
        super().__init__(self.unit, searching=searching)
        # Free: watch the request, or the invalidation, that comes now; what happens now happens to that one; what is
        # over was there as the first that waits became the first.
        names = ("watch", "watch_wait", "mine", "store_mine", "read_mine", "store", "old", "store_old")
        self.pick = SimpleNamespace(**{name: Signal(name=f"pick_{name}") for name in names})
        self.ports += vars(self.pick).values()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unit = self.unit
        made = unit.elaborate(None)
        self.inner = signals_of(made)
        unit.elaborate = lambda platform: made  # type: ignore[method-assign]
        m.submodules.waits = unit
        request = self._request(m)
        waiting = self._waiting(m)
        before = Signal()  # the request came before the invalidation, or with it
        counts = before & (request.state != 0)
        reads = request.state == _READ
        with m.If(waiting.picked):
            m.d.sync += before.eq(request.present)
        waited = counts & (~reads | waiting.kind[1])  # 3 is as ALL
        m.d.comb += [
            Assert(~waiting.told | ~waited),
            Cover(waiting.told & before & ~counts),
            Cover(waiting.told & (request.state == _FLYING)),
        ]
        self._others(m, request, waiting, before)
        return m

    def _request(self, m: Module) -> SimpleNamespace:
        """The request that is watched."""
        unit, pick = self.unit, self.pick
        state, epoch, known = Signal(2, name="state"), Signal.like(unit.epoch, name="its_epoch"), Signal(name="known")
        comes = Signal()
        left, stored, read = pick.mine & unit.left, pick.store_mine & unit.stored, Signal()
        m.d.comb += comes.eq(unit.accepted & pick.watch & ~known)
        granted = Signal()
        if self.READS:
            m.d.comb += [
                granted.eq(left & unit.read_granted),
                read.eq(pick.read_mine & unit.read),
                Assume(~unit.read_granted | unit.left),
                Assume(~granted | (unit.read_epoch == epoch[1])),
                Assume(~read | ((state == _READ) & (unit.retired_epoch == epoch[1]))),
            ]
        m.d.comb += [
            Assume(~left | ((state == _FLYING) & (unit.left_epoch == epoch[0]))),
            Assume(~stored | ((state == _STORE) & (unit.stored_epoch == epoch[0]))),
        ]
        with m.If(comes):
            m.d.sync += [known.eq(1), state.eq(_FLYING), epoch.eq(unit.epoch)]
        with m.Elif(left):
            m.d.sync += state.eq(Mux(granted, _READ, 0))
        with m.Elif(stored | read):
            m.d.sync += state.eq(0)
        with m.Elif((state == _FLYING) & pick.store):
            m.d.sync += state.eq(_STORE)  # it is answered, and granted: no event here
        present = Signal()
        m.d.comb += present.eq(comes | ((state != 0) & ~(left & ~granted) & ~stored & ~read))
        return SimpleNamespace(
            state=state,
            epoch=epoch,
            known=known,
            comes=comes,
            left=left,
            stored=stored,
            read=read,
            granted=granted,
            present=present,
        )

    def _waiting(self, m: Module) -> SimpleNamespace:
        """The invalidation that is watched, and how many wait."""
        unit = self.unit
        count, ahead, watching = Signal(2, name="count"), Signal(2), Signal(name="watching")
        kind, picked, told = Signal(2, name="its_kind"), Signal(name="picked"), Signal(name="told")
        completes = unit.completions.valid
        m.d.comb += [
            Assume(~unit.begins | (unit.room & (unit.wait != x86.Wait.NONE))),
            picked.eq(unit.begins & self.pick.watch_wait & ~watching),
            told.eq(completes & watching & (ahead == 0)),
            Assert(~completes | (count != 0)),
            Assert(~told | (unit.completions.payload.wait == kind)),
            Cover(told & (kind == x86.Wait.ALL) & (count == 2)),
        ]
        m.d.sync += count.eq(count + unit.begins - completes)
        with m.If(picked):
            m.d.sync += [watching.eq(1), ahead.eq(count - completes), kind.eq(unit.wait)]
        with m.Elif(watching & completes):
            m.d.sync += [ahead.eq(ahead - 1), watching.eq(ahead != 0)]
        return SimpleNamespace(count=count, ahead=ahead, watching=watching, kind=kind, picked=picked, told=told)

    def _others(self, m: Module, request: SimpleNamespace, waiting: SimpleNamespace, before: Signal) -> None:
        """All that is not watched, by epoch; and what shortens the proof: the counters of the unit are the ghosts'."""
        unit, pick = self.unit, self.pick
        stored, left = unit.stored & ~request.stored, unit.left & ~request.left
        # By epoch, and by whether they were there as the first that waits became that.
        here = {(old, epoch): Signal(2, name=f"others_{old}_{epoch}") for old in range(2) for epoch in range(2)}
        alone = unit.begins & (waiting.count == unit.completions.valid)  # it is the first at once
        next_is = unit.completions.valid & (waiting.count == 2)
        ages = Signal()
        m.d.comb += ages.eq(alone | next_is)
        after = {}
        for (old, epoch), number in here.items():
            goes = [(left, unit.left_epoch, pick.old), (stored, unit.stored_epoch, pick.store_old)]
            gone = [happens & (whose == epoch) & (label == old) for happens, whose, label in goes]
            m.d.comb += Assume(number >= gone[0] + gone[1])
            after[old, epoch] = number - gone[0] - gone[1]
        comes = [unit.accepted & ~request.comes & (unit.epoch[0] == epoch) for epoch in range(2)]
        for epoch in range(2):
            both = after[0, epoch] + after[1, epoch]
            m.d.sync += [
                here[1, epoch].eq(Mux(ages, both + (comes[epoch] & alone), after[1, epoch])),
                here[0, epoch].eq(Mux(ages, comes[epoch] & ~alone, after[0, epoch] + comes[epoch])),
            ]
        total = sum(here.values(), Value.cast(0)) + (request.state != 0)
        m.d.comb += Assume(~unit.accepted | (total < _MOST))
        reads = [Signal(2, name=f"reads_{epoch}") for epoch in range(2)]
        if self.READS:
            granted, read = unit.read_granted & ~request.granted, unit.read & ~request.read
            for epoch, number in enumerate(reads):
                gone = read & (unit.retired_epoch == epoch)
                m.d.comb += Assume(number >= gone)
                m.d.sync += number.eq(number + (granted & (unit.read_epoch == epoch)) - gone)
            m.d.comb += Assume(~unit.read_granted | (reads[0] + reads[1] + (request.state == _READ) < _MOST))
        else:
            self._soon(m, request, waiting, here, ages, alone)
        if not self.searching:
            flying = (request.state != 0) & (request.state != _READ)
            for epoch in range(2):
                mine = flying & (request.epoch[0] == epoch)
                m.d.comb += Assert(self._counted("stores", epoch, 2) == here[0, epoch] + here[1, epoch] + mine)
                if self.READS:
                    mine = (request.state == _READ) & (request.epoch[1] == epoch)
                    m.d.comb += Assert(self._counted("reads", epoch, 1) == reads[epoch] + mine)
            m.d.comb += Assert(total <= _MOST)
            self._tie(m, request, waiting, here, before)

    def _counted(self, name: str, epoch: int, goes: int) -> Value:
        """What the unit counts, with what it has not counted yet."""
        inner = self.inner
        gone = sum((inner[f"{name}_{number}_{epoch}"] for number in range(1, 1 + goes)), Value.cast(0))
        result: Value = inner[f"{name}_left_{epoch}"] + inner[f"{name}_0_{epoch}"] - gone
        return result

    def _soon(
        self,
        m: Module,
        request: SimpleNamespace,
        waiting: SimpleNamespace,
        here: dict[tuple[int, int], Signal],
        ages: Signal,
        alone: Value,
    ) -> None:
        """Nothing that was there as it became the first is left: soon it is complete."""
        unit = self.unit
        mine = Signal(name="mine_is_old")
        since = Signal(4, name="since")
        with m.If(ages):
            m.d.sync += mine.eq(alone | ~request.comes)
        with m.Elif(request.comes):
            m.d.sync += mine.eq(0)
        self.mine = mine
        left = here[1, 0] + here[1, 1] + (mine & (request.state != 0))
        m.d.sync += since.eq(Mux((waiting.count != 0) & ~unit.completions.valid & (left == 0), since + 1, 0))
        m.d.comb += [Assert(since <= _SOON), Cover((since == 3) & (here[0, 0] + here[0, 1] != 0))]

    def _tie(
        self,
        m: Module,
        request: SimpleNamespace,
        waiting: SimpleNamespace,
        here: dict[tuple[int, int], Signal],
        before: Signal,
    ) -> None:
        """How many wait, which of them is watched, and whose epoch is whose."""
        unit, inner = self.unit, self.inner
        waits, told = inner["waits"], unit.completions.valid
        stores = unit.epoch[0]
        place = waiting.ahead - told
        flying = (request.state != 0) & (request.state != _READ)
        m.d.comb += [
            Assert(request.known | ((request.state == 0) & ~before)),
            Assert(waiting.count == waits + ~unit.room + told),
            Assert(unit.room | (waits & ~told)),
            Assert((inner["counted"] != 0b10) & (~(told & waits) | (inner["counted"] == 0))),
            Assert(~waiting.watching | (waiting.ahead < waiting.count)),
            Assert(~waiting.watching | told | (place != 0) | (inner["kind"] == waiting.kind)),
            Assert(~waiting.watching | (waiting.ahead != told + 1) | (inner["next_kind"] == waiting.kind)),
        ]
        first = waiting.watching & (waiting.ahead == told) & waits  # the one that is watched ended the epoch
        m.d.comb += [
            Assert(~flying | (request.epoch[0] != stores) | ~((first & before) | (told & waits))),
            Assert(~flying | (request.epoch[0] == stores) | waits),
        ]
        if self.READS:
            reads, held, of_all = unit.epoch[1], request.state != 0, waits & inner["kind"][1]
            m.d.comb += [
                Assert(~held | (request.epoch[1] != reads) | ~(of_all & ((first & before) | told))),
                Assert(~held | (request.epoch[1] == reads) | of_all),
                Assert(~(flying & of_all) | ((request.epoch[0] == stores) == (request.epoch[1] == reads))),
                Assert(~waits | (inner["kind"] != x86.Wait.NONE)),
                Assert(unit.room | (inner["next_kind"] != x86.Wait.NONE)),
            ]
        else:
            m.d.comb += Assert(request.state != _READ)
            # What is not in the epoch that ended is in the other; none is in that where none waits.
            for epoch in range(2):
                mine = flying & (request.epoch[0] == epoch)
                old, new = here[1, epoch] + (mine & self.mine), here[0, epoch] + (mine & ~self.mine)
                with m.If(waits):
                    here_is = Mux(stores == epoch, Mux(told, old + new, old), Mux(told, old, new))
                    m.d.comb += Assert(here_is == 0)
                with m.Elif(stores != epoch):
                    m.d.comb += Assert(old + new == 0)


class WaitsReadsHarness(WaitsHarness):
    """Where reads are granted too: an invalidation that waits for all is not complete before they have retired."""

    title = "waits/reads"
    assumptions = (
        "delivery/reads, glue-answers: what is answered or retires was accepted, once, with its epochs",
        "delivery/reads, glue-answers: no more are in flight or granted than there may be",
        "glue-answers: an invalidation that waits begins only with room",
    )
    READS = True
