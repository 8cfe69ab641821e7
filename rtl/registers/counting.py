"""Counters of 64 bits that are read as a copy of one cycle."""

from collections.abc import Mapping

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Counters"]

COUNTER_BITS = 64
DELTA_BITS = 2


class Counters(Component):
    """Counts, copies and clears.

    Parameters
    ----------
    names : sequence of str

    Members
    -------
    by : In(layout of {name: 2 bits})
        How much is counted in this cycle.
    snapshot, clear : In(1)
        Copies every counter; clears them. Both in one cycle: what was counted before is in the copy, what is counted
        in this cycle in the new count.
    copies : Out(layout of {name: 64 bits})
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        super().__init__(
            {
                "by": In(data.StructLayout(dict.fromkeys(names, unsigned(DELTA_BITS)))),
                "snapshot": In(1),
                "clear": In(1),
                "copies": Out(data.StructLayout(dict.fromkeys(names, unsigned(COUNTER_BITS)))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in self._names:
            count = Signal(COUNTER_BITS, name=name)
            m.d.sync += count.eq(Mux(self.clear, 0, count) + self.by[name])
            with m.If(self.snapshot):
                m.d.sync += self.copies[name].eq(count)
        return m


def growth(m: Module, counter: Signal, name: str) -> Mapping[str, Signal]:
    """By how much a counter that wraps has grown since the last cycle, at most 3: {name: signal}."""
    last, grown = Signal(DELTA_BITS, name=f"{name}_last"), Signal(DELTA_BITS, name=f"{name}_grown")
    m.d.sync += last.eq(counter)
    m.d.comb += grown.eq(counter[:DELTA_BITS] - last)
    return {name: grown}
