"""The memory port's ids, which tell the answers to this walker's accesses from those that a reset left behind."""

from amaranth.hdl import Module, ResetSignal, Signal
from amaranth.lib.wiring import Component, Out

from ptewalk.rtl.interfaces import ID_BITS

__all__ = ["ResetGeneration"]


class ResetGeneration(Component):
    """A number that each reset counts up, and that no reset clears.

    Members
    -------
    value : Out(ID_BITS)
        The `id` of accesses made since the last reset.
    """

    def __init__(self) -> None:
        super().__init__({"value": Out(ID_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A reset lasts any number of cycles and counts once.
        number = Signal(ID_BITS, reset_less=True)
        resetting = Signal(reset_less=True)
        reset = ResetSignal("sync", allow_reset_less=True)
        m.d.sync += resetting.eq(reset)
        with m.If(reset & ~resetting):
            m.d.sync += number.eq(number + 1)
        m.d.comb += self.value.eq(number)
        return m
