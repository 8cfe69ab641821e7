"""When an invalidation that waits is complete: what was accepted before it is counted by epochs."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.layouts import CompletionLayout

__all__ = ["Waits"]

_Event = tuple[Value, Value]
"""It happens; whose epoch."""


class Waits(Component):
    """Counts what is in flight or granted, by two epochs; completes invalidations that wait, in order.

    One that begins to wait ends an epoch: what is accepted later belongs to the other one, in which nothing is left by
    then. It is complete when nothing is left in the epoch that it ended. A second one waits until then, and so also
    for what is accepted in the meantime. Reads that were granted have epochs of their own, which end only where they
    are waited for: so one that waits for stores never waits for a read, but behind another one that does.

    Parameters
    ----------
    most : int
        Requests in flight and grants outstanding together, at most.
    reads : bool
        True: reads are granted too.
    records : bool
        True: records of a log are waited for, too, and a request that waits for room there is not; default False.

    Members
    -------
    room : Out(1)
        Fewer than two wait; from a register.
    begins : In(1), wait : In(2)
        One is accepted, and its kind. Only with `room`.
    epoch : Out(epoch_bits)
        Of a request that is accepted in this cycle: bit 0 that of stores, bit 1 that of reads, only with `reads`.
    accepted : In(1)
        A request is.
    left, left_epoch : In(1)
        A request was answered, and no store was granted; bit 0 of its epoch.
    stored, stored_epoch : In(1)
        A store retired that was granted; bit 0 of its request's epoch.
    read_granted, read_epoch, read, retired_epoch : In(1)
        A read was granted, and bit 1 of its epoch; a read retired, and bit 1 of its request's. Only with `reads`.
    moves, moves_epoch : In(1)
        A request leaves its epoch for that of a request accepted now; bit 0 of the one that it leaves. Only with
        `records`.
    closes : Out(1), closed : In(1)
        One is complete but for records: held until they are written. Only with `records`.
    completions : Out(stream of CompletionLayout, always ready)
    """

    def __init__(self, *, most: int, reads: bool, records: bool = False) -> None:
        self._most, self._reads, self._records = most, reads, records
        names = ["accepted", "left", "left_epoch", "stored", "stored_epoch", "begins"]
        if reads:
            names += ["read_granted", "read_epoch", "read", "retired_epoch"]
        if records:
            names += ["moves", "moves_epoch", "closed"]
        super().__init__(
            {
                "room": Out(1, init=1),
                "wait": In(Shape.cast(x86.Wait)),
                "epoch": Out(2 if reads else 1),
                "completions": Out(stream.Signature(CompletionLayout(), always_ready=True)),
                **{name: In(1) for name in names},
                **({"closes": Out(1)} if records else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stores, reads = self.epoch[0], self.epoch[-1]
        answered = [(self.left, self.left_epoch), (self.stored, self.stored_epoch)]
        comes = [(self.accepted, stores)]
        if self._records:
            answered.append((self.moves, self.moves_epoch))
            comes.append((self.moves, ~self.moves_epoch))
        over = self._nothing_left(m, "stores", comes, answered).bit_select(~stores, 1)
        kind, next_kind = Signal(2, name="kind"), Signal(2, name="next_kind")
        if self._reads:
            granted, retired = (self.read_granted, self.read_epoch), (self.read, self.retired_epoch)
            reads_over = self._nothing_left(m, "reads", [granted], [retired]).bit_select(~reads, 1)
            over &= reads_over | ~kind[1]
        waits, complete, begins = (Signal(name=name) for name in ("waits", "complete", "begins"))
        # An event in an epoch's last cycle is counted two cycles later, and known in the cycle after that.
        counted = Signal(2)
        begin_kind = Mux(self.room, self.wait, next_kind)
        over = waits & counted.all() & over
        if self._records:
            m.d.comb += self.closes.eq(over)
            over &= self.closed
        m.d.comb += [
            complete.eq(over),
            begins.eq((self.begins | ~self.room) & (complete | ~waits)),
        ]
        m.d.sync += [
            *(self.completions.valid.eq(complete), self.completions.payload.wait.eq(kind)),
            waits.eq(begins | (waits & ~complete)),
            counted.eq(Mux(begins, 0, Cat(1, counted))),
        ]
        with m.If(begins):
            m.d.sync += [kind.eq(begin_kind), stores.eq(~stores), self.room.eq(1)]
            if self._reads:
                m.d.sync += reads.eq(reads ^ begin_kind[1])
        with m.Elif(self.begins):
            m.d.sync += [next_kind.eq(self.wait), self.room.eq(0)]
        return m

    def _nothing_left(self, m: Module, name: str, comes: Sequence[_Event], goes: Sequence[_Event]) -> Value:
        """Of each epoch whether all that came has gone, two cycles after it did; `goes` are for one coming each."""
        empty = Signal(2, init=3, name=f"{name}_nothing")
        for epoch in range(2):
            events = [*comes, *goes]
            happened = [Signal(name=f"{name}_{number}_{epoch}") for number in range(len(events))]
            for happens, (event, whose) in zip(happened, events, strict=True):
                m.d.sync += happens.eq(event & (whose == epoch))
            came, went = happened[: len(comes)], happened[len(comes) :]
            count = Signal(range(self._most + 1), name=f"{name}_left_{epoch}")
            change = Signal(Shape(1 + len(comes), signed=True), name=f"{name}_change_{epoch}")
            m.d.comb += change.eq(sum(came[1:], came[0]) - sum(went[1:], went[0]))
            m.d.sync += [count.eq(count + change), empty[epoch].eq(count == 0)]
        return empty
