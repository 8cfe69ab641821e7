"""What every harness is, and the channels of a memory that is as hostile as its port allows."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Assert, Assume, Elaboratable, Fragment, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib.wiring import Component, Flow

from ptewalk.rtl.interfaces import ID_BITS

__all__ = ["FLAT", "Harness", "LateAnswers"]

FLAT = "prep -flatten -top top\nmemory_map\nopt -full"
"""Yosys's script of what ABC searches."""


class Harness(Elaboratable):
    """A part of the gateware, its environment, and what is asserted of it.

    Attributes
    ----------
    title : str
        The property's name.
    assumptions : tuple of str
        What is assumed of the environment.
    depth : int
        k of the k-induction.
    search_depth : int
        Steps of the bounded search: enough to refute each mutant whose check is this property.
    solver : str
        z3, or yices where z3 takes too long; abc of what is `bounded`.
    bounded : bool
        True: nothing is proved beyond the `search_depth` steps of the bounded search. Its covers are reached by yices.
    quick_depth : int
        Steps of the bounded search where ABC is installed, which then makes it: so many take a solver far longer. 0: it
        is the solver's always.
    script : str
        Yosys's, of the bounded search and of all else.
    searching : bool
        True: the harness of the bounded search. The assertions that only help the induction are left out, so that what
        is refuted is the property itself.
    constants : tuple of str
        Names of what is arbitrary and constant: each is made by `arbitrary`, or nothing is proved.
    ports : list of Signal
        The free inputs.
    """

    title: str
    assumptions: tuple[str, ...]
    constants: tuple[str, ...] = ()
    depth = 4
    search_depth = 10
    solver = "z3"
    bounded = False
    quick_depth = 0
    script = "prep -top top"

    def __init__(self, core: Component, *, searching: bool) -> None:
        self.searching = searching
        self.ports: list[Signal] = []
        for _path, member, value in core.signature.flatten(core):
            signal = Value.cast(value)
            if member.flow is Flow.In and isinstance(signal, Signal):
                self.ports.append(signal)

    def arbitrary(self, m: Module, width: int, name: str) -> Signal:
        """A constant of any value. Not a signal that nobody drives: that would be 0."""
        value = Signal(width, name=name)
        m.submodules[f"any_{name}"] = Instance("$anyconst", p_WIDTH=width, o_Y=value)
        return value


def signals_of(made: Module) -> dict[str, Signal]:
    """What is driven in a module that was elaborated, by name; of equal names any one."""
    return {
        signal.name: signal
        for statements in Fragment.get(made, None).statements.values()
        for statement in statements
        for signal in statement._lhs_signals()
    }


class LateAnswers(Elaboratable):
    """One channel of the memory: which answers it may give, and which of them is to the walk at hand.

    A reset ends the walk, not what memory has in work: that is answered later, with the id that it was asked with.

    Attributes
    ----------
    whose : Signal
        Free: by how many resets, modulo 2**`ID_BITS`, was the access made that is answered now.
    mine : Signal
        An access made since the last reset is answered in this cycle.
    open : Signal
        One is outstanding.
    """

    def __init__(self, asked: Any, answer: Any, *, searching: bool) -> None:
        self._searching = searching
        self._asked, self._answer = asked, answer
        self.whose = Signal(ID_BITS)
        self.mine = Signal()
        self.open = Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = 1 << ID_BITS
        resets = Signal(ID_BITS, reset_less=True)
        resetting = Signal(reset_less=True)
        outstanding = Signal(count, reset_less=True)  # by the number of resets before it
        ids = [Signal(ID_BITS, name=f"id_{number}", reset_less=True) for number in range(count)]
        rises = ResetSignal("sync") & ~resetting
        m.d.sync += resetting.eq(ResetSignal("sync"))
        m.d.comb += [
            self.mine.eq(self._answer.valid & (self.whose == resets)),
            self.open.eq(outstanding.bit_select(resets, 1)),
        ]
        with m.If(rises):
            m.d.sync += resets.eq(resets + 1)
            # No answer is later than three resets.
            m.d.comb += Assume(~outstanding.bit_select((resets + 1)[:ID_BITS], 1))
        with m.If(self._answer.valid):
            m.d.comb += Assume(outstanding.bit_select(self.whose, 1))
            m.d.sync += outstanding.bit_select(self.whose, 1).eq(0)
        with m.If(self._asked.valid & self._asked.ready):
            m.d.sync += outstanding.bit_select(resets, 1).eq(1)
        if not self._searching:
            m.d.comb += Assert(self._asked.payload.id == resets)
        for number, identity in enumerate(ids):
            with m.If(self._answer.valid & (self.whose == number)):
                m.d.comb += Assume(self._answer.payload.id == identity)
            with m.If(self._asked.valid & self._asked.ready & (resets == number)):
                m.d.sync += identity.eq(self._asked.payload.id)
            if not self._searching:
                m.d.comb += Assert(~outstanding[number] | (identity == number))
        return m
