"""The memory port on block RAM: one holder, which keeps the RAM for itself while a swap compares."""

from dataclasses import dataclass
from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from ptewalk.rtl.interfaces import MemoryPortSignature

__all__ = ["LockRam", "LockRamConfig", "WordsSignature"]


@dataclass(frozen=True)
class LockRamConfig:
    """Parameters of a `LockRam`.

    Parameters
    ----------
    physical_bits : int
        Of an address at both ports, 32 to 52; default 40.
    words : int
        64-bit words of the RAM, which begins at address 0: a power of two, 512 to 1 Mi; default 8192, 64 KiB.
    registered : bool
        What goes to the RAM, and what it gives, goes through registers: L = 3, for a faster clock; default False.
    """

    physical_bits: int = 40
    words: int = 8192
    registered: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.physical_bits, int) or not 32 <= self.physical_bits <= 52:
            raise ValueError(f"physical_bits must be an integer from 32 to 52, not {self.physical_bits!r}")
        if not isinstance(self.words, int) or not 512 <= self.words <= 1 << 20 or self.words & (self.words - 1):
            raise ValueError(f"words must be a power of two from 512 to {1 << 20}, not {self.words!r}")
        if not isinstance(self.registered, bool):
            raise ValueError(f"registered must be True or False, not {self.registered!r}")

    @property
    def latency(self) -> int:
        """Cycles from a transfer to its answer."""
        return 3 if self.registered else 1


class WordsSignature(Signature):
    """Plain reads and writes of 64-bit words, seen from who asks.

    Parameters
    ----------
    physical_bits : int

    Members
    -------
    requests : Out(stream of {address, write, value, strobes})
        `address` is in bytes, 8-byte aligned; `strobes` has a bit for each byte that is written.
    answers : In(stream of {value, error}, always ready)
        One per request, in order. `value` is that before a write. `error`: there is no RAM at the address.
    alone : Out(1)
        What is taken while it is 1 has nothing of others between it.
    """

    def __init__(self, physical_bits: int) -> None:
        request = {"address": unsigned(physical_bits), "write": 1, "value": unsigned(64), "strobes": unsigned(8)}
        answer = data.StructLayout({"value": unsigned(64), "error": 1})
        super().__init__(
            {
                "requests": Out(stream.Signature(data.StructLayout(request))),
                "answers": In(stream.Signature(answer, always_ready=True)),
                "alone": Out(1),
            }
        )


class LockRam(Component):
    """Block RAM behind the memory port; every answer comes L cycles after the transfer, one or, `registered`, three.

    A read takes the RAM for a cycle, a swap for L + 1: nothing comes between its comparison and its write. All accesses
    go through here, those of software and of other devices by `words`: so a swap is atomic towards them too.
    Swaps go before reads, and both before `words`; `words` that waited once goes first, and while it is `alone` nobody
    else has the RAM.

    Parameters
    ----------
    config : LockRamConfig

    Members
    -------
    memory : In(MemoryPortSignature)
        `error` for an address beyond the RAM; nothing is written there.
    words : In(WordsSignature)
    """

    def __init__(self, config: LockRamConfig = LockRamConfig()) -> None:  # noqa: B008 - frozen
        self.config = config
        self.ram = Memory(shape=unsigned(64), depth=config.words, init=[])
        super().__init__(
            {
                "memory": In(MemoryPortSignature(config.physical_bits)),
                "words": In(WordsSignature(config.physical_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = self.ram
        fetch, store = self.ram.read_port(), self.ram.write_port(granularity=8)
        reads, swaps, words = self.memory.reads, self.memory.swaps, self.words.requests
        found, swapped, answers = self.memory.data, self.memory.swapped, self.words.answers
        index_bits = (self.config.words - 1).bit_length()

        # What had the RAM L cycles before is answered in this one; a swap holds it until its write.
        latency, registered = self.config.latency, self.config.registered
        taken = data.StructLayout({"read": 1, "swap": 1, "plain": 1, "beyond": 1, "id": len(reads.payload.id)})
        stages = [Signal(taken, name=f"taken_{number}") for number in range(1 + latency)]
        m.d.sync += [later.eq(earlier) for earlier, later in pairwise(stages)]
        now, due = stages[0], stages[-1]
        value = fetch.data
        if registered:
            held = Signal.like(value, name="held")
            m.d.sync += held.eq(value)
            value = held
        swap = Signal(swaps.payload.shape())
        swapping, done = Signal(), Signal()
        m.d.comb += [
            swapping.eq(Cat(stage.swap for stage in stages[1:]).any()),
            done.eq(due.swap & ~due.beyond & (value == swap.old)),
            found.valid.eq(due.read),
            found.payload.value.eq(value),
            found.payload.error.eq(due.beyond),
            found.payload.id.eq(due.id),
            swapped.valid.eq(due.swap),
            swapped.payload.done.eq(done),
            swapped.payload.error.eq(due.beyond),
            swapped.payload.id.eq(swap.id),
            answers.valid.eq(due.plain),
            answers.payload.value.eq(value),
            answers.payload.error.eq(due.beyond),
        ]

        # Who has it in this cycle.
        waited = Signal()  # `words` was on offer while another was served
        alone = self.words.alone
        before = (words.valid & waited) | alone
        address = Signal(self.config.physical_bits)
        m.d.comb += [
            swaps.ready.eq(~swapping & ~before),
            reads.ready.eq(~swapping & ~before & ~swaps.valid),
            words.ready.eq(~swapping & (waited | alone | ~(swaps.valid | reads.valid))),
        ]
        with m.If(before | ~(swaps.valid | reads.valid)):
            m.d.comb += address.eq(words.payload.address)
        with m.Elif(swaps.valid):
            m.d.comb += address.eq(swaps.payload.address)
        with m.Else():
            m.d.comb += address.eq(reads.payload.address)
        outside = Signal()
        m.d.comb += outside.eq(address[3 + index_bits :].any())
        m.d.comb += [
            now.read.eq(reads.valid & reads.ready),
            now.swap.eq(swaps.valid & swaps.ready),
            now.plain.eq(words.valid & words.ready),
            now.beyond.eq(outside),
            now.id.eq(reads.payload.id),
        ]
        m.d.sync += waited.eq(words.valid & ~words.ready)
        with m.If(swaps.ready):
            m.d.sync += swap.eq(swaps.payload)

        # What goes to the RAM, in this cycle or the next. Nobody is served before a swap's write is there to be read.
        into = m.d.sync if registered else m.d.comb
        at, place, new, strobes = Signal.like(fetch.addr), Signal.like(store.addr), Signal(64), Signal(8)
        m.d.comb += [fetch.addr.eq(at), fetch.en.eq(1 if registered else ~swapping)]
        m.d.comb += [store.addr.eq(place), store.data.eq(new), store.en.eq(strobes)]
        plain = words.valid & words.ready & words.payload.write & ~outside
        into += [
            at.eq(address[3:]),
            place.eq(Mux(swapping, swap.address[3:], address[3:])),
            new.eq(Mux(swapping, swap.new, words.payload.value)),
            strobes.eq(Mux(swapping, done.replicate(8), words.payload.strobes & plain.replicate(8))),
        ]
        return m
