"""Which burst an answer belongs to: of those of its ID the oldest."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Outstanding"]

_GROUP = 4
"""Slots that are counted together: as many as a LUT has inputs."""


class Outstanding(Component):
    """Bursts that memory has in work, a slot each. Answers come in the order of bursts for an ID, in any for others.

    Parameters
    ----------
    slots, id_bits : int

    Members
    -------
    begins, begun, begun_id : In(1), In(slot), In(id_bits)
        A burst was sent, in this slot.
    ends, ended_id : In(1), In(id_bits)
        One of this ID was answered; it began in an earlier cycle.
    ended : Out(slot)
        The slot of the oldest.
    none : Out(1)
        Nothing is in work; a burst that begins in this cycle counts.

    Attributes
    ----------
    busy, ids, older : Signal, list of Signal
        Slots in work; of each the ID, and how many of that are older, once it is not `fresh`.
    fresh, before, sole, idle : Signal, list of Signal, Signal, Signal
        The slot that began a cycle ago, if one did; how many were older then, of each four slots; there were none; no
        slot is busy. Proofs look at them.
    """

    def __init__(self, *, slots: int, id_bits: int) -> None:
        slot = unsigned((slots - 1).bit_length())
        self._slots = slots
        self.busy = Signal(slots)
        self.ids = [Signal(id_bits, name=f"id_{slot}", reset_less=True) for slot in range(slots)]
        self.older = [Signal(range(slots), name=f"older_{slot}", reset_less=True) for slot in range(slots)]
        self.fresh, self.sole, self.idle = Signal(slots), Signal(reset_less=True), Signal(init=1)
        groups = range(0, slots, _GROUP)
        self.before = [Signal(range(_GROUP + 1), name=f"before_{first}", reset_less=True) for first in groups]
        super().__init__(
            {
                "begins": In(1),
                "begun": In(slot),
                "begun_id": In(id_bits),
                "ends": In(1),
                "ended_id": In(id_bits),
                "ended": Out(slot),
                "none": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        busy, ids, older = self.busy, self.ids, self.older
        oldest, same, ended = (Signal(self._slots, name=name) for name in ("oldest", "same", "mine"))
        fresh, before = self.fresh, self.before
        m.d.sync += [fresh.eq(self.begins << self.begun), self.sole.eq(same == 0)]
        for number, part in enumerate(before):
            m.d.sync += part.eq(_count(same[number * _GROUP : (number + 1) * _GROUP]))
        m.d.comb += [
            ended.eq(Cat(busy[slot] & (ids[slot] == self.ended_id) for slot in range(self._slots))),
            oldest.eq(Cat(ended[slot] & Mux(fresh[slot], self.sole, older[slot] == 0) for slot in range(self._slots))),
            self.ended.eq(reduce(or_, (Mux(oldest[slot], Const(slot), 0) for slot in range(self._slots)))),
            same.eq(
                Cat(
                    busy[slot] & (ids[slot] == self.begun_id) & ~(self.ends & oldest[slot])
                    for slot in range(self._slots)
                )
            ),
            self.none.eq(self.idle & ~self.begins),
        ]
        several = Cat(busy[slot] & busy[:slot].any() for slot in range(1, self._slots)).any()
        m.d.sync += self.idle.eq(~self.begins & (self.idle | (self.ends & ended.any() & ~several)))
        count, less = Signal.like(older[0]), Signal.like(older[0])  # of the fresh one; if one of its ID is answered
        total: Value = sum(before[1:], Value.cast(before[0]))
        m.d.comb += [count.eq(total), less.eq(total - 1)]
        for slot in range(self._slots):
            answered, begins = self.ends & ended[slot], self.begins & (self.begun == slot)
            m.d.sync += busy[slot].eq(begins | (busy[slot] & ~(answered & oldest[slot])))
            with m.If(begins):
                m.d.sync += ids[slot].eq(self.begun_id)
            m.d.sync += older[slot].eq(Mux(fresh[slot], Mux(answered, less, count), older[slot] - answered))
        return m


def _count(bits: Value) -> Value:
    """How many bits are set, by a table for each bit of the count."""
    tables = (
        (some for some in range(1 << len(bits)) if some.bit_count() >> bit & 1) for bit in range(len(bits).bit_length())
    )
    return Cat(Cat(bits == some for some in table).any() for table in tables)
