"""The memory port with a second user: single accesses of software between those of the walker."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature

from ptewalk.rtl.interfaces import MemoryPortSignature

__all__ = ["MemoryShare", "WordLayout", "WordSignature"]


class WordLayout(data.StructLayout):
    """An access to a word: a read, or a swap as `SwapLayout`; or, with `test`, the self-test of memory there."""

    def __init__(self, physical_bits: int) -> None:
        words = {"address": unsigned(physical_bits), "old": unsigned(64), "new": unsigned(64)}
        super().__init__({"swap": 1, **words, "test": 1})


class WordSignature(Signature):
    """Single accesses to memory, one in flight, seen from who makes them.

    Parameters
    ----------
    physical_bits : int

    Members
    -------
    asked : Out(stream of WordLayout)
    answered : In(stream of {value, done, error}, always ready)
        `value` counts for a read, `done` is 1 for a read or test that was answered.
    """

    def __init__(self, physical_bits: int) -> None:
        answered = data.StructLayout({"value": unsigned(64), "done": 1, "error": 1})
        super().__init__(
            {
                "asked": Out(stream.Signature(WordLayout(physical_bits))),
                "answered": In(stream.Signature(answered, always_ready=True)),
            }
        )


class MemoryShare(Component):
    """Lets the walkers and software use one memory port.

    A word that is asked for holds back what no walker has offered yet, waits until walkers have nothing outstanding,
    and has the port for itself until it is answered. So it starves nobody, and whose an answer is follows from whose
    turn it is. Else walkers are connected through, with no cycle added.

    Parameters
    ----------
    physical_bits : int
    walkers : int
        Who have one access in flight each; default 1.

    Members
    -------
    walker : In(MemoryPortSignature)
    words : In(WordSignature)
    memory : Out(MemoryPortSignature)
    test : Out(1), tested : In(1)
        Software has its turn for the self-test of what is behind the port; it has ended. The address is `words`' own.
    """

    def __init__(self, physical_bits: int, *, walkers: int = 1) -> None:
        self._walkers = walkers
        port = MemoryPortSignature(physical_bits, walkers=walkers)
        super().__init__(
            {
                "walker": In(port),
                "words": In(WordSignature(physical_bits)),
                "memory": Out(port),
                "test": Out(1),
                "tested": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        walker, memory = self.walker, self.memory
        asked, answered = self.words.asked, self.words.answered
        turn, sent = Signal(), Signal()  # it is software's turn; its access was accepted
        busy, exposed = [], []  # of reads, of swaps
        for name, answers in (("reads", "data"), ("swaps", "swapped")):
            offers, out, answer = getattr(walker, name), getattr(memory, name), getattr(memory, answers)
            outstanding = Signal(range(self._walkers + 1), name=f"{name}_outstanding")
            seen = Signal(name=f"{name}_seen")
            mine, passes = Signal(name=f"{name}_mine"), Signal(name=f"{name}_passes")
            # What memory has seen on offer stays there.
            m.d.comb += [
                mine.eq(turn & ~sent & ~asked.payload.test & (asked.payload.swap == (name == "swaps"))),
                passes.eq(~turn & (~asked.valid | seen)),
                out.valid.eq(Mux(turn, mine, offers.valid & passes)),
                offers.ready.eq(out.ready & passes),
                getattr(walker, answers).valid.eq(answer.valid & ~turn),
                getattr(walker, answers).payload.eq(answer.payload),
                out.payload.eq(offers.payload),
            ]
            m.d.sync += seen.eq(offers.valid & passes & ~out.ready)
            with m.If(turn):
                m.d.comb += [out.payload.address.eq(asked.payload.address), out.payload.id.eq(0)]
            ends = answer.valid & ~turn & (outstanding != 0)  # others are of before a reset
            m.d.sync += outstanding.eq(outstanding + (offers.valid & offers.ready) - ends)
            busy.append(outstanding != 0)
            exposed.append(offers.valid & passes)
        with m.If(turn):
            m.d.comb += [memory.swaps.payload.old.eq(asked.payload.old), memory.swaps.payload.new.eq(asked.payload.new)]
        accepted = Signal()
        m.d.comb += [
            accepted.eq((memory.reads.valid & memory.reads.ready) | (memory.swaps.valid & memory.swaps.ready)),
            self.test.eq(turn & asked.payload.test),
            answered.valid.eq(turn & Mux(self.test, self.tested, sent & (memory.data.valid | memory.swapped.valid))),
            asked.ready.eq(answered.valid),
            answered.payload.value.eq(memory.data.payload.value),
            answered.payload.error.eq(
                Mux(asked.payload.swap, memory.swapped.payload.error, memory.data.payload.error) & ~self.test
            ),
            answered.payload.done.eq(Mux(asked.payload.swap, memory.swapped.payload.done, 1) & ~answered.payload.error),
        ]
        with m.If(~turn):
            m.d.sync += [turn.eq(asked.valid & ~(busy[0] | busy[1] | exposed[0] | exposed[1])), sent.eq(0)]
        with m.Elif(answered.valid):
            m.d.sync += turn.eq(0)
        with m.Elif(accepted):
            m.d.sync += sent.eq(1)
        return m
