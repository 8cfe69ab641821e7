"""Requests that wait for one of several walkers, or for a walk of their page."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, fifo
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Waiting"]


class Waiting(Component):
    """A queue as `SyncFIFO`, which knows of each request whether it waits for a walk in flight.

    Parameters
    ----------
    width : int
    depth : int
    walkers : int

    Members
    -------
    w_data : In(width), w_en : In(1), r_data : Out(width), r_rdy : Out(1), r_en : In(1)
        As `SyncFIFO`'s.
    w_joins : In(walkers)
        What is written waits for the end of one of these walks, the lowest; 0: for any walker.
    r_joined : Out(1)
        The head waited for the end of a walk.
    r_waits : Out(1)
        It does so still. Who waited for one behind others may find a later walk of that walker, and waits for that.
    walking, ended : In(walkers)
        As `Walkers`'.
    """

    def __init__(self, *, width: int, depth: int, walkers: int) -> None:
        self._depth, self._walkers = depth, walkers
        super().__init__(
            {
                "w_data": In(width),
                "w_en": In(1),
                "r_data": Out(width),
                "r_rdy": Out(1),
                "r_en": In(1),
                "w_joins": In(walkers),
                "r_joined": Out(1),
                "r_waits": Out(1),
                "walking": In(walkers),
                "ended": In(walkers),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        number = unsigned((self._walkers - 1).bit_length())
        row = data.StructLayout({"item": len(self.w_data), "joins": 1, "whose": number, "ended": 1})
        m.submodules.queue = queue = fifo.SyncFIFO(width=row.size, depth=self._depth)
        new, head = Signal(row), data.View(row, queue.r_data)
        m.d.comb += [
            new.item.eq(self.w_data),
            new.joins.eq(self.w_joins.any()),
            queue.w_data.eq(new),
            queue.w_en.eq(self.w_en),
            queue.r_en.eq(self.r_en),
            self.r_data.eq(head.item),
            self.r_rdy.eq(queue.r_rdy),
            self.r_joined.eq(head.joins),
        ]
        for one in reversed(range(self._walkers)):
            with m.If(self.w_joins[one]):
                m.d.comb += [new.whose.eq(one), new.ended.eq(self.ended[one])]
        same = Cat(self.ended.bit_select(head.whose, 1) == head.ended, self.walking.bit_select(head.whose, 1)).all()
        m.d.comb += self.r_waits.eq(head.joins & same)
        return m
