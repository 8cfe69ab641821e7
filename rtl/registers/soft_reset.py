"""A reset by software: nothing new begins, what is outstanding is answered, and then all begins anew."""

from enum import IntEnum

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.interfaces import RequesterSignature

__all__ = ["Refusal", "SoftReset"]


class State(IntEnum):
    """How far it is."""

    IDLE = 0
    FRONT = 1
    """Bursts that came in are answered."""
    BACK = 2
    """What went to tables is."""
    RESET = 3


class SoftReset(Component):
    """Closes the front, where bursts come in, then the back, where tables are, and resets what is between.

    Members
    -------
    ask : In(1)
        For a cycle.
    front, back : Out(1)
        Nothing more passes there; held until the reset is over.
    front_quiet, back_quiet : In(1)
        Nothing is outstanding there; counts while it is closed.
    reset : Out(1)
        For a cycle.
    busy : Out(1)
    """

    def __init__(self) -> None:
        names = ("front", "back", "reset", "busy")
        super().__init__({**dict.fromkeys(("ask", "front_quiet", "back_quiet"), In(1)), **dict.fromkeys(names, Out(1))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state = Signal(State)
        m.d.comb += [
            self.busy.eq(state != State.IDLE),
            self.front.eq(self.busy),
            self.back.eq((state == State.BACK) | (state == State.RESET)),
            self.reset.eq(state == State.RESET),
        ]
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.ask):
                    m.d.sync += state.eq(State.FRONT)
            with m.Case(State.FRONT):
                with m.If(self.front_quiet):
                    m.d.sync += state.eq(State.BACK)
            with m.Case(State.BACK):
                with m.If(self.back_quiet):
                    m.d.sync += state.eq(State.RESET)
            with m.Case(State.RESET):
                m.d.sync += state.eq(State.IDLE)
        return m


class Refusal(Component):
    """Between a requester and its MMU: wires, or, while `refuses` is 1, a bus error to each new request.

    What the MMU was offered it is offered until it takes it, and its answers pass.

    Parameters
    ----------
    physical_bits, tag_bits
        As in `RequesterSignature`.

    Members
    -------
    above : In(RequesterSignature, with retires)
        It takes answers at once.
    below : Out(RequesterSignature, with retires)
    refuses : In(1)
    """

    def __init__(self, *, physical_bits: int, tag_bits: int) -> None:
        port = RequesterSignature(physical_bits=physical_bits, tag_bits=tag_bits, retires=True)
        super().__init__({"above": In(port), "below": Out(port), "refuses": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        above, below = self.above, self.below
        kept, passes, refused = Signal(), Signal(), Signal()
        tag = Signal.like(above.requests.payload.tag)
        answer = above.responses.payload
        m.d.comb += [
            passes.eq(~self.refuses | kept),
            *(
                below.requests.valid.eq(above.requests.valid & passes),
                below.requests.payload.eq(above.requests.payload),
            ),
            above.requests.ready.eq(Mux(passes, below.requests.ready, ~refused)),
            *(below.retired.valid.eq(above.retired.valid), below.retired.payload.eq(above.retired.payload)),
            *(below.responses.ready.eq(above.responses.ready), answer.eq(below.responses.payload)),
            above.responses.valid.eq(below.responses.valid | refused),
        ]
        m.d.sync += kept.eq(below.requests.valid & ~below.requests.ready)
        with m.If(above.requests.valid & ~passes & ~refused):
            m.d.sync += [refused.eq(1), tag.eq(above.requests.payload.tag)]
        with m.If(refused & ~below.responses.valid):
            m.d.comb += [answer.eq(0), answer.tag.eq(tag), answer.outcome.eq(x86.Outcome.BUS_ERROR)]
            m.d.sync += refused.eq(0)
        return m
