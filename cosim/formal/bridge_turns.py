"""What is proved of the turns that reads and stores take in the bridge: who retires, and whose record is queued."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Assert, Assume, Cover, Module, Mux, Signal, Value
from amaranth.lib.wiring import Flow

from ptewalk.cosim.formal.bridge import Stranger
from ptewalk.cosim.formal.harness import Harness
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.core import Bridge

__all__ = ["BridgeTurns"]

_CONFIG = BridgeConfig(linear_bits=32, physical_bits=32, id_bits=1, reads=4, writes=4, read_grants=True)
_STORES = 16
"""That retire while a read waits, at most, before no store is asked about."""


class BridgeTurns(Harness):
    """A read that has ended retires within (writes + 18) (before + 1) cycles, whatever stores retire beside it.

    Before are the reads that ended earlier and have not retired. And a record is queued, or lost where there is no
    room, in the first cycle in which it is there or in the second.
    """

    title = "bridge-turns"
    assumptions = (
        "no more stores are asked about, and have not retired or failed, than there are slots (bridge-writes)",
        "no more reads have ended, and have not retired, than there are slots (bridge-reads)",
        "a record is there no more in the cycle after it was queued (tests/rtl/bridge)",
        "four slots of each direction",
    )
    depth = 1
    search_depth = 32
    solver = "yices"

    def __init__(self, *, searching: bool = False) -> None:
        bridge: Any = Bridge(_CONFIG)
        bridge.reads, bridge.writes = Stranger(bridge.reads), Stranger(bridge.writes)
        self.bridge: Any = bridge
        super().__init__(bridge, searching=searching)
        self.watch, self.fails = Signal(), Signal()  # free: the read that ends now is watched; a store is refused
        self.ports += [self.watch, self.fails]
        for side in (bridge.reads, bridge.writes):
            for _path, member, value in side.signature.flatten(side):
                signal = Value.cast(value)
                if member.flow is Flow.Out and isinstance(signal, Signal):
                    self.ports.append(signal)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bridge = self.bridge
        reads, writes, queue = bridge.reads, bridge.writes, bridge.ended
        most = _CONFIG.writes + _STORES + 2  # cycles, of each read
        out = Signal(range(_CONFIG.writes + 1))
        retires = reads.frees
        m.d.comb += [
            Assume(~writes.wants | (out != _CONFIG.writes)),
            Assume(out >= writes.ends + self.fails),
            Assume(~reads.ends | (queue.level != _CONFIG.reads)),
        ]
        m.d.sync += out.eq(out + writes.asks - writes.ends - self.fails)
        watched, before, budget = Signal(), Signal(range(_CONFIG.reads)), Signal(range(most * _CONFIG.reads + 1))
        mine = watched & retires & (before == 0)
        with m.If(self.watch & reads.ends & ~watched):
            m.d.sync += [watched.eq(1), before.eq(queue.level - retires)]
            m.d.sync += budget.eq((queue.level - retires + 1) * most)
        with m.Elif(watched):
            m.d.sync += [watched.eq(~mine), before.eq(before - (retires & ~mine)), budget.eq(budget - (budget != 0))]
        m.d.comb += [
            Assert(~watched | (budget != 0)),
            Cover(mine & (budget < most // 2)),
            Cover(mine & bridge.waited[-1]),
        ]
        for name, side in (("read", reads), ("write", writes)):
            waits, told = Signal(name=f"{name}_waits"), Signal(name=f"{name}_told")
            m.d.sync += [waits.eq(side.reports & ~side.reported), told.eq(side.reports & side.reported)]
            m.d.comb += [
                Assume(~told | ~side.reports),
                Assume(~waits | side.reports),
                Assert(~waits | side.reported),
            ]
        if not self.searching:
            first = Mux(bridge.waited[-1] & bridge.crowded, out + 1, most - bridge.waited)
            m.d.comb += [
                Assert(~watched | (queue.level > before)),
                Assert(bridge.waited <= _STORES),
                *(Assert(out <= _CONFIG.writes), Assert(queue.level <= _CONFIG.reads)),
                Assert(~watched | (before * most + first <= budget)),
            ]
        return m
