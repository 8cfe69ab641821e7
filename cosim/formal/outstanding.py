"""What is proved of the bridge's table of what memory has in work: an answer is the oldest burst's of its ID."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.harness import Harness
from ptewalk.rtl.bridge.outstanding import Outstanding

__all__ = ["OutstandingHarness"]

_SLOTS = 4


class OutstandingHarness(Harness):
    """An answer is given the slot of a burst of its ID, before which no other of that ID is in work.

    And `none` is said if and only if nothing is.
    """

    title = "outstanding"
    assumptions = (
        "a burst begins in a slot that is free (bridge-reads, bridge-writes)",
        "what is answered is of an ID that has a burst in work, which began in an earlier cycle",
    )
    depth = 1
    search_depth = 6
    solver = "z3"

    def __init__(self, *, searching: bool = False) -> None:
        self.core: Any = Outstanding(slots=_SLOTS, id_bits=1)
        super().__init__(self.core, searching=searching)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        here = Signal(_SLOTS)
        ids = [Signal(1, name=f"its_{slot}") for slot in range(_SLOTS)]
        before = [Signal(_SLOTS, name=f"before_{slot}") for slot in range(_SLOTS)]  # slots of its ID that began earlier
        gone = Signal(_SLOTS)
        m.d.comb += [
            gone.eq(core.ends << core.ended),
            Assume(~(core.begins & here.bit_select(core.begun, 1))),
            Assume(~core.ends | Cat(here[slot] & (ids[slot] == core.ended_id) for slot in range(_SLOTS)).any()),
            Assert(core.none == ((here == 0) & ~core.begins)),
        ]
        with m.If(core.begins):
            m.d.sync += here.eq((here & ~gone) | (1 << core.begun))
        with m.Else():
            m.d.sync += here.eq(here & ~gone)
        for slot in range(_SLOTS):
            begins = core.begins & (core.begun == slot)
            older = Cat(here[one] & (ids[one] == core.begun_id) for one in range(_SLOTS)) & ~gone
            m.d.sync += before[slot].eq(Mux(begins, older, before[slot] & ~gone))
            with m.If(begins):
                m.d.sync += ids[slot].eq(core.begun_id)
            mine = here[slot] & (ids[slot] == core.ended_id)
            m.d.comb += Assert(~gone[slot] | (mine & (before[slot] == 0)))
        m.d.comb += Cover(gone[_SLOTS - 1] & (here == (1 << _SLOTS) - 1))
        if not self.searching:
            self._tie(m, here, ids, before)
        return m

    def _tie(self, m: Module, here: Signal, ids: list[Signal], before: list[Signal]) -> None:
        core = self.core
        m.d.comb += [
            Assert(core.busy == here),
            Assert(core.idle == (here == 0)),
            Assert((core.fresh & (core.fresh - 1)) == 0),
        ]
        for slot in range(_SLOTS):
            mine = before[slot]
            count: Value = sum((mine[one] for one in range(1, _SLOTS)), Value.cast(mine[0]))
            m.d.comb += [
                Assert(~here[slot] | (core.ids[slot] == ids[slot])),
                Assert(~(here[slot] & ~core.fresh[slot]) | (core.older[slot] == count)),
                Assert(~core.fresh[slot] | (here[slot] & (Cat(core.before) == count) & (core.sole == (mine == 0)))),
                Assert(~(here[slot] & mine[slot])),
            ]
            for other in range(_SLOTS):
                pair = here[slot] & here[other] & (ids[slot] == ids[other])
                m.d.comb += Assert(~(here[slot] & mine[other]) | (here[other] & (ids[slot] == ids[other])))
                if other != slot:
                    m.d.comb += [
                        Assert(~pair | (mine[other] ^ before[other][slot])),
                        Assert(~(here[slot] & mine[other]) | ((before[other] & ~mine) == 0)),
                    ]
