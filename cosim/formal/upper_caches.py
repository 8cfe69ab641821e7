"""What is proved of the caches of upper entries, for one arbitrary address and slot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.harness import Harness
from ptewalk.model.x86 import LEVEL_SHIFT, LEVELS_4, LEVELS_5, LINEAR_BITS
from ptewalk.rtl.layouts import UpperRightsLayout
from ptewalk.rtl.upper_caches import UpperCaches

__all__ = ["SplitUpperCaches", "UpperCachesHarness", "is_upper"]

_LINEAR = LINEAR_BITS[LEVELS_5]


def is_upper(at: Value) -> Value:
    """A one-hot level is one, and above the page tables."""
    return ~at[0] & (sum(at) == 1)


class UpperCachesHarness(Harness):
    """Where a walk of one arbitrary address begins: the root, or what the last fill there left and nothing cleared."""

    title = "upper-caches"
    assumptions: tuple[str, ...] = (
        "glue-keeps: the level of an entry that is kept is one, 2 or more; the rows looked up are the address's",
    )
    constants = ("linear", "slot")
    depth = 3
    search_depth = 6
    SPLIT = False
    """The lookup is split: a walk begins where the lookup before the last one found."""

    def __init__(self, *, searching: bool = False) -> None:
        self.uppers = UpperCaches(levels=LEVELS_5, physical_bits=20, slot_bits=2, entries=2, split=self.SPLIT)
        super().__init__(self.uppers, searching=searching)
        self._rows = {level: cache.memory.read_port(domain="comb") for level, cache in self.uppers.caches.items()}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.uppers = uppers = self.uppers
        linear, slot = self.arbitrary(m, 64, "linear"), self.arbitrary(m, 2, "slot")
        asked = uppers.look & (uppers.linear[LEVEL_SHIFT[2] : _LINEAR] == linear[LEVEL_SHIFT[2] : _LINEAR])
        asked &= uppers.slot == slot
        m.d.comb += [index.eq(row) for index, row in zip(uppers.index, uppers.rows(uppers.linear), strict=True)]
        m.d.comb += Assume(~uppers.passes | is_upper(uppers.fill.at))
        looked = Signal()
        with m.If(uppers.look):
            m.d.sync += looked.eq(asked)
        seen, held_back = {}, {}
        for level in uppers.caches:
            seen[level], held_back[level] = self._ghost(m, level, linear, slot, asked)
        self._specify(m, uppers.next_start, looked, seen, uppers.root, uppers.la57)
        if self.SPLIT:
            looked = self._later(m, looked)
            for level, one in seen.items():
                seen[level] = SimpleNamespace(**{name: self._later(m, value) for name, value in vars(one).items()})
            root, la57 = Signal.like(uppers.root), Signal()
            with m.If(uppers.look):
                m.d.sync += [root.eq(uppers.root), la57.eq(uppers.la57)]
            self._specify(m, uppers.start, looked, seen, root, la57)
        start = uppers.start
        for level in uppers.caches:
            found = looked & start.cached & (start.at == 1 << (level - 2))
            m.d.comb += Cover(found & linear[40] & ~held_back[level])
        m.d.comb += Cover(looked & ~start.cached & (slot == 3))
        return m

    @staticmethod
    def _specify(m: Module, start: Any, looked: Value, seen: dict[int, Any], root: Value, la57: Value) -> None:
        """What is promised of a start, if the lookup was of the address and slot."""
        for level, ghost in seen.items():
            with m.If(looked & start.cached & (start.at == 1 << (level - 2))):
                m.d.comb += [
                    Assert(ghost.valid),
                    Assert(start.frame == ghost.frame),
                    Assert(Value.cast(start.rights) == Value.cast(ghost.rights)),
                ]
        with m.If(looked):
            m.d.comb += Assert(sum(start.at) == 1)
        with m.If(looked & ~start.cached):
            top = Mux(la57, 1 << (LEVELS_5 - 1), 1 << (LEVELS_4 - 1))
            m.d.comb += [Assert(start.frame == root), Assert(start.at == top)]

    def _later(self, m: Module, value: Signal) -> Signal:
        """A register's value before the last lookup."""
        later = Signal.like(value, name_suffix="_later")
        with m.If(self.uppers.look):
            m.d.sync += later.eq(value)
        return later

    def _ghost(self, m: Module, level: int, linear: Value, slot: Value, asked: Value) -> tuple[SimpleNamespace, Signal]:
        """What stands for the address at a level by fills and clears alone, as the last lookup saw; and a fill due."""
        uppers = self.uppers
        shift = LEVEL_SHIFT[level]
        frame, rights = uppers.fill.frame.shape(), UpperRightsLayout()
        new = (uppers.fill.linear[shift:_LINEAR] == linear[shift:_LINEAR]) & (uppers.fill_slot == slot)
        due = Signal(name=f"due_{level}")
        due_frame, due_rights = Signal(frame, name=f"due_frame_{level}"), Signal(rights, name=f"due_rights_{level}")
        now = SimpleNamespace(
            valid=Signal(name=f"valid_{level}"),
            frame=Signal(frame, name=f"frame_{level}"),
            rights=Signal(rights, name=f"rights_{level}"),
        )
        m.d.sync += [
            due.eq(uppers.passes & uppers.fill.at[level - 1] & new & ~uppers.clear),
            *(due_frame.eq(uppers.fill.frame), due_rights.eq(uppers.fill.rights)),
        ]
        with m.If(uppers.clear):
            m.d.sync += now.valid.eq(0)
        with m.Elif(due):
            m.d.sync += [now.valid.eq(1), now.frame.eq(due_frame), now.rights.eq(due_rights)]
        seen = SimpleNamespace()
        for name, value in vars(now).items():
            held = Signal.like(value, name=f"seen_{name}_{level}")
            with m.If(uppers.look):
                m.d.sync += held.eq(value)
            setattr(seen, name, held)
        if not self.searching:
            self._tie(m, level, linear, slot, now, due)
        return seen, due

    def _tie(self, m: Module, level: int, linear: Value, slot: Value, now: SimpleNamespace, due: Signal) -> None:
        """What induction needs: the row that would be found is the ghost, and so is the entry on its way."""
        cache, port, held = self.uppers.caches[level], self._rows[level], self.uppers.held
        index, tag = cache.split(linear)
        m.d.comb += port.addr.eq(index)
        found = cache.valid.bit_select(index, 1) & (port.data.tag == tag) & (port.data.slot == slot)
        shift = LEVEL_SHIFT[level]
        same = (held.entry.linear[shift:_LINEAR] == linear[shift:_LINEAR]) & (held.slot == slot)
        with m.If(found):
            m.d.comb += [
                Assert(now.valid),
                Assert(port.data.frame == now.frame),
                Assert(Value.cast(port.data.rights) == Value.cast(now.rights)),
            ]
        m.d.comb += Assert(due == (held.valid & held.entry.at[level - 1] & same))


class SplitUpperCaches(UpperCachesHarness):
    """The same where the lookup is split."""

    title = "upper-caches/split"
    assumptions = tuple(one.replace("glue-keeps:", "glue-keeps/split:") for one in UpperCachesHarness.assumptions)
    SPLIT = True
